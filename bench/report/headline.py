"""Short tables for the project's README: each regularizer at one strength against no regularizer."""

from __future__ import annotations

from pathlib import Path

from bench import experiments, markdown
from bench.errors import BenchError, nearest
from bench.report import join
from bench.report.analysis import Analysis, TableRow, analyse
from bench.report.collect import gather
from bench.report.stats import Verdict
from bench.report.words import ACCURACY, RATE, budget_note, numbers_table, shared

_SIGNIFICANT = (Verdict.BETTER, Verdict.WORSE)


def write_into(path: Path, out: Path) -> bool:
    """Put short tables between a Markdown file's marks, `<!-- bench report suite/digits/quick -->` and `<!-- end -->`.

    Args:
        path: the Markdown file.
        out: `reports`, of whose `records/` the tables are made.

    Returns:
        Whether the file changed.

    Raises:
        BenchError: it has no mark, or no experiment has such a report.
    """
    collection = gather([out / "records"], False, lambda line: None)

    def render(folder: str) -> str:
        name, _, variant = folder.rpartition("/")
        # Only what the file asks for is worked out: the statistics of all tables take longer than the rest.
        for table in join.tables(collection, {name} & {*experiments.names()}, (), []):
            if table.folder == folder:
                return short_table(analyse(table))
        known = [f"{name}/{variant}" for name in experiments.names()]
        raise BenchError(f"{path}: no experiment's report is called '{folder}'. {nearest(folder, known)}")

    return markdown.fill(path, "bench report", render)


def short_table(analysis: Analysis) -> str:
    """Every series at the middle one of its strengths: chosen before the runs, so that no result picks it.

    Args:
        analysis: of a table with a baseline in each of its panels.
    """
    table = analysis.table
    panels = table.panels
    columns = [table.axis if table.axis != "setting" else "regularizer"]
    for panel in panels:
        name = panel or shared(table.records, "model")
        columns += [f"{name}: accuracy", f"{name}: spike rate"]
    series: dict[str, dict[str, list[TableRow]]] = {}
    for row in analysis.rows:
        series.setdefault(row.line.series, {}).setdefault(row.line.panel, []).append(row)
    body = []
    for name, by_panel in series.items():
        middle = {panel: _middle(rows) for panel, rows in by_panel.items()}
        strength = {row.line.strength for row in middle.values()} - {None}
        label = f"`{name}`" + (f" {strength.pop():g}" if len(strength) == 1 else "")
        cells = [cell for panel in panels for cell in _cells(analysis, middle.get(panel))]
        body.append([label, *cells])
    seeds = {len(row.line.seeds) for row in analysis.rows}
    many = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(*seeds)
    return (
        f"{budget_note(table)} {table.title}: mean of {many} seeds, differences to the first row in points and in "
        "percent. **Bold**: better or worse by a paired test, Holm-corrected over all strengths; all else is not "
        "distinguishable. Of several strengths the middle one is shown, whatever came of it; "
        f"[all of them](reports/{table.folder}/README.md).\n\n" + numbers_table(columns, body)
    )


def _middle(rows: list[TableRow]) -> TableRow:
    """The row of the middle strength; of an even number the upper of the two."""
    ordered = sorted(rows, key=lambda row: row.line.strength or 0.0)
    return ordered[len(ordered) // 2]


def _cells(analysis: Analysis, row: TableRow | None) -> tuple[str, str]:
    """Accuracy and spike rate of a baseline, of others the differences to it."""
    if row is None:
        return "-", "-"
    rate = row.mean(RATE.column)
    if row.line.against is None:
        return f"{ACCURACY.text(row.mean(ACCURACY.column))} %", RATE.text(rate)
    base = next(other for other in analysis.rows if other.line is row.line.against)
    before = base.mean(RATE.column)
    change = "-" if rate is None or not before else f"{round(100 * (rate / before - 1)) + 0:+d} %"
    if row.pair is None or row.pair.difference is None:
        return "-", change
    gain = ACCURACY.text(row.pair.difference.mean, sign=True)
    return f"**{gain}**" if row.verdict in _SIGNIFICANT else gain, change
