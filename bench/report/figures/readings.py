"""What several figures read off a table's lines: means with error bars, series, short labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Bar(NamedTuple):
    """A mean over seeds and its error bar.

    Attributes:
        mean: of the seeds.
        below: length of the 95 % interval below the mean; 0 where there is no interval.
        above: its length above the mean.
    """

    mean: float
    below: float
    above: float


def bar(line: Line, key: str) -> Bar | None:
    """A line's mean and error bar.

    Args:
        line: of a table.
        key: dotted, of a record's number.

    Returns:
        None where nothing was measured.
    """
    estimate = line.mean(key)
    if estimate is None:
        return None
    if estimate.low is None or estimate.high is None:
        return Bar(estimate.mean, 0.0, 0.0)
    return Bar(estimate.mean, estimate.mean - estimate.low, estimate.high - estimate.mean)


def by_series(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Each series' lines, both in the order of the lines."""
    series: dict[str, list[Line]] = {}
    for line in lines:
        series.setdefault(line.series, []).append(line)
    return series


def seeds_text(lines: Iterable[Line]) -> str:
    """How many runs the means are over: `n = 3 seeds`, `n = 3 to 5 seeds`."""
    counts = sorted({len(line.seeds) for line in lines if line.seeds})
    if not counts:
        return "no run finished"
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {many} seed{'s' if counts[-1] > 1 else ''}"


def say_seeds(figure: Figure, lines: Iterable[Line]) -> None:
    """Write below a figure's title how many seeds its means are over."""
    figure.suptitle(f"{figure.get_suptitle()}, {seeds_text(lines)}", fontsize=10, fontweight="bold")


def within(panel: str, label: str) -> str:
    """A label in a panel that has the group's name already."""
    return label.removeprefix(f"{panel}: ")


def crowded(table: Table, lines: Sequence[Line]) -> bool:
    """Whether a panel has so many lines that bands, caps and a legend of each would hide more than they show."""
    return max(sum(line.panel == panel for line in lines) for panel in table.panels) > 12
