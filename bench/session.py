"""The moving parts of one run: device, task, checkpoint, trainer, the training itself."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig
from torch import Tensor

from bench import distributed, ops
from bench.allocator import keep_freed_memory
from bench.base_task import BaseTask
from bench.config import build, settings
from bench.console import say
from bench.data import Splits
from bench.data.batches import Chunks
from bench.errors import BenchError, EnvironmentFault
from bench.models.base import Spec, SpikingNetwork
from bench.random import seed_everything
from bench.registry import MODELS, REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.results import RunFolder
from bench.task import Diverged, Task

if TYPE_CHECKING:
    from bench.models.diehl_cook import DiehlCook

EVAL_BATCH = 500
INIT_IMAGES = 500  # nandan2022, section 4.1, after Salimans & Kingma 2016


def eval_batch_size(batch_size: int) -> int:
    """Images evaluated at a time: without gradients there is room for several batches."""
    return min(EVAL_BATCH, 8 * batch_size)


def pick_device(accelerator: str, count: int = 1) -> str:
    """`cpu` or `cuda`.

    Raises:
        BenchError: a GPU was asked for, and there is none, or not as many as there are to be devices.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise BenchError("trainer.accelerator=gpu, but torch sees no CUDA GPU here; use auto or cpu")
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if count > torch.cuda.device_count():
        raise BenchError(f"trainer.devices={count}, but torch sees {torch.cuda.device_count()} GPU(s) here")
    return "cuda"


def pick_kernels(asked: ops.Backend, device: str) -> str:
    """Set which kernels the networks of this process use, and say so if they are not the fast ones.

    Raises:
        BenchError: kernels were asked for that cannot run on the device.
    """
    if device == "cpu":
        keep_freed_memory()
    chosen, reason = ops.resolve(asked, device)
    if reason is not None:
        say(f"kernels: {chosen.value}, {reason}")
    ops.set_backend(asked)
    return chosen.value


def make_task(
    cfg: DictConfig, splits: Splits, on_step: Callable[[BaseTask], None] | None = None, alone: bool = False
) -> BaseTask:
    """The network with its regularizers attached, initialized by the seed.

    Args:
        cfg: the run.
        splits: the data, for the network's shape.
        on_step: see `BaseTask`.
        alone: see `BaseTask`.

    Raises:
        BenchError: settings that do not fit the data or one another, or a network whose way of learning several devices
            cannot share.
    """
    seed_everything(cfg.seed if cfg.init_seed is None else cfg.init_seed, "init")
    spec = Spec(
        splits.image_shape, splits.classes, cfg.time_steps, settings(cfg.neuron), mean=splits.mean, std=splits.std
    )
    model: SpikingNetwork = build(MODELS, cfg.model, spec=spec)
    regs: dict[str, Regularizer] = {name: build(REGULARIZERS, node) for name, node in cfg.reg.items()}
    names = ["test"] if splits.val is None else ["test", "val"]
    model = model.to(memory_format=torch.channels_last)
    shared: dict[str, Any] = {
        "seed": cfg.seed, "epochs": cfg.trainer.epochs, "splits": names, "on_step": on_step, "alone": alone,
    }  # fmt: skip
    if model.learning == "gradient":
        return Task(model, regs, settings(cfg.optim), replays=cfg.trainer.cuda_graph, **shared)
    if distributed.ranks() > 1:
        raise BenchError("trainer.devices: this network learns in a way of its own, on one device; leave it out")
    # Imported here: few runs need the simulator.
    from bench.local.task import LocalTask

    return LocalTask(cast("DiehlCook", model), regs, settings(cfg.optim), **shared)


def find_checkpoint(folder: RunFolder, task: BaseTask) -> dict[str, Any] | None:
    """The last finished epoch's checkpoint, when there is one; the task is left as it is.

    Raises:
        BenchError: it is damaged, or of another run or network.
    """
    path = folder.checkpoint_path
    if not path.exists():
        return None
    again = "force=true runs it again"
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        owner = checkpoint["run_id"]
    except Exception as error:  # torch raises whatever the damage makes zipfile and pickle stumble over
        raise BenchError(f"{path} is damaged ({type(error).__name__}); {again}") from error
    if owner != folder.name:
        raise BenchError(f"{path} belongs to the run {owner}; {again}")
    stored, own = checkpoint["state_dict"], task.state_dict()
    for name in [*own, *stored]:
        if name not in stored or name not in own or stored[name].shape != own[name].shape:
            raise BenchError(f"{path} is of another network: '{name}' does not fit; {again}")
    return checkpoint


def make_trainer(cfg: DictConfig, facts: dict[str, Any], device: str, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's Trainer without what a recorded run does itself: checkpoints, bar, logger."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Batches are tensors on the device already: workers would only slow them down.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning's own use of what torch has deprecated, and of a GPU that the user chose not to use.
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")
    # It compares optimizer steps with lists of them; every checkpoint here is of an epoch's end.
    warnings.filterwarnings("ignore", ".*ended before the epoch ended.*")
    # It takes every machine with Slurm's commands for one whose jobs forgot `srun`.
    warnings.filterwarnings("ignore", "The `srun` command is available")
    count = distributed.ranks()
    # Not every network need use every parameter at every step.
    strategy = DDPStrategy(find_unused_parameters=True) if count > 1 else "auto"
    warnings.filterwarnings("ignore", ".*find_unused_parameters=True was specified.*")
    # A kernel of one input channel has two layouts that are the same.
    warnings.filterwarnings("ignore", ".*Grad strides do not match bucket view strides.*")
    return L.Trainer(
        max_epochs=cfg.trainer.epochs,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=count,
        strategy=strategy,
        sync_batchnorm=cfg.trainer.sync_batchnorm,
        # Nothing is guessed from Slurm's or MPI's variables: a run is one process wherever it is started, and the
        # signal of a time limit is submitit's.
        plugins=[LightningEnvironment()],
        precision="bf16-mixed" if facts["precision"] == "bf16" else "32-true",
        check_val_every_n_epoch=cfg.trainer.eval_every,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        # Regularizers may keep tensors of an evaluation; inference tensors cannot enter a graph later.
        inference_mode=False,
    )


def fit_and_test(
    cfg: DictConfig, trainer: L.Trainer, task: BaseTask, splits: Splits, checkpoint: Path, done: int
) -> dict[str, Any]:
    """Train to the end, then measure the final network on every split.

    Args:
        cfg: the run.
        trainer: of `make_trainer`.
        task: freshly made; a checkpoint's state is loaded into it.
        splits: what to train and test on.
        checkpoint: where the finished epochs left off.
        done: how many epochs are finished; with 0 there is no checkpoint.

    Raises:
        EnvironmentFault: the device has too little memory; says which batch size has room.
    """
    try:
        return _fit_and_test(cfg, trainer, task, splits, checkpoint, done)
    except torch.OutOfMemoryError as error:
        # Its frames hold the tensors of the step that did not fit.
        error.__traceback__ = None
        raise too_large(cfg, task, splits, trainer.precision_plugin.forward_context) from None


def _fit_and_test(
    cfg: DictConfig, trainer: L.Trainer, task: BaseTask, splits: Splits, checkpoint: Path, done: int
) -> dict[str, Any]:
    # Lightning makes the first epoch's iterator before it says which epoch that is.
    splits.train.set_epoch(done)
    if not done:
        seed_everything(task.seed, "initialize")
        images = splits.train_clean.sample(INIT_IMAGES, task.seed)
        task.to(images.device)  # where Lightning would bring it too, but only after this
        for regularizer in task.regs:
            regularizer.initialize(task.model, images)
        task.model.initialize(images)
    train = Chunks(splits.train, cfg.trainer.limit_train_batches)
    loaders = [splits.test] if splits.val is None else [splits.test, splits.val]
    try:
        trainer.fit(task, train, loaders, ckpt_path=checkpoint if done else None, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit; the command line wants to say how to go on.
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    began = time.monotonic()
    trainer.test(task, [*loaders, splits.train_clean], verbose=False)
    assert task.counter is not None
    return {
        "seconds": time.monotonic() - began,
        **{name: task.meters[name].summary() for name in task.tested},
        "layers": task.meters["test"].rates.layers(),
        "ops": task.counter.per_image(),
    }


def too_large(
    cfg: DictConfig, task: BaseTask, splits: Splits, precision: Callable[[], AbstractContextManager[Any]]
) -> EnvironmentFault:
    """What to tell when a run has run out of the device's memory: the first half of a half ... of its batch that fits.

    Args:
        cfg: the run.
        task: what did not fit, in train mode or, while evaluating, in eval mode.
        splits: what it was trained on.
        precision: makes the context that a step runs in.
    """
    training = task.training
    task.model.forget()
    task.cpu()
    (x, y), (images, _) = next(iter(splits.train)), next(iter(splits.test))
    size = whole = len(y)
    while size := size // 2:
        room = eval_batch_size(size * task.ranks)
        smaller = make_task(cfg, splits, alone=True)
        if fits(smaller, (x[:size], y[:size]), images[:0] if training else images[:room], precision):
            break
    device = torch.cuda.get_device_name() if x.device.type == "cuda" else "this machine"
    found = f"{size * task.ranks} does" if size else "no batch size does, not even one image a device"
    asked = f"trainer.batch_size={whole * task.ranks}"
    return EnvironmentFault(f"{asked} does not fit into the memory of {device}; {found}")


def fits(
    task: BaseTask,
    batch: tuple[Tensor, Tensor],
    images: Tensor,
    precision: Callable[[], AbstractContextManager[Any]],
) -> bool:
    """Whether the device has room for two steps (the second with the optimizer's state), then for an evaluation.

    Args:
        task: freshly made; of no use afterwards.
        batch: images `[N, C, H, W]` and labels of a step.
        images: to evaluate, `[M, C, H, W]`; none skips that.
        precision: makes the context that a step runs in.
    """
    assert isinstance(task, Task), "what has no gradients needs no device's memory"
    gc.collect()
    if batch[0].device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        task.to(batch[0].device)
        task.on_train_epoch_start()
        optimizer = task.make_optimizer()
        with suppress(Diverged), precision():
            task.step(*batch, optimizer)
            task.step(*batch, optimizer)
        if len(images):
            with torch.no_grad(), precision():
                task.eval().forward_t(images, keep_spikes=True)
    except torch.OutOfMemoryError:
        return False
    return True
