"""The callback that turns finished epochs into lines of `metrics.jsonl` and a checkpoint."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from bench.console import say
from bench.files import whole
from bench.records.folder import RunFolder
from bench.training.base_task import BaseTask
from bench.training.logger import Tracker
from bench.training.summary import epoch_line


def clock(task: BaseTask) -> float:
    """Seconds, once the device has done what it was asked to."""
    if task.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


# Of Lightning's Checkpoint kind: those run after the task's own hooks, when the schedule has stepped.
class Recorder(Checkpoint):
    """Writes an epoch's line, sends it to W&B, then saves the checkpoint that vouches for it.

    Args:
        folder: the run's folder.
        tracker: W&B; None in a process that writes nothing.
        epochs: of the whole run.
    """

    def __init__(self, folder: RunFolder, tracker: Tracker | None, epochs: int) -> None:
        self.folder, self.tracker, self.epochs = folder, tracker, epochs
        self.began = self.trained = self.evaluated = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        groups = trainer.optimizers[0].param_groups  # a local rule has none
        lr = groups[0]["lr"] if groups else pl_module.optim.lr
        # A float32 has no more digits than that.
        self.lr = float(f"{float(lr):.7g}") if isinstance(lr, torch.Tensor) else lr
        self.began = clock(pl_module)
        self.trained = self.evaluated = 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.trained = clock(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.evaluated = clock(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.trained = self.trained or clock(pl_module)
        if self.tracker is not None:
            row = self.row(pl_module)
            self.folder.append(row)
            self.tracker.log(row)
            say(epoch_line(row, self.epochs))
        self.save(trainer)

    def row(self, task: BaseTask) -> dict[str, Any]:
        """The finished epoch, counted from 0."""
        train = task.meters["train"]
        seconds = self.trained - self.began
        evaluated = self.evaluated > 0
        return {
            "epoch": task.current_epoch,
            "lr": self.lr,
            "train": train.summary(),
            **{split: task.meters[split].summary() if evaluated else None for split in task.splits},
            "penalties": {name: float(value) / task.steps for name, value in task.penalties.items()},
            "layers": train.rates.rates(),
            "images": train.images,
            "passes_per_step": task.passes / task.steps,
            "images_per_s": train.images / seconds,
            "seconds": {"train": seconds, "eval": self.evaluated - self.trained if evaluated else 0.0},
        }

    def save(self, trainer: L.Trainer) -> None:
        """Replace `last.ckpt` at once; all ranks call it, and the first writes.

        Raises:
            EnvironmentFault: the disk is full or the folder read-only; the last checkpoint stays.
        """
        path = self.folder.checkpoint_path
        if trainer.is_global_zero:
            with whole(path) as part:
                trainer.save_checkpoint(part)
        else:
            trainer.save_checkpoint(path)  # waits for the first rank and writes nothing

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["run_id"] = self.folder.name
