"""What a run says: single lines, a line an epoch, the table at its end."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table


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
