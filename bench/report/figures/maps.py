"""Figures that are images: the spike rate of every layer, and the input weights of a neuron."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.report.figures.canvas import sheet
from bench.report.figures.drawn import Drawn
from bench.report.figures.readings import say_seeds, within
from bench.report.tables import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


class _Rates(NamedTuple):
    """A line's spike rates, layer by layer."""

    label: str
    rates: list[float]


class _HeatMap(NamedTuple):
    """The lines of a panel that have the same layers."""

    panel: str
    layers: list[str]
    rows: list[_Rates]


def layers(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """Spike rate of every layer and line as a heat map."""
    heat_maps = [_heat_map(panel, [line for line in lines if line.panel == panel]) for panel in table.panels]
    heat_maps = [heat_map for heat_map in heat_maps if heat_map.rows]
    if not heat_maps:
        return None

    def draw() -> Figure:
        heights = [0.26 * len(heat_map.rows) + 1.5 for heat_map in heat_maps]
        most = max(len(heat_map.layers) for heat_map in heat_maps)
        figure = sheet(table, max(6.4, 3.4 + 0.42 * most), sum(heights) + 0.6)
        axes = figure.subplots(len(heat_maps), 1, squeeze=False, height_ratios=heights)
        top = max(max(row.rates) for heat_map in heat_maps for row in heat_map.rows) or 1.0
        for (axis,), heat_map in zip(axes, heat_maps, strict=True):
            image = _show_rates(axis, heat_map, top)
        figure.colorbar(image, ax=list(axes.ravel()), label="spike rate, test", shrink=0.8)
        say_seeds(figure, lines)
        return figure

    caption = "Spike rate of every spiking layer, first to last, on the test set: mean over seeds."
    return Drawn("layers", caption, heat_maps, draw)


def layer_names(names: Sequence[str]) -> list[str]:
    """A network's layers in words, as `block 2, neuron 1` for `stages.0.1.spiking1`.

    Args:
        names: of its spiking layers, in order, as its modules are called.
    """
    parts = [name.split(".") for name in names]
    blocks = list(dict.fromkeys(tuple(part[:-1]) for part in parts if len(part) > 2))
    found = []
    for part in parts:
        own = tuple(part[:-1])
        if own in blocks:
            last = part[-1].removeprefix("spiking").strip("_")
            found.append(f"block {blocks.index(own) + 1}, {f'neuron {last}' if last.isdigit() else last or 'neuron'}")
        elif len(part) == 2 and part[1].isdigit():
            found.append(f"layer {int(part[1]) + 1}")
        else:
            found.append(part[-1].removeprefix("spiking").strip("_").replace("_", " ") or "neuron")
    return found


def _heat_map(panel: str, lines: Sequence[Line]) -> _HeatMap:
    # Networks of other depth, such as the non-spiking twin, have other layers and cannot share a map.
    names = next((_layers(line) for line in lines if _layers(line)), [])
    alike = [line for line in lines if names and _layers(line) == names]
    return _HeatMap(panel, names, [_Rates(line.label, rates) for line in alike if (rates := _rates(line))])


def _layers(line: Line) -> list[str]:
    """Names of the layers; none where the runs do not agree."""
    names = {tuple(layer["name"] for layer in record.result["layers"]) for record in line.records if record.finished}
    return list(names.pop()) if len(names) == 1 else []


def _rates(line: Line) -> list[float]:
    """Mean over seeds of each layer; none where one was not measured."""
    rates = [[layer["spike_rate"] for layer in record.result["layers"]] for record in line.records if record.finished]
    if not rates or any(value is None for run in rates for value in run):
        return []
    return [float(value) for value in np.mean(rates, axis=0)]


def _show_rates(axis: Axes, heat_map: _HeatMap, top: float) -> AxesImage:
    """A panel's map on the colour scale from 0 to `top`, with numbers in it where they fit."""
    panel, names, rows = heat_map
    values = np.array([row.rates for row in rows])
    image = axis.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=top)
    axis.set_xticks(range(len(names)), layer_names(names), rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axis.set_yticks(range(len(rows)), [within(panel, row.label) for row in rows], fontsize=8)
    axis.grid(False)
    axis.set_title(panel)
    if len(names) <= 12:
        for (y, x), value in np.ndenumerate(values):
            # White letters on the dark half of the colour map.
            colour = "black" if value > 0.6 * top else "white"
            text = f"{value:.3f}"[1:] if value < 1 else "1"
            axis.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)
    return image


class _Weights(NamedTuple):
    """The input weights of a line's neuron, `[H][W]`."""

    label: str
    seed: int
    values: list[list[float]]


def weights(table: Table, lines: Sequence[Line]) -> Drawn | None:
    """One neuron's input weights as images, one a line (antonov2024, figure 2), where `probe=noise` kept them."""
    images = [kept for line in lines if (kept := _first_weights(line)) is not None]
    if not images:
        return None

    def draw() -> Figure:
        columns = min(len(images), 5)
        rows = math.ceil(len(images) / columns)
        figure = sheet(table, max(1.9 * columns + 0.9, 6.4), 2.15 * rows + 0.6)
        axes = figure.subplots(rows, columns, squeeze=False)
        largest = max(float(np.abs(kept.values).max()) for kept in images) or 1.0
        # Signed weights need a colour map with 0 in its middle.
        signed = any(float(np.min(kept.values)) < 0 for kept in images)
        for axis in axes.flat[len(images) :]:
            axis.axis("off")
        for axis, (label, seed, values) in zip(axes.flat, images, strict=False):
            image = axis.imshow(values, cmap="RdBu_r" if signed else "viridis", vmin=-largest * signed, vmax=largest)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.set_title(f"{label}\nseed {seed}", fontsize=8)
        figure.colorbar(image, ax=list(axes.ravel()), label="weight", shrink=0.8)
        return figure

    caption = "Input weights of neuron 0 at their pixels, of each line's first seed; one scale for all."
    return Drawn("weights", caption, images, draw)


def _first_weights(line: Line) -> _Weights | None:
    """Of the first seed that has any."""
    for record in line.records:
        values = _image(record.probes.get("noise", {}).get("input_weights") or {})
        if values is not None:
            return _Weights(within(line.panel, line.label), record.seed, values)
    return None


def _image(kept: Mapping[str, Any]) -> list[list[float]] | None:
    """Weights `[H][W]`, the mean over colours; None where those that were kept are no image."""
    values, shape = kept.get("neuron_0"), kept.get("shape")
    if not values or not shape or len(values) != math.prod(shape):
        return None
    image: list[list[float]] = np.reshape(values, shape).mean(0).tolist()
    return image
