"""What figures are drawn on: the sheet with its title, the grid of axes, the legend, the x axis of plain numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sheet(table: Table, width: float, height: float) -> Figure:
    """An empty figure under the table's title, in as many lines as it needs, and the budget below it.

    Args:
        table: what is drawn.
        width: in inches.
        height: in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    # A bold letter of this size is about 0.085 inches wide.
    title = textwrap.wrap(table.title, int(width / 0.085))
    budget = f"reduced run: budget {table.budget}" if table.reduced else "budget paper"
    figure.suptitle("\n".join([*title, budget]), fontsize=10, fontweight="bold")
    return figure


def grid(table: Table, columns: int, height: float = 3.6, panels: bool = True) -> tuple[Figure, Any]:
    """A figure with a row of axes for each panel.

    Args:
        table: what is drawn.
        columns: axes in a row.
        height: of a row, in inches.
        panels: a row for each of the table's panels, under its name; else one row for all.

    Returns:
        The figure, and its axes as an array `[row][column]`.
    """
    rows = len(table.panels) if panels else 1
    figure = sheet(table, max(4.6 * columns, 6.4), height * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, panel in enumerate(table.panels if panels else []):
        if panel:
            for axis in axes[row]:
                axis.set_title(panel)
    return figure, axes


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
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


def scale_x(axis: Axes, values: Sequence[float]) -> None:
    """An x axis with few, plain numbers: logarithmic where the values span enough and none is 0."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    large = max(values, default=0) >= 1000
    formatter = EngFormatter(sep=" ") if large else FuncFormatter(lambda value, _: f"{value:g}")
    positive = [value for value in values if value > 0]
    if len(positive) == len(values) and positive and max(positive) > 4 * min(positive):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(formatter)


def plot_published(axis: Axes, points: Sequence[tuple[float, float]], paper: str) -> None:
    """A paper's own numbers, joined.

    Args:
        axis: where.
        points: x and y of each.
        paper: as the legend names it.
    """
    axis.plot(
        *zip(*points, strict=True), color="black", linestyle=":", linewidth=1, marker="o", markersize=3.5,
        markerfacecolor="white", label=f"published, {paper}",
    )  # fmt: skip
