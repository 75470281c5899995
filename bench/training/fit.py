"""The training itself, through Lightning, and what to say where the memory is too small for it."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig
from torch import Tensor

from bench.data import Splits
from bench.data.batches import Chunks
from bench.errors import EnvironmentFault
from bench.seeds import seed_everything
from bench.training import distributed
from bench.training.base_task import BaseTask
from bench.training.meter import Meter
from bench.training.setup import Run, eval_batch_size, make_task
from bench.training.task import Diverged, Task


def make_trainer(run: Run, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's Trainer without what a run does itself: checkpoints, bar, logger."""
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
        max_epochs=run.epochs,
        accelerator="gpu" if run.device == "cuda" else "cpu",
        devices=count,
        strategy=strategy,
        sync_batchnorm=run.cfg.trainer.sync_batchnorm,
        # Nothing is guessed from Slurm's or MPI's variables: a run is one process wherever it is started, and the
        # signal of a time limit is submitit's.
        plugins=[LightningEnvironment()],
        precision="bf16-mixed" if run.precision == "bf16" else "32-true",
        check_val_every_n_epoch=run.cfg.trainer.eval_every,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        # Regularizers may keep tensors of an evaluation; inference tensors cannot enter a graph later.
        inference_mode=False,
    )


def fit_and_test(run: Run, trainer: L.Trainer, task: BaseTask, splits: Splits, done: int) -> dict[str, Any]:
    """Train to the end, then measure the final network on every split.

    Args:
        run: what is trained, and where its checkpoint is.
        trainer: of `make_trainer`.
        task: freshly made; a checkpoint's state is loaded into it.
        splits: what to train and test on.
        done: how many epochs are finished; with 0 there is no checkpoint.

    Raises:
        EnvironmentFault: the device has too little memory; says which batch size has room.
    """
    try:
        return _fit_and_test(run, trainer, task, splits, done)
    except torch.OutOfMemoryError as error:
        # Its frames hold the tensors of the step that did not fit.
        error.__traceback__ = None
        raise too_large(run.cfg, task, splits, trainer.precision_plugin.forward_context) from None


def _fit_and_test(run: Run, trainer: L.Trainer, task: BaseTask, splits: Splits, done: int) -> dict[str, Any]:
    # Lightning makes the first epoch's iterator before it says which epoch that is.
    splits.train.set_epoch(done)
    if not done:
        seed_everything(task.seed, "initialize")
        images = task.images()
        task.to(images.device)  # where Lightning would bring it too, but only after this
        for regularizer in task.regs:
            regularizer.initialize(task.model, images)
        task.model.initialize(images)
    train = Chunks(splits.train, run.cfg.trainer.limit_train_batches)
    loaders = [splits.test] if splits.val is None else [splits.test, splits.val]
    try:
        trainer.fit(task, train, loaders, ckpt_path=run.folder.checkpoint_path if done else None, weights_only=True)
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
    fitting = f"{size * task.ranks} does" if size else "no batch size does, not even one image a device"
    asked = f"trainer.batch_size={whole * task.ranks}"
    return EnvironmentFault(f"{asked} does not fit into the memory of {device}; {fitting}")


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
                task.eval().forward_t(images, Meter(per_neuron=True).rates.reads)
    except torch.OutOfMemoryError:
        return False
    return True
