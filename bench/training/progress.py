"""A run as it goes on: the progress bar of an epoch, and early warnings."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench import grid, startup
from bench.console import console, say
from bench.ops import explain

if TYPE_CHECKING:
    from bench.data.batches import Chunks
    from bench.training.base_task import BaseTask

WARN_AFTER_STEPS = 20


class Reporter(L.Callback):
    """A progress bar where the output is a terminal, one plain line an epoch everywhere, and one early
    warning when a layer is silent."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar: Progress | None = None
        self.steps = 0
        self.warned = self.told = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.began = time.monotonic()
        self.steps = cast("Chunks", trainer.train_dataloader).steps
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console(), transient=True)
            of = grid.current()
            far = "" if of is None else of.progress()
            name = ", ".join(filter(None, (f"epoch {trainer.current_epoch + 1}/{self.epochs}", far)))
            self.line = self.bar.add_task(name, total=self.steps, speed="")
            self.bar.start()

    def advance(self, task: BaseTask) -> None:
        """One more step of the epoch is done: what a task calls, since Lightning's own hook comes after several."""
        if self.bar is not None:
            images = task.meters["train"].images * task.ranks
            speed = f"{images / (time.monotonic() - self.began):,.0f} img/s"
            self.bar.update(self.line, completed=task.steps, speed=speed)
        startup.first_step()
        self._tell_of_replays(task)
        if task.current_epoch > 0:
            return
        if task.steps == 1 and (slow := explain(task.model)) is not None:
            say(f"kernels: {slow}")
        if not self.warned and task.steps in (WARN_AFTER_STEPS, self.steps):
            self._warn_of_silence(task, task.steps)

    def _tell_of_replays(self, task: BaseTask) -> None:
        if not self.told and (line := task.about_replays) is not None:
            self.told = True
            say(line)

    def _warn_of_silence(self, task: BaseTask, steps: int) -> None:
        self.warned = True
        silent = [name for name, value in task.meters["train"].rates.rates().items() if value == 0]
        if silent:
            say(
                f"warning: no spike in {steps} steps in {', '.join(silent)}: nothing can be learned through a silent "
                f"layer. Lower neuron.v_threshold or the regularizer's strength, or raise the learning rate."
            )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.close()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.close()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.close()
