"""The leaderboard: entries from studies and the records of their final runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import studies
from bench.report import boards, leaderboard_text
from bench.report.collect import Collection, StoredRun
from bench.report.leaderboard import Leaderboard, best_of, leaderboard, load, run_ids, study_folders
from bench.report.stats import Verdict
from tests.report.boards import study, trials


@pytest.fixture
def runs(records: SimpleNamespace) -> Callable[..., list[StoredRun]]:
    """Final runs of a trial by accuracy and spike rate, seeds from 1 on."""

    def made(method: str, trial: int, *outcomes: tuple[float, float], workload: str = "mnist-1k") -> list[StoredRun]:
        found = []
        for seed, (acc, rate) in enumerate(outcomes, 1):
            result = records.record(
                run_id=f"{workload}-{method}-{trial}-s{seed}", seed=seed, test__acc=acc, test__spike_rate=rate
            )
            found.append(StoredRun(result, Path("result.json")))
        return found

    return made


NONE = trials("none", (95.0, 0.2), (96.0, 0.2))
PEN = trials("spikepen", (95.5, 0.05), (96.5, 0.15))


@pytest.fixture
def board(runs: Callable[..., list[StoredRun]]) -> Leaderboard:
    """None at 95 % and 0.2; spikepen tuned at 97 % and 0.1, untuned and cheap at 95 % and 0.05."""
    spread = (-0.1, -0.05, 0.0, 0.05, 0.1)
    records = [
        *runs("none", 1, *((95 + d, 0.2 + d / 100) for d in spread)),
        *runs("none", 0, *((94 + d, 0.2 + d / 100) for d in spread)),
        *runs("spikepen", 1, *((97 + d, 0.1 + d / 100) for d in spread)),
        *runs("spikepen", 0, *((95 + d, 0.05 + d / 200) for d in spread)),
    ]
    made = leaderboard([study("none", NONE), study("spikepen", PEN)], Collection(records), [])
    assert made is not None
    return made


def test_a_tuned_method_is_compared_with_the_tuned_baseline(board: Leaderboard) -> None:
    (one,) = board.boards
    assert [(entry.method, entry.ruleset) for entry in one.entries] == [
        ("spikepen", "tuned"), ("none", "tuned"), ("spikepen", "default"), ("none", "default"),
    ]  # fmt: skip
    pen, none = one.entries[:2]
    assert (pen.rank, none.rank) == (1, 2)
    assert pen.accuracy is not None
    assert pen.accuracy.mean == pytest.approx(97)
    assert pen.difference is not None
    assert pen.difference.difference == pytest.approx(2)
    assert pen.difference.verdict is Verdict.BETTER
    assert pen.rate_change is not None
    assert pen.rate_change.difference == pytest.approx(-0.5, abs=1e-3)
    assert pen.rate_change.verdict is Verdict.BETTER
    assert none.difference is None
    assert pen.gain == pytest.approx(2)
    assert none.gain == pytest.approx(1)
    assert pen.wins == 1.0
    # The cheap choice keeps the accuracy and a quarter of the spikes.
    assert pen.frugal_change is not None
    assert pen.frugal_change.difference == pytest.approx(-0.75, abs=1e-3)
    assert pen.frugal_difference is not None
    assert pen.frugal_difference.difference == pytest.approx(0, abs=1e-9)


def test_energy_stands_beside_the_relu_twins(runs: Callable[..., list[StoredRun]], records: SimpleNamespace) -> None:
    spiking = runs("none", 1, (95.0, 0.2), (95.1, 0.2))
    (own,) = {record.number("energy_uj") for record in spiking}
    assert own is not None
    twin = records.record(run_id="twin", neuron="relu", energy_uj=4 * own)
    for others, beside in (([StoredRun(twin, Path("result.json"))], " [25 %]"), ([], "")):
        made = leaderboard([study("none", NONE)], Collection([*spiking, *others]), [])
        assert made is not None
        (first, *_) = leaderboard_text.rows(made.boards[0])
        assert first[leaderboard_text.columns().index("energy (µJ)")] == f"{own:.2f}{beside}"


def test_the_untuned_baseline_is_compared_with_the_tuned_one(board: Leaderboard) -> None:
    entry = board.boards[0].entries[3]
    assert (entry.method, entry.ruleset) == ("none", "default")
    assert entry.difference is not None
    assert entry.difference.difference == pytest.approx(-1)
    assert entry.gain is None


def test_accuracy_at_fewer_spikes_lies_between_the_trials(board: Leaderboard) -> None:
    pen, none = board.boards[0].entries[:2]
    # The baseline's chosen trial has a rate of 0.2; a half lies midway between the trials at 0.05 and 0.15.
    assert pen.at_half == pytest.approx(96.0)
    assert pen.at_three_quarters == pytest.approx(96.5)
    assert none.at_half is None


def test_the_expected_best_of_some_trials_by_hand() -> None:
    # Of {1, 2, 4}: the mean; pairs 2, 4, 4; all three.
    assert best_of([4, 1, 2]) == pytest.approx((7 / 3, 10 / 3, 4))
    assert best_of([]) == ()


def test_fewer_trials_or_seeds_are_not_ranked(runs: Callable[..., list[StoredRun]]) -> None:
    flat = ((95.0, 0.2), (95.1, 0.2), (94.9, 0.2), (95.0, 0.2), (95.2, 0.2))
    records = [
        *runs("none", 1, *flat), *runs("none", 0, *flat), *runs("spikepen", 1, *flat[:4]), *runs("spikepen", 0, *flat),
        *runs("dropout", 1, *flat), *runs("dropout", 0, *flat),
    ]  # fmt: skip
    few = [study("none", trials("none", (95, 0.2), (96, 0.2), (94, 0.2))), study("spikepen", PEN),
           study("dropout", trials("dropout", (95, 0.2), (96, 0.2), (94, 0.2)))]  # fmt: skip
    made = leaderboard(few, Collection(records), [])
    assert made is not None
    entries = {entry.method: entry for entry in made.boards[0].entries if entry.ruleset == "tuned"}
    assert (entries["spikepen"].complete, entries["spikepen"].why) == (False, "2 of 3 trials, 4 of 5 seeds")
    assert entries["spikepen"].rank is None
    assert {entries["none"].rank, entries["dropout"].rank} == {1.5}
    assert [entry.method for entry in made.boards[0].entries][2] == "spikepen", "below those that are complete"


def test_a_run_that_diverged_is_counted_and_in_no_mean(
    runs: Callable[..., list[StoredRun]], records: SimpleNamespace
) -> None:
    flat = ((95.0, 0.2), (95.1, 0.2), (94.9, 0.2), (95.0, 0.2), (95.2, 0.2))
    lost = runs("spikepen", 1, *((99.0, 0.2),) * 5)
    lost[4] = replace(lost[4], result=records.diverge(lost[4].result))
    found = [*runs("none", 1, *flat), *runs("none", 0, *flat), *lost, *runs("spikepen", 0, *flat)]
    made = leaderboard([study("none", NONE), study("spikepen", PEN)], Collection(found), [])
    assert made is not None
    pen = next(entry for entry in made.boards[0].entries if (entry.method, entry.ruleset) == ("spikepen", "tuned"))
    assert (pen.seeds, pen.diverged) == (4, 1)
    assert pen.accuracy is not None
    assert pen.accuracy.mean == 99
    assert pen.difference is not None
    assert pen.difference.verdict is Verdict.TOO_FEW, "the seeds that survived cannot speak for one that did not"
    assert pen.rank == 2, "what diverged ranks last"


def test_what_cannot_be_compared_is_left_out_with_a_line(runs: Callable[..., list[StoredRun]]) -> None:
    flat = ((95.0, 0.2),) * 5
    records = [*runs("none", 1, *flat), *runs("spikepen", 1, *flat)]
    left: list[str] = []
    foreign = study("spikepen", PEN, data_checksum="cd" * 32)
    made = leaderboard([study("none", NONE), foreign], Collection(records), left)
    assert made is not None
    assert {entry.method for entry in made.boards[0].entries} == {"none"}
    assert left == ["left out: study mnist-1k-spikepen: it is on another copy of the data"]
    left.clear()
    assert leaderboard([study("spikepen", PEN)], Collection(records), left) is None
    assert left == ["left out: study mnist-1k-spikepen: no study of none to compare it with"]


def test_studies_lie_beside_records_or_among_runs(tmp_path: Path) -> None:
    for root in (tmp_path / "reports" / "studies", tmp_path / "runs" / "studies"):
        studies.write(root / "mnist-1k-none-t2-000000", study("none", NONE).facts, NONE)
    bad = tmp_path / "runs" / "studies" / "mnist-1k-none-t2-111111"
    studies.write(bad, study("none", NONE).facts | {"protocol": 7}, NONE)
    folders = study_folders([tmp_path / "reports" / "records", tmp_path / "runs"])
    left: list[str] = []
    (found,) = load(folders, left)
    assert found.folder.is_relative_to(tmp_path / "reports"), "a submitted study comes before one's own"
    assert left == ["left out: study mnist-1k-none-t2-111111: it is by protocol 7, this suite's is 1"]
    assert {"none-trial-0", "none-trial-1", "mnist-1k-none-1-s5"} <= run_ids([found])


def test_over_several_workloads_the_share_of_errors_that_goes(runs: Callable[..., list[StoredRun]]) -> None:
    records, found = [], []
    # On one workload 50 % become 60 %, a fifth of the errors, on the other 90 become 94 %, two fifths.
    for workload, base, ours in (("one", 50.0, 60.0), ("two", 90.0, 94.0)):
        found += [study("none", NONE, workload), study("spikepen", PEN, workload)]
        for method, acc in (("none", base), ("spikepen", ours)):
            for trial in (0, 1):
                records += runs(method, trial, *((acc, 0.1),) * 5, workload=workload)
    made = leaderboard(found, Collection(records), [])
    assert made is not None
    ((method, mean, low, high),) = made.overall
    assert method == "spikepen"
    # The middle half of five 0.2 and five 0.4.
    assert mean == pytest.approx(0.3)
    assert low == high == pytest.approx(0.3), "the runs of a workload are all equal"


def test_the_pages_say_the_same_as_the_entries(board: Leaderboard) -> None:
    pages = {name: content.decode() for name, content in boards.files(board, ["left out: study x: why"])}
    assert set(pages) == {"leaderboard/README.md", "leaderboard/table.csv"}
    assert "`spikepen`" in pages["leaderboard/README.md"]
    assert "97.00" in pages["leaderboard/README.md"]
    assert "Left out (1)" in pages["leaderboard/README.md"]
    head, first, *rest = pages["leaderboard/table.csv"].splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=False))
    assert (cells["method"], cells["rank"], cells["test_acc"], cells["acc_vs_none_verdict"]) == (
        "spikepen", "1.0", "97", "better",
    )  # fmt: skip
    assert len(rest) == 3
    assert json.dumps([asdict(entry) for entry in board.boards[0].entries], default=str)
