"""A table's figures as SVG and PNG, the same bytes for the same records and the same Matplotlib: the package's face."""

from __future__ import annotations

from bench.report.analysis import Analysis
from bench.report.figures.decisions import decisions
from bench.report.figures.drawn import Drawn, source_of
from bench.report.figures.growth import growth
from bench.report.figures.look import COLOURS, GREY, colour_of, fonts, shape_of, style
from bench.report.figures.maps import layers, weights
from bench.report.figures.strength import strength_response
from bench.report.figures.tradeoff import accuracy_over_rate, pareto_fronts
from bench.report.figures.training import curves, gaps

__all__ = [
    "COLOURS", "GREY", "Drawn", "colour_of", "figures", "fonts", "shape_of", "source_of", "style",
]  # fmt: skip


def figures(analysis: Analysis) -> list[Drawn]:
    """All figures that a table has the numbers for."""
    table = analysis.table
    lines = [line for line in table.lines if line.values("test.acc")]
    if not lines:
        return []
    possible = [
        accuracy_over_rate(table, lines),
        strength_response(table, lines),
        growth(table, lines),
        gaps(table, lines),
        layers(table, lines),
        curves(table, lines),
        pareto_fronts(table, lines),
        weights(table, lines),
        decisions(table, lines),
    ]
    return [figure for figure in possible if figure is not None]
