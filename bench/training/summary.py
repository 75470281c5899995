"""What a run tells the terminal of its numbers: a line an epoch, the table at its end."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from bench.records.schema import COUNTED, FIELD, share


def shown(key: str, value: float | None) -> str:
    """A number of the record with its unit, or a dash."""
    return FIELD[key].with_unit(value)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One finished epoch in a line that fits 100 characters."""
    width = len(str(epochs))
    evaluated = row.get("val") or row.get("test") or {}
    name = "val" if row.get("val") else "test"
    loss = row["train"]["loss"]
    return (
        f"epoch {row['epoch'] + 1:>{width}}/{epochs}  loss {'-' if loss is None else f'{loss:.4f}'}  "
        f"train {shown('train.acc', row['train']['acc'])}  {name} {shown(f'{name}.acc', evaluated.get('acc'))}  "
        f"spikes {shown('train.spike_rate', row['train']['spike_rate'])}  {row['images_per_s']:,.0f} img/s"
    )


def share_of_neurons(layers: list[dict[str, Any]], key: str) -> str:
    """The share of all neurons that is dead or saturated, and the layer with the most."""
    if not layers:
        return "-"
    field, worst = FIELD[key], max(layers, key=lambda layer: layer[key])
    most = f"most in {worst['name']}, {field.with_unit(worst[key])}"
    return f"{field.with_unit(share(layers, key))}; {most}" if worst[key] else "none"


def summary_table(result: dict[str, Any], folder: str, logger: str, mode: str) -> Table:
    """The outcome of a run for the terminal.

    Args:
        result: the record.
        folder: where it lies.
        logger: name of the logger.
        mode: how it took the run.
    """

    def own(key: str) -> str:
        return shown(key, FIELD[key].value(result))

    reason, idle = result["status_reason"], result["no_effect"]
    gap = "-" if result["gap"] is None else f"{own('gap')} (train clean - test)"
    seconds, speed = result["seconds"], result["train_images_per_s"]
    rows = [
        ("status", result["status"] + (f": {reason}" if reason else "")),
        ("budget", f"{result['budget']}: {result['epochs']} epochs of {result['train_images']:,} images"),
        (FIELD["test.acc"].title, own("test.acc")),
        *([("validation", own("val.acc"))] if result["val"] else []),
        (FIELD["train.acc"].title, f"{own('train.acc_eval')} clean, {own('train.acc')} while training"),
        ("gap", gap),
        ("spike rate", f"{own('test.spike_rate')} test, {own('train.spike_rate')} train"),
        ("mean of layers", f"{own('test.spike_rate_layer_mean')} test"),
        *((field.title, own(field.key)) for field in COUNTED if field.title),
        ("dead neurons", share_of_neurons(result["layers"], "dead")),
        ("saturated", share_of_neurons(result["layers"], "saturated")),
        *([("no effect", f"{', '.join(idle)} changed nothing in this run")] if idle else []),
        ("time", f"{seconds['total']:.1f} s: {seconds['train']:.1f} training, {seconds['eval']:.1f} evaluating"),
        ("speed", "-" if speed is None else f"{speed:,.0f} img/s"),
        ("folder", folder),
        (logger, mode),
    ]
    # As Text: neither [a] nor :b: in a name or a path is for Rich.
    table = Table(title=Text(result["run_id"]), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table
