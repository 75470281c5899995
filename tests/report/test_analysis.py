"""A table's statistics by hand: what is compared with what, which regularizers are ranked, and by which strength."""

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
        line(records, "none", None, dict(enumerate([90.0, 91.0, 90.5, 90.3, 90.7])), vals[0]),
        line(records, "weak", 0.1, dict(enumerate([91.0, 93.0, 92.0, 92.0, 92.0])), vals[1]),
        line(records, "weak", 10.0, dict(enumerate([80.0, 84.0, 82.0, 82.0, 82.0])), vals[2]),
        line(records, "strong", 1.0, dict.fromkeys(range(5), 88.0), vals[3]),
    ]


def analysed(lines: list[Line]) -> Analysis:
    return analyse(Table("a table", "quick", "", lines))


def scores(standings: list[Standing]) -> dict[str, tuple[float | None, float | None]]:
    """Series -> mean score and rank, in the order in which they stand."""
    return {one.series: (one.score and one.score.mean, one.rank and one.rank.rank) for one in standings}


def test_with_validation_the_strength_that_it_prefers_is_scored(records: SimpleNamespace) -> None:
    """Weak has 92 on average at one strength and 82 at the other; the test set does not pick."""
    for vals, weak, picked in (((50.0, 70.0, 60.0, 50.0), 92.0, 0.1), ((50.0, 60.0, 70.0, 50.0), 82.0, 10.0)):
        standings = analysed(three(records, *vals)).standings
        assert scores(standings)["weak"][0] == weak
        assert {one.series: one.picked for one in standings}["weak"] == f"weak {picked}"
    assert scores(standings) == {"none": (90.5, 1.0), "strong": (88.0, 2.0), "weak": (82.0, 3.0)}


def test_no_regularizer_is_scored_by_its_own_grid(records: SimpleNamespace) -> None:
    """Without a validation split, or with one run that has none, nothing picks a strength."""
    assert analysed(three(records)).standings == []
    assert analysed(three(records, 50.0, 70.0, None, 50.0)).standings == []


def test_two_regularizers_beside_the_baseline_are_ranked_and_one_is_not(records: SimpleNamespace) -> None:
    lines = three(records, 50.0, 60.0, 70.0, 50.0)
    assert len(analysed(lines).standings) == 3
    assert analysed(lines[:3]).standings == []
    # It counts in each panel apart.
    lines[0].panel = "another"
    assert analysed(lines).standings == []


def test_a_picked_strength_that_diverged_in_a_seed_ranks_last(records: SimpleNamespace) -> None:
    lines = three(records, 50.0, 60.0, 50.0, 50.0)
    lines[1] = line(records, "weak", 0.1, {**dict.fromkeys(range(4), 99.0), 4: None}, 60.0)
    standings = analysed(lines[:2] + lines[3:]).standings
    assert scores(standings) == {"none": (90.5, 1.0), "strong": (88.0, 2.0), "weak": (99.0, 3.0)}


def test_ranks_need_five_seeds_of_every_row(records: SimpleNamespace) -> None:
    lines = three(records, 50.0, 60.0, 70.0, 50.0)
    analysis = analysed(lines)
    assert [row.rank and row.rank.rank for row in analysis.rows] == [2.0, 1.0, 4.0, 3.0]
    assert analysis.unranked == ""
    del lines[3].records[4]
    analysis = analysed(lines)
    assert [row.rank for row in analysis.rows] == [None] * 4
    assert analysis.standings == []
    assert analysis.unranked == (
        "No ranks: they need 5 seeds of every row, and the rows have 4 seeds in common."
    )  # fmt: skip


def spread(records: SimpleNamespace, series: str, level: float, shift: float = 0.0, seeds: int = 5) -> Line:
    """Seeds half a point apart around a level, in an order of their own."""
    return line(records, series, 1.0, {seed: level + 0.5 * ((2 * seed + shift) % 5 - 2) for seed in range(seeds)})


def test_a_row_that_did_nothing_is_neither_judged_nor_ranked_nor_counted(records: SimpleNamespace) -> None:
    """Beside eleven rows that do nothing, one comparison is corrected for itself alone, and no variance is theirs."""
    base, ours = spread(records, "none", 90.0), spread(records, "ours", 91.5, 1.0)
    nothing = [spread(records, f"nothing {i}", 90.0) for i in range(11)]
    for one in (ours, *nothing):
        one.against = base
    for place, run in enumerate(run for one in nothing for run in one.records):
        run.result["run_id"] = f"r{place}"
    alone, *_ = analysed([base, ours]).rows[1:]
    mean = alone.estimate("test_acc")
    rows = analysed([base, *nothing, ours]).rows
    assert [row.line.idle for row in rows[1:]] == [True] * 11 + [False]
    assert all(
        row.contrasts == {"test_acc": None, "test_spike_rate": None, "synops_per_image": None} for row in rows[:-1]
    )
    assert rows[-1].contrasts["test_acc"] == alone.contrasts["test_acc"]
    assert mean is not None
    assert rows[-1].estimate("test_acc") == mean
    assert [row.rank and row.rank.rank for row in rows] == [2.0, *[None] * 11, 1.0]


def test_spikes_are_judged_by_their_ratio_and_fewer_are_better(records: SimpleNamespace) -> None:
    base, fewer, more = (spread(records, name, 90.0, shift) for shift, name in enumerate(("none", "fewer", "more")))
    for one, factor in ((base, 1.0), (fewer, 0.5), (more, 3.0)):
        one.against = None if one is base else base
        for run in one.records:
            run.result["test"]["spike_rate"] = 0.1 * factor * (1 + 0.01 * ((run.seed * 2 + int(factor)) % 5))
            run.result["synops_per_image"] = 1e6 * factor**0.001 * (1 + 0.001 * ((run.seed * 3 + int(factor)) % 5))
    _, down, up = analysed([base, fewer, more]).rows
    assert (down.contrasts["test_spike_rate"] or up).verdict is Verdict.BETTER
    assert (up.contrasts["test_spike_rate"] or down).verdict is Verdict.WORSE
    rate = up.contrasts["test_spike_rate"]
    assert rate is not None
    assert rate.difference == pytest.approx(2.0, rel=0.01)
    # SynOps differ by a thousandth: within 5 %.
    synops = up.contrasts["synops_per_image"]
    assert synops is not None
    assert synops.verdict is Verdict.ALIKE


def test_panels_are_families_of_their_own(records: SimpleNamespace) -> None:
    """Two lines of a second panel change nothing in the first."""
    lines = [spread(records, name, 90.0 + i, i) for i, name in enumerate(("none", "a", "b"))]
    for one in lines[1:]:
        one.against = lines[0]
    others = [spread(records, name, 50.0 + 9 * i, 2 * i) for i, name in enumerate(("none", "c"))]
    others[1].against = others[0]
    before = [row.contrasts for row in analysed(lines).rows]
    for one in others:
        one.panel = "another"
    assert [row.contrasts for row in analysed([*lines, *others]).rows[:3]] == before
    for one in others:
        one.panel = ""
    assert [row.contrasts for row in analysed([*lines, *others]).rows[:3]] != before


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
