"""Short tables for the project's README: a workload of the leaderboard, or each regularizer at one strength."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from bench import experiments, markdown
from bench.errors import BenchError, nearest
from bench.registry import REGULARIZERS
from bench.report import join
from bench.report.analysis import Analysis, TableRow, analyse
from bench.report.boards import FOLDER
from bench.report.collect import Collection, gather
from bench.report.contrasts import POINTS, SHARE
from bench.report.leaderboard import Board, leaderboard, load, run_ids, study_folders
from bench.report.leaderboard_text import brief, brief_columns, sentence
from bench.report.method_results import method_results
from bench.report.stats import Verdict
from bench.report.words import (
    ACCURACY,
    NOTHING,
    RATE,
    SYNOPS,
    budget_note,
    contrast_text,
    numbers_table,
    shared,
    verdict_mark,
)
from bench.studies import Study

_JUDGED = ((ACCURACY, "accuracy"), (RATE, "spike rate"), (SYNOPS, "SynOps"))


METHOD = "method"
"""First word of the marks whose last word is a regularizer."""


def write_into(path: Path, out: Path) -> bool:
    """Put results between a Markdown file's marks, `<!-- bench report suite/digits/quick -->` and `<!-- end -->`.

    `leaderboard/mnist-1k` is a workload of the leaderboard, `method/spikepen` all that there is of a regularizer,
    anything else an experiment's report.

    Args:
        path: the Markdown file, or a folder of such files.
        out: `reports`, of whose `records/` the tables are made.

    Returns:
        Whether any file changed.

    Raises:
        BenchError: a file has no mark, or there is no such report, workload or regularizer.
    """
    marked = (page for page in sorted(path.glob("*.md")) if "<!-- bench report " in page.read_text())
    pages = marked if path.is_dir() else [path]
    results = Results(gather([out / "records"], False, lambda line: None), out)
    changed = [markdown.fill(page, "bench report", results.about(page)) for page in pages]
    return any(changed)


class Results:
    """What the marks of Markdown files stand for; no statistics are worked out that no mark asks for, or twice.

    Args:
        collection: the records.
        out: the folder whose `records` these are of.
    """

    def __init__(self, collection: Collection, out: Path) -> None:
        self.collection, self.out = collection, out

    @cached_property
    def studies(self) -> list[Study]:
        """The studies beside the records."""
        return load(study_folders([self.out / "records"]), [])

    @cached_property
    def sorted_out(self) -> join.Sorted:
        """The records, by which tables may have them."""
        return join.Sorted(self.collection, run_ids(self.studies))

    @cached_property
    def boards(self) -> dict[str, Board]:
        """The leaderboard's workloads."""
        ranked = leaderboard(self.studies, self.collection, [])
        return {board.workload: board for board in ranked.boards} if ranked is not None else {}

    @cached_property
    def suite(self) -> list[Analysis]:
        """The suite's own tables."""
        names = [name for name in experiments.names() if name.startswith("suite/")]
        return [analyse(table) for table in self.sorted_out.tables(names, (), [])]

    def about(self, page: Path) -> Callable[[str], str]:
        """What fills the marks of a page, by their last word.

        Args:
            page: the file, from which links are read.
        """
        root = Path(os.path.relpath(self.out.absolute().parent, page.absolute().parent)).as_posix()
        root = "" if root == "." else f"{root}/"

        def render(folder: str) -> str:
            name, _, variant = folder.rpartition("/")
            if name == FOLDER:
                if variant not in self.boards:
                    near = nearest(variant, self.boards)
                    raise BenchError(f"{page}: no workload of {self.out} is called '{variant}'. {near}")
                return answer(self.boards[variant], root)
            if name == METHOD:
                REGULARIZERS.declaration(variant)
                return method_results(variant, [*self.boards.values()], self.suite, root)
            for table in self.sorted_out.tables({name} & {*experiments.names()}, (), []):
                if table.folder == folder:
                    return short_table(analyse(table), root)
            known = [f"{name}/{variant}" for name in experiments.names()]
            raise BenchError(f"{page}: no experiment's report is called '{folder}'. {nearest(folder, known)}")

        return render


def answer(board: Board, root: str) -> str:
    """A workload's sentence and short table, with where all of it is.

    Args:
        board: the workload.
        root: way to the folder that `reports` lies in, with a `/` at its end.
    """
    return "\n\n".join([
        f"**{sentence(board)}**",
        numbers_table(brief_columns(), brief(board)),
        f"{board.title}: equal tuning budgets, chosen on validation images, trained anew with fresh seeds, tested "
        "once; intervals are those that decide. A reduced budget: compare methods, not these numbers with published "
        f"ones. [All columns]({root}reports/{FOLDER}/README.md), [the protocol]({root}docs/protocol.md).",
    ])  # fmt: skip


def short_table(analysis: Analysis, root: str) -> str:
    """Every series at the middle one of its strengths: chosen before the runs, so that no result picks it.

    Args:
        analysis: of a table with a baseline in each of its panels.
        root: see `answer`.
    """
    table = analysis.table
    panels = table.panels
    columns = [table.axis if table.axis != "setting" else "regularizer"]
    for panel in panels:
        name = panel or shared(table.records, "model")
        columns += [f"{name}: {what}" for _, what in _JUDGED]
    series: dict[str, dict[str, list[TableRow]]] = {}
    for row in analysis.rows:
        series.setdefault(row.line.series, {}).setdefault(row.line.panel, []).append(row)
    body = []
    for name, by_panel in series.items():
        middle = {panel: _middle(rows) for panel, rows in by_panel.items()}
        strength = {row.line.strength for row in middle.values()} - {None}
        label = f"`{name}`" + (f" {strength.pop():g}" if len(strength) == 1 else "")
        cells = [cell for panel in panels for cell in _cells(middle.get(panel))]
        body.append([label, *cells])
    seeds = {len(row.line.seeds) for row in analysis.rows}
    many = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(*seeds)
    return (
        f"{budget_note(table)} {table.title}: mean of {many} seeds, differences to the first row in points and in "
        "percent. **Bold**: better or worse, fewer spikes being better, corrected by Holm's method over all strengths; "
        f"=: alike, within {POINTS:g} points or {100 * SHARE:g} %; all else: too few seeds to say. Of several "
        "strengths the middle one is shown, whatever came of it; "
        f"[all of them]({root}reports/{table.folder}/README.md).\n\n" + numbers_table(columns, body)
    )


def _middle(rows: list[TableRow]) -> TableRow:
    """The row of the middle strength; of an even number the upper of the two."""
    ordered = sorted(rows, key=lambda row: row.line.strength or 0.0)
    return ordered[len(ordered) // 2]


def _cells(row: TableRow | None) -> list[str]:
    """Accuracy, spike rate and SynOps of a baseline, of others the differences to it."""
    if row is None:
        return ["-"] * len(_JUDGED)
    if row.line.against is None:
        # The accuracy's unit, as the differences are in points.
        return [field.text(row.mean(field.column)) + (" %" if field is ACCURACY else "") for field, _ in _JUDGED]
    if row.line.idle:
        return [NOTHING, *["-"] * (len(_JUDGED) - 1)]
    cells = []
    for field, _ in _JUDGED:
        contrast = row.contrasts[field.column]
        text = contrast_text(field, contrast, ends=False)
        alike = contrast is not None and contrast.verdict is Verdict.ALIKE
        cells.append(text + " =" * alike if contrast is None or alike else verdict_mark(contrast, text))
    return cells
