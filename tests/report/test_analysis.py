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


def test_a_regularizer_is_scored_by_the_mean_over_its_strengths(records: SimpleNamespace) -> None:
    """Weak has (92 + 80) / 2 and (94 + 84) / 2 in the two seeds: 86 and 89."""
    analysis = analysed(three(records))
    assert scores(analysis.standings) == {"none": (90.5, 1.0), "strong": (88.0, 2.0), "weak": (87.5, 3.0)}
    assert "averaged over the strengths" in analysis.scored
    areas = {one.series: one.area and one.area.mean for one in analysis.standings}
    # Two strengths make one trapezoid, whose mean height is the ends' mean.
    assert areas == {"none": None, "strong": None, "weak": pytest.approx(87.5)}


def test_with_validation_the_strength_that_it_prefers_is_scored(records: SimpleNamespace) -> None:
    for vals, weak in (((50.0, 70.0, 60.0, 50.0), 93.0), ((50.0, 60.0, 70.0, 50.0), 82.0)):
        analysis = analysed(three(records, *vals))
        assert scores(analysis.standings)["weak"][0] == weak
        assert "validation" in analysis.scored
        assert "averaged" not in analysis.scored
    # One run without a validation split, and no strength is picked.
    analysis = analysed(three(records, 50.0, 70.0, None, 50.0))
    assert scores(analysis.standings)["weak"][0] == 87.5


def test_two_regularizers_beside_the_baseline_are_ranked_and_one_is_not(records: SimpleNamespace) -> None:
    lines = three(records)
    assert len(analysed(lines).standings) == 3
    assert analysed(lines[:3]).standings == []
    # It counts in each panel apart.
    lines[0].panel = "another"
    assert analysed(lines).standings == []


def test_a_seed_in_which_a_strength_diverged_has_no_score_and_ranks_last(records: SimpleNamespace) -> None:
    """Weak would score 93 and lead; with seed 1 lost at its second strength seed 0 alone is its score."""
    lines = three(records)
    lines[2] = line(records, "weak", 10.0, {0: 100.0, 1: None})
    standings = analysed(lines).standings
    assert scores(standings) == {"none": (90.5, 1.0), "strong": (88.0, 2.0), "weak": (96.0, 3.0)}
    assert [one.score and one.score.n for one in standings] == [2, 2, 1]
    assert [one.area and one.area.n for one in standings] == [None, None, 1]


def test_seeds_that_a_strength_lacks_do_not_count(records: SimpleNamespace) -> None:
    """Of weak's strengths only seed 0 is common: (92 + 80) / 2; ranks go by it alone, and weak's is the last."""
    lines = three(records)
    lines[2] = line(records, "weak", 10.0, {0: 80.0})
    assert scores(analysed(lines).standings) == {"none": (90.5, 1.0), "strong": (88.0, 2.0), "weak": (86.0, 3.0)}


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


def test_one_pair_has_no_sign_flip_test_and_two_have(records: SimpleNamespace) -> None:
    base = line(records, "none", None, {0: 90.0, 1: 91.0})
    ours = line(records, "a", 1.0, {0: 91.0, 1: 93.0})
    ours.against = base
    # Of the sums of +-1 +-2 two of four are 3 or -3.
    assert analysed([base, ours]).rows[1].sign_flip == 0.5
    del ours.records[1]
    assert analysed([base, ours]).rows[1].sign_flip is None


def test_the_front_of_accuracy_and_cost(records: SimpleNamespace) -> None:
    """b is beaten by a in both; c costs most and scores best; d has no spike rate."""
    lines = [line(records, name, 1.0, {0: acc}) for name, acc in zip("abcd", (90.0, 89.0, 95.0, 99.0), strict=True)]
    for one, rate, synops in zip(lines, (0.1, 0.2, 0.3, None), (3e6, 2e6, 1e6, 4e6), strict=True):
        result = one.records[0].result
        result["test"]["spike_rate"], result["synops_per_image"] = rate, synops
    rows = {row.line.series: (row.cheap, row.frugal) for row in analysed(lines).rows}
    assert rows == {"a": (True, False), "b": (False, False), "c": (True, True), "d": (False, True)}
