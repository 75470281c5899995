"""Figures of the training: curves over the epochs, and the gap between train and test accuracy that it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.report.figures.canvas import grid, legend, sheet
from bench.report.figures.drawn import Drawn
from bench.report.figures.limits import CURVE, GAP, LEARNING, limits
from bench.report.figures.look import colour_of, looks, method_of
from bench.report.figures.readings import Bar, bar, by_series, crowded, say_seeds, within
from bench.report.stats import band
from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEASURES = {"test.acc": "test accuracy (%)", "train.loss": "training loss", "train.spike_rate": "spike rate, train"}


class _Band(NamedTuple):
    """Mean over seeds and the ends of its 95 % band, each `[epochs]`."""

    mean: list[float]
    low: list[float]
    high: list[float]


class _Curve(NamedTuple):
    """A measure of a line over its epochs."""

    panel: str
    label: str
    series: str
    measure: str
    epochs: list[int]
    band: _Band
    seeds: int


class _Stroke(NamedTuple):
    """How a line is drawn: its colour as parts of 1, its dash as Matplotlib writes it."""

    colour: tuple[float, ...]
    dash: str


def curves(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test accuracy, training loss and spike rate over the epochs, with bands over seeds.

    Of many lines only the test accuracy is drawn, in an axis for each method, with all others grey behind it.
    """
    measured = [curve for line in lines for key in _MEASURES if (curve := _curve(line, key)) is not None]
    dense = crowded(table, lines)
    if dense:
        measured = [curve for curve in measured if curve.measure == "test.acc"]
    if not measured:
        return None
    shown = [key for key in _MEASURES if any(curve.measure == key for curve in measured)]

    def draw() -> Figure:
        if dense:
            return _multiples(table, lines, measured)
        figure, axes = grid(table, len(shown), height=3.4)
        strokes = _strokes(table, lines)
        for row, panel in zip(axes, table.panels, strict=True):
            for axis, key in zip(row, shown, strict=True):
                own = [curve for curve in measured if curve.panel == panel and curve.measure == key]
                _plot_curves(axis, own, strokes)
                axis.set_xlabel("epoch")
                axis.set_ylabel(_MEASURES[key])
                axis.xaxis.get_major_locator().set_params(integer=True)
        legend(figure, axes.ravel())
        say_seeds(figure, lines)
        return figure

    how = "an axis a method, paler for weaker strengths, all others grey" if dense else "with a 95 % band"
    what = "Test accuracy over the epochs" if dense else "Training curves"
    return Drawn("curves", f"{what}: mean over seeds, {how}. What counts is the last epoch.", measured, draw)


def _multiples(table: Table, lines: Sequence[Line], measured: Sequence[_Curve]) -> Figure:
    """A small axis for each method of each panel, all of a panel on one scale."""
    methods = {line.label: method_of([line]) for line in lines}
    by_panel = {panel: [curve for curve in measured if curve.panel == panel] for panel in table.panels}
    by_panel = {panel: own for panel, own in by_panel.items() if own}
    strips = {panel: list(dict.fromkeys(methods[curve.label] for curve in own)) for panel, own in by_panel.items()}
    columns = min(5, max(map(len, strips.values())))
    rows = {panel: -(-len(names) // columns) for panel, names in strips.items()}
    figure = sheet(table, 2.05 * columns + 0.4, 1.75 * sum(rows.values()) + 0.8)
    axes = figure.subplots(sum(rows.values()), columns, squeeze=False, sharex=True)
    strokes = _strokes(table, lines)
    first = 0
    for panel, own in by_panel.items():
        ends = limits([value for curve in own for value in curve.band.mean], LEARNING)
        cells = axes[first : first + rows[panel]].ravel()
        first += rows[panel]
        for axis in cells[len(strips[panel]) :]:
            axis.axis("off")
        for place, (axis, name) in enumerate(zip(cells, strips[panel], strict=False)):
            for curve in own:
                if methods[curve.label] != name:
                    axis.plot(curve.epochs, curve.band.mean, color="#dddddd", linewidth=0.6, zorder=1)
            for curve in own:
                if methods[curve.label] == name:
                    colour, dash = strokes[panel, curve.label]
                    axis.plot(curve.epochs, curve.band.mean, color=colour, linestyle=dash, linewidth=1.4, zorder=2)
            axis.set_title(f"{panel}, {name}" if panel else name, fontsize=8.5, color=colour_of(name))
            axis.set_ylim(*ends)
            axis.grid(False)
            axis.xaxis.get_major_locator().set_params(integer=True)
            if place % columns == 0:
                axis.set_ylabel("test accuracy (%)", fontsize=8)
    figure.supxlabel("epoch", fontsize=9)
    say_seeds(figure, lines)
    return figure


def _curve(line: Line, key: str) -> _Curve | None:
    """None where no run has two epochs, or where the runs' epochs differ: then they have no common mean."""
    by_run = [_followed(record.epochs, key) for record in line.records if record.finished]
    by_run = [run for run in by_run if len(run) > 1]
    if len({tuple(run) for run in by_run}) != 1:
        return None
    mean, low, high = (end.tolist() for end in band([list(run.values()) for run in by_run]))
    return _Curve(line.panel, line.label, line.series, key, list(by_run[0]), _Band(mean, low, high), len(by_run))


def _followed(rows: Iterable[dict[str, Any]], key: str) -> dict[int, float]:
    """Epoch, counted from 1 -> number of `metrics.jsonl`, where it was measured."""
    split, name = key.split(".")
    values = ((row["epoch"] + 1, (row.get(split) or {}).get(name)) for row in rows)
    return {epoch: float(value) for epoch, value in values if value is not None}


def _plot_curves(axis: Axes, measured: Sequence[_Curve], strokes: dict[tuple[str, str], _Stroke]) -> None:
    for curve in measured:
        colour, dash = strokes[curve.panel, curve.label]
        label = within(curve.panel, curve.label)
        axis.plot(curve.epochs, curve.band.mean, color=colour, linestyle=dash, linewidth=1.3, label=label)
        if curve.seeds > 1:
            axis.fill_between(curve.epochs, curve.band.low, curve.band.high, color=colour, alpha=0.1, linewidth=0)
    if measured:
        margin = LEARNING if measured[0].measure == "test.acc" else CURVE
        axis.set_ylim(*limits([value for curve in measured for value in curve.band.mean], margin))


def _strokes(table: Table, lines: Sequence[Line]) -> dict[tuple[str, str], _Stroke]:
    """Panel and label -> the line's stroke: its series' colour, paler for weaker strengths."""
    from matplotlib.colors import to_rgb

    strokes = {}
    for panel in table.panels:
        look = looks(table, panel)
        series = by_series(line for line in lines if line.panel == panel)
        for name, members in series.items():
            for rank, line in enumerate(sorted(members, key=lambda line: line.strength or 0.0)):
                mix = 1.0 if len(members) == 1 else 0.3 + 0.7 * rank / (len(members) - 1)
                colour = tuple(round(1 - mix * (1 - part), 4) for part in to_rgb(look[name].colour))
                strokes[panel, line.label] = _Stroke(colour, look[name].dash)
    return strokes


class _Gap(NamedTuple):
    """A line by its clean train and its test accuracy."""

    label: str
    series: str
    panel: str
    train: Bar
    test: Bar


def gaps(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Clean train and test accuracy of every line, joined."""
    rows = [
        _Gap(line.label, line.series, line.panel, train, test)
        for line in lines
        if (train := bar(line, "train.acc_eval")) is not None and (test := bar(line, "test.acc")) is not None
    ]
    if not rows:
        return None

    def draw() -> Figure:
        figure = sheet(table, 7.2, 0.26 * len(rows) + 1.9)
        axis = figure.subplots()
        look = looks(table)
        for place, row in enumerate(rows):
            _plot_gap(axis, place, row, look[row.series].colour)
        axis.set_yticks(range(len(rows)), [row.label for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlim(*limits([accuracy.mean for row in rows for accuracy in (row.train, row.test)], GAP))
        axis.set_xlabel("accuracy (%)")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        say_seeds(figure, lines)
        return figure

    caption = "Train/test gap: clean train accuracy (hollow) and test accuracy (full) of every row."
    return Drawn("gap", caption, rows, draw)


def _plot_gap(axis: Axes, place: int, row: _Gap, colour: str) -> None:
    """A row of the figure; the first gives the legend its entries."""
    train, test = row.train, row.test
    axis.plot([test.mean, train.mean], [place, place], color="#d5d5d5", linewidth=4, zorder=1)
    axis.errorbar(
        train.mean, place, xerr=[[train.below], [train.above]], color=colour, marker="o", markerfacecolor="white",
        elinewidth=0.7, label=None if place else "train, evaluated clean",
    )  # fmt: skip
    axis.errorbar(
        test.mean, place, xerr=[[test.below], [test.above]], color=colour, marker="o", elinewidth=0.7,
        label=None if place else "test",
    )  # fmt: skip
