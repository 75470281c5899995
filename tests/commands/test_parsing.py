"""What the command lines of several commands share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
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


def test_an_empty_data_root_is_the_usual_one(
    bench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the working directory, where the cache would land among the user's files."""
    monkeypatch.chdir(tmp_path)
    for arguments in (["data", "prepare", "digits"], ["data"]):
        assert bench(*arguments, env={"BENCH_DATA": ""}).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("command", [["data"], ["run", "budget=smoke", "logger=none"]])
def test_a_home_of_nobody_is_one_line(
    bench: Callable[..., subprocess.CompletedProcess[str]], command: list[str]
) -> None:
    for variable, what in (("BENCH_DATA", "the data root"), ("BENCH_RUNS", "the folder of the runs")):
        if variable == "BENCH_RUNS" and command == ["data"]:
            continue
        done = bench(*command, env={variable: "~nobody_of_that_name/x"})
        assert done.returncode == 2
        assert done.stderr == f"error: {what}, ~nobody_of_that_name/x: there is no home of that user\n"
