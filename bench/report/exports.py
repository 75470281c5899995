"""Numbers for other programs: `table.csv` of each table, `results.csv` and `results.json` of all records."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from bench.published.papers import METRICS
from bench.records.schema import FIELD, FIELDS, MEASURES
from bench.report.analysis import JUDGED, Analysis, TableRow
from bench.report.collect import StoredRun
from bench.report.contrasts import Scale

_REPLICATES = "how many records of the run from other machines or numbers of threads stand beside this one"
_DIRTY = "1 where tracked files differed from the commit; empty if unknown"


def table_csv(analysis: Analysis) -> str:
    """`table.csv`: a row for each row of the table, with all its statistics."""
    return _csv([_statistics(row, analysis.table.budget) for row in analysis.rows])


def _statistics(row: TableRow, budget: str) -> dict[str, Any]:
    """One row of `table.csv`."""
    line, rank = row.line, row.rank
    cells: dict[str, Any] = {
        "label": line.label,
        "group": line.group,
        "series": line.series,
        "reg": line.records[0].result["reg"],
        "strength": line.strength,
        "budget": budget,
        "seeds": " ".join(map(str, line.seeds)),
        "missing": " ".join(map(str, line.missing)),
        "diverged": " ".join(str(record.seed) for record in line.diverged),
    }
    for column in MEASURES:
        mean = row.estimate(column)
        cells |= {column: row.mean(column), f"{column}_low": mean and mean.low, f"{column}_high": mean and mean.high}
    for column in METRICS:
        theirs = (line.published or {}).get(column)
        cells |= {f"published_{column}": theirs, f"off_{column}": row.off(column)}
    cells["baseline"] = line.against.label if line.against is not None else None
    for column, scale in JUDGED.items():
        contrast = row.contrasts[column]
        # Accuracy's are the plain names.
        of = "" if scale is Scale.ACCURACY else f"{column}_"
        what, whole = ("difference", 0.0) if scale is Scale.ACCURACY else ("ratio", 1.0)
        ends = {"": "difference", "_low": "low", "_high": "high"}
        for end, name in ends.items():
            value = None if contrast is None else getattr(contrast, name)
            cells[f"{of}{what}{end}"] = None if value is None else value + whole
        cells[f"{of}p_holm"] = contrast and contrast.p
        cells[f"{of}verdict"] = contrast and contrast.verdict
    return cells | {
        "no_effect": int(line.idle),
        "rank": rank and rank.rank,
        "rank_low": rank and rank.low,
        "rank_high": rank and rank.high,
        "pareto_spike_rate": int(row.cheap),
        "pareto_synops": int(row.frugal),
    }


def results_csv(records: Sequence[StoredRun]) -> str:
    """`results.csv`: a row for each record."""
    return _csv([_entries(record) for record in records])


def results_json(records: Sequence[StoredRun]) -> str:
    """`results.json`: the same rows as a list of objects."""
    rows = [{column: _exact(value) for column, value in _entries(record).items()} for record in records]
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def columns() -> dict[str, str]:
    """Columns of `results.csv` and keys of `results.json`, each with its meaning: those of `result.json`, nested ones
    under dotted keys, and whether the tree had changed."""
    documented = {field.key: field.says for field in FIELDS if field.says}
    names = list(documented)
    place = names.index("commit") + 1
    added = {"dirty": _DIRTY, "replicates": _REPLICATES}
    return {name: {**documented, **added}[name] for name in [*names[:place], *added, *names[place:]]}


def _entries(record: StoredRun) -> dict[str, Any]:
    """One row of `results.csv`."""
    return {
        column: json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
        for column, value in entries(record).items()
    }


def entries(record: StoredRun) -> dict[str, Any]:
    """A record's entries by the names of `columns`."""
    row: dict[str, Any] = {}
    for column in columns():
        if column == "dirty":
            row[column] = None if record.dirty is None else int(record.dirty)
            continue
        if column == "replicates":
            row[column] = len(record.replicates)
            continue
        row[column] = FIELD[column].value(record.result)
    return row


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as CSV; nothing for None."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None else _exact(value) for key, value in row.items()})
    return out.getvalue()


def _exact(value: Any) -> Any:
    """A number to 10 significant digits: what all machines that add up in another order agree on."""
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value
