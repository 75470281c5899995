"""`reports/index.html`: all records in one page with linked filters, charts and tables, and nothing to be fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.records.schema import MEASURES, Field
from bench.report.analysis import Analysis, TableRow
from bench.report.collect import StoredRun
from bench.report.figures import COLOURS, GREY
from bench.report.grids import Line

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
HEIGHT = 250

ACCURACY, RATE, GAP = MEASURES["test_acc"], MEASURES["test_spike_rate"], MEASURES["gap"]
SHOWN = [ACCURACY, GAP, RATE, *(field for field in MEASURES.values() if field.counted or field.derive)]
"""What the page knows of a setting, besides the difference to its baseline."""

Column = tuple[str, str, int | None, int]
"""Key, heading, digits (None for text), and what a number is multiplied by for people."""


def text_column(key: str, heading: str = "") -> Column:
    """A column of text, or of whole numbers that are shown as they are."""
    return key, heading or key, None, 1


def number_column(field: Field) -> Column:
    """A column of measured numbers."""
    return field.column, field.heading, field.digits, field.factor


def columns() -> dict[str, list[Column]]:
    """Of the page's two tables."""
    accuracy, *others = map(number_column, SHOWN)
    difference: Column = ("difference", "difference", GAP.digits, 1)
    return {
        "lines": [
            *map(text_column, ("setting", "data")), text_column("model", "network"), text_column("budget"),
            ("seeds", "seeds", 0, 1), ("diverged", "diverged", 0, 1), accuracy, difference, text_column("verdict"),
            *others,
        ],
        "runs": [
            *map(text_column, ("run", "setting", "budget")), ("seed", "seed", 0, 1), text_column("status"), accuracy,
            *others, *map(text_column, ("hardware", "commit")),
        ],
    }  # fmt: skip


def available() -> bool:
    """Whether the packages that draw the page's charts are installed (extra `report`)."""
    return all(importlib.util.find_spec(name) is not None for name in ("altair", "vl_convert"))


def render(found: Sequence[Analysis], reports: Sequence[Analysis], records: Sequence[StoredRun]) -> str:
    """The page.

    Args:
        found: of all groups of records.
        reports: the tables that have folders.
        records: all.
    """
    import altair
    import vl_convert  # type: ignore[import-not-found,unused-ignore]

    data = content(found, reports, records)
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    data["charts"] = charts(data)
    parts = {
        "$NOTE": f"source sha256:{digest}; snn-bench, Altair {altair.__version__}",
        "$FOOTER": (
            "Charts: Vega and Vega-Lite, University of Washington Interactive Data Lab, BSD-3-Clause, inlined. This "
            "page loads nothing from anywhere."
        ),
        # No "<" inside a script: "</script>" in a label would end it.
        "$DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "$LIBRARIES": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"),
    }
    text = (Path(__file__).parent / "page.html").read_text()
    for name, value in parts.items():
        head, _, tail = text.partition(name)
        text = head + value + tail
    return text


def content(found: Sequence[Analysis], reports: Sequence[Analysis], records: Sequence[StoredRun]) -> dict[str, Any]:
    """Everything on the page but the charts' specifications, rounded to what is shown."""
    lines, curves, layers, runs = [], [], [], []
    for place, analysis in enumerate(found):
        many = any(other is not analysis and other.table.name == analysis.table.name
                   and other.table.budget == analysis.table.budget for other in found)  # fmt: skip
        for number, row in enumerate(analysis.rows):
            # The variant tells groups apart that share data, network and budget.
            first = row.line.records[0].result
            base = {
                "id": f"{place}.{number}",
                "data": first["data"],
                "model": first["model"],
                "budget": first["budget"],
                "reg": first["reg"],
                "setting": row.line.label + (f" ({analysis.table.variant})" if many else ""),
            }
            lines.append({**base, **_line(row), "curve": f"{place} {row.line.series}", "strength": row.line.strength})
            curves += [{**base, **point} for point in _curve(row.line)]
            layers += [{**base, **point} for point in _layers(row.line)]
            runs += [{**base, **_run(record)} for record in row.line.records]
    facets = {key: sorted({line[key] for line in lines}) for key in ("data", "budget", "model", "reg")}
    facets["reg"].sort(key=lambda name: (name != "none", name))
    others = [name for name in facets["reg"] if name != "none"]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
    seeds = len({record.seed for record in records})
    # It opens on the data set and budget with the most runs.
    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        counts[run["data"], run["budget"]] = counts.get((run["data"], run["budget"]), 0) + 1
    start = max(sorted(counts), key=lambda place: counts[place])
    return {
        "about": (
            f"{len(records)} runs of spiking networks with {len(others)} regularizers, {seeds} seeds. Accuracies are "
            "the last epoch's, on the test set. Spike rate: spikes / (neurons x time steps x images)."
        ),
        "facets": facets,
        "start": {"data": start[0], "budget": start[1]},
        "colours": {"none": GREY, **colours},
        "shapes": {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(facets["model"])},
        "lines": lines,
        "curves": curves,
        "layers": layers,
        "runs": runs,
        "columns": columns(),
        "reports": [[of.table.folder, of.table.title] for of in reports],
    }


def _short(value: float | None, digits: int = 5) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _line(row: TableRow) -> dict[str, Any]:
    found: dict[str, Any] = {"seeds": len(row.line.seeds), "diverged": len(row.line.diverged)}
    for field in SHOWN:
        found[field.column] = _short(row.mean(field.column))
    for field in (ACCURACY, RATE):
        mean = row.means[field.column]
        found[f"{field.column}Low"] = _short(mean.low if mean else None)
        found[f"{field.column}High"] = _short(mean.high if mean else None)
    difference = row.pair.difference if row.pair is not None else None
    found |= {
        "difference": _short(difference.mean if difference else None),
        "differenceLow": _short(difference.low if difference else None),
        "differenceHigh": _short(difference.high if difference else None),
        "verdict": "baseline" if row.line.against is None else row.verdict,
    }
    return found


def _run(record: StoredRun) -> dict[str, Any]:
    return {
        "run": record.run_id,
        "seed": record.seed,
        "status": record.result["status"],
        **{field.column: _short(record.number(field.key)) for field in SHOWN},
        "hardware": record.result["hardware"],
        "commit": (record.result["commit"] or "unknown")[:10],
    }


def _curve(line: Line) -> list[dict[str, Any]]:
    by_epoch: dict[int, list[float]] = {}
    runs = [record for record in line.records if record.finished and record.epochs]
    for record in runs:
        for row in record.epochs:
            accuracy = (row.get("test") or {}).get("acc")
            if accuracy is not None:
                by_epoch.setdefault(row["epoch"] + 1, []).append(accuracy)
    # At most 60 points a curve: a page, not an archive.
    epochs = sorted(epoch for epoch, values in by_epoch.items() if len(values) == len(runs))
    step = -(-len(epochs) // 60) or 1
    kept = sorted({*epochs[::step], *epochs[-1:]})
    return [{"epoch": epoch, ACCURACY.column: _short(sum(by_epoch[epoch]) / len(runs), 4)} for epoch in kept]


def _layers(line: Line) -> list[dict[str, Any]]:
    runs = [record.result["layers"] for record in line.records if record.finished]
    if not runs or len({len(layers) for layers in runs}) != 1:
        return []
    found = []
    for place, of in enumerate(zip(*runs, strict=True)):
        rates = [layer["spike_rate"] for layer in of if layer["spike_rate"] is not None]
        if len(rates) == len(runs):
            found.append({"place": place + 1, "layer": of[0]["name"], "rate": _short(sum(rates) / len(rates), 4)})
    return found


def charts(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The charts: specification, and which of the page's tables feeds it."""
    import altair as alt

    regs, models = data["facets"]["reg"], data["facets"]["model"]
    acc, rate, synops, gap_ = ACCURACY.column, RATE.column, MEASURES["synops_per_image"].column, GAP.column
    colour = alt.Color(
        "reg:N", legend=None, scale=alt.Scale(domain=regs, range=[data["colours"][name] for name in regs])
    )
    shape = alt.Shape(
        "model:N", legend=None, scale=alt.Scale(domain=models, range=[data["shapes"][name] for name in models])
    )
    accuracy = alt.Y(f"{acc}:Q", title="test accuracy (%)", scale=alt.Scale(zero=False, nice=True))
    picked = alt.condition("datum.picked", alt.value(1.0), alt.value(0.8))
    size = alt.condition("datum.picked", alt.value(260), alt.value(70))
    about = [
        alt.Tooltip("setting:N"), alt.Tooltip("data:N"), alt.Tooltip("model:N", title="network"),
        alt.Tooltip("budget:N"), alt.Tooltip("seeds:Q"), alt.Tooltip("diverged:Q"),
        alt.Tooltip(f"{acc}:Q", title="test accuracy", format=".2f"),
        alt.Tooltip(f"{rate}:Q", title="spike rate", format=".4f"),
        alt.Tooltip(f"{synops}:Q", title="SynOps", format=".3s"),
        alt.Tooltip("verdict:N"),
    ]  # fmt: skip
    lines = alt.NamedData(name="lines")
    ticks: dict[str, Any] = {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 6, "grid": False}

    def scatter(field: str, title: str, form: str) -> Any:
        x = alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=12),
                  axis=alt.Axis(format=form, **ticks))  # fmt: skip
        base = alt.Chart(lines).transform_filter(f"datum.{field} > 0 && isValid(datum.{acc})")
        points = base.mark_point(filled=True).encode(
            x=x, y=accuracy, color=colour, shape=shape, size=size, opacity=picked, tooltip=about
        )
        # An interval of two seeds may reach beyond what an accuracy can be, and must not stretch the axis.
        up = (
            base.transform_filter(f"isValid(datum.{acc}Low)")
            .transform_calculate(low=f"max(datum.{acc}Low, 0)", high=f"min(datum.{acc}High, 100)")
            .mark_rule(opacity=0.35)
            .encode(x=x, y=alt.Y("low:Q", title="test accuracy (%)"), y2="high:Q", color=colour)
        )
        return alt.layer(up, points)

    strengths = alt.Chart(lines).transform_filter(f"datum.strength > 0 && isValid(datum.{acc})")
    strength = alt.X("strength:Q", title="strength", scale=alt.Scale(type="log", nice=False, padding=12),
                     axis=alt.Axis(format="~g", **ticks))  # fmt: skip

    def response(y: Any) -> Any:
        encoding = {"x": strength, "y": y, "color": colour}
        return alt.layer(
            strengths.mark_line(opacity=0.6).encode(**encoding, detail=["curve:N"]),
            strengths.mark_point(filled=True).encode(**encoding, shape=shape, size=size, opacity=picked, tooltip=about),
        )

    gap = (
        alt.Chart(lines)
        .transform_filter(f"isValid(datum.{gap_}) && isValid(datum.{acc})")
        .mark_point(filled=True)
        .encode(
            x=alt.X(f"{gap_}:Q", title="clean train - test accuracy (points)", scale=alt.Scale(zero=True),
                    axis=alt.Axis(labelOverlap="greedy", labelSeparation=6)),
            y=accuracy, color=colour, shape=shape, size=size, opacity=picked, tooltip=about,
        )
    )  # fmt: skip
    curves = (
        alt.Chart(alt.NamedData(name="curves"))
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(zero=False, nice=False)),
            y=accuracy,
            color=colour,
            detail=["id:N"],
            strokeWidth=alt.condition("datum.picked", alt.value(3.5), alt.value(1.2)),
            tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("model:N", title="network"), alt.Tooltip("epoch:Q"),
                     alt.Tooltip(f"{acc}:Q", title="test accuracy", format=".2f")],
        )
    )  # fmt: skip
    heat = (
        alt.Chart(alt.NamedData(name="layers"))
        .mark_rect()
        .encode(
            x=alt.X("place:O", title="spiking layer", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("line:N", title=None, axis=alt.Axis(labelLimit=230)),
            color=alt.Color("rate:Q", title="spike rate", scale=alt.Scale(scheme="viridis"),
                            legend=alt.Legend(orient="top", gradientLength=160)),
            stroke=alt.condition("datum.picked", alt.value("#ff5d5d"), alt.value(None)),
            tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("model:N", title="network"), alt.Tooltip("layer:N"),
                     alt.Tooltip("rate:Q", title="spike rate", format=".4f")],
        )
    )  # fmt: skip
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")

    def entry(name: str, title: str, caption: str, table: str, chart: Any, wide: bool = False) -> dict[str, Any]:
        spec = chart.properties(width="container", height=HEIGHT, autosize=fit).to_dict()
        # The page has a theme of its own.
        spec.pop("config", None)
        return {"name": name, "title": title, "caption": caption, "table": table, "spec": spec, "wide": wide}

    return [
        entry("rate", "Accuracy over spike rate", "Up and left is better.", "lines",
              scatter(rate, RATE.heading, "~g")),
        entry("synops", "Accuracy over synaptic operations", "Up and left is better.", "lines",
              scatter(synops, MEASURES[synops].heading, "~s")),
        entry("strength", "Accuracy over the strength", "Settings with one strength above 0.", "lines",
              response(accuracy)),
        entry("spikes", "Spike rate over the strength", "The same settings.", "lines",
              response(alt.Y(f"{rate}:Q", title=RATE.heading))),
        entry("gap", "Train/test gap", "Right of 0 the network fits the training images better.", "lines", gap),
        entry("curves", "Training curves", "Mean test accuracy over seeds; what counts is the last epoch.", "curves",
              curves),
        entry("layers", "Spike rate by layer", "First layer to last, on the test set, mean over seeds.", "layers",
              heat, wide=True),
    ]  # fmt: skip
