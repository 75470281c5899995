"""`python -m bench report`: what its command line means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.report import build


def main(words: Sequence[str], checks: bool, runs: str | None, out: Path, dirty: bool) -> None:
    """Write or check reports.

    Args:
        words: experiments, and overrides they were run with.
        checks: compare, write nothing.
        runs: folder of runs beside `OUT/records`; `none` for no other.
        out: the reports' folder.
        dirty: take in records of a dirty commit.

    Raises:
        BenchError: bad input, no records, or (`build.Stale`) reports that do not follow.
    """
    if checks:
        if words or runs is not None or dirty:
            raise BenchError("--check takes no other arguments but --out: it reads the submitted records, all of them")
        build.check(out)
        return
    folders = [out / "records"]
    if runs != "none":
        where = Path(runs or os.environ.get("BENCH_RUNS") or "runs")
        if runs is not None and not where.is_dir():
            raise BenchError(f"--runs {runs}: there is no such folder")
        folders.append(where)
    names = [word for word in words if "=" not in word]
    build.write(folders, out, names, [word for word in words if "=" in word], dirty)
