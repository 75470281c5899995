"""`reports/leaderboard/`: the leaderboard as a page for people and as rows for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from bench.report.contrasts import Contrast
from bench.report.leaderboard import Board, Entry, Leaderboard
from bench.report.leaderboard_text import about, columns, rows, sentence
from bench.report.stats import Estimate
from bench.report.words import MARK, numbers_table
from bench.studies import ACCURATE

FOLDER = "leaderboard"


def files(leaderboard: Leaderboard, left_out: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Path below `reports/` and content of the leaderboard's files.

    Args:
        leaderboard: all workloads.
        left_out: a line for each study that stands in no table.
    """
    yield f"{FOLDER}/README.md", page(leaderboard, left_out).encode()
    yield f"{FOLDER}/table.csv", table(leaderboard).encode()


def page(leaderboard: Leaderboard, left_out: Sequence[str]) -> str:
    """The page: an answer and a table for each workload, then over all of them."""
    parts = [
        f"{MARK}`; do not edit. -->",
        "# Leaderboard",
        "Every method had the same number of trials, `none` too, was chosen on validation images, trained anew with "
        "fresh seeds and tested once: [the protocol](../../docs/protocol.md). Reduced budgets: compare methods here, "
        "not these numbers with published ones. `bench submit STUDY` adds an entry.",
    ]
    for board in leaderboard.boards:
        parts += [f"## {board.workload}: {board.title}", sentence(board), short(board), _curves(board)]
    if leaderboard.overall:
        body = [
            (f"`{method}`", f"{100 * mean:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]")
            for method, mean, low, high in leaderboard.overall
        ]
        parts += [
            "## Over all workloads",
            "Interquartile mean over workloads and seeds of (accuracy - none) / (100 - none), with a 95 % interval by "
            "a bootstrap over the seeds of each workload: which share of the errors goes.",
            numbers_table(("method", "errors that go"), body),
        ]
    parts += ["## What the columns mean", "\n".join(f"- {heading}: {says}" for heading, says in about())]
    if left_out:
        parts += [f"## Left out ({len(left_out)})", "\n".join(f"- {line}" for line in left_out)]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def short(board: Board) -> str:
    """A workload's ranked table in Markdown."""
    return numbers_table(columns(), rows(board))


def _curves(board: Board) -> str:
    """The settings that were chosen, and the expected best of fewer trials."""
    body = []
    for entry in board.entries:
        if entry.ruleset == ACCURATE and entry.best_of:
            counts = sorted({1, 2, 4, 8, 16, len(entry.best_of)} & set(range(1, len(entry.best_of) + 1)))
            best = ", ".join(f"{count}: {entry.best_of[count - 1]:.2f}" for count in counts)
            wins = "-" if entry.wins is None else f"{entry.wins:.2f}"
            body.append((f"`{entry.method}`", entry.setting, best, wins, entry.hardware))
    if not body:
        return ""
    heads = ("method", "chosen", "expected best validation accuracy of n trials (%)", "P(ahead of none)", "run on")
    return numbers_table(heads, body)


def table(leaderboard: Leaderboard) -> str:
    """All entries as CSV, a row each."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow([
        "workload", "method", "ruleset", "rank", "complete", "why", "trials", "seeds", "diverged", "setting",
        *_estimate_heads("test_acc"), *_contrast_heads("acc_vs_none"), *_estimate_heads("spike_rate"),
        *_contrast_heads("rate_vs_none"), *_estimate_heads("frugal_rate"), *_contrast_heads("frugal_rate_vs_none"),
        *_contrast_heads("frugal_acc_vs_none"), "val_acc_at_3_4", "val_acc_at_1_2", "passes", "ms_per_step", "gain",
        "energy_uj", "p_ahead", "hardware",
    ])  # fmt: skip
    for board in leaderboard.boards:
        for entry in board.entries:
            writer.writerow(["" if cell is None else cell for cell in _cells(entry)])
    return sheet.getvalue()


def _cells(e: Entry) -> list[object]:
    numbers = (e.at_three_quarters, e.at_half, e.passes, e.ms_per_step, e.gain, e.energy, e.wins)
    return [
        e.workload, e.method, e.ruleset, e.rank, str(e.complete).lower(), e.why, e.trials, e.seeds, e.diverged,
        e.setting, *_estimate(e.accuracy), *_contrast(e.difference), *_estimate(e.rate), *_contrast(e.rate_change),
        *_estimate(e.frugal_rate), *_contrast(e.frugal_change), *_contrast(e.frugal_difference),
        *map(_number, numbers), e.hardware,
    ]  # fmt: skip


def _estimate_heads(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _contrast_heads(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high", f"{name}_p", f"{name}_verdict"]


def _estimate(estimate: Estimate | None) -> list[object]:
    return [None] * 3 if estimate is None else [_number(x) for x in (estimate.mean, estimate.low, estimate.high)]


def _contrast(contrast: Contrast | None) -> list[object]:
    if contrast is None:
        return [None] * 5
    return [*map(_number, (contrast.difference, contrast.low, contrast.high, contrast.p)), str(contrast.verdict)]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
