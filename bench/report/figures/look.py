"""What all figures look like: Matplotlib's settings, and each series' colour and marker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench.report.tables import Table

# Okabe & Ito's colours, told apart by nearly everybody; each with a marker, so that print in grey works too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C6D31", "#4D4D4D", "#B22222")
GREY = "#8a8a8a"
_MARKERS = "osD^vP*X<>"

_SETTINGS: dict[Any, Any] = {
    "figure.dpi": 100, "savefig.dpi": 120, "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.7,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6,
    "lines.markersize": 5.5, "font.family": "DejaVu Sans", "svg.hashsalt": "snn-bench", "svg.fonttype": "path",
}  # fmt: skip


class Look(NamedTuple):
    """How a series is drawn.

    Attributes:
        colour: `#rrggbb`.
        marker: Matplotlib's letter for it.
    """

    colour: str
    marker: str


def look_of(place: int) -> Look:
    """The look of the series at a place among others, counted from 0; after the last colour the first comes again."""
    return Look(COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)])


def looks(table: Table) -> dict[str, Look]:
    """The look of each series, the same in all figures of a table; the baseline's is grey."""
    names = dict.fromkeys(line.series for line in table.lines if line.records and line.series != "none")
    return {"none": Look(GREY, "o"), **{name: look_of(place) for place, name in enumerate(names)}}


@contextmanager
def style() -> Iterator[None]:
    """The suite's look, whatever the user's matplotlibrc says."""
    import matplotlib
    from matplotlib import rc_context, rcdefaults

    with rc_context():
        rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield
