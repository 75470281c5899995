"""Running an experiment: the plan, what is skipped, what a failed run does, what is said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig

from bench import experiments
from bench.errors import BenchError, EnvironmentFault
from tests.expanded import run_ids

Cli = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
NAME = "experiment=nandan2022/table4_2"


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is there."""
    monkeypatch.setattr("bench.records.identity.identity", lambda cfg: ("0" * 64, "jpeg"))


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run ids that have a record."""
    found: set[str] = set()
    monkeypatch.setattr(experiments, "is_finished", lambda runs, name: name in found)
    return found


@pytest.mark.parametrize("flags", [(), ("-m",)])
def test_an_experiment_is_a_grid_with_and_without_the_flag(
    cli: Cli, asked: list[DictConfig], flags: tuple[str, ...]
) -> None:
    status, out, err = cli("run", *flags, NAME, "budget=cpu", "seed=0,1")
    assert (status, err) == (0, "")
    same = "budget=cpu data=cifar10 model=cnn optim=sgd optim.lr=0.1 reg=weightnorm"
    assert [line for line in out.splitlines() if "runs done" not in line] == [
        "nandan2022/table4_2: 2 rows, 2 seeds, 4 runs, 0 finished, 4 to do",
        "  budget=cpu: 6 epochs of at most 10,000 images, cifar10 (jpeg)",
        f"[1/4] {same} reg.weightnorm.data_init=true seed=0",
        f"[2/4] {same} reg.weightnorm.data_init=false seed=0",
        f"[3/4] {same} reg.weightnorm.data_init=true seed=1",
        f"[4/4] {same} reg.weightnorm.data_init=false seed=1",
        "4 runs: 4 done",
    ]
    assert [(cfg.budget, cfg.reg.weightnorm.data_init, cfg.seed, cfg.model.channels) for cfg in asked] == [
        ("cpu", True, 0, 32), ("cpu", False, 0, 32), ("cpu", True, 1, 32), ("cpu", False, 1, 32),
    ]  # fmt: skip
    assert all("experiment" not in cfg for cfg in asked)


def test_a_hundred_epochs_are_announced(cli: Cli) -> None:
    status, out, _ = cli("run", NAME, "seed=0")
    assert status == 0
    assert "  budget=paper: 100 epochs of all images, cifar10 (jpeg)\n" in out
    assert "  budget=paper is the table's own and wants a GPU; budget=cpu is its small version\n" in out
    assert "is the table's own" not in cli("run", NAME, "seed=0", "budget=paper")[1]
    # Local learning runs on the CPU, at the paper's size too.
    status, out, _ = cli("run", "experiment=antonov2024/figure2", "seed=0")
    assert status == 0
    assert "  budget=paper: 1 epoch of " in out
    assert "wants a GPU" not in out


def test_what_is_finished_is_not_started(cli: Cli, asked: list[DictConfig], finish: set[str]) -> None:
    table, typed = "nandan2022/table2_1", ("run", "experiment=nandan2022/table2_1", "budget=cpu", "seed=0,1")
    every = run_ids(experiments.load(table), "cpu", [0, 1])
    finish |= {identity for row, seed, identity in every if (row.label, seed) not in (("0.0003", 1), ("0.0005", 0))}
    status, out, _ = cli(*typed)
    assert status == 0
    assert out.startswith("nandan2022/table2_1: 4 rows, 2 seeds, 8 runs, 6 finished, 2 to do\n")
    assert [(cfg.reg.weight_decay.weight, cfg.seed) for cfg in asked] == [(0.0005, 0), (0.0003, 1)]
    finish |= {identity for *_, identity in every}
    status, out, _ = cli(*typed)
    assert status == 0
    assert out.splitlines()[-2:] == [
        "nothing to run; force=true runs it again",
        "8 runs: 0 done, 8 skipped (finished before)",
    ]
    assert len(asked) == 2
    cli(*typed, "force=true")
    assert len(asked) == 2 + 8


def test_a_run_of_two_rows_or_two_tables_runs_once(cli: Cli, asked: list[DictConfig]) -> None:
    figure = experiments.plan("nandan2022/figure3_1", ["budget=cpu", "seed=0"])
    assert len(figure.missing) == 21
    assert figure.said.startswith("nandan2022/figure3_1: 22 rows, 1 seed, 21 runs, 0 finished, 21 to do\n")
    status, _, _ = cli(
        "run", "-m", "experiment=nandan2022/table2_1,nandan2022/table2_5", "model=cnn", "budget=cpu", "seed=0"
    )
    # With the network of the first, the second has three of its four rows: 0, 0.0001, 0.0005, and 0.00001 of its own.
    assert (status, len(asked)) == (0, 4 + 1)


def test_a_failed_row_is_named_at_the_end_with_its_exit_code(cli: Cli, asked: list[DictConfig]) -> None:
    # Seed 8 finds the disk full, seed 9 meets a bug.
    status, _, err = cli("run", NAME, "budget=cpu", "seed=0,8,9")
    assert status == 1
    assert len(asked) == 6
    same = "budget=cpu data=cifar10 model=cnn optim=sgd optim.lr=0.1 reg=weightnorm"
    assert err.splitlines()[-5:] == [
        "error: 4 of 6 runs failed",
        f"  [3/6] {same} reg.weightnorm.data_init=true seed=8: exit 1, seed 8 found the disk full",
        f"  [4/6] {same} reg.weightnorm.data_init=false seed=8: exit 1, seed 8 found the disk full",
        f"  [5/6] {same} reg.weightnorm.data_init=true seed=9: exit 1, RuntimeError",
        f"  [6/6] {same} reg.weightnorm.data_init=false seed=9: exit 1, RuntimeError",
    ]


def test_an_interrupt_says_how_to_go_on(cli: Cli, asked: list[DictConfig]) -> None:
    status, _, err = cli("run", NAME, "budget=cpu", "seed=0,10,1")
    assert (status, len(asked)) == (130, 3)
    assert err == "interrupted; the same command goes on after the last finished epoch\n"


@pytest.mark.parametrize("fault", [BenchError("the data is damaged"), EnvironmentFault("cifar10 is not in data")])
def test_missing_data_is_said_before_the_first_run(
    cli: Cli, asked: list[DictConfig], monkeypatch: pytest.MonkeyPatch, fault: BenchError
) -> None:
    def missing(cfg: Any) -> tuple[str, str]:
        raise fault

    monkeypatch.setattr("bench.records.identity.identity", missing)
    assert cli("run", NAME, "budget=cpu") == (fault.code, "", f"error: {fault}\n")
    assert not asked


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("experiment=nandan2022/table9", "no experiment is called 'nandan2022/table9'. Did you mean"),
        ("-m experiment=nandan2022/table4_2,nandan2022/table9", "no experiment is called 'nandan2022/table9'"),
        (f"{NAME} experiment.seeds=[4]", "'experiment.seeds=[4]': an experiment's file is as it is"),
        (f"{NAME} model=swe", "no model is called 'swe'. Did you mean 'sew'?"),
        (f"{NAME} reg=none", "'weightnorm' is not among the chosen regularizers (none)"),
        (f"{NAME} seed=x", "seed is 'x', it must be a whole number"),
        (f"{NAME} trainer.epochs=0,x", "trainer.epochs is 'x', it must be a whole number"),
        (f"{NAME} seed=0,1 trainer.epoch=3", "trainer has no setting 'epoch'. Did you mean 'epochs'?"),
        (f"{NAME} budget=cup", "no budget is called 'cup'. Did you mean 'cpu'"),
    ],
)
def test_a_mistake_starts_nothing(cli: Cli, asked: list[DictConfig], typed: str, said: str) -> None:
    status, _, err = cli("run", *typed.split())
    assert (status, err.count("\n")) == (2, 1)
    assert said in err
    assert not asked


def test_two_hundred_finished_runs_are_composed_once_for_each_network(
    cli: Cli, finish: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composing is what takes the time: 3 networks, once to plan and once for the table of the grid, whatever the nine
    regularizers, their strengths and seeds."""
    finish |= {identity for *_, identity in run_ids(experiments.load("suite/digits"), "quick", [0, 1, 2])}
    composed = []
    compose = hydra.compose

    def counted(*given: Any) -> DictConfig:
        composed.append(given)
        return compose(*given)

    monkeypatch.setattr(hydra, "compose", counted)
    status, out, _ = cli("run", "experiment=suite/digits")
    assert status == 0
    assert "225 runs, 225 finished, 0 to do" in out
    assert len(composed) == 3 * 2


def test_a_tiny_experiment_for_real_twice_and_after_damage(
    bench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Processes of their own: one row's record is damaged, which must stop nothing but that row."""
    typed = (NAME, "budget=smoke", "seed=0", "data=digits", "logger=none")
    first = bench("run", *typed)
    assert first.returncode == 0, first.stderr
    assert "2 runs, 0 finished, 2 to do" in first.stdout
    results = sorted((tmp_path / "runs").glob("*/result.json"))
    assert len(results) == 2
    before = [path.stat().st_mtime_ns for path in results]
    second = bench("run", *typed)
    assert second.returncode == 0
    assert "nothing to run; force=true runs it again\n" in second.stdout
    # What has been there before is in the table too.
    for done in (first, second):
        assert re.search(r"^weightnorm data_init +\d+\.\d\d +\d\.\d{4} +1 ", done.stdout, re.MULTILINE)
    assert "2 runs: 0 done, 2 skipped (finished before)\n" in second.stdout
    results[0].write_text(results[0].read_text()[:100])
    third = bench("run", *typed)
    assert third.returncode == 2
    assert "error: 1 of 1 runs failed\n" in third.stderr
    assert re.search(r"\[1/1\] .*seed=0.*: exit 2, .*result\.json: is damaged", third.stderr)
    assert re.search(r"^reg\.weightnorm\.data_init=|^.*data_init.* 0 \(1 failed\)", third.stdout, re.MULTILINE)
    assert "2 runs: 0 done, 1 skipped (finished before), 1 failed\n" in third.stdout
    assert results[1].stat().st_mtime_ns == before[1]
    assert json.loads(results[1].read_text())["status"] == "finished"


@pytest.mark.slow
def test_a_killed_grid_started_again_runs_what_was_missing(
    bench: Callable[..., subprocess.CompletedProcess[str]], tiny: tuple[str, ...], shared_data: Path, tmp_path: Path
) -> None:
    """A process that is killed with -9 between two records: nothing short of one shows what is left on the disk."""
    typed = ("run", "-m", *tiny, "seed=0,1,2", "trainer.epochs=30")
    env = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", "bench", *typed], stdout=subprocess.PIPE, text=True, env=env) as grid:
        assert grid.stdout is not None
        lines = iter(grid.stdout.readline, "")
        assert any(line.startswith("[2/3] ") for line in lines)
        assert any(line.startswith("epoch  2/30 ") for line in lines)
        grid.send_signal(signal.SIGKILL)
    runs = tmp_path / "runs"
    (done,) = runs.glob("*/result.json")
    before = done.stat().st_mtime_ns
    again = bench(*typed, timeout=300)
    assert again.returncode == 0, again.stderr
    said = [line for line in again.stdout.splitlines() if re.match(r"digits-cnn-none-s\d-\w+[ :].*[a-z]", line)]
    assert "3 runs, 1 finished, 2 to do; force=true runs them again" in again.stdout
    assert len(said) == 2
    assert re.search(r"-s1-\w+ goes on after epoch \d+ of 30$", said[0])
    assert re.search(r"-s2-\w+: 40 training images, 30 epochs; ", said[1])
    assert done.stat().st_mtime_ns == before
    for path in runs.iterdir():
        assert json.loads((path / "result.json").read_text())["status"] == "finished"
        rows = (path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["epoch"] for row in rows] == list(range(30))
    assert len(list(runs.iterdir())) == 3


def test_reproduce_refuses_what_is_no_experiment(cli: Cli, asked: list[DictConfig]) -> None:
    assert cli("reproduce")[0] == 2
    status, _, err = cli("reproduce", "nandan2022/tabel3_1", "budget=cpu")
    assert (status, err.count("\n")) == (2, 1)
    assert "Did you mean 'nandan2022/table3_1'" in err
    assert not asked
    assert "budget=cpu" in cli("reproduce", "--help")[1]


@pytest.mark.parametrize("seeds", ["0,1", "0,8"])
def test_reproduce_runs_and_then_reports_even_when_a_run_failed(
    cli: Cli, asked: list[DictConfig], monkeypatch: pytest.MonkeyPatch, seeds: str
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr("bench.commands.reproduce.report", lambda *given: reported.append(given))
    typed = ("nandan2022/table4_2", "budget=cpu", f"seed={seeds}")
    status, _, err = cli("reproduce", *typed, "runs=here", "--out", "there")
    assert status == ("8" in seeds)
    assert ("2 of 4 runs failed" in err) == ("8" in seeds)
    assert len(asked) == 4
    words = ["nandan2022/table4_2", "budget=cpu", f"seed={seeds}", "runs=here"]
    assert reported == [(words, False, "here", Path("there"), False)]


def test_reproduce_reports_what_hydra_has_understood(
    cli: Cli, asked: list[DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quotes around a folder and a budget are Hydra's: neither the runs nor the report may see them."""
    reported: list[Any] = []
    monkeypatch.setattr("bench.commands.reproduce.report", lambda *given: reported.append(given))
    quoted = ('budget="cpu"', 'runs="~/x y"', "seed='0'")
    assert cli("reproduce", "nandan2022/table4_2", *quoted)[0] == 0
    assert {(cfg.budget, cfg.runs, cfg.seed) for cfg in asked} == {("cpu", "~/x y", 0)}
    (words, _, runs, _, _) = reported[0]
    assert (words[:2], runs) == (["nandan2022/table4_2", "budget=cpu"], "~/x y")
