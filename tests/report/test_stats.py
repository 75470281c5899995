"""Statistics against hand-worked numbers, scipy, and what must hold for any numbers."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from bench.report import stats

numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


def test_pairs_that_share_seeds_by_hand() -> None:
    """.3, .1 and .2: by seed .2, .25 and .15 with deviation .05, so an error of 2 x 2 / 1 x .05 / sqrt(3), t = sqrt(3)
    and with two degrees of freedom p = 1 - t / sqrt(2 + t^2)."""
    found = stats.over_pairs({(0, 1): 0.4, (1, 0): 0.2, (0, 2): 0.1, (2, 1): 0.2})
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(0.2)
    assert found.p == pytest.approx(1 - math.sqrt(3 / 5))
    assert found.difference.high == pytest.approx(0.2 + 4.302653 * 0.2 / math.sqrt(3), rel=1e-6)
    assert found.seeds == (0, 1, 2)
    for few in ({(0, 1): 0.3}, {(0, 1): 0.3, (1, 2): 0.1}, dict.fromkeys([(0, 1), (0, 2), (1, 2)], 0.3)):
        assert stats.over_pairs(few).p is None
    assert stats.over_pairs({}).difference is None


@pytest.mark.parametrize("n", [3, 5])
def test_pairs_that_share_seeds_find_nothing_where_there_is_nothing(n: int) -> None:
    """Seeds' own parts and the pairs' own, all of mean 0: at most 5 % are found, but for three standard errors."""
    rng = np.random.default_rng(n)
    wrong = 0
    for _ in range(400):
        own, noise = rng.normal(size=n), rng.normal(size=(n, n))
        p = stats.over_pairs({(i, j): own[i] + own[j] + noise[i, j] for i in range(n) for j in range(i)}).p
        wrong += p is not None and p < 0.05
    assert wrong <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_interval_of_three_values_by_hand() -> None:
    estimate = stats.estimate([1.0, 2.0, 3.0])
    assert estimate is not None
    # t(0.975, 2) = 4.30265, standard error = 1/sqrt(3) = 0.57735
    assert estimate.mean == 2.0
    assert estimate.high == pytest.approx(2 + 4.30265 * 0.57735, abs=1e-4)
    assert estimate.low == pytest.approx(2 - 4.30265 * 0.57735, abs=1e-4)
    assert estimate.method == "t"


def test_interval_is_scipys() -> None:
    values = [91.2, 90.8, 92.0, 91.1, 90.2]
    estimate = stats.estimate(values)
    assert estimate is not None
    expected = reference.t.interval(0.95, 4, loc=np.mean(values), scale=reference.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_many_values_are_bootstrapped() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    estimate = stats.estimate(values)
    assert estimate is not None
    expected = reference.bootstrap((values,), np.mean, rng=np.random.default_rng(7), method="BCa").confidence_interval
    assert estimate.method == "bootstrap"
    assert estimate.low == pytest.approx(expected.low, abs=0.05)
    assert estimate.high == pytest.approx(expected.high, abs=0.05)
    assert estimate == stats.estimate(values)


@pytest.mark.parametrize(("values", "method"), [([5.0], "one value"), ([5.0, 5.0, 5.0], "equal values")])
def test_no_interval_where_there_is_no_spread(values: list[float], method: str) -> None:
    estimate = stats.estimate(values)
    assert estimate == stats.Estimate(5.0, None, None, len(values), method)


def test_nothing_has_no_mean_and_nan_is_refused() -> None:
    assert stats.estimate([]) is None
    with pytest.raises(ValueError, match="not finite"):
        stats.estimate([1.0, math.nan])


@given(st.lists(numbers, min_size=2, max_size=8), numbers)
def test_intervals_move_with_their_values(values: list[float], shift: float) -> None:
    estimate, moved = stats.estimate(values), stats.estimate([value + shift for value in values])
    assert estimate is not None
    assert moved is not None
    assert moved.mean == pytest.approx(estimate.mean + shift, abs=1e-6)
    if estimate.low is not None and estimate.high is not None and moved.low is not None:
        assert estimate.low <= estimate.mean <= estimate.high
        assert moved.low == pytest.approx(estimate.low + shift, abs=1e-6)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_intervals_cover_the_truth(n: int) -> None:
    """400 draws of n normal values: 95 % cover 0, but for three standard errors (and 2 points for the bootstrap)."""
    generator = np.random.default_rng(n)
    covered = 0
    draws = 400 if n < stats.BOOTSTRAP_FROM else 150
    for _ in range(draws):
        estimate = stats.estimate(generator.normal(size=n))
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 0 <= estimate.high
    slack = 3 * math.sqrt(0.95 * 0.05 / draws) + (0.02 if n >= stats.BOOTSTRAP_FROM else 0)
    assert abs(covered / draws - 0.95) < slack


def test_paired_differences_are_scipys() -> None:
    ours = {0: 91.0, 1: 92.5, 2: 90.0, 3: 93.0}
    base = {0: 90.0, 1: 91.0, 2: 89.5, 3: 91.0, 9: 50.0}
    pair = stats.paired(ours, base)
    assert pair.seeds == (0, 1, 2, 3)
    assert pair.difference is not None
    assert pair.difference.mean == pytest.approx(1.25)
    expected = reference.ttest_rel([91.0, 92.5, 90.0, 93.0], [90.0, 91.0, 89.5, 91.0])
    assert pair.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (pair.difference.low, pair.difference.high) == pytest.approx((interval.low, interval.high))


def test_equal_differences_prove_little() -> None:
    """A t test would divide by a spread of 0 and be certain after two seeds."""
    pair = stats.paired({0: 91.0, 1: 92.0}, {0: 90.0, 1: 91.0})
    assert pair.p == 0.5
    assert stats.paired({0: 91.0}, {0: 90.0}).p is None
    assert stats.paired({0: 91.0}, {1: 90.0}).difference is None


def test_sign_flip_by_counting() -> None:
    # Sums of +-1 +-2 +-3: |sum| >= 6 in 2 of 8, |sum| >= 4 in 4 of 8.
    assert stats.sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert stats.sign_flip([-1.0, 2.0, 3.0]) == 4 / 8
    assert stats.sign_flip([0.0, 0.0]) == 1.0


@given(st.lists(numbers, min_size=1, max_size=7))
def test_sign_flip_is_the_plain_enumeration(values: list[float]) -> None:
    total = abs(sum(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in itertools.product((-1, 1), repeat=len(values))]  # fmt: skip
    assert stats.sign_flip(values) == pytest.approx(sum(x >= total - 1e-6 for x in sums) / len(sums))


def test_sign_flip_of_many_is_drawn() -> None:
    values = list(np.random.default_rng(0).normal(0.3, 1, size=24))
    expected = reference.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=20000, rng=np.random.default_rng(1)
    )
    assert stats.sign_flip(values) == pytest.approx(expected.pvalue, abs=0.015)


def test_sign_flip_by_draws_counts_ties_and_the_data_itself() -> None:
    """Above sixteen values signs are drawn. Where one value alone is not 0 every sum ties with the observed one; where
    forty values agree none of 100,000 draws gets there (1 in 2^39 does), and the observed signs are one draw more."""
    assert stats.sign_flip([0.0] * 16 + [0.3]) == 1.0
    assert stats.sign_flip([0.3] * 40) == pytest.approx(1 / 100_001)


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04: x4, x3, x2, x1, never falling.
    assert stats.holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(values: list[float]) -> None:
    adjusted = stats.holm(values)
    for p, q in zip(values, adjusted, strict=True):
        assert q is not None
        assert p <= q <= min(1.0, p * len(values)) + 1e-12
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranked = [adjusted[i] for i in order]
    assert ranked == sorted(ranked)  # type: ignore[type-var]


def run(val: float | None, test: float = 0.0, status: str = "finished") -> dict[str, Any]:
    return {
        "status": status, "val": None if val is None else {"acc": val}, "test": {"acc": test}, "gap": 0.0,
        "test_best_epoch": {"acc": test},
    }  # fmt: skip


def test_rules_pick_on_validation_and_never_see_the_test_set() -> None:
    candidates = [[run(80.0, 99.0), run(81.0, 99.0)], [run(82.0, 10.0), run(82.0, 10.0)], [run(82.0, 50.0)]]
    assert stats.BEST_ON_VALIDATION.keep(candidates) == [1]
    assert stats.LAST_EPOCH.keep(candidates) == [0, 1, 2]
    assert set(stats.RULES) == {"last_epoch", "best_on_validation"}
    seen: list[set[str]] = []
    spy = stats.Rule("spy", "", lambda record: seen.append(set(record)) or 1.0)  # type: ignore[func-returns-value]
    spy.keep(candidates)
    assert seen
    assert all(keys == {"status", "val"} for keys in seen)


def test_a_candidate_that_diverged_comes_last() -> None:
    lost = {**run(None), "status": "diverged"}
    assert stats.BEST_ON_VALIDATION.keep([[run(90.0), lost], [run(80.0), run(80.0)]]) == [1]
    assert stats.BEST_ON_VALIDATION.keep([[lost, lost]]) == []
    with pytest.raises(ValueError, match="val_fraction"):
        stats.BEST_ON_VALIDATION.keep([[run(None)]])


def test_pareto_by_hand() -> None:
    costs, scores = [1.0, 2.0, 3.0, 4.0, 1.0], [50.0, 40.0, 60.0, 60.0, 45.0]
    assert stats.pareto(costs, scores) == [0, 2]
    assert stats.pareto([1.0, 1.0], [5.0, 5.0]) == [0, 1]
    assert stats.pareto([], []) == []


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_pareto_is_what_no_point_dominates(points: list[tuple[float, float]]) -> None:
    def beaten(a: tuple[float, float]) -> bool:
        return any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in points)

    front = stats.pareto([p[0] for p in points], [p[1] for p in points])
    assert sorted(front) == [i for i, point in enumerate(points) if not beaten(point)]


def test_ranks() -> None:
    scores: dict[str, dict[int, float | None]] = {
        "best": {0: 93.0, 1: 94.0, 2: 93.5, 7: 0.0},
        "middle": {0: 92.0, 1: 91.0, 2: 91.5},
        "twin": {0: 91.0, 1: 92.0, 2: 91.5},
        "diverges": {0: 99.0, 1: None, 2: 99.0},
    }
    ranks = stats.ranks(scores)
    assert [ranks[name].rank for name in scores] == [1, 2.5, 2.5, 4]
    assert (ranks["best"].low, ranks["best"].high) == (1.0, 2.0)
    # A resample without seed 1, 8 of 27, has the diverging method first: it did not diverge there.
    assert ranks["best"].first == pytest.approx(1 - 8 / 27, abs=0.04)
    assert ranks["middle"].low is not None
    assert ranks["middle"].low < 2.5


def test_ranks_without_common_seeds() -> None:
    assert stats.ranks({}) == {}
    assert stats.ranks({"a": {0: 1.0}, "b": {1: 1.0}}) == {}
    ranks = stats.ranks({"a": {0: 1.0}, "b": {0: 2.0}})
    assert ranks["b"] == stats.Rank(1.0, None, None, None)


def test_ranks_do_not_depend_on_order() -> None:
    generator = random.Random(0)
    scores: dict[str, dict[int, float | None]] = {
        name: {seed: generator.gauss(90, 1) for seed in range(4)} for name in "abcd"
    }
    backwards = dict(reversed(scores.items()))
    assert stats.ranks(scores) == dict(sorted(stats.ranks(backwards).items()))


def test_bands() -> None:
    mean, low, high = stats.band([[1.0, 2.0], [3.0, 2.0]])
    assert list(mean) == [2.0, 2.0]
    # t(0.975, 1) = 12.7062, standard error 1.
    assert high[0] == pytest.approx(2 + 12.7062, abs=1e-3)
    assert low[1] == high[1] == 2.0
    assert [list(end) for end in stats.band([[1.0, 2.0]])] == [[1.0, 2.0]] * 3


def test_a_trend_by_hand() -> None:
    """Page's statistic of two seeds and three settings is at most 28 of which there is one way in 36; with one swap 27,
    reached or passed in 5 of 36 ways."""
    falling = [{0: 3.0, 1: 30.0}, {0: 2.0, 1: 20.0}, {0: 1.0, 1: 10.0}]
    found = stats.trend(falling)
    assert found is not None
    assert (found.falls, found.steps, found.n, found.down) == (2, 2, 2, True)
    assert found.p == pytest.approx(2 / 36)
    rising = stats.trend(falling[::-1])
    assert rising is not None
    assert not rising.down
    assert rising.p == pytest.approx(2 / 36)
    swapped = stats.trend([{0: 3.0, 1: 30.0}, {0: 2.0, 1: 10.0}, {0: 1.0, 1: 20.0}])
    assert swapped is not None
    assert swapped.p == pytest.approx(10 / 36)


def test_a_trend_needs_three_settings_and_two_seeds() -> None:
    assert stats.trend([]) is None
    assert stats.trend([{0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.0}]) is None
    assert stats.trend([{0: 2.0}, {1: 1.0}, {0: 0.0}]) is None
    alone = stats.trend([{0: 3.0}, {0: 2.0}, {0: 1.0, 1: 5.0}])
    assert alone is not None
    assert (alone.n, alone.p) == (1, None)


def test_the_lead_of_a_curve_by_hand() -> None:
    """Ten points a decade: from 0.01 to 0.1 one curve has 60 to 70 %, the other, run at other costs, 4 points less;
    what has collapsed says nothing, and a point out of order is pooled with its neighbour."""
    above = [(0.01, 60.0), (0.1, 70.0), (0.03, 12.0), (0.2, 15.0)]
    below = [(0.005, 56 - 10 * math.log10(2)), (0.2, 66 + 10 * math.log10(2)), (0.0001, 30.0)]
    assert stats.lead(above, below, 10.0) == pytest.approx(4.0)
    assert stats.lead(below, above, 10.0) == pytest.approx(-4.0)
    # (0.01, 61) and (0.01, 59) pool to 60.
    assert stats.lead([(0.01, 61.0), (0.01 + 1e-12, 59.0), *above[1:]], below, 10.0) == pytest.approx(4.0)
    assert stats.lead(above, [(0.5, 66.0), (0.6, 67.0)], 10.0) is None
    assert stats.lead(above, [(0.05, 66.0)], 10.0) is None
    assert stats.lead([], below, 10.0) is None


def curve(rng: np.random.Generator, shift: float, collapses: float, gap: float) -> list[tuple[float, float]]:
    """Eleven runs of one seed as the small cnn has them: accuracy falls with the log of the rate, the last two collapse
    now and then, to accuracies and rates that chance picks."""
    rates = np.log([0.1414, 0.1376, 0.119, 0.0889, 0.038, 0.0253, 0.0199, 0.0158, 0.0129, 0.0085, 0.0055])
    rates = rates + shift * (np.arange(11) > 3) + rng.normal(0, 0.07, 11)
    knots = np.log([0.003, 0.006, 0.0095, 0.0129, 0.014, 0.02, 0.0253, 0.038, 0.09, 0.14])
    accuracies = np.interp(rates, knots, [22, 26, 32, 38, 44, 48, 51, 54, 55, 55.2]) + rng.normal(0, 1, 11)
    accuracies -= gap * np.clip(math.log(0.04) - rates, 0, 1)
    dead = rng.random(11) < collapses * (np.arange(11) > 8)
    rates = np.where(dead, rng.uniform(math.log(1e-4), math.log(0.02), 11), rates)
    accuracies = np.where(dead, rng.uniform(9.5, 21.5, 11), accuracies)
    return [(math.exp(rate), float(accuracy)) for rate, accuracy in zip(rates, accuracies, strict=True)]


@pytest.mark.parametrize(
    ("shift", "collapses", "gap", "low", "high"),
    # Bounds: 3.5 standard deviations of 500 draws around 5 %, where the curves are the same one.
    [(0.0, 0.4, 0.0, 0.016, 0.085), (-0.15, 0.95, 0.0, 0.016, 0.085), (-0.15, 0.95, 6.0, 0.8, 1.0)],
    ids=["same", "same, reached elsewhere and collapsing more", "six points apart at low rates"],
)
def test_a_lead_is_found_where_there_is_one_and_only_there(
    shift: float, collapses: float, gap: float, low: float, high: float
) -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(500):
        leads = [stats.lead(curve(rng, 0, 0.4, 0), curve(rng, shift, collapses, gap), 10.0) for _ in range(4)]
        known = {seed: value for seed, value in enumerate(leads) if value is not None}
        pair = stats.paired(known, dict.fromkeys(known, 0.0))
        found += pair.p is not None and pair.p <= 0.05
    assert low <= found / 500 <= high


@given(st.floats(0.0001, 0.9999), st.one_of(st.floats(0.5, 1e6), st.just(math.inf)))
def test_students_t_is_that_of_scipys_own_distribution(share: float, df: float) -> None:
    assert float(stats.t_quantile(share, df)) == reference.t.ppf(share, df)
    assert float(stats.t_tail(3.5 * share, df)) == reference.t.sf(3.5 * share, df)
