"""`reports/index.html`: all records in one page with linked filters, charts and tables, and nothing to be fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.records.schema import MEASURES, Field
from bench.report.analysis import Analysis, TableRow
from bench.report.collect import StoredRun
from bench.report.figures import COLOURS, GREY
from bench.report.tables import Line
from bench.report.words import ACCURACY, GAP, NOTHING, RATE, replicates_text

# As Vega names them.
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
# What the page knows of a setting, besides the difference to its baseline.
_SHOWN = [ACCURACY, GAP, RATE, *(field for field in MEASURES.values() if field.counted or field.derive)]


class _Column(NamedTuple):
    """A column of one of the page's tables.

    Attributes:
        key: the rows' key.
        heading: what people are shown.
        digits: of a number, after the point; None for text.
        factor: what a number is multiplied by for people.
    """

    key: str
    heading: str
    digits: int | None = None
    factor: int = 1


def _text_column(key: str, heading: str = "") -> _Column:
    """A column of texts, or of whole numbers that are shown as they are."""
    return _Column(key, heading or key)


def _count_column(key: str) -> _Column:
    return _Column(key, key, digits=0)


def _number_column(field: Field) -> _Column:
    return _Column(field.column, field.heading, field.digits, field.factor)


def _columns() -> dict[str, list[_Column]]:
    """The columns of the page's two tables: of settings and of runs."""
    accuracy, *others = map(_number_column, _SHOWN)
    return {
        "lines": [
            *map(_text_column, ("setting", "data")), _text_column("model", "network"), _text_column("budget"),
            *map(_count_column, ("seeds", "diverged")), accuracy, _Column("difference", "difference", GAP.digits),
            _text_column("verdict"), *others,
        ],
        "runs": [
            *map(_text_column, ("run", "setting", "budget")), _count_column("seed"), _text_column("status"), accuracy,
            *others, *map(_text_column, ("hardware", "commit")),
        ],
    }  # fmt: skip


def available() -> bool:
    """Whether the packages that draw the page's charts are installed (extra `report`)."""
    return all(importlib.util.find_spec(name) is not None for name in ("altair", "vl_convert"))


def render(groups: Sequence[Analysis], reports: Sequence[Analysis], records: Sequence[StoredRun]) -> str:
    """The page, where its packages are `available`.

    Args:
        groups: of all groups of records: what is shown.
        reports: of the tables that have folders: what is linked.
        records: all records.
    """
    import altair
    import vl_convert  # type: ignore[import-not-found,unused-ignore]

    from bench.report.charts import charts

    content = _content(groups, reports, records)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    colours = {name: content["colours"][name] for name in content["facets"]["reg"]}
    content["charts"] = charts(colours, content["shapes"])
    parts = {
        "$NOTE": f"source sha256:{digest}; snn-bench, Altair {altair.__version__}",
        "$FOOTER": (
            "Charts: Vega and Vega-Lite, University of Washington Interactive Data Lab, BSD-3-Clause, inlined. This "
            "page loads nothing from anywhere."
        ),
        # No "<" inside a script: "</script>" in a label would end it.
        "$DATA": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        "$LIBRARIES": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"),
    }
    text = (Path(__file__).parent / "page.html").read_text()
    for name, value in parts.items():
        head, _, tail = text.partition(name)
        text = head + value + tail
    return text


def _content(groups: Sequence[Analysis], reports: Sequence[Analysis], records: Sequence[StoredRun]) -> dict[str, Any]:
    """Everything on the page but the charts' specifications, rounded to what is shown."""
    tables = _tables(groups)
    facets = {key: sorted({line[key] for line in tables["lines"]}) for key in ("data", "budget", "model", "reg")}
    facets["reg"].sort(key=lambda name: (name != "none", name))
    others = [name for name in facets["reg"] if name != "none"]
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(others)}
    seeds = len({record.seed for record in records})
    # It opens on the data set and budget with the most runs.
    counts = Counter((run["data"], run["budget"]) for run in tables["runs"])
    data, budget = max(sorted(counts), key=lambda pair: counts[pair])
    return {
        "about": (
            f"{len(records)} runs of spiking networks with {len(others)} regularizers, {seeds} seeds. Accuracies are "
            "the last epoch's, on the test set. Spike rate: spikes / (neurons x time steps x images)."
            + (f" {apart}." if (apart := replicates_text(records)) else "")
        ),
        "facets": facets,
        "start": {"data": data, "budget": budget},
        "colours": {"none": GREY, **colours},
        "shapes": {name: _SHAPES[place % len(_SHAPES)] for place, name in enumerate(facets["model"])},
        **tables,
        "columns": _columns(),
        "reports": [[analysis.table.folder, analysis.table.title] for analysis in reports],
    }


def _tables(groups: Sequence[Analysis]) -> dict[str, list[dict[str, Any]]]:
    """What the page's tables and charts are fed from: a row for each setting, point of a curve, layer and run."""
    lines, curves, layers, runs = [], [], [], []
    for place, analysis in enumerate(groups):
        many = any(other is not analysis and other.table.name == analysis.table.name
                   and other.table.budget == analysis.table.budget for other in groups)  # fmt: skip
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
            layers += [{**base, **layer} for layer in _layers(row.line)]
            runs += [{**base, **_run(record)} for record in row.line.records]
    return {"lines": lines, "curves": curves, "layers": layers, "runs": runs}


def _short(value: float | None, digits: int = 5) -> float | None:
    """A number to so many significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")


def _line(row: TableRow) -> dict[str, Any]:
    """A setting's numbers, over seeds."""
    cells: dict[str, Any] = {"seeds": len(row.line.seeds), "diverged": len(row.line.diverged)}
    for field in _SHOWN:
        cells[field.column] = _short(row.mean(field.column))
    for field in (ACCURACY, RATE):
        mean = row.means[field.column]
        cells[f"{field.column}Low"] = _short(mean.low if mean else None)
        cells[f"{field.column}High"] = _short(mean.high if mean else None)
    difference = row.pair.difference if row.pair is not None else None
    return cells | {
        "difference": _short(difference.mean if difference else None),
        "differenceLow": _short(difference.low if difference else None),
        "differenceHigh": _short(difference.high if difference else None),
        "verdict": "baseline" if row.line.against is None else NOTHING if row.line.idle else row.verdict,
    }


def _run(record: StoredRun) -> dict[str, Any]:
    return {
        "run": record.run_id,
        "seed": record.seed,
        "status": record.result["status"],
        **{field.column: _short(record.number(field.key)) for field in _SHOWN},
        "hardware": record.result["hardware"],
        "commit": (record.result["commit"] or "unknown")[:10],
    }


def _curve(line: Line) -> list[dict[str, Any]]:
    """Mean test accuracy of the epochs that all runs have."""
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
    """Mean spike rate of each layer that was measured in all runs; none where the runs' layers differ in number."""
    runs = [record.result["layers"] for record in line.records if record.finished]
    if not runs or len({len(layers) for layers in runs}) != 1:
        return []
    rows = []
    for place, same in enumerate(zip(*runs, strict=True), 1):
        rates = [layer["spike_rate"] for layer in same if layer["spike_rate"] is not None]
        if len(rates) == len(runs):
            rows.append({"place": place, "layer": same[0]["name"], "rate": _short(sum(rates) / len(rates), 4)})
    return rows
