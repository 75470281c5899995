"""What all figures and the page look like: Matplotlib's settings, each method's colour, each network's shape."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.report.tables import Line, Table

NONE = "none"
GREY = "#737a86"
"""Of no regularizer, and of nothing else."""

# Every colour has a contrast of 3 or more with white paper and with the page's dark one, so that one is enough.
_METHODS = {
    NONE: GREY,
    "alpha_dropout": "#13a377",
    "dropout": "#1964f6",
    "dropout2d": "#1094d7",
    "dropout+spikepen": "#c60f91",
    "feature_dropout": "#c44cdf",
    "spikepen": "#e45705",
    "spikepen+uselose": "#d60925",
    "uselose": "#8b40e2",
    "weight_decay": "#b18104",
    "weight_decay+weightnorm": "#008197",
    "weightnorm": "#298a02",
}
_SPARE = ("#7c9800", "#f02f80", "#7e72ff", "#a36108")
COLOURS = tuple(colour for name, colour in _METHODS.items() if name != NONE)
"""Of things that are no methods."""

_DASHES = ("-", "--", "-.", ":")
# Darker, lighter: shares of black below 0, of white above.
_SHADES = (0.0, -0.45, 0.4, -0.7, 0.6, -0.25, 0.2)


class Shape(NamedTuple):
    """A network's shape.

    Attributes:
        marker: as Matplotlib names it.
        symbol: as Vega names it.
        glyph: as a letter, for texts.
    """

    marker: str
    symbol: str
    glyph: str


_CIRCLE = Shape("o", "circle", "●")
_NETWORKS = {
    "cnn": _CIRCLE,
    "convmixer": Shape("s", "square", "■"),
    "diehl_cook": Shape("^", "triangle-up", "▲"),
    "diet": Shape("D", "diamond", "◆"),
    "mlp": Shape("P", "cross", "✚"),
    "sew": Shape("v", "triangle-down", "▼"),
    "srm": Shape(">", "triangle-right", "▶"),
}
_SPARE_SHAPES = (Shape("<", "triangle-left", "◀"), Shape("X", "wedge", "✖"))

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
        dash: as Matplotlib writes it.
        face: colour inside the marker.
    """

    colour: str
    marker: str = "o"
    dash: str = "-"
    face: str = ""


def colour_of(method: str) -> str:
    """The colour of a method, the same on the page and in every figure, whatever stands beside it.

    Args:
        method: a regularizer's name, or several joined by `+`, in any order.
    """
    name = "+".join(sorted(method.split("+")))
    return _METHODS.get(name) or _SPARE[_digest(name) % len(_SPARE)]


def shape_of(network: str) -> Shape:
    """The shape of a network, the same on the page and in every figure."""
    return _NETWORKS.get(network) or _SPARE_SHAPES[_digest(network) % len(_SPARE_SHAPES)]


def _digest(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0]


def look_of(place: int) -> Look:
    """The look of what is no method, at a place among others; after the last colour the first comes again."""
    colour = COLOURS[place * 3 % len(COLOURS)]
    return Look(colour, "os^DvP>"[place % 7], _DASHES[place % len(_DASHES)], colour)


def method_of(lines: Sequence[Line]) -> str:
    """The regularizers of a series: its baseline at strength 0 has none."""
    names = [str(line.records[0].result["reg"]) for line in lines if line.records]
    return next((name for name in names if name != NONE), NONE)


def looks(table: Table, panel: str | None = None) -> dict[str, Look]:
    """The look of each series, the same in all figures of a table but for the shape, which is the network's.

    Series of one method have shades of its colour, and dashes and markers of their own. Where nothing regularizes any
    series, colours tell the series apart.

    Args:
        table: whose series.
        panel: whose networks give the shapes; the whole table's if left out.
    """
    series: dict[str, list[Line]] = {}
    for line in table.lines:
        if line.records:
            series.setdefault(line.series, []).append(line)
    methods = {name: method_of(lines) for name, lines in series.items()}
    if set(methods.values()) == {NONE} and len(series) > 1:
        return {name: look_of(place) for place, name in enumerate(series)}
    drawn, count = {}, dict.fromkeys(methods.values(), 0)
    for name, lines in series.items():
        place = count[methods[name]]
        count[methods[name]] += 1
        colour = _shade(colour_of(methods[name]), _SHADES[place % len(_SHADES)])
        own = [line for line in lines if panel in (None, line.panel)] or lines
        marker = shape_of(str(own[0].records[0].result["model"])).marker
        dash = "--" if methods[name] == NONE else _DASHES[place % len(_DASHES)]
        drawn[name] = Look(colour, marker, dash, "white" if place % 2 else colour)
    return drawn


def _shade(colour: str, share: float) -> str:
    """A colour mixed with so much white, or, below 0, black."""
    end = 255 if share > 0 else 0
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(part + abs(share) * (end - part)):02x}" for part in parts)


def fonts() -> bytes:
    """What Matplotlib knows of this machine's fonts, among which it finds the one that is drawn with."""
    import matplotlib

    known = sorted(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))
    return b"".join(path.name.encode() + path.read_bytes() for path in known)


@contextmanager
def style() -> Iterator[None]:
    """The suite's look, whatever the user's matplotlibrc says."""
    import matplotlib
    from matplotlib import rc_context, rcdefaults

    with rc_context():
        rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield
