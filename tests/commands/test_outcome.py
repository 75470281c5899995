"""What a grid came to: its rows, their names, the best of them, the cost; and the table of grids in processes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.commands import outcome
from bench.grid import Grid, GridRun
from tests.report.conftest import diverge, measured, put, record

Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., GridRun]:
    """made(overrides, acc, rate, **changes): a run with a record in the temporary folder; without one where acc is
    None, diverged where it is nan."""
    count = iter(range(1000))

    def make(overrides: str, acc: float | None, rate: float = 0.1, skipped: bool = False, **changes: Any) -> GridRun:
        name = f"run-{next(count)}"
        if acc is not None:
            result = record(run_id=name, **changes)
            put(tmp_path, diverge(result) if acc != acc else measured(result, acc, rate))
        return GridRun(name, tmp_path, tuple(overrides.split()), skipped)

    return make


def rows_of(runs: list[GridRun]) -> list[outcome.Setting]:
    """The rows of a grid with their marks."""
    rows, _ = outcome.settings(runs)
    outcome.mark(rows)
    return rows


PENALTY = {"reg": "spikepen", "regs": {"spikepen": {"weight": 0.1, "order": 2}}, "strength": 0.1}


def test_a_row_is_a_setting_and_its_seeds(made: Callable[..., GridRun], capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    runs = [
        made("reg=none seed=0", 90.0, 0.2, skipped=True),
        made("reg=spikepen seed=0", 89.5, 0.1, **PENALTY),
        made("reg=none seed=1", 92.0, 0.2, seed=1),
        made("reg=spikepen seed=1", nan, seed=1, **PENALTY),
        made("reg=none seed=2", None),
    ]
    rows = rows_of(runs)
    assert [row.label for row in rows] == ["none", "spikepen weight=0.1"]
    assert [row.counts() for row in rows] == ["2 (1 failed)", "1 (1 diverged)"]
    assert rows[0].accuracy is not None
    # t(0.975, 1) = 12.706 times the standard error of 90 and 92, which is 1: on the logit scale, whose slope at 91 is
    # 1 / 8.19 a point, 12.706 points are 1.5514, and 2.3136 + 1.5514 is the logit of 97.95.
    assert rows[0].accuracy.mean == 91.0
    assert rows[0].accuracy.high == pytest.approx(97.95, abs=0.01)
    # 89.5 is 1.5 points below 91: the cheapest within one point is the baseline itself.
    assert [row.marks for row in rows] == [["accuracy", "spikes"], []]
    of = Grid(runs, done=3, failed=1)
    outcome.show(of)
    out = capsys.readouterr().out
    assert "digits, cnn, quick\n" in re.sub(" +\n", "\n", out)
    assert "5 runs: 3 done (1 diverged), 1 skipped (finished before), 1 failed\n" in out
    # Three records that are not skipped: 12 s each, 3 epochs of 1,437 images each.
    assert "run time 36 s in all, 12,933 images trained\n" in out
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(("acc", "cheapest"), [(90.0, "spikepen weight=0.1"), (89.9, "none")])
def test_cheap_is_within_a_point_of_the_baseline(made: Callable[..., GridRun], acc: float, cheapest: str) -> None:
    runs = [made("reg=none", 91.0, 0.2), made("reg=spikepen", acc, 0.1, **PENALTY)]
    assert [row.label for row in rows_of(runs) if "spikes" in row.marks] == [cheapest]


def test_without_a_baseline_no_row_is_the_cheapest(made: Callable[..., GridRun]) -> None:
    stronger = {**PENALTY, "regs": {"spikepen": {"weight": 1.0, "order": 2}}, "strength": 1.0}
    runs = [made("reg.spikepen.weight=0.1", 91.0, **PENALTY), made("reg.spikepen.weight=1", 80.0, **stronger)]
    rows = rows_of(runs)
    assert [row.label for row in rows] == ["spikepen weight=0.1", "spikepen weight=1"]
    assert [row.marks for row in rows] == [["accuracy"], []]


def test_every_network_has_its_own_best(made: Callable[..., GridRun]) -> None:
    sew = {"model": "sew", "model_args": {"channels": 16}}
    runs = [
        made("model=cnn reg=none", 91.0, 0.2),
        made("model=cnn reg=spikepen", 90.5, 0.1, **PENALTY),
        made("model=sew reg=none", 60.0, 0.3, **sew),
        made("model=sew reg=spikepen", 61.0, 0.4, **sew, **PENALTY),
    ]
    assert [(row.label, row.marks) for row in rows_of(runs)] == [
        ("cnn none", ["accuracy"]),
        ("cnn spikepen weight=0.1", ["spikes"]),
        ("sew none", ["spikes"]),
        ("sew spikepen weight=0.1", ["accuracy"]),
    ]


def test_what_the_record_does_not_name_is_shown_as_typed(made: Callable[..., GridRun]) -> None:
    runs = [
        made("neuron.v_threshold=1 trainer.epochs=3 seed=0", 91.0),
        made("neuron.v_threshold=2 trainer.epochs=3 seed=0", 90.0),
        made("neuron.v_threshold=3 trainer.epochs=3 seed=0", None),
    ]
    assert [row.label for row in rows_of(runs)] == [
        "none neuron.v_threshold=1",
        "none neuron.v_threshold=2",
        "neuron.v_threshold=3 trainer.epochs=3",
    ]


def test_two_spellings_of_one_run_are_one_row(made: Callable[..., GridRun]) -> None:
    run = made("reg=none seed=0", 91.0)
    again = GridRun(run.run_id, run.runs, ("reg=[]", "seed=0"), False)
    (row,) = rows_of([run, again])
    assert (row.label, row.counts()) == ("none", "1")


def test_a_grid_for_real_ends_in_its_table(bench: Bench, tiny: tuple[str, ...]) -> None:
    typed = ("run", "-m", *tiny, "trainer.epochs=1", "reg=none,spikepen", "seed=0,1")
    first = bench(*typed)
    assert first.returncode == 0, first.stderr
    lines = [line.rstrip() for line in first.stdout.splitlines()]
    assert sum(bool(re.match(r"[123] of 4 runs done, about \d+ s left$", line)) for line in lines) == 3
    start = lines.index("digits, cnn, quick")
    table = lines[start + 1 : start + 4]
    assert [line.split()[0] for line in table] == ["setting", "none", "spikepen"]
    assert all("  2  " in f"{line}  " for line in table[1:])
    assert all(len(line) <= 80 for line in lines[start:])
    # 40 images in batches of 8, one epoch, four runs.
    assert re.match(r"wall time \d+ s, run time \d+ s in all, 160 images trained$", lines[-1])
    again = bench(*typed)
    assert again.returncode == 0, again.stderr
    assert [line.rstrip() for line in again.stdout.splitlines()][-5:-2] == table
    assert again.stdout.endswith("4 runs: 0 done, 4 skipped (finished before)\n")
    wide = bench(*typed, env={"COLUMNS": "60"})
    assert max(len(line.rstrip()) for line in wide.stdout.splitlines()[1:]) <= 60


@pytest.mark.slow
def test_a_grid_of_ray_ends_in_its_table(bench: Bench, tiny: tuple[str, ...]) -> None:
    """Ray takes long to start: the runs are in other processes, the counts and the table in this one."""
    pytest.importorskip("ray")
    typed = ("run", "-m", "hydra/launcher=ray", *tiny, "trainer.epochs=1", "reg=none,spikepen", "seed=0")
    done = bench(*typed, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^1 of 2 runs done, about \d+ s left$", done.stdout, re.MULTILINE)
    assert re.search(r"^spikepen weight=0\.1 +\d+\.\d\d +\d\.\d{4} +1\b", done.stdout, re.MULTILINE)
    assert "2 runs: 2 done\n" in done.stdout
    assert "2 of 2 runs done" not in done.stdout
