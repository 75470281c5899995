"""The charts of `reports/index.html` as Vega-Lite specifications; importing this needs Altair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import altair as alt

from bench.records.schema import MEASURES, Field
from bench.report.words import ACCURACY, GAP, RATE

_HEIGHT = 250
_SYNOPS = MEASURES["synops_per_image"]
_ACC = ACCURACY.column
_PERCENT = f"{ACCURACY.heading} (%)"

_LINES = alt.NamedData(name="lines")
_TICKS: dict[str, Any] = {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 6, "grid": False}
_ABOUT = [
    alt.Tooltip("setting:N"), alt.Tooltip("data:N"), alt.Tooltip("model:N", title="network"),
    alt.Tooltip("budget:N"), alt.Tooltip("seeds:Q"), alt.Tooltip("diverged:Q"),
    alt.Tooltip(f"{_ACC}:Q", title=ACCURACY.heading, format=f".{ACCURACY.digits}f"),
    alt.Tooltip(f"{RATE.column}:Q", title="spike rate", format=f".{RATE.digits}f"),
    alt.Tooltip(f"{_SYNOPS.column}:Q", title="SynOps", format=".3s"),
    alt.Tooltip("verdict:N"),
]  # fmt: skip


class _Look(NamedTuple):
    """What a setting is told by in all charts: the colour of its regularizer, the shape of its network."""

    colour: alt.Color
    shape: alt.Shape

    def points(self, chart: alt.Chart, x: alt.X, y: alt.Y) -> alt.Chart:
        """A point for each setting, larger where it is picked."""
        return chart.mark_point(filled=True).encode(
            x=x,
            y=y,
            color=self.colour,
            shape=self.shape,
            size=alt.condition("datum.picked", alt.value(260), alt.value(70)),
            opacity=alt.condition("datum.picked", alt.value(1.0), alt.value(0.8)),
            tooltip=_ABOUT,
        )


def charts(colours: Mapping[str, str], shapes: Mapping[str, str]) -> list[dict[str, Any]]:
    """All charts, in the page's order: name, title, caption, specification, and which of the page's tables feeds it.

    Args:
        colours: of each regularizer.
        shapes: of each network, as Vega names them.
    """
    look = _Look(
        alt.Color("reg:N", legend=None, scale=alt.Scale(domain=list(colours), range=list(colours.values()))),
        alt.Shape("model:N", legend=None, scale=alt.Scale(domain=list(shapes), range=list(shapes.values()))),
    )
    return [
        _entry("rate", "Accuracy over spike rate", "Up and left is better.", "lines", _over_cost(look, RATE, "~g")),
        _entry("synops", "Accuracy over synaptic operations", "Up and left is better.", "lines",
               _over_cost(look, _SYNOPS, "~s")),
        _entry("strength", "Accuracy over the strength", "Settings with one strength above 0.", "lines",
               _over_strength(look, _accuracy())),
        _entry("spikes", "Spike rate over the strength", "The same settings.", "lines",
               _over_strength(look, alt.Y(f"{RATE.column}:Q", title=RATE.heading))),
        _entry("gap", "Train/test gap", "Right of 0 the network fits the training images better.", "lines",
               _over_gap(look)),
        _entry("curves", "Training curves", "Mean test accuracy over seeds; what counts is the last epoch.", "curves",
               _curves(look)),
        _entry("layers", "Spike rate by layer", "First layer to last, on the test set, mean over seeds.", "layers",
               _heat_map(), wide=True),
    ]  # fmt: skip


def _entry(
    name: str, title: str, caption: str, table: str, chart: alt.TopLevelMixin, wide: bool = False
) -> dict[str, Any]:
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    spec = chart.properties(width="container", height=_HEIGHT, autosize=fit).to_dict()
    # The page has a theme of its own.
    spec.pop("config", None)
    return {"name": name, "title": title, "caption": caption, "table": table, "spec": spec, "wide": wide}


def _accuracy() -> alt.Y:
    return alt.Y(f"{_ACC}:Q", title=_PERCENT, scale=alt.Scale(zero=False, nice=True))


def _logarithmic(field: str, title: str, form: str) -> alt.X:
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=12),
                 axis=alt.Axis(format=form, **_TICKS))  # fmt: skip


def _over_cost(look: _Look, cost: Field, form: str) -> alt.TopLevelMixin:
    """Accuracy and its interval over the log of a cost; `form` is how D3 writes the cost."""
    x = _logarithmic(cost.column, cost.heading, form)
    base = alt.Chart(_LINES).transform_filter(f"datum.{cost.column} > 0 && isValid(datum.{_ACC})")
    # An interval of two seeds may reach beyond what an accuracy can be, and must not stretch the axis.
    intervals = (
        base.transform_filter(f"isValid(datum.{_ACC}Low)")
        .transform_calculate(low=f"max(datum.{_ACC}Low, 0)", high=f"min(datum.{_ACC}High, 100)")
        .mark_rule(opacity=0.35)
        .encode(x=x, y=alt.Y("low:Q", title=_PERCENT), y2="high:Q", color=look.colour)
    )
    return alt.layer(intervals, look.points(base, x, _accuracy()))


def _over_strength(look: _Look, y: alt.Y) -> alt.TopLevelMixin:
    """Settings that differ in nothing but their strength, joined."""
    x = _logarithmic("strength", "strength", "~g")
    base = alt.Chart(_LINES).transform_filter(f"datum.strength > 0 && isValid(datum.{_ACC})")
    joined = base.mark_line(opacity=0.6).encode(x=x, y=y, color=look.colour, detail=["curve:N"])
    return alt.layer(joined, look.points(base, x, y))


def _over_gap(look: _Look) -> alt.Chart:
    """Accuracy over the gap between clean train and test accuracy."""
    x = alt.X(f"{GAP.column}:Q", title="clean train - test accuracy (points)", scale=alt.Scale(zero=True),
              axis=alt.Axis(labelOverlap="greedy", labelSeparation=6))  # fmt: skip
    base = alt.Chart(_LINES).transform_filter(f"isValid(datum.{GAP.column}) && isValid(datum.{_ACC})")
    return look.points(base, x, _accuracy())


def _curves(look: _Look) -> alt.Chart:
    """Accuracy over the epochs."""
    return (
        alt.Chart(alt.NamedData(name="curves"))
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(zero=False, nice=False)),
            y=_accuracy(),
            color=look.colour,
            detail=["id:N"],
            strokeWidth=alt.condition("datum.picked", alt.value(3.5), alt.value(1.2)),
            tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("model:N", title="network"), alt.Tooltip("epoch:Q"),
                     alt.Tooltip(f"{_ACC}:Q", title=ACCURACY.heading, format=f".{ACCURACY.digits}f")],
        )
    )  # fmt: skip


def _heat_map() -> alt.Chart:
    """The spike rate of every layer of every setting."""
    return (
        alt.Chart(alt.NamedData(name="layers"))
        .mark_rect()
        .encode(
            x=alt.X("place:O", title="spiking layer", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("line:N", title=None, axis=alt.Axis(labelLimit=230)),
            color=alt.Color("rate:Q", title="spike rate", scale=alt.Scale(scheme="viridis"),
                            legend=alt.Legend(orient="top", gradientLength=160)),
            stroke=alt.condition("datum.picked", alt.value("#ff5d5d"), alt.value(None)),
            tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("model:N", title="network"), alt.Tooltip("layer:N"),
                     alt.Tooltip("rate:Q", title="spike rate", format=f".{RATE.digits}f")],
        )
    )  # fmt: skip
