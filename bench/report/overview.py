"""`reports/README.md`: a list of all tables, and what the columns of `results.csv` mean."""

from __future__ import annotations

from collections.abc import Sequence

from bench import markdown
from bench.report.analysis import Analysis
from bench.report.collect import StoredRun
from bench.report.exports import columns
from bench.report.words import MARK, numbers_table, replicates_text


def overview(analyses: Sequence[Analysis], records: Sequence[StoredRun], left_out: Sequence[str]) -> str:
    """The overview.

    Args:
        analyses: of all tables that have folders.
        records: all records.
        left_out: a line for each record, probe or table that was left out.
    """
    rows = []
    for analysis in analyses:
        table = analysis.table
        kind = f"`{table.budget}`" + (", reduced" if table.reduced else "")
        seeds = len({record.seed for record in table.records})
        rows.append(
            (f"[{table.folder}]({table.folder}/README.md)", table.title, kind, str(len(table.records)), str(seeds))
        )
    parts = [
        f"{MARK}`; do not edit. -->",
        "# Reports",
        "Built from records alone by `bench report`; `bench report --check` says whether they "
        "still follow from `records/`. `index.html` shows all records with filters and needs no network.",
        numbers_table(("report", "what", "budget", "runs", "seeds"), rows),
        "All budgets but `paper` are reduced runs: trends, not the papers' numbers.",
        *([f"Replicates: {apart}. No table counts them."] if (apart := replicates_text(records)) else []),
        *(["Left out:", "\n".join(f"- {line}" for line in left_out)] if left_out else []),
        "## results.csv and results.json",
        f"One row for each of {len(records)} records. An empty cell (null) was not measured.",
        markdown.table(("column", "meaning"), [(f"`{name}`", text) for name, text in columns().items()]),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
