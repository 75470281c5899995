"""What the submitted records say of one regularizer: its rows of the leaderboard, and of the suite's tables."""

from __future__ import annotations

from collections.abc import Sequence

from bench import markdown
from bench.report.analysis import Analysis, TableRow
from bench.report.boards import FOLDER
from bench.report.leaderboard import Board
from bench.report.leaderboard_text import columns, rows
from bench.report.words import ACCURACY, RATE, contrast_text, interval, numbers_table, verdict_text

_SHOWN = (
    "accuracy (%)", "vs none (points)", "spikes vs none", "fewest spikes within 1 point", "gain of tuning (points)",
    "cost: passes | ms a step", "n",
)  # fmt: skip


def method_results(method: str, boards: Sequence[Board], analyses: Sequence[Analysis], root: str) -> str:
    """A method's rows, wherever it stands.

    Args:
        method: its name; rows of it with others, `dropout+rdrop`, are shown too.
        boards: the leaderboard's workloads.
        analyses: of the suite's tables.
        root: way to the folder that `reports` lies in, with a `/` at its end.
    """
    parts = [part for board in boards if (part := _on_board(method, board, root))]
    parts += [part for analysis in analyses if (part := _in_table(method, analysis, root))]
    return "\n\n".join(parts) or "No submitted run has it yet."


def _on_board(method: str, board: Board, root: str) -> str:
    places = [columns().index(heading) for heading in _SHOWN]
    body = [
        [f"`{entry.method}`, {entry.ruleset}: {entry.setting}", *(cells[place] for place in places)]
        for entry, cells in zip(board.entries, rows(board), strict=True)
        if method in entry.method.split("+")
    ]
    if not body:
        return ""
    about = f"**{board.title}** ([leaderboard]({root}reports/{FOLDER}/README.md): equal tuning budgets, fresh seeds)"
    return f"{about}\n\n{markdown.table(('setting', *_SHOWN), body)}"


def _in_table(method: str, analysis: Analysis, root: str) -> str:
    table = analysis.table
    mine = [row for row in analysis.rows if any(method in record.result["regs"] for record in row.line.records)]
    if not mine or all(row.line.against is None for row in mine):
        return ""
    about = f"**{table.title}** ([all rows]({root}reports/{table.folder}/README.md)"
    about += f", reduced budget `{table.budget}`)" if table.reduced else ")"
    head = [table.axis, "seeds", ACCURACY.heading, "against the baseline", "verdict", "spikes", "verdict"]
    return f"{about}\n\n{numbers_table(head, [_row(row) for row in mine])}"


def _row(row: TableRow) -> list[str]:
    return [
        row.line.label, str(len(row.line.seeds)), interval(ACCURACY, row.estimate(ACCURACY.column)),
        contrast_text(ACCURACY, row.contrasts[ACCURACY.column]), verdict_text(row),
        contrast_text(RATE, row.contrasts[RATE.column]), verdict_text(row, RATE),
    ]  # fmt: skip
