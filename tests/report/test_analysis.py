"""A table's statistics by hand: how regularizers are scored over their strengths, and when they are ranked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.report.analysis import Analysis, Standing, analyse
from bench.report.collect import StoredRun
from bench.report.stats import Verdict
from bench.report.tables import Line, Table

Runs = dict[int, float | None]
"""Seed -> test accuracy; None of a run that diverged."""


def line(
    records: SimpleNamespace, series: str, strength: float | None, accuracies: Runs, val: float | None = None
) -> Line:
    """A setting's runs, those of one validation accuracy."""
    runs = []
    for seed, acc in accuracies.items():
        result = records.record(seed=seed, test__acc=0.0 if acc is None else acc)
        if acc is None:
            result = records.diverge(result)
        elif val is not None:
            result["val"] = {"acc": val, "loss": 1.0, "spike_rate": 0.1, "spike_rate_layer_mean": 0.1}
        runs.append(StoredRun(result, Path()))
    return Line(f"{series} {strength}", series, strength, runs)


def three(records: SimpleNamespace, *vals: float | None) -> list[Line]:
    """A baseline and two regularizers; of one of them two strengths a hundredfold apart, in the middle of the list."""
    vals = vals or (None,) * 4
    return [
        line(records, "none", None, {0: 90.0, 1: 91.0}, vals[0]),
        line(records, "weak", 0.1, {0: 92.0, 1: 94.0}, vals[1]),
        line(records, "weak", 10.0, {0: 80.0, 1: 84.0}, vals[2]),
        line(records, "strong", 1.0, {0: 88.0, 1: 88.0}, vals[3]),
    ]


def analysed(lines: list[Line]) -> Analysis:
    return analyse(Table("a table", "quick", "", lines))


def scores(standings: list[Standing]) -> dict[str, tuple[float | None, float | None]]:
    """Series -> mean score and rank, in the order in which they stand."""
    return {
        one.series: (one.score and one.score.mean, one.rank and one.rank.rank) for one in standings
    }  # fmt: skip


def five(records: SimpleNamespace, *vals: float | None) -> list[Line]:
    """As `three`, with five seeds, as ranks need: 90 to 91, 92 to 94, 80 to 84, and 88."""
    vals = vals or (None,) * 4
    return [
        line(records, "none", None, {0: 90.0, 1: 91.0, 2: 90.5, 3: 90.5, 4: 90.5}, vals[0]),
        line(records, "weak", 0.1, {0: 92.0, 1: 94.0, 2: 93.0, 3: 93.0, 4: 93.0}, vals[1]),
        line(records, "weak", 10.0, {0: 80.0, 1: 84.0, 2: 82.0, 3: 82.0, 4: 82.0}, vals[2]),
        line(records, "strong", 1.0, {0: 88.0, 1: 88.0, 2: 88.0, 3: 88.0, 4: 88.0}, vals[3]),
    ]


def test_no_method_is_ranked_by_the_mean_over_its_own_grid(records: SimpleNamespace) -> None:
    assert analysed(five(records)).standings == []
    # One run without a validation split, and no strength is picked.
    assert analysed(five(records, 50.0, 70.0, None, 50.0)).standings == []


def test_with_validation_the_strength_that_it_prefers_is_scored(records: SimpleNamespace) -> None:
    for vals, weak, rank in (((50.0, 70.0, 60.0, 50.0), 93.0, 1.0), ((50.0, 60.0, 70.0, 50.0), 82.0, 3.0)):
        standings = analysed(five(records, *vals)).standings
        assert scores(standings)["weak"] == (weak, rank)
        assert next(one.picked for one in standings if one.series == "weak") == (
            "weak 0.1" if rank == 1 else "weak 10.0"
        )


def test_rows_are_ranked_from_five_seeds_on_and_a_sentence_says_so(records: SimpleNamespace) -> None:
    few, many = analysed(three(records)), analysed(five(records))
    assert [row.rank for row in few.rows] == [None] * 4
    assert few.unranked == "No ranks: they need 5 seeds of every row, and the rows have 2 seeds in common."
    assert [row.rank and row.rank.rank for row in many.rows] == [2, 1, 4, 3]
    assert many.unranked == ""
    lines = five(records)
    del lines[3].records[4]
    assert analysed(lines).unranked.endswith("the rows have 4 seeds in common.")


def test_two_regularizers_beside_the_baseline_are_ranked_and_one_is_not(records: SimpleNamespace) -> None:
    lines = five(records, 50.0, 70.0, 60.0, 50.0)
    assert len(analysed(lines).standings) == 3
    assert analysed(lines[:3]).standings == []
    # It counts in each panel apart.
    lines[0].panel = "another"
    assert analysed(lines).standings == []


def test_a_row_that_did_nothing_is_not_compared(records: SimpleNamespace) -> None:
    lines = five(records)
    copy = Line("idle", "idle", 1.0, [StoredRun(run.result, Path("other")) for run in lines[0].records])
    for one in (*lines[1:], copy):
        one.against = lines[0]
    rows = {row.line.label: row for row in analysed([*lines, copy]).rows}
    assert rows["idle"].verdict is None
    assert rows["idle"].rank is None
    assert rows["weak 10.0"].verdict is Verdict.WORSE
    alone = {row.line.label: row for row in analysed(lines).rows}
    assert rows["weak 0.1"].adjusted == alone["weak 0.1"].adjusted, "it does not count in Holm's correction"


def test_spikes_have_verdicts_too_and_fewer_are_better(records: SimpleNamespace) -> None:
    lines = five(records)
    for one, rate in zip(lines, (0.2, 0.1, 0.4, 0.2), strict=True):
        for place, run in enumerate(one.records):
            run.result["test"]["spike_rate"] = rate * (1 + place / 500)
    for one in lines[1:]:
        one.against = lines[0]
    verdicts = [row.contrasts["test_spike_rate"] for row in analysed(lines).rows]
    assert [one and one.verdict for one in verdicts] == [None, Verdict.BETTER, Verdict.WORSE, Verdict.ALIKE]
    assert verdicts[1] is not None
    assert verdicts[1].difference == pytest.approx(-0.5)


def test_what_survives_of_a_method_that_diverges_more_is_not_called_better(records: SimpleNamespace) -> None:
    """Two points more in each of four seeds, by 0.01 more or less."""
    base = line(records, "none", None, dict(enumerate([90.0, 91.0, 90.5, 90.2, 90.0])))
    ahead: Runs = dict(enumerate([92.0, 93.01, 92.5, 92.21, None]))
    ours = line(records, "a", 1.0, {**ahead, 4: 92.0})
    ours.against = base
    assert [row.verdict for row in analysed([base, ours]).rows] == [None, Verdict.BETTER]
    ours = line(records, "a", 1.0, ahead)
    ours.against = base
    assert [row.verdict for row in analysed([base, ours]).rows] == [None, Verdict.TOO_FEW]
    # Both lost a run: what is left may be compared.
    base.records[3] = line(records, "none", None, {3: None}).records[0]
    assert analysed([base, ours]).rows[1].verdict is Verdict.BETTER


def test_the_front_of_accuracy_and_cost(records: SimpleNamespace) -> None:
    """b is beaten by a in both; c costs most and scores best; d has no spike rate."""
    lines = [line(records, name, 1.0, {0: acc}) for name, acc in zip("abcd", (90.0, 89.0, 95.0, 99.0), strict=True)]
    for one, rate, synops in zip(lines, (0.1, 0.2, 0.3, None), (3e6, 2e6, 1e6, 4e6), strict=True):
        result = one.records[0].result
        result["test"]["spike_rate"], result["synops_per_image"] = rate, synops
    rows = {row.line.series: (row.cheap, row.frugal) for row in analysed(lines).rows}
    assert rows == {"a": (True, False), "b": (False, False), "c": (True, True), "d": (False, True)}
