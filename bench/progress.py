"""A run as it goes on: the progress bar of an epoch, and early warnings."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.console import console, say
from bench.ops import explain

if TYPE_CHECKING:
    from bench.data.batches import Chunks

WARN_AFTER_STEPS = 20


class Reporter(L.Callback):
    """A progress bar where the output is a terminal, one plain line an epoch everywhere, and one early
    warning when a layer is silent."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar: Progress | None = None
        self.warned = self.told = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.began = time.monotonic()
        # Told after each optimizer step: Lightning's own hook comes after several.
        steps = cast("Chunks", trainer.train_dataloader).steps
        pl_module.on_step = lambda: self.advance(pl_module, steps)
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console(), transient=True)
            name = f"epoch {trainer.current_epoch + 1}/{self.epochs}"
            self.line = self.bar.add_task(name, total=steps, speed="")
            self.bar.start()

    def advance(self, task: Any, steps: int) -> None:
        """One more optimizer step of the epoch's `steps` is done."""
        if self.bar is not None:
            images = task.meters["train"].images * task.ranks
            speed = f"{images / (time.monotonic() - self.began):,.0f} img/s"
            self.bar.update(self.line, completed=task.steps, speed=speed)
        self._tell_of_replays(task)
        if task.current_epoch > 0:
            return
        if task.steps == 1 and (slow := explain(task.model)) is not None:
            say(f"kernels: {slow}")
        if not self.warned and task.steps in (WARN_AFTER_STEPS, steps):
            self._warn_of_silence(task, task.steps)

    def _tell_of_replays(self, task: Any) -> None:
        recording = task.recording
        if self.told or (task.device.type == "cpu" if recording is None else not (recording.live or recording.fault)):
            return
        self.told = True
        fault = task.unreplayable if recording is None else recording.fault
        say("steps are replayed from a CUDA graph" if fault is None else f"no CUDA graph: {fault}")

    def _warn_of_silence(self, task: Any, steps: int) -> None:
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
