"""The figure of what a method's strength does: accuracy and spike rate over it, the baseline at 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.report.figures.canvas import grid, legend, plot_published
from bench.report.figures.drawn import Drawn
from bench.report.figures.limits import ACCURACY, limits
from bench.report.figures.look import Look, looks
from bench.report.figures.readings import bar, by_series, say_seeds
from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEASURES = {"test.acc": "test accuracy (%)", "test.spike_rate": "spike rate, test"}


def strength_response(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test accuracy and spike rate over the strength, with bands, the baseline at 0."""
    swept = {panel: _swept([line for line in lines if line.panel == panel]) for panel in table.panels}
    if not any(swept.values()):
        return None
    source = [
        [panel, name, key, [(line.strength, bar(line, key)) for line in members]]
        for panel, series in swept.items() for name, members in series.items() for key in _MEASURES
    ]  # fmt: skip

    def draw() -> Figure:
        figure, axes = grid(table, len(_MEASURES))
        for row, (panel, series) in zip(axes, swept.items(), strict=True):
            look = looks(table, panel)
            for axis, (key, measure) in zip(row, _MEASURES.items(), strict=True):
                _plot_responses(axis, table, series, key, look)
                axis.set_xlabel("strength (0: the baseline)")
                axis.set_ylabel(measure)
        legend(figure, axes.ravel())
        say_seeds(figure, lines)
        return figure

    caption = "Response to the strength: mean over seeds with a 95 % band."
    return Drawn("strength_response", caption, source, draw)


def _swept(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Each series that was run at more than two strengths, its baseline counted, by rising strength."""
    swept = {}
    for name, members in by_series(line for line in lines if line.strength is not None).items():
        base = next((line.against for line in members if line.against is not None), None)
        if base is not None and base.plain and base not in members and base.values("test.acc"):
            members.append(base)
        if len({_strength(line) for line in members}) > 2:
            swept[name] = sorted(members, key=_strength)
    return swept


def _strength(line: Line) -> float:
    """A baseline without a strength stands at 0."""
    return line.strength or 0.0


def _plot_responses(axis: Axes, table: Table, series: dict[str, list[Line]], key: str, look: dict[str, Look]) -> None:
    """A measure of all series of a panel."""
    strengths: list[float] = []
    heights: list[float] = []
    for name, lines in series.items():
        bars = [(_strength(line), height) for line in lines if (height := bar(line, key)) is not None]
        if not bars:
            continue
        x = [strength for strength, _ in bars]
        mean, below, above = np.array([height for _, height in bars]).T
        colour, marker, dash, face = look[name]
        axis.plot(x, mean, color=colour, marker=marker, linestyle=dash, markerfacecolor=face, label=name)
        axis.fill_between(x, mean - below, mean + above, color=colour, alpha=0.15, linewidth=0)
        strengths += x
        heights += list(mean)
        published = _published(lines, key)
        if published and table.published is not None:
            plot_published(axis, published, table.published.paper)
            heights += [height for _, height in published]
    if heights:
        _scale_strengths(axis, strengths)
        low, high = limits(heights, ACCURACY) if key == "test.acc" else (0.0, 1.15 * max(heights))
        axis.set_ylim(low, high)


def _published(lines: Sequence[Line], key: str) -> list[tuple[float, float]]:
    """Strength and the paper's number of each line that has one."""
    column = key.replace(".", "_")
    return [
        (_strength(line), line.published[column])
        for line in lines
        if line.published and line.published.get(column) is not None
    ]


def _scale_strengths(axis: Axes, strengths: Sequence[float]) -> None:
    """A logarithmic axis with a place for 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = sorted({value for value in strengths if value > 0})
    axis.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    decades = range(math.floor(math.log10(positive[0])), math.ceil(math.log10(positive[-1])) + 1)
    ticks = [10.0**decade for decade in decades]
    ticks = [tick for tick in ticks if positive[0] <= tick * 1.001 and tick <= positive[-1] * 1.001]
    ticks = ticks if len(ticks) > 1 else [positive[0], positive[-1]]
    axis.xaxis.set_major_locator(FixedLocator([0.0, *ticks]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
