"""Grids: which jobs, in which order, and what becomes of the rest when one fails."""

from __future__ import annotations

import os
from collections.abc import Callable

from omegaconf import DictConfig

Cli = Callable[..., tuple[int, str, str]]


def test_a_grid_runs_every_combination_and_says_which(cli: Cli, asked: list[DictConfig]) -> None:
    status, out, err = cli("run", "model=cnn,sew", "-m", "reg=none,[weight_decay,spikepen]", "seed=4")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if "runs done" not in line] == [
        "4 runs, 0 finished, 4 to do",
        "[1/4] model=cnn reg=none seed=4",
        "[2/4] model=cnn reg=[weight_decay,spikepen] seed=4",
        "[3/4] model=sew reg=none seed=4",
        "[4/4] model=sew reg=[weight_decay,spikepen] seed=4",
        "4 runs: 4 done",
    ]
    found = [(cfg.model._target_.rpartition(".")[2], list(cfg.reg), cfg.seed) for cfg in asked]
    assert found == [
        ("CNN", ["none"], 4),
        ("CNN", ["weight_decay", "spikepen"], 4),
        ("SEWResNet", ["none"], 4),
        ("SEWResNet", ["weight_decay", "spikepen"], 4),
    ]
    # Each network comes with its own recipe.
    assert [cfg.model.channels for cfg in asked] == [32, 32, 16, 16]
    # The data alone: nothing of Hydra's.
    assert set(os.listdir()) <= {"data"}


def test_a_combination_named_twice_runs_once(cli: Cli, asked: list[DictConfig]) -> None:
    assert cli("run", "-m", "seed=0,1,0,2,1")[0] == 0
    assert [cfg.seed for cfg in asked] == [0, 1, 2]


def test_a_failed_run_does_not_stop_the_others(cli: Cli, asked: list[DictConfig]) -> None:
    status, out, err = cli("run", "-m", "seed=0,8,9,7,1")
    assert status == 2
    assert [cfg.seed for cfg in asked] == [0, 8, 9, 7, 1]
    assert out.splitlines()[-2:] == ["[5/5] seed=1", "5 runs: 2 done, 3 failed"]
    assert "1 of 5 runs done, 3 failed, about " in out
    assert err.index("error: seed 8 found the disk full\n") < err.index("RuntimeError: seed 9 met a bug\n")
    assert err.splitlines()[-4:] == [
        "error: 3 of 5 runs failed",
        "  [2/5] seed=8: exit 1, seed 8 found the disk full",
        "  [3/5] seed=9: exit 1, RuntimeError",
        "  [4/5] seed=7: exit 2, seed 7 is bad input",
    ]
    # The data alone: nothing of Hydra's.
    assert set(os.listdir()) <= {"data"}


def test_the_worst_status_is_1_when_only_the_machine_failed(cli: Cli) -> None:
    assert cli("run", "-m", "seed=0,8")[0] == 1


def test_a_mistake_in_one_job_starts_none(cli: Cli, asked: list[DictConfig]) -> None:
    assert cli("run", "-m", "seed=0,1", "model=cnn,swe")[0] == 2
    assert not asked


def test_an_interrupt_ends_the_grid(cli: Cli, asked: list[DictConfig]) -> None:
    status, _, err = cli("run", "-m", "seed=0,10,1")
    assert (status, err.count("\n")) == (130, 1)
    assert [cfg.seed for cfg in asked] == [0, 10]


def test_batches_of_a_launcher_number_on(cli: Cli, asked: list[DictConfig]) -> None:
    status, out, _ = cli("run", "-m", "seed=0,1,2", "hydra.sweeper.max_batch_size=2")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("[")] == [
        "[1/3] seed=0", "[2/3] seed=1", "[3/3] seed=2",
    ]  # fmt: skip


def test_two_commands_in_a_row_do_not_disturb_each_other(cli: Cli, asked: list[DictConfig]) -> None:
    cli("run", "-m", "seed=1,2", "model=cnn")
    cli("run", "model=swe")
    assert cli("run", "seed=3") == (0, "", "")
    assert [cfg.seed for cfg in asked] == [1, 2, 3]
    assert asked[-1].model._target_.endswith("SEWResNet")
