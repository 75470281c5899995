"""The list of runs and two of them side by side: filters, order, names, faults, in processes of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.__main__ import main
from bench.commands import completion
from tests.report.conftest import diverge, measured, put, record

Said = Callable[..., tuple[int, str, str]]

NONE, PENALTY, SEW, HALF = (
    "digits-cnn-none-s0-00000001", "digits-cnn-spikepen-s0-00000002", "mnist-sew-none-s1-00000003",
    "digits-cnn-spikepen-s1-00000004",
)  # fmt: skip


def curve(folder: Path, accuracies: list[float]) -> None:
    """The lines of some epochs."""
    rows = [
        {"epoch": i, "train": {"acc": acc, "loss": 1.0, "spike_rate": 0.1}, "test": {"acc": acc}}
        for i, acc in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished runs on digits, one that diverged on another data set, one that was interrupted."""
    folder = tmp_path / "runs"
    settings = {"seed": 0, "trainer": {"epochs": 4}, "data": {"name": "digits", "root": "here"}}
    first = measured(record(run_id=NONE, finished="2026-01-01T10:00:00+00:00"), 94.0, 0.2)
    put(folder, first, config={**settings, "reg": {"none": {"_target_": "x"}}})
    curve(folder / NONE, [20.0, 50.0, 80.0, 94.0])
    weight = {"spikepen": {"weight": 0.5, "order": 2}}
    own = record(run_id=PENALTY, reg="spikepen", regs=weight, strength=0.5, finished="2026-01-02T10:00:00+00:00")
    second = measured(own, 92.5, 0.1)
    put(folder, second, config={**settings, "data": {"name": "digits", "root": "there"}, "reg": weight})
    curve(folder / PENALTY, [20.0, 80.0])
    third = record(run_id=SEW, data="mnist", model="sew", seed=1, finished="2026-01-03T10:00:00+00:00")
    put(folder, diverge(third))
    (folder / HALF).mkdir()
    half = {"budget": "quick", "trainer": {"epochs": 30}, "reg": {"spikepen": {"_target_": "x", "weight": 0.25}}}
    (folder / HALF / "config.yaml").write_text(yaml.safe_dump(half))
    curve(folder / HALF, [20.0, 30.0, 40.0])
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_text("{}")
    return folder


@pytest.fixture
def said(runs: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """said("runs", ...): exit status, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        return status, *capsys.readouterr()

    return call


def listed(said: Said, *words: str) -> list[str]:
    """The names of the runs that are listed, in order."""
    status, out, err = said("runs", *words, "--json")
    assert (status, err) == (0, "")
    return [run["run_id"] for run in json.loads(out)]


def test_every_run_is_a_row(said: Said) -> None:
    status, out, err = said("runs")
    assert (status, err) == (0, "")
    title, heads, *rows = [" ".join(line.split()) for line in out.splitlines() if line.strip()]
    assert title.startswith("4 runs in ")
    assert heads == "run data network setting seed status test acc spike rate when (UTC)"
    found = dict(row.split(" ", 1) for row in rows)
    assert found[NONE] == "digits cnn none 0 finished 94.00 0.2000 2026-01-01 10:00"
    assert found[PENALTY] == "digits cnn spikepen weight=0.5 0 finished 92.50 0.1000 2026-01-02 10:00"
    assert found[SEW] == "mnist sew none 1 diverged - - 2026-01-03 10:00"
    assert found[HALF].startswith("digits cnn spikepen 1 unfinished at epoch 3 of 30 - - 20")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["data=mnist"], [SEW]),
        (["data=digits", "status=finished", "sort=test.acc"], [PENALTY, NONE]),
        (["data=digits", "status=finished", "sort=-test.acc"], [NONE, PENALTY]),
        (["status=finished,diverged", "sort=finished"], [NONE, PENALTY, SEW]),
        (["status=finished,diverged"], [SEW, PENALTY, NONE]),
        (["reg=spikepen", "sort=test.acc"], [PENALTY, HALF]),
        (["sort=-test.acc", "model=cnn"], [NONE, PENALTY, HALF]),
        (["strength=0.50"], [PENALTY]),
        (["regs.spikepen.weight=0.25,7"], [HALF]),
        (["model_args.channels=32", "seed=0", "sort=run_id"], [NONE, PENALTY]),
        (["seed=1", "status=unfinished"], [HALF]),
        (["data=kmnist"], []),
    ],
)
def test_filters_and_orders(said: Said, words: list[str], names: list[str]) -> None:
    assert listed(said, *words) == names


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("modle=cnn", "no record has an entry 'modle'. Did you mean 'model'"),
        ("sort=-test.ac", "no record has an entry 'test.ac'. Did you mean 'test.acc'"),
        ("regs=x.y", None),
        ("cnn", "'cnn' is no filter: write key=value, as in data=mnist"),
        ("layers.name=x", "no record has an entry 'layers.name'"),
    ],
)
def test_a_filter_that_is_none_is_a_line(said: Said, word: str, line: str | None) -> None:
    status, _, err = said("runs", word)
    if line is None:
        assert (status, err) == (0, "")
    else:
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith(f"error: {line}")


def test_nothing_to_list_is_said(said: Said, runs: Path, tmp_path: Path) -> None:
    assert said("runs", "data=kmnist")[1] == f"none of the 4 runs in {runs} is so\n"
    assert said("runs", "--runs", str(tmp_path / "empty")) == (0, f"no run in {tmp_path / 'empty'}\n", "")
    assert json.loads(said("runs", "--json", "--runs", str(tmp_path / "empty"))[1]) == []


def test_a_damaged_record_is_a_row(said: Said, runs: Path) -> None:
    (runs / NONE / "result.json").write_text("{")
    _, out, _ = said("runs", "status=damaged")
    assert any(line.split()[:6] == [NONE, "digits", "cnn", "none", "0", "damaged"] for line in out.splitlines())


def section(out: str, title: str) -> list[list[str]]:
    """The cells of the rows under a title, split at two spaces or more."""
    lines = [line.rstrip() for line in out.splitlines()]
    own = lines[lines.index(title) + 2 :]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in own[: own.index("")]]


def test_two_runs_side_by_side(said: Said) -> None:
    status, out, err = said("compare", "digits-cnn-n", PENALTY)
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"A  {NONE}: finished, 2026-01-01 10:00"
    assert section(out, "settings that differ") == [
        ["reg.none", "true", "-"],
        ["reg.spikepen.order", "-", "2"],
        ["reg.spikepen.weight", "-", "0.5"],
    ]
    rows = {row[0]: row[1:] for row in section(out, "outcome")}
    assert rows["test accuracy"] == ["94.00 %", "92.50 %", "-1.50"]
    assert rows["spike rate, test"] == ["0.2000", "0.1000", "-0.1000 (-50%)"]
    assert rows["SynOps / image"] == ["2,000,000", "1,000,000", "-1,000,000 (-50%)"]
    curves = section(out, "curves, on one scale")
    # 20, 50, 80, 94 and 20, 80 on a scale of 20 to 94 in eight steps of 9.25.
    assert curves[:2] == [["test accuracy", "A ▁▄▇█", "20.00", "94.00", "4"], ["B ▁▇", "20.00", "80.00", "2"]]
    assert section(out, "spike rate of each layer")[0] == ["spiking.0", "0.3200", "0.1600", "-0.1600 (-50%)"]


def test_a_run_that_goes_on_has_curves_and_no_outcome(said: Said) -> None:
    status, out, _ = said("compare", HALF, PENALTY)
    assert status == 0
    assert out.startswith(f"A  {HALF}: unfinished at epoch 3 of 30, ")
    rows = {row[0]: row[1:] for row in section(out, "outcome")}
    assert rows["test accuracy"] == ["-", "92.50 %", "-"]
    assert section(out, "curves, on one scale")[0][-1] == "3"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("digits-cnn", NONE), f"'digits-cnn' could be 3 runs: {NONE}, {PENALTY}, {HALF}"),
        (("digits-cnn-nnoe", NONE), "no run 'digits-cnn-nnoe' in "),
        ((NONE, "digits-cnn-none"), f"both are {NONE}"),
        ((NONE,), "compare takes two runs, not 1"),
        ((NONE, ""), "no run '' in "),
    ],
)
def test_what_names_no_two_runs_is_a_line(said: Said, words: tuple[str, ...], line: str) -> None:
    status, out, err = said("compare", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {line}")


def test_folders_are_runs_too_and_plain_outputs_get_plain_curves(
    bench: Callable[..., subprocess.CompletedProcess[str]], runs: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (runs / SEW).rename(elsewhere)
    done = bench("compare", str(elsewhere), NONE, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "A  elsewhere: diverged, 2026-01-03 10:00\n" in done.stdout
    assert "B 1478\n" in "".join(line.partition("  2")[0].rstrip() + "\n" for line in done.stdout.splitlines())
    listing = bench("runs", "sort=-finished", "data=digits,mnist", env={"COLUMNS": "70"})
    assert listing.returncode == 0
    assert max(map(len, listing.stdout.splitlines()[1:])) <= 70
    none = bench("compare", str(tmp_path), NONE)
    assert (none.returncode, none.stderr.count("\n")) == (2, 1)
    assert "is no folder of a run" in none.stderr


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("bench runs sta", ["started=", "status=", "status_reason="]),
        ("bench runs status=", ["status=finished ", "status=diverged ", "status=unfinished "]),
        ("bench runs sort=-test.a", ["sort=-test.acc "]),
        ("bench runs data=mni", ["data=mnist "]),
        ("bench compare digits-cnn-n", [f"{NONE} "]),
        (f"bench compare {NONE} digits-cnn-spikepen-s1", [f"{HALF} "]),
        (f"bench compare {NONE} {HALF} digits", []),
        (f"bench compare {NONE} digits-cnn-none", []),
    ],
)
def test_completion_knows_records_and_runs(runs: Path, line: str, offers: list[str]) -> None:
    assert completion.complete(line) == offers


def test_the_runs_of_a_real_grid_are_listed(
    run_tiny: Callable[..., dict[str, Any]], said: Said, tmp_path: Path, runs: Path
) -> None:
    result = run_tiny("reg=spikepen", "reg.spikepen.weight=0.125", f"runs={runs}")
    assert listed(said, "regs.spikepen.weight=0.125") == [result["run_id"]]
    _, out, _ = said("compare", result["run_id"], NONE)
    assert ["reg.spikepen.weight", "0.125", "-"] in section(out, "settings that differ")
    assert [row[0] for row in section(out, "spike rate of each layer")][:3] == [
        layer["name"] for layer in result["layers"]
    ]
