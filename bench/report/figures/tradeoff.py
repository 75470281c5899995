"""Figures of accuracy against what it costs: accuracy over the spike rate, and the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.report.analysis import front
from bench.report.figures.canvas import grid, legend, plot_published, scale_x
from bench.report.figures.drawn import Drawn
from bench.report.figures.limits import ACCURACY, COST, limits
from bench.report.figures.look import Look, looks
from bench.report.figures.readings import Bar, bar, crowded, say_seeds
from bench.report.stats import pareto
from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDES = {"test": "test", "train": "train, last epoch"}
_COSTS = {"test.spike_rate": "spike rate, test", "synops_per_image": "SynOps / image"}


class _Measured(NamedTuple):
    """A line with a spike rate and an accuracy."""

    line: Line
    rate: Bar
    acc: Bar


class _Published(NamedTuple):
    """A line's spike rate and accuracy in the paper."""

    series: str
    panel: str
    rate: float
    acc: float


def accuracy_over_rate(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test and train accuracy over the spike rate, each series joined along its strengths (figure 3.1)."""
    measured = {
        (panel, side): _ours([line for line in lines if line.panel == panel], side)
        for panel in table.panels
        for side in _SIDES
    }
    # A local rule has no accuracy while it trains: then there is one picture, not an empty one beside it.
    shown = [side for side in _SIDES if any(measured[panel, side] for panel in table.panels)]
    if not shown:
        return None
    published = {side: _theirs(lines, side) for side in _SIDES}
    source = [[[side, _labelled(measured[panel, side])] for side in _SIDES] for panel in table.panels]

    def draw() -> Figure:
        figure, axes = grid(table, len(shown))
        dense = crowded(table, lines)
        for row, panel in zip(axes, table.panels, strict=True):
            look = looks(table, panel)
            for axis, side in zip(row, shown, strict=True):
                for name, points in measured[panel, side].items():
                    _plot_ours(axis, name, points, look[name], dense)
                theirs = [point for point in published[side] if point.panel == panel]
                if table.published is not None:
                    _plot_theirs(axis, theirs, table.published.paper)
                ours = [point for points in measured[panel, side].values() for point in points]
                _frame(
                    axis,
                    [*(point.rate.mean for point in ours), *(point.rate for point in theirs)],
                    [*(point.acc.mean for point in ours), *(point.acc for point in theirs)],
                )
                axis.set_xlabel(f"spike rate, {_SIDES[side]}")
                axis.set_ylabel(f"{side} accuracy (%)")
        legend(figure, axes.ravel())
        say_seeds(figure, lines)
        return figure

    caption = "Accuracy over spike rate: mean over seeds with 95 % intervals; each line joins a method's strengths."
    return Drawn("accuracy_over_rate", caption, [source, list(published.values())], draw)


def _ours(lines: Sequence[Line], side: str) -> dict[str, list[_Measured]]:
    """Series -> its lines that have both numbers."""
    series: dict[str, list[_Measured]] = {}
    for line in lines:
        rate, acc = bar(line, f"{side}.spike_rate"), bar(line, f"{side}.acc")
        if rate is not None and acc is not None:
            series.setdefault(line.series, []).append(_Measured(line, rate, acc))
    return series


def _labelled(series: dict[str, list[_Measured]]) -> dict[str, list[tuple[str, Bar, Bar]]]:
    return {name: [(line.label, rate, acc) for line, rate, acc in points] for name, points in series.items()}


def _theirs(lines: Sequence[Line], side: str) -> list[_Published]:
    rate, acc = f"{side}_spike_rate", f"{side}_acc"
    return [
        _Published(line.series, line.panel, line.published[rate], line.published[acc])
        for line in lines
        if line.published and line.published.get(rate) is not None
    ]


def _plot_ours(axis: Axes, name: str, points: Sequence[_Measured], look: Look, dense: bool) -> None:
    """A series, joined along its strengths; in crowded axes its error bars are faint and have no caps."""
    from matplotlib.colors import to_rgb

    points = sorted(points, key=lambda point: (point.line.strength or 0.0, point.rate.mean))
    faint = (*to_rgb(look.colour), 0.25 if dense else 0.9)
    rate, rate_below, rate_above = np.array([point.rate for point in points]).T
    acc, acc_below, acc_above = np.array([point.acc for point in points]).T
    axis.errorbar(
        rate, acc, xerr=[rate_below, rate_above], yerr=[acc_below, acc_above], color=look.colour, marker=look.marker,
        markerfacecolor=look.face, label=name, linestyle=look.dash if len(points) > 1 else "none", ecolor=faint,
        elinewidth=0.8, capsize=0 if dense else 2,
    )  # fmt: skip


def _plot_theirs(axis: Axes, points: Sequence[_Published], paper: str) -> None:
    for name in dict.fromkeys(point.series for point in points):
        plot_published(axis, [(point.rate, point.acc) for point in points if point.series == name], paper)


def _frame(axis: Axes, costs: Sequence[float], accuracies: Sequence[float]) -> None:
    """Show all means; axes without any stay as they are."""
    if costs:
        scale_x(axis, costs)
        axis.set_xlim(*limits(costs, COST, axis.get_xscale() == "log"))
        axis.set_ylim(*limits(accuracies, ACCURACY))


class _Point(NamedTuple):
    """A line by its mean cost and mean test accuracy."""

    label: str
    series: str
    cost: float
    acc: float
    on_front: bool


class _Front(NamedTuple):
    """A panel's lines over one cost, as the axis names it."""

    panel: str
    cost: str
    points: list[_Point]


def pareto_fronts(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Accuracy over spike rate and over SynOps, with the lines that no other beats."""
    fronts = [
        _Front(panel, name, _points([line for line in lines if line.panel == panel], cost))
        for panel in table.panels
        for cost, name in _COSTS.items()
    ]
    if not any(one.points for one in fronts):
        return None

    def draw() -> Figure:
        figure, axes = grid(table, len(_COSTS))
        for axis, (panel, cost, points) in zip(axes.ravel(), fronts, strict=True):
            _plot_front(axis, points, looks(table, panel))
            axis.set_xlabel(cost)
            axis.set_ylabel("test accuracy (%)")
        legend(figure, axes.ravel())
        say_seeds(figure, lines)
        return figure

    caption = "Pareto fronts: rows that no other beats in mean accuracy at as low a cost; the others pale."
    return Drawn("pareto", caption, fronts, draw)


def _points(lines: list[Line], cost: str) -> list[_Point]:
    best = front(lines, cost)
    return [
        _Point(line.label, line.series, spent.mean, acc.mean, id(line) in best)
        for line in lines
        if (spent := line.mean(cost)) is not None and (acc := line.mean("test.acc")) is not None
    ]


def _plot_front(axis: Axes, points: Sequence[_Point], look: dict[str, Look]) -> None:
    # The front's first: the legend shows a series' first point.
    for point in sorted(points, key=lambda point: not point.on_front):
        colour, marker, _, face = look[point.series]
        axis.plot(point.cost, point.acc, color=colour, marker=marker, markerfacecolor=face, linestyle="none",
                  label=point.series, alpha=1.0 if point.on_front else 0.35,
                  markersize=7 if point.on_front else 5)  # fmt: skip
    costs, accuracies = [point.cost for point in points], [point.acc for point in points]
    best = [points[place] for place in pareto(costs, accuracies)]
    axis.step([point.cost for point in best], [point.acc for point in best], where="post", color="black", linewidth=1,
              zorder=1, label="Pareto front")  # fmt: skip
    _frame(axis, costs, accuracies)
    if best:
        _name_ends(axis, best)


def _name_ends(axis: Axes, points: Sequence[_Point]) -> None:
    """Name the ends of the front, from within the axes."""
    for point, side in zip(dict.fromkeys([points[0], points[-1]]), ("left", "right"), strict=False):
        axis.annotate(point.label.rsplit(": ", 1)[-1], (point.cost, point.acc), textcoords="offset points",
                      xytext=(-4 if side == "left" else 4, 8), ha=side, fontsize=7, color="#333333")  # fmt: skip
