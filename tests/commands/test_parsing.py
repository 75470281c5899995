"""What the command lines of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.commands.parsing import Parser, add_runs
from bench.errors import BenchError


@pytest.mark.parametrize(("value", "folder"), [(None, "runs"), ("", "runs"), ("elsewhere", "elsewhere")])
def test_runs_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, value: str | None, folder: str) -> None:
    monkeypatch.delenv("BENCH_RUNS")
    if value is not None:
        monkeypatch.setenv("BENCH_RUNS", value)
    parser = Parser("submit")
    add_runs(parser)
    assert parser.parse_args([]).runs == Path(folder)
    assert parser.parse_args(["--runs", "here"]).runs == Path("here")


def test_a_complaint_is_one_line_that_names_the_command() -> None:
    with pytest.raises(BenchError, match=r"^unrecognized arguments: --nope; `bench sync --help` says more$"):
        Parser("sync").parse_args(["--nope"])
