"""A paper's table in one command: run what has no record yet, then write its report."""

from __future__ import annotations

from collections.abc import Sequence

from bench.config import launch
from bench.errors import BenchError
from bench.experiments import load
from hydra_plugins.bench_sweeper import RunsFailed


def reproduce(arguments: Sequence[str]) -> None:
    """Run what some experiments lack, then write their reports.

    Args:
        arguments: names of experiments; settings and flags of `bench run`.

    Raises:
        BenchError: no experiment is named, or one cannot be run.
        RunsFailed: some runs failed; the report is written without them.
    """
    names = [word for word in arguments if not word.startswith("-") and "=" not in word]
    settings = [word for word in arguments if word not in names]
    if not names:
        raise BenchError("reproduce what? `python -m bench list experiments` says what there is")
    for name in names:
        load(name)
    failed: RunsFailed | None = None
    try:
        launch(["-m", f"experiment={','.join(names)}", *settings])
    except RunsFailed as error:
        failed = error
    if failed is not None:
        raise failed
