"""A paper's table in one command: run what has no record yet, then write its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.config import launch
from bench.errors import BenchError
from bench.experiments import load
from hydra_plugins.bench_sweeper import RunsFailed


def reproduce(words: Sequence[str], out: Path, dirty: bool = False) -> None:
    """Run what some experiments lack, then write their reports.

    Args:
        words: names of experiments, and settings as `bench run` takes them.
        out: the reports' folder.
        dirty: report runs of a changed, uncommitted tree too.

    Raises:
        BenchError: no experiment is named, or one cannot be run or reported.
        RunsFailed: some runs failed; the report is written without them.
    """
    names = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not names:
        raise BenchError("reproduce what? `python -m bench list experiments` says what there is")
    experiments = [load(name) for name in names]
    failed: RunsFailed | None = None
    try:
        launch(["-m", f"experiment={','.join(names)}", *settings])
    except RunsFailed as error:
        failed = error
    # Imported here: plotting takes a second, and a mistyped name should be told at once.
    from bench.report.command import main as report

    given = dict(line.split("=", 1) for line in settings)
    others = [line for line in settings if not line.startswith("budget=")]
    try:
        for experiment in experiments:
            for budget in given.get("budget", experiment.budget).split(","):
                report([experiment.name, f"budget={budget}", *others], False, given.get("runs"), out, dirty)
    except BenchError:
        if failed is None:
            raise
    if failed is not None:
        raise failed
