"""Moderated contrasts: against independent estimates and distributions, by hand, and by simulation of whole panels."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special
from scipy import stats as reference

from bench.report import contrasts
from bench.report.contrasts import Compared, Numbers, Scale, Squeezed, intervals, squeeze, tail, trigamma_inverse
from bench.report.stats import Verdict, holm

Cell = dict[int, float]


def cell(*values: float) -> Cell:
    return dict(enumerate(values))


# The variances' prior.


def likeliest(variances: Numbers, df: Numbers, covariate: Numbers) -> tuple[float, float, float]:
    """Prior degrees of freedom, level and slope at the maximum of the marginal likelihood: s^2 is distributed as the
    expected variance times F(df, prior)."""

    def loss(parameters: Numbers) -> float:
        prior, level, slope = math.exp(parameters[0]), parameters[1], parameters[2]
        expected = np.exp(level + slope * covariate)
        return -float(np.sum(reference.f.logpdf(variances / expected, df, prior) - np.log(expected)))

    found = optimize.minimize(loss, np.array([1.0, 0.0, 0.0]), method="Nelder-Mead", options={"maxiter": 4000})
    assert found.success
    return math.exp(found.x[0]), float(found.x[1]), float(found.x[2])


@pytest.mark.parametrize(("prior", "slope"), [(3.0, 0.0), (8.0, 1.2)])
def test_the_prior_is_near_the_likeliest_one(prior: float, slope: float) -> None:
    """Moments and likelihood are different estimates of the same three numbers, from 3,000 variances."""
    rng = np.random.default_rng(7)
    x = rng.uniform(0, 4, 3000)
    df = rng.choice([2.0, 4.0, 9.0], 3000)
    variances = np.exp(0.5 + slope * x) * rng.f(df, prior, 3000)
    found = squeeze(variances, df, x)
    theirs, level, their_slope = likeliest(variances, df, x)
    assert float(found.prior) == pytest.approx(theirs, rel=0.12)
    assert np.polyfit(x, np.log(found.expected), 1) == pytest.approx([their_slope, level], abs=0.08)
    # Degrees of freedom weigh a cell's own variance and the expected one.
    weight = float(found.prior)
    assert found.variances == pytest.approx((df * variances + weight * found.expected) / (df + weight))
    assert found.df == pytest.approx(df + weight)


def test_the_prior_by_hand() -> None:
    """log s^2 of 0, 2, 4 and 6 scatter with variance 20 / 3, of which two degrees of freedom explain trigamma(1)."""
    variances = np.exp([0.0, 2.0, 4.0, 6.0])
    found = squeeze(variances, np.full(4, 2.0))
    half = optimize.brentq(lambda y: special.polygamma(1, y) - (20 / 3 - math.pi**2 / 6), 1e-3, 10)
    assert float(found.prior) == pytest.approx(2 * half)
    # digamma(1) is minus Euler's gamma; the prior's own bias is that of its degrees of freedom.
    expected = math.exp(3 + np.euler_gamma + special.digamma(half) - math.log(half))
    assert found.expected == pytest.approx([expected] * 4)
    assert found.variances == pytest.approx((2 * variances + 2 * half * expected) / (2 + 2 * half))


def test_variances_that_scatter_no_more_than_chance_are_all_the_same() -> None:
    """And have no more degrees of freedom than all cells together."""
    found = squeeze(np.array([1.0, 1.2, 0.9, 1.1]), np.full(4, 3.0))
    assert math.isinf(float(found.prior))
    assert len({round(float(value), 12) for value in found.variances}) == 1
    assert list(found.df) == [12.0] * 4


def test_caution_lowers_the_prior_and_a_spread_of_0_is_a_least_one() -> None:
    variances = np.array([0.0, 0.1, 1.0, 0.4, 2.0, 0.0])
    plain, careful = (squeeze(variances, np.full(6, 2.0), least=0.01, caution=caution) for caution in (0.0, 1.0))
    assert careful.prior < plain.prior
    assert (plain.variances > 0.01).all()
    assert plain.variances[0] == plain.variances[5] < plain.variances[1]
    # All equal: nothing scatters, and there is still a number.
    assert np.isfinite(squeeze(np.zeros(4), np.full(4, 2.0)).variances).all()


def test_tables_side_by_side_are_tables_one_by_one() -> None:
    rng = np.random.default_rng(1)
    variances, x = rng.f(2, 3, (5, 12)), rng.normal(size=(5, 12))
    together = squeeze(variances, np.full(12, 2.0), x, caution=1.0)
    for place in range(5):
        alone: Squeezed = squeeze(variances[place], np.full(12, 2.0), x[place], caution=1.0)
        assert together.variances[place] == pytest.approx(alone.variances)
        assert together.df[place] == pytest.approx(alone.df)


@given(st.floats(1e-3, 1e4))
def test_the_inverse_of_trigamma_is_one(value: float) -> None:
    assert float(special.polygamma(1, trigamma_inverse(value))) == pytest.approx(value, rel=1e-6)


# The distribution of a difference.


def chance(x: float, one: float, other: float, one_df: float, other_df: float) -> float:
    return float(tail(*(np.array([value]) for value in (x, one, other, one_df, other_df)))[0])


def test_the_tail_of_two_errors() -> None:
    # Two Cauchy errors are one, whose scale is the sum of theirs.
    for x in (0.5, 3.0, 10.0):
        assert chance(x, 1.0, 0.4, 1, 1) == pytest.approx(1 - 2 / math.pi * math.atan(x / 1.4), rel=0.01)
    # Of many degrees of freedom two are normal.
    assert chance(2.0, 0.6, 0.8, 1e5, 1e5) == pytest.approx(2 * reference.norm.sf(2.0), rel=1e-3)
    # Where one is nothing the other is alone.
    assert chance(3.0, 1e-9, 1.0, 4, 6) == pytest.approx(2 * reference.t.sf(3.0, 6), rel=1e-6)
    assert chance(0.0, 1.0, 1.0, 3, 5) == pytest.approx(1.0)
    # Sukhatme's table of the Behrens-Fisher distribution: 2.435 at 5 % for 6 and 6 degrees of freedom, 45 degrees.
    assert chance(2.435, math.sqrt(0.5), math.sqrt(0.5), 6, 6) == pytest.approx(0.05, abs=2e-4)


def test_the_tail_is_what_draws_have() -> None:
    rng = np.random.default_rng(0)
    sums = np.abs(rng.standard_t(3.3, 1_000_000) + 0.7 * rng.standard_t(7.5, 1_000_000))
    for x in (1.0, 4.0, 9.0):
        share = float((sums > x).mean())
        assert chance(x, 1.0, 0.7, 3.3, 7.5) == pytest.approx(share, abs=4 * math.sqrt(share / 1e6))


def test_half_a_width_leaves_out_what_it_says() -> None:
    numbers = [np.array(values) for values in ([0.3, 2.0, 0.01], [1.0, 0.1, 5.0], [3.0, 9.0, 2.5], [4.0, 2.0, 30.0])]
    compared = Compared(np.zeros(3), *numbers, np.zeros(3), np.ones(3))
    for alpha in (0.05, 0.002):
        assert tail(compared.half_width(alpha), *numbers) == pytest.approx([alpha] * 3, rel=1e-4)


# A panel.


def test_two_cells_are_compared_with_their_common_variance() -> None:
    """Variances 1 and 1: nothing scatters, and the test is Student's with four degrees of freedom."""
    (found,) = contrasts.contrasts([cell(91.0, 92.0, 93.0)], cell(80.0, 81.0, 82.0), Scale.ACCURACY)
    assert found is not None
    assert found.difference == pytest.approx(11.0)
    student = reference.ttest_ind([91.0, 92.0, 93.0], [80.0, 81.0, 82.0])
    assert found.p == pytest.approx(student.pvalue)
    interval = student.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert (found.verdict, found.seeds, found.base_seeds) == (Verdict.BETTER, 3, 3)


def test_holm_over_the_panel_and_simultaneous_intervals() -> None:
    """Beside a far cell a nearer one is tested at 5 %, not 2.5: its interval would hold 0, and ends there."""
    base = cell(80.0, 81.0, 82.0)
    error = math.sqrt(2 / 3)
    gap = error * reference.t.isf(0.035 / 2, 6)
    far, near = contrasts.contrasts(
        [cell(60.0, 61.0, 62.0), {seed: value + gap for seed, value in base.items()}], base, Scale.ACCURACY
    )
    assert far is not None
    assert near is not None
    assert near.p == pytest.approx(0.035)
    assert (far.verdict, near.verdict) == (Verdict.WORSE, Verdict.BETTER)
    assert near.low == 0.0
    assert near.high is not None
    assert near.high - gap == pytest.approx(error * reference.t.isf(0.025 / 2, 6))


def test_alike_is_an_interval_within_what_is_of_interest() -> None:
    values = cell(90.0, 90.05, 90.1, 89.95, 89.9)
    rates = cell(0.100, 0.101, 0.099, 0.1005, 0.0995)
    for scale, base, small, large in ((Scale.ACCURACY, values, 0.05, 0.4), (Scale.RATIO, rates, 0.0005, 0.0045)):
        near, not_near = (
            contrasts.contrasts([{seed: value + shift for seed, value in base.items()}], base, scale)[0]
            for shift in (small, large)
        )
        assert near is not None
        assert not_near is not None
        assert near.verdict is Verdict.ALIKE
        assert not_near.verdict is not Verdict.ALIKE
    # What is told but lies within is alike too: no difference that is of interest.
    (found,) = contrasts.contrasts([{seed: value + 0.25 for seed, value in values.items()}], values, Scale.ACCURACY)
    assert found is not None
    assert found.p is not None
    assert found.p < 0.05
    assert found.verdict is Verdict.ALIKE


def test_fewer_spikes_are_better_and_a_ratio_is_one() -> None:
    base = cell(0.1, 0.102, 0.098)
    half, twice = contrasts.contrasts([cell(0.05, 0.051, 0.049), cell(0.2, 0.204, 0.196)], base, Scale.RATIO)
    assert half is not None
    assert twice is not None
    assert (half.difference, twice.difference) == pytest.approx((-0.5, 1.0))
    assert (half.verdict, twice.verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert half.low is not None
    assert -1 < half.low < -0.5


def test_what_cannot_be_compared() -> None:
    """One seed has no variance of its own, a rate of 0 no logarithm, and neither counts in the correction."""
    base = cell(90.0, 91.0, 92.0)
    alone, one, none = contrasts.contrasts([cell(80.0, 81.0, 82.0), cell(50.0), {}], base, Scale.ACCURACY)
    assert [alone] == contrasts.contrasts([cell(80.0, 81.0, 82.0)], base, Scale.ACCURACY)
    assert one == contrasts.Contrast(-41.0, None, None, None, Verdict.TOO_FEW, 1, 3)
    assert none is None
    rates = cell(0.1, 0.11)
    (silent,) = contrasts.contrasts([cell(0.0, 0.0)], rates, Scale.RATIO)
    assert silent == contrasts.Contrast(-1.0, None, None, None, Verdict.TOO_FEW, 2, 2)
    assert contrasts.contrasts([rates, rates], [None, cell(0.0)], Scale.RATIO) == [None, None]
    assert contrasts.contrasts([], base, Scale.ACCURACY) == []
    with pytest.raises(ValueError, match="2 cells and 1 baselines"):
        contrasts.contrasts([base, base], [base], Scale.ACCURACY)


def test_a_baseline_counts_once_and_each_cell_has_its_own() -> None:
    one, other = cell(90.0, 91.0, 92.5), cell(70.0, 70.5, 72.0)
    cells = [cell(95.0, 95.5, 96.5), cell(60.0, 62.0, 63.0)]
    by_cell = contrasts.contrasts(cells, [one, dict(one)], Scale.ACCURACY)
    assert contrasts.contrasts(cells, one, Scale.ACCURACY) == by_cell
    mixed = contrasts.contrasts(cells, [one, other], Scale.ACCURACY)
    assert [found and round(found.difference, 3) for found in mixed] == [4.5, -9.167]


accuracies = st.lists(st.integers(0, 360).map(lambda count: count / 3.6), min_size=2, max_size=5)
shares = st.lists(st.floats(1e-5, 1.0).map(lambda value: float(f"{value:.4g}")), min_size=2, max_size=5)


@given(st.lists(accuracies, min_size=1, max_size=14), accuracies)
def test_no_verdict_contradicts_its_interval(cells: list[list[float]], base: list[float]) -> None:
    level = sum(base) / len(base)
    for found in contrasts.contrasts([cell(*values) for values in cells], cell(*base), Scale.ACCURACY):
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert -level - 1e-9 <= found.low <= found.difference + 1e-9
        assert found.difference - 1e-9 <= found.high <= 100 - level + 1e-9
        if found.verdict is Verdict.BETTER:
            assert found.low >= 0
        elif found.verdict is Verdict.WORSE:
            assert found.high <= 0
        elif found.verdict is Verdict.ALIKE:
            assert found.low > -0.5
            assert found.high < 0.5
        else:
            assert found.low <= 0 <= found.high


@given(st.lists(shares, min_size=1, max_size=14), shares, st.floats(0.01, 100))
def test_ratios_know_no_unit(cells: list[list[float]], base: list[float], factor: float) -> None:
    def found(scale: float) -> list[contrasts.Contrast | None]:
        scaled = [cell(*(value * scale for value in values)) for values in cells]
        return contrasts.contrasts(scaled, cell(*(value * scale for value in base)), Scale.RATIO)

    for one, other in zip(found(1.0), found(factor), strict=True):
        assert one is not None
        assert other is not None
        assert other.difference == pytest.approx(one.difference, rel=1e-5, abs=1e-9)
        assert one.low is not None
        assert one.low >= -1


def test_intervals_by_hand() -> None:
    """One cell alone: t of two degrees of freedom, 4.302653, and an error of 1 / sqrt(3), through the logit's slope
    0.9 x 0.1 x 100 = 9 points at 90 %."""
    (found,) = intervals([cell(89.0, 90.0, 91.0)], Scale.ACCURACY)
    assert found is not None
    low, high = (100 * special.expit(special.logit(0.9) + side * 4.302653 / math.sqrt(3) / 9) for side in (-1, 1))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.mean, found.n, found.method) == (90.0, 3, "moderated t")
    # Logarithms one apart, around their arithmetic mean.
    (rate,) = intervals([cell(math.exp(-1), 1.0, math.exp(1))], Scale.RATIO)
    assert rate is not None
    assert rate.low == pytest.approx(rate.mean * math.exp(-4.302653 / math.sqrt(3)))
    methods = [one and one.method for one in intervals([{}, cell(5.0), cell(0.0, 1.0)], Scale.RATIO)]
    assert methods == [None, "one value", "no logarithm"]


@given(st.lists(accuracies, min_size=1, max_size=12))
def test_intervals_stay_within_what_can_be_measured(cells: list[list[float]]) -> None:
    for found in intervals([cell(*values) for values in cells], Scale.ACCURACY):
        assert found is not None
        if found.low is not None and found.high is not None:
            assert 0 <= found.low <= found.mean + 1e-9
            assert found.mean - 1e-9 <= found.high <= 100


def test_a_spread_of_0_takes_the_panels() -> None:
    """98.33 three times on 360 images, beside cells that scatter."""
    cells = [cell(98.3333, 98.3333, 98.3333), cell(97.5, 98.0556, 98.8889), cell(96.9444, 98.0556, 98.3333)]
    still, moving, _ = intervals(cells, Scale.ACCURACY)
    assert still is not None
    assert moving is not None
    assert still.low is not None
    assert moving.low is not None
    assert 0.1 < still.mean - still.low < moving.mean - moving.low


def test_seeds_that_go_together_are_used() -> None:
    """Twelve cells whose seeds move them all by the same points up and down: differences of three points are clear by
    seed, in Student's paired t test, and are not where each cell has the seeds in an order of its own."""
    rng = np.random.default_rng(2)
    shift = np.array([-6.0, -3.0, 0.0, 3.0, 6.0])
    together = [cell(*(60 + 3.0 * (i % 2) + shift + rng.normal(0, 0.3, 5))) for i in range(12)]
    apart = [cell(*np.roll([*values.values()], i % 5)) for i, values in enumerate(together)]
    base = cell(*(60 + shift))
    counts = []
    for cells in (together, apart):
        found = contrasts.contrasts(cells, base, Scale.ACCURACY)
        counts.append(sum(one is not None and one.verdict is Verdict.BETTER for one in found))
        if cells is together:
            student = reference.ttest_rel([*cells[1].values()], [*base.values()])
            assert found[1] is not None
            assert found[1].difference == pytest.approx(np.mean([*cells[1].values()]) - 60)
            assert student.pvalue <= (found[1].p or 0.0) <= 12 * student.pvalue
    assert counts == [6, 0]


# Whole panels: 24 settings and a baseline, accuracies on 360 images.

STEP = 100 / 360
PANELS = {
    # Slope and level of log s^2 over log(100 - acc), scatter as prior degrees of freedom, the baseline's accuracy: as
    # `squeeze` finds them in the three networks of suite/digits, the scatter of the first, infinite there, set to 15.
    "cnn": (1.54, -1.78, 15.0, 99.0),
    "sew": (0.87, 0.51, 15.0, 97.6),
    "convmixer": (0.49, 0.11, 1.3, 96.4),
    "heavy": (0.87, 0.51, 3.0, 97.6),
}
LOSSES = np.concatenate([[0.0], np.zeros(12), np.linspace(2, 80, 12)])
DRAWS = 500


def drawn(panel: str, losses: Numbers, n: int, draws: int = DRAWS) -> Numbers:
    """Accuracies of panels whose cells lose so many points, rounded to images. Above 100 nothing is cut off: what is
    cut off has another mean, and then a null is none."""
    slope, level, prior, best = PANELS[panel]
    rng = np.random.default_rng([n, [*PANELS].index(panel)])
    means = best - losses
    variances = np.exp(level + slope * np.log(100 - means)) * prior / rng.chisquare(prior, (draws, len(losses)))
    values = means[:, None] + np.sqrt(variances)[..., None] * rng.normal(size=(draws, len(losses), n))
    return np.asarray(np.round(values / STEP) * STEP)


def told(values: Numbers) -> tuple[Compared, Numbers]:
    """All comparisons with the first cell, and which of them Holm's method tells."""
    others = values.shape[-2] - 1
    compared = contrasts.compare(values, [0] * others, Scale.ACCURACY, range(1, others + 1), STEP**2 / 12)
    return compared, by_holm(compared.p)


def by_holm(p: Numbers) -> Numbers:
    order = np.argsort(p, axis=-1)
    bounds = 0.05 / (p.shape[-1] - np.arange(p.shape[-1]))
    passed = np.minimum.accumulate(np.take_along_axis(p, order, -1) <= bounds, axis=-1)
    found = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(found, order, passed, -1)
    return found


def at_most(share: float, draws: int, bound: float = 0.05) -> bool:
    """Whether a share of draws agrees with a bound: within two standard errors of the Monte Carlo."""
    return share <= bound + 2 * math.sqrt(bound * (1 - bound) / draws)


def test_holm_of_many_tables_is_holm() -> None:
    for row in np.random.default_rng(3).uniform(0, 0.03, (20, 6)):
        assert [value is not None and value <= 0.05 for value in holm(list(row))] == list(by_holm(row))


@pytest.mark.parametrize("panel", PANELS)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_what_does_not_differ_is_told_in_at_most_one_panel_of_twenty(panel: str, n: int) -> None:
    _, found = told(drawn(panel, np.zeros(25), n))
    assert at_most(found.any(axis=-1).mean(), DRAWS)
    _, found = told(drawn(panel, LOSSES, n))
    assert at_most(found[:, :12].any(axis=-1).mean(), DRAWS)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_seeds_that_collapse_make_nothing_else_differ(n: int) -> None:
    """Each seed of a cell may end at chance: of all cells, which are then alike, or of a third, and the rest are."""
    rng = np.random.default_rng(n)
    values = drawn("sew", np.zeros(25), n)
    guessing = np.round((10 + np.abs(rng.normal(size=values.shape))) / STEP) * STEP
    for share in (0.05, 0.1, 0.2):
        dead = rng.random(values.shape) < share
        _, found = told(np.where(dead, guessing, values))
        assert at_most(found.any(axis=-1).mean(), DRAWS)
        dead &= (np.arange(25) >= 17)[:, None]
        compared, found = told(np.where(dead, guessing, values))
        assert at_most(found[:, :16].any(axis=-1).mean(), DRAWS)
        assert at_most((found & (compared.difference > 0)).any(axis=-1).mean(), DRAWS)


@pytest.mark.parametrize("prior", [3.0, 15.0])
def test_small_panels_tell_no_more(prior: float) -> None:
    """Five cells of five seeds, as a leaderboard has them."""
    rng = np.random.default_rng(int(prior))
    variances = 2.0 * prior / rng.chisquare(prior, (2000, 5))
    values = np.round((80 + np.sqrt(variances)[..., None] * rng.normal(size=(2000, 5, 5))) / STEP) * STEP
    _, found = told(values)
    assert at_most(found.any(axis=-1).mean(), 2000)


@pytest.mark.parametrize("cells", [25, 5])
def test_seeds_that_go_together_tell_no_more(cells: int) -> None:
    """At any correlation within seeds, whether it is found large enough to be used or not, and where a fifth of the
    cells do not go along."""
    for correlation in (0.0, 0.4, 0.7, 0.95):
        rng = np.random.default_rng(cells)
        common, own = rng.normal(size=(DRAWS, 1, 5)), rng.normal(size=(DRAWS, cells, 5))
        scale = np.sqrt(8 / rng.chisquare(8, (DRAWS, cells, 1)))
        together = 80 + scale * (math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)
        compared, found = told(np.round(together / STEP) * STEP)
        assert at_most(found.any(axis=-1).mean(), DRAWS)
        used = (compared.correlation[:, 0] > 0).mean()
        assert used < 0.02 if correlation == 0 else used > 0.9 if correlation == 0.95 else True
        alone = np.arange(cells) % 5 == 1
        mixed = np.where(alone[:, None], 80 + scale * own, together)
        _, found = told(np.round(mixed / STEP) * STEP)
        assert at_most(found.any(axis=-1).mean(), DRAWS)


def test_three_seeds_tell_differences_of_ten_points_that_paired_t_tests_miss() -> None:
    """Four of five on the networks' panels together, of which paired t tests with Holm's correction tell fewer than
    half; ten seeds tell more than three."""
    powers = []
    large = LOSSES[1:] > 10
    for panel in ("cnn", "sew", "convmixer"):
        values = drawn(panel, LOSSES, 3)
        _, found = told(values)
        powers.append(float(found[:, large].mean()))
        differences = values[:, 1:] - values[:, :1]
        error = differences.std(axis=-1, ddof=1) / math.sqrt(3)
        t = np.abs(differences.mean(axis=-1)) / np.where(error > 0, error, np.inf)
        old = by_holm(2 * reference.t.sf(t, 2))
        assert old[:, large].mean() < 0.5
        _, more = told(drawn(panel, LOSSES, 10))
        assert more[:, large].mean() > powers[-1]
    assert np.mean(powers) >= 0.8
    assert min(powers) >= 0.75


def test_intervals_of_a_panel_hold_all_differences_together() -> None:
    """Nineteen panels of twenty, but for two standard errors, whichever of the cells differ."""
    draws = 150
    for panel, losses in (("sew", LOSSES), ("heavy", np.zeros(25))):
        compared, _ = told(drawn(panel, losses, 3, draws))
        missed = np.abs(compared.difference + losses[1:]) > compared.half_width(0.05 / 24)
        assert at_most(missed.any(axis=-1).mean(), draws)


def test_intervals_grow_with_the_share_they_hold() -> None:
    compared, _ = told(drawn("sew", LOSSES, 3, 1))
    widths = [compared.half_width(alpha) for alpha in (0.05, 0.01, 0.001)]
    assert all((wider > narrower).all() for narrower, wider in pairwise(widths))
