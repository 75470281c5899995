"""The figure of what more of something does: accuracy over the number of training images or of neurons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.report.figures.canvas import grid, legend, scale_x
from bench.report.figures.drawn import Drawn
from bench.report.figures.limits import ACCURACY, limits
from bench.report.figures.look import look_of
from bench.report.figures.readings import Bar, bar, say_seeds
from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZES = {"train_images": "training images", "model_args.neurons": "excitatory neurons"}
_SIDES = {"test.acc": "test", "train.acc_eval": "train, clean"}


class _Sized(NamedTuple):
    """An accuracy and the size it was reached at."""

    size: float
    acc: Bar


class _Curve(NamedTuple):
    """A series' accuracies on one set, by rising size."""

    series: str
    side: str
    points: list[_Sized]


def growth(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test and clean train accuracy over how many images or neurons there are, where a table's lines differ in that."""
    key = next((key for key in _SIZES if len({_size(line, key) for line in lines} - {None}) > 2), None)
    if key is None:
        return None
    curves = _curves(lines, key)

    def draw() -> Figure:
        figure, ((axis,),) = grid(table, 1, panels=False)
        _plot(axis, curves)
        axis.set_xlabel(_SIZES[key])
        axis.set_ylabel("accuracy (%)")
        legend(figure, [axis])
        say_seeds(figure, lines)
        return figure

    caption = f"Accuracy over the number of {_SIZES[key]}: mean over seeds with 95 % intervals."
    return Drawn("growth", caption, curves, draw)


def _curves(lines: Sequence[Line], key: str) -> list[_Curve]:
    series: dict[str, list[tuple[float, Line]]] = {}
    for line in lines:
        # Lines that differ in nothing but their size are one series.
        members = series.setdefault(re.sub(r" ?neurons=\S+", "", line.series), [])
        if (size := _size(line, key)) is not None:
            members.append((size, line))
    return [
        _Curve(
            name, side, sorted(_Sized(size, acc) for size, line in members if (acc := bar(line, measure)) is not None)
        )
        for name, members in series.items()
        for measure, side in _SIDES.items()
    ]


def _plot(axis: Axes, curves: Sequence[_Curve]) -> None:
    names = list(dict.fromkeys(curve.series for curve in curves))
    for name, side, points in curves:
        if not points:
            continue
        mean, below, above = np.array([point.acc for point in points]).T
        look, test = look_of(names.index(name)), side == "test"
        axis.errorbar(
            [point.size for point in points], mean, yerr=[below, above], color=look.colour, marker=look.marker,
            linestyle="-" if test else "--", markerfacecolor=None if test else "white", capsize=2,
            label=f"{name}, {side}" if len(names) > 1 else side,
        )  # fmt: skip
    drawn = [point for curve in curves for point in curve.points]
    scale_x(axis, [point.size for point in drawn])
    axis.set_ylim(*limits([point.acc.mean for point in drawn], ACCURACY))


def _size(line: Line, key: str) -> float | None:
    """What a line's records count; None where they do not agree, or name no number."""
    sizes = set()
    for record in line.records:
        value: Any = record.result
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        sizes |= {float(value)} if value is not None else set()
    return sizes.pop() if len(sizes) == 1 else None
