"""What a run says: single lines, a progress bar or plain lines, the table at its end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.ops import explain

if TYPE_CHECKING:
    from bench.data.batches import Chunks

WARN_AFTER_STEPS = 20


def console() -> Console:
    """Standard output, as wide as the terminal; wide enough for no line to be cut when it is none."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line for the user."""
    console().print(line, markup=False)


def percent(value: float | None) -> str:
    """A percentage with two digits, or a dash."""
    return "-" if value is None else f"{value:.2f} %"


def rate(value: float | None) -> str:
    """A spike rate with four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One finished epoch in a line that fits 100 characters."""
    width = len(str(epochs))
    evaluated = row.get("val") or row.get("test") or {}
    name = "val" if row.get("val") else "test"
    loss = row["train"]["loss"]
    return (
        f"epoch {row['epoch'] + 1:>{width}}/{epochs}  loss {'-' if loss is None else f'{loss:.4f}'}  "
        f"train {percent(row['train']['acc'])}  {name} {percent(evaluated.get('acc'))}  "
        f"spikes {rate(row['train']['spike_rate'])}  {row['images_per_s']:,.0f} img/s"
    )


class Reporter(L.Callback):
    """A progress bar where the output is a terminal, one plain line an epoch everywhere, and one early
    warning when a layer is silent."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar: Progress | None = None
        self.warned = False

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
        if task.current_epoch > 0:
            return
        if task.steps == 1 and (slow := explain(task.model)) is not None:
            say(f"kernels: {slow}")
        if not self.warned and task.steps in (WARN_AFTER_STEPS, steps):
            self._warn_of_silence(task, task.steps)

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


def share_of_neurons(layers: list[dict[str, Any]], key: str) -> str:
    """The share of all neurons that is dead or saturated, and the layer with the most."""
    if not layers:
        return "-"
    share = sum(layer[key] * layer["neurons"] for layer in layers) / sum(layer["neurons"] for layer in layers)
    worst = max(layers, key=lambda layer: layer[key])
    return f"{share:.1%}; most in {worst['name']}, {worst[key]:.1%}" if worst[key] else "none"


def summary_table(result: dict[str, Any], folder: str, logger: str, mode: str) -> Table:
    """The outcome of a run for the terminal."""
    table = Table(title=result["run_id"], show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    train, test = result["train"], result["test"]
    rows = [
        ("status", result["status"] + (f": {result['status_reason']}" if result["status_reason"] else "")),
        ("budget", f"{result['budget']}: {result['epochs']} epochs of {result['train_images']:,} images"),
        ("test accuracy", percent(test["acc"])),
        ("train accuracy", f"{percent(train['acc_eval'])} clean, {percent(train['acc'])} while training"),
        ("gap", "-" if result["gap"] is None else f"{result['gap']:+.2f} points (train clean - test)"),
        ("spike rate", f"{rate(test['spike_rate'])} test, {rate(train['spike_rate'])} train"),
        ("mean of layers", f"{rate(test['spike_rate_layer_mean'])} test"),
        ("SynOps / image", "-" if result["synops_per_image"] is None else f"{result['synops_per_image']:,.0f}"),
        ("energy / image", "-" if result["energy_uj"] is None else f"{result['energy_uj']:.1f} uJ (compute, 45 nm)"),
    ]
    if result["val"]:
        rows.insert(3, ("validation", percent(result["val"]["acc"])))
    seconds, speed = result["seconds"], result["train_images_per_s"]
    rows += [
        ("dead neurons", share_of_neurons(result["layers"], "dead")),
        ("saturated", share_of_neurons(result["layers"], "saturated")),
        ("time", f"{seconds['total']:.1f} s: {seconds['train']:.1f} training, {seconds['eval']:.1f} evaluating"),
        ("speed", "-" if speed is None else f"{speed:,.0f} img/s"),
        ("folder", folder),
        (logger, mode),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table
