"""The charts of `reports/index.html` as Vega-Lite specifications; importing this needs Altair."""

from __future__ import annotations

from typing import Any

import altair as alt

from bench.records.schema import MEASURES, Field
from bench.report.words import ACCURACY, GAP, RATE

COSTS: dict[str, tuple[Field, str]] = {
    "rate": (RATE, "~g"),
    "synops": (MEASURES["synops_per_image"], "~s"),
    "energy": (MEASURES["energy_uj"], "~g"),
}
"""What accuracy is drawn over, by the page's name for it: the number, and how D3 writes it."""

_ACC = ACCURACY.column
_PERCENT = f"{ACCURACY.heading} (%)"
_TICKS: dict[str, Any] = {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 6, "grid": False}
_POINTS, _BASE, _ALL = alt.NamedData(name="points"), alt.NamedData(name="base"), alt.NamedData(name="all")
# Colours and shapes stand in the data: a method keeps its own, whatever else is shown.
_COLOUR, _SHAPE = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
_DASH = alt.condition("datum.reg === 'none'", alt.value([5, 4]), alt.value([1, 0]))
_PALE = "#8d95a3"
_ABOUT = [
    alt.Tooltip("setting:N"), alt.Tooltip("seeds:N", title="n"),
    alt.Tooltip(f"{_ACC}:Q", title=ACCURACY.heading, format=f".{ACCURACY.digits}f"),
    alt.Tooltip(f"{RATE.column}:Q", title="spike rate", format=f".{RATE.digits}f"),
    alt.Tooltip("verdict:N", title="accuracy against none"),
]  # fmt: skip


def charts() -> list[dict[str, Any]]:
    """All charts in the page's order.

    Each has a name, a title, a caption, the kind of selection that has it, the data it is drawn from, its
    specifications (one, or one for each cost and each scale of accuracy), and how the page sizes it: `wide`,
    `small` for an axis a method, `rows` for a height that follows from the data.
    """
    over = {
        f"{name}-{scale}": _spec(_over_cost(field, form, scale == "stretched"), 360)
        for name, (field, form) in COSTS.items()
        for scale in ("even", "stretched")
    }
    axis = "an axis a method"
    return [
        {"name": "tradeoff", "title": "Accuracy for spikes", "caption": "Up and left is better. Bars: 95 % intervals. "
         "Dashed: no regularizer.", "kinds": ["board", "group"], "data": "points", "specs": over, "size": "wide"},
        _small("trials", "Every trial of the search", f"Validation accuracy, {axis}, all others' trials pale.",
               "board", "trials", _trials()),
        _small("best", "Expected best of the first n trials", f"Validation accuracy, {axis}, all others pale.",
               "board", "best", _learning("n", "trials", "acc", "validation accuracy (%)")),
        _small("strength", "Accuracy over the strength", f"{axis.capitalize()}, each with its own strengths. "
               "Dashed: no regularizer.", "group", "swept", _over_strength(_ACC, _PERCENT)),
        _small("spikes", "Spike rate over the strength", "The same settings. Dashed: no regularizer.", "group", "swept",
               _over_strength(RATE.column, RATE.heading)),
        _small("curves", "Training curves", f"Test accuracy over the epochs, {axis}, all others pale; what "
               "counts is the last epoch.", "group", "curves", _learning("epoch", "epoch", _ACC, _PERCENT)),
        {"name": "gap", "title": "Train/test gap", "caption": "Right of 0 the network fits the training images better.",
         "kinds": ["group"], "data": "points", "specs": {"": _spec(_over_gap(), 300)}, "size": "wide"},
        {"name": "layers", "title": "Spike rate by layer", "caption": "First layer to last, on the test set.",
         "kinds": ["group"], "data": "layers", "specs": {"": _spec(_heat_map(), 300)}, "size": "rows"},
    ]  # fmt: skip


def _spec(chart: alt.TopLevelMixin, height: int) -> dict[str, Any]:
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    return _plain(chart.properties(width="container", height=height, autosize=fit))


def _small(name: str, title: str, caption: str, kind: str, data: str, chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart of small axes, whose width the page sets."""
    return {"name": name, "title": title, "caption": caption, "kinds": [kind], "data": data,
            "specs": {"": _plain(chart)}, "size": "small"}  # fmt: skip


def _plain(chart: alt.TopLevelMixin) -> dict[str, Any]:
    spec = chart.to_dict()
    # The page has a theme of its own.
    spec.pop("config", None)
    return spec


def _accuracy(field: str = _ACC, title: str = _PERCENT) -> alt.Y:
    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False, nice=True),
                 axis=alt.Axis(tickCount=5))  # fmt: skip


def _over_cost(cost: Field, form: str, stretched: bool) -> alt.TopLevelMixin:
    """Accuracy and its interval over the log of a cost.

    Args:
        cost: a number of the points.
        form: how D3 writes it.
        stretched: the axis of accuracies is logarithmic in what is missing to 100 %, so that a collapse does not press
            all else onto one line.
    """
    column = cost.column
    x = alt.X(f"{column}:Q", title=cost.heading, scale=alt.Scale(type="log", nice=False, padding=24),
              axis=alt.Axis(format=form, **_TICKS))  # fmt: skip

    def place(field: str) -> str:
        """Where an accuracy lies on the axis."""
        inside = f"min(max({field}, 0), 100)"
        return f"max(100 - {inside}, 0.05)" if stretched else inside

    if stretched:
        y = alt.Y("y:Q", title=_PERCENT, scale=alt.Scale(type="log", reverse=True, nice=False, zero=False),
                  axis=alt.Axis(values=[0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90], labelOverlap="greedy",
                                labelExpr="format(100 - datum.value, '~g')"))  # fmt: skip
    else:
        y = alt.Y("y:Q", title=_PERCENT, scale=alt.Scale(zero=False, nice=True))
    known = f"datum.{column} > 0 && isValid(datum.{_ACC})"
    base = alt.Chart(_POINTS).transform_filter(known).transform_calculate(
        y=place(f"datum.{_ACC}"), low=place(f"datum.{_ACC}Low"), high=place(f"datum.{_ACC}High")
    )  # fmt: skip
    none = alt.Chart(_BASE).transform_filter(known).transform_calculate(y=place(f"datum.{_ACC}"))
    bars = base.transform_filter(f"isValid(datum.{_ACC}Low)")
    joined = base.transform_filter("datum.strength > 0")
    return alt.layer(
        none.mark_rule(strokeDash=[5, 4], opacity=0.8).encode(y=y, color=_COLOUR),
        none.mark_rule(strokeDash=[5, 4], opacity=0.8).encode(x=x, color=_COLOUR),
        joined.mark_line(opacity=0.35, strokeWidth=1.2).encode(
            x=x, y=y, color=_COLOUR, detail=["curve:N"], order=alt.Order("strength:Q")
        ),
        bars.mark_rule(opacity=0.4).encode(x=x, y=alt.Y("low:Q", title=_PERCENT), y2="high:Q", color=_COLOUR),
        base.mark_point(filled=True).encode(
            x=x, y=y, color=_COLOUR, shape=_SHAPE, tooltip=_ABOUT,
            size=alt.condition("datum.picked", alt.value(300), alt.value(95)),
            opacity=alt.condition("datum.picked", alt.value(1.0), alt.value(0.9)),
        ),
        base.transform_filter("datum.label").mark_text(align="left", dx=9, dy=-7, fontSize=11).encode(
            x=x, y=y, text="label:N"
        ),
    )  # fmt: skip


def _facet(layers: Any, data: str) -> Any:
    """An axis for each method."""
    head = alt.Header(title=None, labelFontWeight="bold", labelFontSize=12, labelPadding=4)
    return layers.facet(facet=alt.Facet("reg:N", header=head, sort=alt.SortField("place")), columns=3,
                        data=alt.NamedData(name=data), spacing=18)  # fmt: skip


def _learning(key: str, title: str, field: str, heading: str) -> Any:
    """What grows along epochs or trials: a method's lines, all others pale behind them."""
    x = alt.X(f"{key}:Q", title=title, axis=alt.Axis(labelExpr="datum.value % 1 ? '' : datum.value", grid=False),
              scale=alt.Scale(zero=False, nice=False))  # fmt: skip
    y = _accuracy(field, heading)
    others = alt.Chart(_ALL).mark_line(strokeWidth=0.7, opacity=0.28, color=_PALE)
    own = alt.Chart().mark_line(clip=True)
    tip = [alt.Tooltip("setting:N"), alt.Tooltip(f"{key}:Q", title=title), alt.Tooltip(f"{field}:Q", title="accuracy",
           format=f".{ACCURACY.digits}f")]  # fmt: skip
    return _facet(
        alt.layer(
            others.encode(x=x, y=y, detail=["id:N"]),
            own.encode(
                x=x, y=y, color=_COLOUR, detail=["id:N"], strokeDash=_DASH, tooltip=tip,
                strokeWidth=alt.condition("datum.picked", alt.value(3.5), alt.value(1.7)),
            ),
        ),
        "own",
    )  # fmt: skip


def _trials() -> Any:
    """Validation accuracy over spike rate of every trial of a search."""
    x = alt.X("rate:Q", title="spike rate", scale=alt.Scale(zero=True, nice=True),
              axis=alt.Axis(tickCount=4, grid=False))  # fmt: skip
    y = _accuracy("acc", "validation accuracy (%)")
    tip = [alt.Tooltip("reg:N", title="method"), alt.Tooltip("acc:Q", title="validation accuracy", format=".2f"),
           alt.Tooltip("rate:Q", title="spike rate", format=".4f")]  # fmt: skip
    return _facet(
        alt.layer(
            alt.Chart(_ALL).mark_point(filled=True, size=16, opacity=0.25, color=_PALE).encode(x=x, y=y),
            alt.Chart().mark_point(filled=True, size=55, opacity=0.9).encode(x=x, y=y, color=_COLOUR, tooltip=tip),
        ),
        "own",
    )


def _over_strength(field: str, title: str) -> Any:
    """Settings that differ in nothing but their strength, joined; no regularizer as a dashed line."""
    x = alt.X("strength:Q", title="strength", scale=alt.Scale(type="log", nice=False, padding=8),
              axis=alt.Axis(format="~g", **_TICKS))  # fmt: skip
    y = alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=field != _ACC, nice=True), axis=alt.Axis(tickCount=5))
    none = alt.Chart(_BASE).transform_filter(f"isValid(datum.{field})").mark_rule(strokeDash=[5, 4])
    own = alt.Chart().transform_filter(f"datum.strength > 0 && isValid(datum.{field})")
    faceted = _facet(
        alt.layer(
            none.encode(y=y, color=_COLOUR),
            own.mark_line().encode(x=x, y=y, color=_COLOUR, detail=["curve:N"]),
            own.mark_point(filled=True, size=50).encode(x=x, y=y, color=_COLOUR, shape=_SHAPE, tooltip=_ABOUT),
        ),
        "own",
    )
    return faceted.resolve_scale(x="independent")


def _over_gap() -> alt.TopLevelMixin:
    """Accuracy over the gap between clean train and test accuracy."""
    x = alt.X(f"{GAP.column}:Q", title="clean train - test accuracy (points)", scale=alt.Scale(zero=True),
              axis=alt.Axis(tickCount=8, labelOverlap="greedy", labelSeparation=6))  # fmt: skip
    base = alt.Chart(_POINTS).transform_filter(f"isValid(datum.{GAP.column}) && isValid(datum.{_ACC})")
    points = base.mark_point(filled=True).encode(
        x=x, y=_accuracy(), color=_COLOUR, shape=_SHAPE, tooltip=_ABOUT,
        size=alt.condition("datum.picked", alt.value(260), alt.value(70)),
    )  # fmt: skip
    return alt.layer(points)


def _heat_map() -> alt.TopLevelMixin:
    """The spike rate of every layer of every setting."""
    return (
        alt.Chart(alt.NamedData(name="own"))
        .mark_rect()
        .encode(
            x=alt.X("layer:N", title=None, sort=alt.SortField("place"), axis=alt.Axis(labelAngle=-35, labelLimit=140)),
            y=alt.Y("setting:N", title=None, sort=alt.SortField("order"), axis=alt.Axis(labelLimit=190)),
            color=alt.Color("rate:Q", title="spike rate", scale=alt.Scale(scheme="viridis", domainMin=0),
                            legend=alt.Legend(orient="top", gradientLength=160)),
            stroke=alt.condition("datum.picked", alt.value("#ff5d5d"), alt.value(None)),
            tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("layer:N"),
                     alt.Tooltip("rate:Q", title="spike rate", format=f".{RATE.digits}f")],
        )
    )  # fmt: skip
