"""A table's figures as SVG and PNG, the same bytes for the same records and the same Matplotlib."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.analysis import Analysis, front
from bench.report.collect import Record
from bench.report.grids import Line, Table
from bench.report.stats import band, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart by nearly everybody; each with a marker, so that print in grey works too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C6D31", "#4D4D4D", "#B22222")
MARKERS = "osD^vP*X<>"
GREY = "#8a8a8a"

STYLE: dict[Any, Any] = {
    "figure.dpi": 100, "savefig.dpi": 120, "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.7,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6,
    "lines.markersize": 5.5, "font.family": "DejaVu Sans", "svg.hashsalt": "snn-bench", "svg.fonttype": "path",
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: of its files, without ending.
        caption: one or two sentences.
        source: what is drawn, as numbers; its hash is in both files.
        draw: draws it.
    """

    name: str
    caption: str
    source: Any
    draw: Callable[[], Figure]

    @property
    def digest(self) -> str:
        """Hash of what is drawn, to 6 digits: the same from the same records on any machine."""
        return hashlib.sha256(json.dumps(_rounded([self.name, self.source])).encode()).hexdigest()

    def files(self, png: bool = True) -> Iterator[tuple[str, bytes]]:
        """The SVG and the PNG: file name and content.

        Args:
            png: draw it; else its content is only what `source_of` would read off it.
        """
        import matplotlib

        note, renderer = f"source sha256:{self.digest}", f"snn-bench, Matplotlib {matplotlib.__version__}"
        with style():
            figure = self.draw()
            svg, picture = io.BytesIO(), io.BytesIO()
            metadata: dict[str, Any] = {"Date": None, "Creator": renderer, "Description": note}
            figure.savefig(svg, format="svg", metadata=metadata)
            # Matplotlib writes six decimals of a point, and ends some lines with spaces, which git complains of.
            text = re.sub(rb"(\d\.\d\d)\d+", rb"\1", re.sub(rb" +\n", b"\n", svg.getvalue()))
            yield f"{self.name}.svg", text
            metadata = {"Software": renderer, "Description": note}
            if png:
                figure.savefig(picture, format="png", metadata=metadata, pil_kwargs={"optimize": True})
            yield f"{self.name}.png", picture.getvalue() or f"{note} {renderer}".encode()


def source_of(content: bytes) -> tuple[str, str] | None:
    """Hash of what a figure or the page shows, and what drew it; None if it is neither."""
    digest = re.search(rb"source sha256:([0-9a-f]{64})", content)
    renderer = re.search(rb"snn-bench, (?:Matplotlib|Altair) [\w.+]+", content)
    return None if digest is None or renderer is None else (digest[1].decode(), renderer[0].decode())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@contextmanager
def style() -> Iterator[None]:
    """The suite's look, whatever the user's matplotlibrc says."""
    import matplotlib
    from matplotlib import rc_context, rcdefaults

    with rc_context():
        rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def figures(found: Analysis) -> list[Drawn]:
    """All figures that a table has the numbers for."""
    table = found.table
    lines = [line for line in table.lines if line.values("test.acc")]
    if not lines:
        return []
    drawn = [
        accuracy_over_rate(table, lines),
        strength_response(table, lines),
        growth(table, lines),
        gaps(table, lines),
        layers(table, lines),
        curves(table, lines),
        fronts(table, lines),
        weights(table, lines),
        decisions(table, lines),
    ]
    return [figure for figure in drawn if figure is not None]


def colours(table: Table) -> dict[str, tuple[str, str]]:
    """Colour and marker of each series, the same in all figures of a table; the baseline's is grey."""
    names = [line.series for line in table.lines if line.records]
    names = [name for name in dict.fromkeys(names) if name != "none"]
    found = {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}
    return {"none": (GREY, "o"), **found}


def _blank(table: Table, width: float, height: float) -> Figure:
    """A figure of so many inches under the table's title, in as many lines as it needs, and the budget below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    # A bold letter of this size is about 0.085 inches wide.
    lines = textwrap.wrap(table.title, int(width / 0.085))
    budget = f"reduced run: budget {table.budget}" if table.reduced else "budget paper"
    figure.suptitle("\n".join([*lines, budget]), fontsize=10, fontweight="bold")
    return figure


def _axes(table: Table, wide: int, height: float = 3.6, panels: bool = True, **options: Any) -> tuple[Figure, Any]:
    """A figure with a row of `wide` axes for each panel."""
    rows = len(table.panels) if panels else 1
    figure = _blank(table, max(4.6 * wide, 6.4), height * rows + 0.5)
    axes = figure.subplots(rows, wide, squeeze=False, **options)
    for row, panel in enumerate(table.panels if panels else []):
        if panel:
            for axis in axes[row]:
                axis.set_title(panel)
    return figure, axes


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all axes, below them."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        # A letter of this size is about 0.07 inches wide, handle and gaps are half an inch.
        widest = 0.5 + 0.07 * max(map(len, entries))
        columns = max(1, min(len(entries), int(figure.get_figwidth() / widest)))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def _log(axis: Axes, values: Sequence[float]) -> None:
    """An x axis with few, plain numbers: logarithmic where the values span enough and none is 0."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    large = max(values, default=0) >= 1000
    form = EngFormatter(sep=" ") if large else FuncFormatter(lambda value, _: f"{value:g}")
    positive = [value for value in values if value > 0]
    if len(positive) == len(values) and positive and max(positive) > 4 * min(positive):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(form)


def _bar(line: Line, key: str) -> tuple[float, float, float] | None:
    """Mean and the lengths of the error bar below and above it."""
    found = line.mean(key)
    if found is None:
        return None
    if found.low is None or found.high is None:
        return found.mean, 0.0, 0.0
    return found.mean, found.mean - found.low, found.high - found.mean


def _points(lines: Sequence[Line], x: str, y: str) -> dict[str, list[tuple[Line, Any, Any]]]:
    found: dict[str, list[tuple[Line, Any, Any]]] = {}
    for line in lines:
        across, up = _bar(line, x), _bar(line, y)
        if across is not None and up is not None:
            found.setdefault(line.series, []).append((line, across, up))
    return found


def _limits(axis: Axes, centres: Sequence[float], share: float = 0.12) -> None:
    """Show all means with room around them: one wide interval must not squeeze the rest."""
    low, high = min(centres), max(centres)
    room = max((high - low) * (share + 0.25), 0.5)
    axis.set_ylim(low - room, min(high + room, 101.0) if high <= 100 else high + room)


def _reach(axis: Axes, centres: Sequence[float]) -> None:
    """The same across: from a little left of the smallest mean, on a linear axis never below 0."""
    low, high = min(centres), max(centres)
    if axis.get_xscale() == "log":
        axis.set_xlim(low / 1.25, high * 1.25)
    else:
        room = 0.12 * (high - low) or 0.1 * high or 0.01
        axis.set_xlim(max(0.0, low - room), high + room)


def accuracy_over_rate(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test and train accuracy over the spike rate, each series joined along its strengths (figure 3.1)."""
    sides = (("test.spike_rate", "test.acc", "test"), ("train.spike_rate", "train.acc", "train, last epoch"))
    data = {
        panel: [_points([line for line in lines if line.panel == panel], x, y) for x, y, _ in sides]
        for panel in table.panels
    }
    # A local rule has no accuracy while it trains: then there is one picture, not an empty one beside it.
    shown = [place for place in range(len(sides)) if any(of[place] for of in data.values())]
    if not shown:
        return None
    published = [
        [(line.series, line.panel, line.published[f"{side}_spike_rate"], line.published[f"{side}_acc"])
         for line in lines if line.published and line.published.get(f"{side}_spike_rate") is not None]
        for side in ("test", "train")
    ]  # fmt: skip
    source = [
        [[side, {name: [(line.label, x, y) for line, x, y in of] for name, of in points.items()}]
         for side, points in zip(("test", "train"), sides_of, strict=True)]
        for sides_of in data.values()
    ]  # fmt: skip

    def draw() -> Figure:
        from matplotlib.colors import to_rgb

        crowded = _crowded(table, lines)
        figure, axes = _axes(table, len(shown))
        look = colours(table)
        for row, panel in enumerate(table.panels):
            for column, place in enumerate(shown):
                axis, points, side = axes[row][column], data[panel][place], sides[place][2]
                rates, heights = [], []
                for name, of in points.items():
                    colour, marker = look[name]
                    faint = (*to_rgb(colour), 0.25 if crowded else 0.9)
                    of = sorted(of, key=lambda point: (point[0].strength or 0.0, point[1][0]))
                    x, y = np.array([p[1] for p in of]), np.array([p[2] for p in of])
                    axis.errorbar(
                        x[:, 0], y[:, 0], xerr=x[:, 1:].T, yerr=y[:, 1:].T, color=colour, marker=marker,
                        label=name, linestyle="-" if len(of) > 1 else "none", ecolor=faint, elinewidth=0.8,
                        capsize=0 if crowded else 2,
                    )  # fmt: skip
                    rates += list(x[:, 0])
                    heights += list(y[:, 0])
                theirs = [item for item in published[place] if item[1] == panel]
                if theirs and table.published is not None:
                    for name in dict.fromkeys(item[0] for item in theirs):
                        own = [item for item in theirs if item[0] == name]
                        axis.plot(
                            [item[2] for item in own], [item[3] for item in own], color="black", linestyle=":",
                            linewidth=1, marker="o", markersize=3.5, markerfacecolor="white",
                            label=f"published, {table.published.paper}",
                        )  # fmt: skip
                    rates += [item[2] for item in theirs]
                    heights += [item[3] for item in theirs]
                if rates:
                    _log(axis, rates)
                    _reach(axis, rates)
                    _limits(axis, heights)
                axis.set_xlabel(f"spike rate, {side}")
                axis.set_ylabel(f"{side.split(',')[0]} accuracy (%)")
        _legend(figure, axes.ravel())
        return figure

    caption = "Accuracy over spike rate: mean over seeds with 95 % intervals; each line joins a method's strengths."
    return Drawn("accuracy_over_rate", caption, [source, published], draw)


def strength_response(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test accuracy and spike rate over the strength, with bands, the baseline at 0."""
    keys = (("test.acc", "test accuracy (%)"), ("test.spike_rate", "spike rate, test"))
    data: dict[str, dict[str, list[Line]]] = {}
    for panel in table.panels:
        own = [line for line in lines if line.panel == panel and line.strength is not None]
        series: dict[str, list[Line]] = {}
        for line in own:
            series.setdefault(line.series, []).append(line)
        for name, of in series.items():
            base = next((line.against for line in of if line.against is not None), None)
            if base is not None and base.plain and base not in of and base.values("test.acc"):
                of.append(base)
            series[name] = sorted(of, key=lambda line: line.strength or 0.0)
        found = {name: of for name, of in series.items() if len({line.strength or 0.0 for line in of}) > 2}
        if found:
            data[panel] = found
    if not data:
        return None
    source = [
        [panel, name, key, [(line.strength, _bar(line, key)) for line in of]]
        for panel, series in data.items() for name, of in series.items() for key, _ in keys
    ]  # fmt: skip

    def draw() -> Figure:
        figure, axes = _axes(table, 2)
        look = colours(table)
        for row, panel in enumerate(table.panels):
            for column, (key, label) in enumerate(keys):
                axis = axes[row][column]
                strengths, heights = [], []
                for name, of in data.get(panel, {}).items():
                    colour, marker = look[name]
                    bars = [(line.strength or 0.0, bar) for line in of if (bar := _bar(line, key)) is not None]
                    if not bars:
                        continue
                    x = [strength for strength, _ in bars]
                    mean, below, above = np.array([bar for _, bar in bars]).T
                    axis.plot(x, mean, color=colour, marker=marker, label=name)
                    axis.fill_between(x, mean - below, mean + above, color=colour, alpha=0.15, linewidth=0)
                    strengths += x
                    heights += list(mean)
                    theirs = [(line.strength or 0.0, line.published[key.replace(".", "_")]) for line in of
                              if line.published and line.published.get(key.replace(".", "_")) is not None]  # fmt: skip
                    if theirs and table.published is not None:
                        axis.plot(*zip(*theirs, strict=True), color="black", linestyle=":", linewidth=1, marker="o",
                                  markersize=3.5, markerfacecolor="white",
                                  label=f"published, {table.published.paper}")  # fmt: skip
                        heights += [value for _, value in theirs]
                if heights:
                    _strengths(axis, strengths)
                    if key == "test.acc":
                        _limits(axis, heights)
                    else:
                        axis.set_ylim(0, 1.15 * max(heights))
                axis.set_xlabel("strength (0: the baseline)")
                axis.set_ylabel(label)
        _legend(figure, axes.ravel())
        return figure

    caption = "Response to the strength: mean over seeds with a 95 % band."
    return Drawn("strength_response", caption, source, draw)


SIZES = {"train_images": "training images", "model_args.neurons": "excitatory neurons"}


def growth(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test and clean train accuracy over how many images or neurons there are, where a table's lines differ in that."""
    sides = (("test.acc", "test"), ("train.acc_eval", "train, clean"))
    counted = {key: {value for line in lines for value in _sizes(line, key)} for key in SIZES}
    key = next((key for key, values in counted.items() if len(values) > 2), None)
    if key is None:
        return None
    series: dict[str, list[tuple[float, Line]]] = {}
    for line in lines:
        name = re.sub(r" ?neurons=\S+", "", line.series)
        series.setdefault(name, []).extend((size, line) for size in _sizes(line, key))
    data = [
        (name, side, sorted((size, bar) for size, line in of if (bar := _bar(line, metric)) is not None))
        for name, of in series.items()
        for metric, side in sides
    ]

    def draw() -> Figure:
        figure, axes = _axes(table, 1, panels=False)
        axis = axes[0][0]
        names = list(series)
        for name, side, points in data:
            if not points:
                continue
            x, (mean, below, above) = [size for size, _ in points], np.array([bar for _, bar in points]).T
            place, test = names.index(name), side == "test"
            axis.errorbar(
                x, mean, yerr=[below, above], color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)],
                linestyle="-" if test else "--", markerfacecolor=None if test else "white", capsize=2,
                label=f"{name}, {side}" if len(names) > 1 else side,
            )  # fmt: skip
        _log(axis, [size for *_, points in data for size, _ in points])
        _limits(axis, [bar[0] for *_, points in data for _, bar in points])
        axis.set_xlabel(SIZES[key])
        axis.set_ylabel("accuracy (%)")
        _legend(figure, [axis])
        return figure

    caption = f"Accuracy over the number of {SIZES[key]}: mean over seeds with 95 % intervals."
    return Drawn("growth", caption, data, draw)


def _sizes(line: Line, key: str) -> set[float]:
    """What a line's records count; none where they do not, or name no number."""
    values = set()
    for record in line.records:
        value: Any = record.result
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        values |= {float(value)} if value is not None else set()
    return values if len(values) == 1 else set()


def _strengths(axis: Axes, strengths: Sequence[float]) -> None:
    """A logarithmic axis with a place for 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = sorted({value for value in strengths if value > 0})
    axis.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    decades = range(math.floor(math.log10(positive[0])), math.ceil(math.log10(positive[-1])) + 1)
    ticks = [10.0**d for d in decades if positive[0] <= 10.0**d * 1.001 and 10.0**d <= positive[-1] * 1.001]
    ticks = ticks if len(ticks) > 1 else [positive[0], positive[-1]]
    axis.xaxis.set_major_locator(FixedLocator([0.0, *ticks]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def gaps(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Clean train and test accuracy of every line, joined."""
    rows = [
        (line.label, line.series, line.panel, train, test)
        for line in lines
        if (train := _bar(line, "train.acc_eval")) is not None and (test := _bar(line, "test.acc")) is not None
    ]
    if not rows:
        return None

    def draw() -> Figure:
        figure = _blank(table, 7.2, 0.26 * len(rows) + 1.9)
        axis = figure.subplots()
        look = colours(table)
        for place, (_, name, _, train, test) in enumerate(rows):
            colour = look[name][0]
            axis.plot([test[0], train[0]], [place, place], color="#d5d5d5", linewidth=4, zorder=1)
            axis.errorbar(train[0], place, xerr=[[train[1]], [train[2]]], color=colour, marker="o",
                          markerfacecolor="white", elinewidth=0.7,
                          label="train, evaluated clean" if not place else None)  # fmt: skip
            axis.errorbar(test[0], place, xerr=[[test[1]], [test[2]]], color=colour, marker="o", elinewidth=0.7,
                          label="test" if not place else None)  # fmt: skip
        axis.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlim(*_span([bar[0] for row in rows for bar in row[3:]]))
        axis.set_xlabel("accuracy (%)")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    caption = "Train/test gap: clean train accuracy (hollow) and test accuracy (full) of every row."
    return Drawn("gap", caption, rows, draw)


def _span(centres: Sequence[float]) -> tuple[float, float]:
    low, high = min(centres), max(centres)
    room = max(0.12 * (high - low), 0.5)
    return low - room, min(high + room, 101.0) if high <= 100 else high + room


def _within(panel: str, label: str) -> str:
    """A label in a panel that has the group's name already."""
    return label.removeprefix(f"{panel}: ")


def layers(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Spike rate of every layer and line as a heat map."""
    data = []
    for panel in table.panels:
        own = [line for line in lines if line.panel == panel]
        # Networks of other depth, such as the non-spiking twin, have other layers and cannot share a map.
        names = next((_layers(line) for line in own if _layers(line)), [])
        rows = [(line.label, rates) for line in own if _layers(line) == names and (rates := _rates(line))]
        if rows and names:
            data.append((panel, names, rows))
    if not data:
        return None

    def draw() -> Figure:
        heights = [0.26 * len(rows) + 1.5 for _, _, rows in data]
        widest = max(len(names) for _, names, _ in data)
        figure = _blank(table, max(6.4, 3.4 + 0.42 * widest), sum(heights) + 0.6)
        axes = figure.subplots(len(data), 1, squeeze=False, height_ratios=heights)
        top = max(max(rates) for _, _, rows in data for _, rates in rows) or 1.0
        for (axis,), (panel, names, rows) in zip(axes, data, strict=True):
            values = np.array([rates for _, rates in rows])
            image = axis.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=top)
            axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
            axis.set_yticks(range(len(rows)), [_within(panel, label) for label, _ in rows], fontsize=8)
            axis.grid(False)
            axis.set_title(panel)
            if len(names) <= 12:
                for (y, x), value in np.ndenumerate(values):
                    # White letters on the dark half of the colour map.
                    colour = "black" if value > 0.6 * top else "white"
                    axis.text(x, y, f"{value:.3f}"[1:] if value < 1 else "1", ha="center", va="center", fontsize=7,
                              color=colour)  # fmt: skip
        figure.colorbar(image, ax=list(axes.ravel()), label="spike rate, test", shrink=0.8)
        return figure

    caption = "Spike rate of every spiking layer, first to last, on the test set: mean over seeds."
    return Drawn("layers", caption, data, draw)


def _layers(line: Line) -> list[str]:
    found = {tuple(layer["name"] for layer in record.result["layers"]) for record in line.records if record.finished}
    return list(found.pop()) if len(found) == 1 else []


def _rates(line: Line) -> list[float]:
    rates = [[layer["spike_rate"] for layer in record.result["layers"]] for record in line.records if record.finished]
    if not rates or any(value is None for of in rates for value in of):
        return []
    return [float(value) for value in np.mean(rates, axis=0)]


def curves(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Test accuracy, training loss and spike rate over the epochs, with bands over seeds."""
    keys = (("test", "acc", "test accuracy (%)"), ("train", "loss", "training loss"),
            ("train", "spike_rate", "spike rate, train"))  # fmt: skip
    data = []
    for line in lines:
        for split, key, _ in keys:
            found = [_curve(record.epochs, split, key) for record in line.records if record.finished]
            whole = [curve for curve in found if len(curve) > 1]
            # Runs that were evaluated at other epochs have no common mean.
            if whole and len({tuple(x for x, _ in curve) for curve in whole}) == 1:
                epochs = [x for x, _ in whole[0]]
                bands = [of.tolist() for of in band([[y for _, y in curve] for curve in whole])]
                data.append((line.panel, line.label, line.series, f"{split}.{key}", epochs, bands, len(whole)))
    if not data:
        return None
    present = [key for key in keys if any(of[3] == f"{key[0]}.{key[1]}" for of in data)]
    shades = _shades(table, lines)
    # With many lines a legend of each, and bands over bands, would say nothing.
    crowded = _crowded(table, lines)
    # The legend of a series then shows the first line drawn: its strongest.
    drawn = data[::-1] if crowded else data

    def draw() -> Figure:
        figure, axes = _axes(table, len(present), height=3.4)
        for row, panel in enumerate(table.panels):
            for column, (split, key, label) in enumerate(present):
                axis = axes[row][column]
                for of_panel, name, series, measure, epochs, (mean, low, high), seeds in drawn:
                    if of_panel != panel or measure != f"{split}.{key}":
                        continue
                    colour, dash = shades[panel, name]
                    told = series if crowded else _within(panel, name)
                    axis.plot(epochs, mean, color=colour, linestyle=dash, linewidth=1.3, label=told)
                    if seeds > 1 and not crowded:
                        axis.fill_between(epochs, low, high, color=colour, alpha=0.1, linewidth=0)
                means = [of[5][0] for of in data if of[0] == panel and of[3] == f"{split}.{key}"]
                if means:
                    axis.set_ylim(*_room([value for mean in means for value in mean]))
                axis.set_xlabel("epoch")
                axis.set_ylabel(label)
                axis.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, axes.ravel())
        return figure

    how = "paler for weaker strengths" if crowded else "with a 95 % band"
    caption = f"Training curves: mean over seeds, {how}. What counts is the last epoch."
    return Drawn("curves", caption, data, draw)


def _crowded(table: Table, lines: Sequence[Line]) -> bool:
    return max(sum(line.panel == panel for line in lines) for panel in table.panels) > 12


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.1
    return low - room, high + room


def _curve(epochs: Sequence[dict[str, Any]], split: str, key: str) -> list[tuple[int, float]]:
    found = ((row["epoch"] + 1, (row.get(split) or {}).get(key)) for row in epochs)
    return [(epoch, float(value)) for epoch, value in found if value is not None]


def _shades(table: Table, lines: Sequence[Line]) -> dict[tuple[str, str], tuple[Any, str]]:
    """Colour and dash of each line: its series' colour, paler for weaker strengths."""
    from matplotlib.colors import to_rgb

    look = colours(table)
    dashes = ("-", "--", "-.", ":")
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    for panel in table.panels:
        series: dict[str, list[Line]] = {}
        for line in lines:
            if line.panel == panel:
                series.setdefault(line.series, []).append(line)
        for i, (name, of) in enumerate(series.items()):
            for place, line in enumerate(sorted(of, key=lambda line: line.strength or 0.0)):
                mix = 1.0 if len(of) == 1 else 0.3 + 0.7 * place / (len(of) - 1)
                colour = tuple(round(1 - mix * (1 - part), 4) for part in to_rgb(look[name][0]))
                found[panel, line.label] = (colour, dashes[(i // len(COLOURS)) % len(dashes)])
    return found


def weights(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """One neuron's input weights as images, one a line (antonov2024, figure 2), where `probe=noise` kept them."""
    maps = []
    for line in lines:
        kept = [(record.seed, values) for record in line.records if (values := _map(record)) is not None]
        if kept:
            maps.append((_within(line.panel, line.label), *kept[0]))
    if not maps:
        return None

    def draw() -> Figure:
        wide = min(len(maps), 5)
        high = math.ceil(len(maps) / wide)
        figure = _blank(table, max(1.9 * wide + 0.9, 6.4), 2.15 * high + 0.6)
        axes = figure.subplots(high, wide, squeeze=False)
        reach = max(float(np.abs(values).max()) for _, _, values in maps) or 1.0
        # Signed weights need a colour map with 0 in its middle.
        signed = any(float(np.min(values)) < 0 for _, _, values in maps)
        for axis in axes.flat[len(maps) :]:
            axis.axis("off")
        for axis, (label, seed, values) in zip(axes.flat, maps, strict=False):
            image = axis.imshow(values, cmap="RdBu_r" if signed else "viridis", vmin=-reach * signed, vmax=reach)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.set_title(f"{label}\nseed {seed}", fontsize=8)
        figure.colorbar(image, ax=list(axes.ravel()), label="weight", shrink=0.8)
        return figure

    caption = "Input weights of neuron 0 at their pixels, of each line's first seed; one scale for all."
    return Drawn("weights", caption, maps, draw)


def _map(record: Record) -> list[list[float]] | None:
    """Weights `[H][W]`, the mean over colours."""
    kept = record.probes.get("noise", {}).get("input_weights") or {}
    values, shape = kept.get("neuron_0"), kept.get("shape")
    if not values or not shape or len(values) != math.prod(shape):
        return None
    found: list[list[float]] = np.reshape(values, shape).mean(0).tolist()
    return found


def decisions(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Accuracy and reaction times over the decision threshold, where `probe=decision` was measured."""
    data: list[tuple[str, float, list[list[float | None]]]] = []
    for line in lines:
        probed = [record.probes["decision"]["rows"] for record in line.records if "decision" in record.probes]
        if not probed:
            continue
        by_threshold: dict[float, list[dict[str, Any]]] = {}
        for row in (row for rows in probed for row in rows):
            by_threshold.setdefault(row["threshold"] or 0, []).append(row)
        voted = by_threshold.pop(0, [])
        found = [
            [threshold, *(_mean(row[key] for row in rows) for key in ("acc", "right_ms", "wrong_ms"))]
            for threshold, rows in sorted(by_threshold.items())
        ]
        data.append((_within(line.panel, line.label), _mean(row["acc"] for row in voted) or math.nan, found))
    if not data:
        return None

    def draw() -> Figure:
        figure, axes = _axes(table, 2, panels=False)
        for place, (label, vote, found) in enumerate(data):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            threshold, acc, right, wrong = np.array(found, dtype=float).T
            style = {"color": colour, "marker": marker}
            axes[0][0].plot(threshold, acc, label=label, **style)
            axes[0][0].axhline(vote, color=colour, linestyle=":", linewidth=1)
            axes[0][1].plot(threshold, right, **style)
            axes[0][1].plot(threshold, wrong, linestyle="--", markerfacecolor="white", **style)
        for axis in axes[0]:
            _log(axis, [row[0] for _, _, found in data for row in found if row[0] is not None])
            axis.set_xlabel("decision threshold (spikes of a pool)")
        axes[0][0].set_ylabel("test accuracy (%)")
        axes[0][1].set_ylabel("reaction time (ms)")
        _legend(figure, [axes[0][0]])
        return figure

    caption = (
        "The first pool to reach the decision threshold: accuracy (dotted: the majority vote), and mean reaction times "
        "of right (solid) and wrong answers (dashed); mean over seeds."
    )
    return Drawn("decisions", caption, data, draw)


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def fronts(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Accuracy over spike rate and over SynOps, with the lines that no other beats."""
    costs = (("test.spike_rate", "spike rate, test"), ("synops_per_image", "SynOps / image"))
    data = []
    for panel in table.panels:
        own = [line for line in lines if line.panel == panel]
        for cost, label in costs:
            points = [(line, c.mean, a.mean) for line in own
                      if (c := line.mean(cost)) is not None and (a := line.mean("test.acc")) is not None]  # fmt: skip
            best = front(own, cost)
            data.append((panel, label, [(line.label, line.series, c, a, id(line) in best) for line, c, a in points]))
    if not any(points for _, _, points in data):
        return None

    def draw() -> Figure:
        figure, axes = _axes(table, 2)
        look = colours(table)
        for axis, (_, label, points) in zip(axes.ravel(), data, strict=True):
            # The front's first: the legend shows a series' first point.
            for _, name, cost, accuracy, best in sorted(points, key=lambda point: not point[-1]):
                colour, marker = look[name]
                axis.plot(cost, accuracy, color=colour, marker=marker, linestyle="none", label=name,
                          alpha=1.0 if best else 0.35, markersize=7 if best else 5)  # fmt: skip
            places = pareto([point[2] for point in points], [point[3] for point in points])
            on = [points[place] for place in places]
            axis.step([p[2] for p in on], [p[3] for p in on], where="post", color="black", linewidth=1, zorder=1,
                      label="Pareto front")  # fmt: skip
            if points:
                _log(axis, [p[2] for p in points])
                _reach(axis, [p[2] for p in points])
                _limits(axis, [p[3] for p in points])
                _annotate(axis, on)
            axis.set_xlabel(label)
            axis.set_ylabel("test accuracy (%)")
        _legend(figure, axes.ravel())
        return figure

    caption = "Pareto fronts: rows that no other beats in mean accuracy at as low a cost; the others pale."
    return Drawn("pareto", caption, data, draw)


def _annotate(axis: Axes, points: Sequence[tuple[str, str, float, float, bool]]) -> None:
    """Name the ends of the front, from within the axes."""
    for point, side in zip(dict.fromkeys([points[0], points[-1]]), ("left", "right"), strict=False):
        label, _, cost, accuracy, _ = point
        axis.annotate(label.rsplit(": ", 1)[-1], (cost, accuracy), textcoords="offset points",
                      xytext=(-4 if side == "left" else 4, 8), ha=side, fontsize=7, color="#333333")  # fmt: skip
