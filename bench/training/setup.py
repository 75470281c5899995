"""The moving parts of a run before it moves: device, kernels, task, checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from omegaconf import DictConfig

from bench import ops
from bench.config.component import build, settings
from bench.console import say
from bench.data import Splits
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.ops.allocator import keep_freed_memory
from bench.records.folder import RunFolder
from bench.records.identity import run_id
from bench.registry import MODELS, REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.seeds import seed_everything
from bench.training import distributed
from bench.training.base_task import BaseTask
from bench.training.task import Task
from bench.weights.about import about, spec_of
from bench.weights.store import opened, unfit

if TYPE_CHECKING:
    from bench.models.diehl_cook import DiehlCook

EVAL_BATCH = 500
INIT_IMAGES = 500  # nandan2022, section 4.1, after Salimans & Kingma 2016


def eval_batch_size(batch_size: int) -> int:
    """Images evaluated at a time: without gradients there is room for several batches."""
    return min(EVAL_BATCH, 8 * batch_size)


@dataclass(frozen=True)
class Run:
    """One run, settled.

    Attributes:
        cfg: all its settings.
        facts: what identifies it, of `bench.records.identity.science`.
        folder: where its record is to lie.
        device: `cpu` or `cuda`.
        kernels: which of them compute it.
    """

    cfg: DictConfig
    facts: dict[str, Any]
    folder: RunFolder
    device: str
    kernels: str

    @property
    def epochs(self) -> int:
        """Of its training."""
        return int(self.cfg.trainer.epochs)

    @property
    def precision(self) -> str:
        """`fp32` or `bf16`; what `auto` stands for is settled."""
        return str(self.facts["precision"])


def settle_run(cfg: DictConfig, facts: dict[str, Any]) -> Run:
    """Pick device and kernels for a run; this process' networks use them from here on.

    Args:
        cfg: the run.
        facts: of `science`.

    Raises:
        BenchError: a device or kernels were asked for that are not there.
    """
    device = pick_device(cfg.trainer.accelerator.value)
    kernels = pick_kernels(cfg.ops, device)
    return Run(cfg, facts, RunFolder(cfg.runs, run_id(facts)), device, kernels)


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
    said = about(cfg, splits)
    model: SpikingNetwork = build(MODELS, cfg.model, spec=spec_of(said))
    regs: dict[str, Regularizer] = {name: build(REGULARIZERS, node) for name, node in cfg.reg.items()}
    names = ["test"] if splits.val is None else ["test", "val"]
    model = model.to(memory_format=torch.channels_last)
    shared: dict[str, Any] = {
        "seed": cfg.seed, "epochs": cfg.trainer.epochs, "splits": names, "on_step": on_step, "alone": alone,
        "images": lambda: splits.train_clean.sample(INIT_IMAGES, cfg.seed), "about": said,
    }  # fmt: skip
    if model.learning == "gradient":
        return Task(model, regs, settings(cfg.optim), replays=cfg.trainer.cuda_graph, **shared)
    if distributed.ranks() > 1:
        raise BenchError("trainer.devices: this network learns in a way of its own, on one device; leave it out")
    # Imported here: few runs need the simulator.
    from bench.training.local_task import LocalTask

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
        checkpoint = opened(path, "run_id")
    except BenchError as error:
        raise BenchError(f"{error}; {again}") from error
    if checkpoint["run_id"] != folder.name:
        raise BenchError(f"{path} belongs to the run {checkpoint['run_id']}; {again}")
    name = unfit(task.state_dict(), checkpoint["state_dict"])
    if name is not None:
        raise BenchError(f"{path} is of another network: '{name}' does not fit; {again}")
    return checkpoint
