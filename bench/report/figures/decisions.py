"""The figure of early decisions: accuracy and reaction times over the decision threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.report.figures.canvas import grid, legend, scale_x
from bench.report.figures.drawn import Drawn
from bench.report.figures.look import Look, look_of
from bench.report.figures.readings import say_seeds, within
from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Outcome(NamedTuple):
    """What a threshold leads to, mean over seeds; None where no seed has the number.

    Attributes:
        threshold: spikes of a pool.
        acc: in percent.
        right_ms: reaction time of right answers.
        wrong_ms: reaction time of wrong answers.
    """

    threshold: float
    acc: float | None
    right_ms: float | None
    wrong_ms: float | None


class _Decisions(NamedTuple):
    """A line's outcomes by rising threshold, and its accuracy by the majority vote, NaN where it was not measured."""

    label: str
    vote: float
    outcomes: list[_Outcome]


def decisions(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Accuracy and reaction times over the decision threshold, where `probe=decision` was measured."""
    probed = [measured for line in lines if (measured := _decisions(line)) is not None]
    if not probed:
        return None

    def draw() -> Figure:
        figure, ((accuracies, times),) = grid(table, 2, panels=False)
        for place, measured in enumerate(probed):
            _plot(accuracies, times, measured, look_of(place))
        for axis in (accuracies, times):
            scale_x(axis, [outcome.threshold for measured in probed for outcome in measured.outcomes])
            axis.set_xlabel("decision threshold (spikes of a pool)")
        accuracies.set_ylabel("test accuracy (%)")
        times.set_ylabel("reaction time (ms)")
        legend(figure, [accuracies])
        say_seeds(figure, lines)
        return figure

    caption = (
        "The first pool to reach the decision threshold: accuracy (dotted: the majority vote), and mean reaction times "
        "of right (solid) and wrong answers (dashed); mean over seeds."
    )
    return Drawn("decisions", caption, probed, draw)


def _decisions(line: Line) -> _Decisions | None:
    """None where no run was probed."""
    probes = [record.probes["decision"] for record in line.records if "decision" in record.probes]
    if not probes:
        return None
    by_threshold: dict[float, list[dict[str, Any]]] = {}
    for row in (row for probe in probes for row in probe["rows"]):
        by_threshold.setdefault(row["threshold"] or 0, []).append(row)
    # Without a threshold the pools vote.
    voted = by_threshold.pop(0, [])
    outcomes = [
        _Outcome(threshold, *(_mean(row[key] for row in rows) for key in ("acc", "right_ms", "wrong_ms")))
        for threshold, rows in sorted(by_threshold.items())
    ]
    return _Decisions(within(line.panel, line.label), _mean(row["acc"] for row in voted) or math.nan, outcomes)


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _plot(accuracies: Axes, times: Axes, measured: _Decisions, look: Look) -> None:
    """One line's numbers: accuracy left, reaction times right."""
    threshold, acc, right_ms, wrong_ms = np.array(measured.outcomes, dtype=float).T
    colour, marker = look.colour, look.marker
    accuracies.plot(threshold, acc, label=measured.label, color=colour, marker=marker)
    accuracies.axhline(measured.vote, color=colour, linestyle=":", linewidth=1)
    times.plot(threshold, right_ms, color=colour, marker=marker)
    times.plot(threshold, wrong_ms, linestyle="--", markerfacecolor="white", color=colour, marker=marker)
