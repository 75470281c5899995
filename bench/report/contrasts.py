"""A panel's settings against its baseline: moderated contrasts of all its cells, intervals that decide, verdicts.

A panel is one network on one data set; a cell is a setting of it, the baseline too, and its seeds. Three seeds say
little about one cell's variance, and much about how variances run through a panel: `squeeze` moves each towards the
panel's trend (Smyth 2004), `contrasts` compares each cell with all of the baseline's seeds. What a number of functions
here take and give has the cells on the last axis; axes before it are tables of their own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.report.stats import ALPHA, LEVEL, Estimate, Verdict, holm, t_quantile

Numbers = NDArray[np.float64]

POINTS = 0.5
"""The smallest difference of accuracy that is of interest, in points."""
SHARE = 0.05
"""The smallest difference of spike rates and SynOps that is of interest: a factor of 1.05, up or down."""
TREND_FROM = 10
"""Cells from which on a panel's variances follow a line; fewer share one level."""
CORRELATED = 0.5
"""Correlation within the seeds of a panel from which on cells are compared by seed: it takes half of the variance out
then, which is more than the moderation of unpaired comparisons gains."""
CORRELATED_FROM = 5
"""Cells from which on that correlation counts: three seeds of two cells go together by chance alone."""
CAUTION = 1.0
"""Standard errors by which the scatter of a panel's log variances is taken larger than it looks: an estimate of the
prior's degrees of freedom that is too high by chance makes too many cells look different."""


class Scale(StrEnum):
    """What is compared, and how.

    Accuracies, in percent and more being better, by their difference in points; spike rates, counts and energies, all
    above 0 and less being better, by their ratio.
    """

    ACCURACY = "accuracy"
    RATIO = "ratio"


@dataclass(frozen=True)
class Contrast:
    """A cell against its baseline.

    Attributes:
        difference: accuracy: the cell's mean minus the baseline's, in points; ratio: the ratio of the geometric means
            minus 1, so that -0.25 is a quarter less.
        low: lower end of the interval that decides, in the same unit; None where there is none.
        high: its upper end.
        p: p-value of no difference after Holm's correction over the panel; None where there is none.
        verdict: better, worse, alike or too few seeds to say.
        seeds: number of the cell's values.
        base_seeds: number of the baseline's.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    seeds: int
    base_seeds: int


@dataclass(frozen=True)
class Squeezed:
    """Variances moved towards what the panel expects of them.

    Attributes:
        variances: of the cells' values.
        expected: what each was moved towards.
        prior: degrees of freedom that the panel adds to each cell; infinite where cells scatter no more about what is
            expected than their few seeds explain.
        df: degrees of freedom of each variance, never more than all cells have together.
    """

    variances: Numbers
    expected: Numbers
    prior: Numbers
    df: Numbers


def squeeze(
    variances: ArrayLike,
    df: ArrayLike,
    covariate: ArrayLike | None = None,
    least: float = 0.0,
    caution: float = 0.0,
) -> Squeezed:
    """Moderate variances by empirical Bayes, as limma's `squeezeVar` and `fitFDist` do.

    Source: Smyth 2004 (Statistical Applications in Genetics and Molecular Biology 3, article 3), section 6.2 for the
    prior's degrees of freedom and variance, section 4 for the posterior variance; trend and the bound of the degrees
    of freedom as in limma (Ritchie et al. 2015, Nucleic Acids Research 43, e47).

    Args:
        variances: of each cell's values, the cells on the last axis, two or more.
        df: each cell's degrees of freedom, the number of its values minus 1.
        covariate: the expected log variance is a line in it; None: the same for all cells.
        least: no variance is smaller. Values on a grid are rounded, so that a spread of 0 is less than they can tell.
        caution: standard errors by which the scatter of the log variances is taken larger; 0 is limma's.
    """
    from scipy.special import digamma, polygamma  # type: ignore[import-untyped]

    given, d = np.asarray(variances, dtype=np.float64), np.asarray(df, dtype=np.float64)
    middle = np.median(given, axis=-1, keepdims=True)
    floored = np.maximum(given, np.maximum(least, 1e-5 * np.where(middle > 0, middle, 1.0)))
    # log s^2 is biased by as much as digamma says.
    z = np.log(floored) - digamma(d / 2) + np.log(d / 2)
    centre = z.mean(axis=-1, keepdims=True)
    fitted, count, used = np.broadcast_to(centre, z.shape), z.shape[-1], 1.0
    if covariate is not None:
        x = np.asarray(covariate, dtype=np.float64)
        x = x - x.mean(axis=-1, keepdims=True)
        spread = (x * x).sum(axis=-1, keepdims=True)
        slope = (x * z).sum(axis=-1, keepdims=True) / np.where(spread > 0, spread, 1.0)
        fitted, used = centre + slope * x, 2.0
    left = count - used
    scatter = ((z - fitted) ** 2).sum(axis=-1, keepdims=True) / left * (1 + caution * math.sqrt(2 / left))
    scatter = scatter - polygamma(1, d / 2).mean()
    known = scatter > 0
    prior = np.where(known, 2 * trigamma_inverse(np.where(known, scatter, 1.0)), np.inf)
    finite = np.where(known, prior, 1.0)
    # Of one level that all cells share the mean says more than that of the logarithms does.
    level = (d * floored).sum(axis=-1, keepdims=True) / np.broadcast_to(d, z.shape).sum(axis=-1, keepdims=True)
    shared = np.exp(fitted) if covariate is not None else np.broadcast_to(level, z.shape)
    expected = np.where(known, np.exp(fitted + digamma(finite / 2) - np.log(finite / 2)), shared)
    moderated = np.where(known, (d * floored + finite * expected) / (d + finite), expected)
    total = np.minimum(d + prior, np.broadcast_to(d, z.shape).sum(axis=-1, keepdims=True))
    return Squeezed(moderated, expected, prior[..., 0], total)


def trigamma_inverse(values: ArrayLike) -> Numbers:
    """The argument at which the trigamma function has a value, by Newton's method on its reciprocal.

    Source: Smyth 2004, appendix.

    Args:
        values: above 0.
    """
    from scipy.special import polygamma

    x = np.clip(np.asarray(values, dtype=np.float64), 1e-6, 1e7)
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / x) / polygamma(2, y)
        y = y + step
        if np.all(-step / y < 1e-8):
            break
    return np.asarray(y, dtype=np.float64)


@dataclass(frozen=True)
class Compared:
    """Differences of cells to their baselines, before any correction.

    Attributes:
        difference: of the means.
        own: standard error of the cell's mean; of the difference where `base` is 0.
        base: of the baseline's mean; 0 where cells are compared by seed, or share one variance.
        own_df: the cell's degrees of freedom.
        base_df: the baseline's.
        correlation: within seeds, as it was used; 0 where it was not.
        p: two-sided p-value of no difference.
    """

    difference: Numbers
    own: Numbers
    base: Numbers
    own_df: Numbers
    base_df: Numbers
    correlation: Numbers
    p: Numbers

    def half_width(self, alpha: float) -> Numbers:
        """Half the width of each difference's interval that leaves out a share of `alpha`."""
        # Two errors scatter more than either of them, and less than they would if they always fell together.
        alone = self.own * -t_quantile(alpha / 2, self.own_df), self.base * -t_quantile(alpha / 2, self.base_df)
        low, high = np.maximum(*alone), alone[0] + alone[1]
        for _ in range(30):
            middle = (low + high) / 2
            above = tail(middle, self.own, self.base, self.own_df, self.base_df) > alpha
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return np.asarray(high, dtype=np.float64)


def compare(values: Numbers, bases: Sequence[int], scale: Scale, cells: Sequence[int], least: float = 0.0) -> Compared:
    """Compare cells of a panel with their baselines, unpaired, or by seed where a panel's seeds go together.

    By seed the differences' own variance counts, as in Student's paired t test: moderated towards a trend it would find
    too much, as the cells that do not go along with the others have another one.

    The two means' errors have Student's t distributions of their own degrees of freedom, and the p-value is that of
    their difference: the Behrens-Fisher distribution. Satterthwaite's approximation by one t is too light in the tails
    that a correction for many comparisons looks at, where few degrees of freedom meet.

    Args:
        values: accuracies or logarithms, seeds on the last axis and cells on the one before it; NaN where a cell lacks
            a seed. Each cell has two or more.
        bases: for each comparison the baseline's place among the cells.
        scale: what the values are.
        cells: for each comparison the cell's place.
        least: see `squeeze`.
    """
    there = np.isfinite(values)
    first = there.reshape(-1, *there.shape[-2:])[0]
    sizes = first.sum(axis=-1).astype(np.float64)
    means, squeezed, residuals = _moderated(values, scale, least)
    one, other = np.asarray(cells, dtype=int), np.asarray(bases, dtype=int)
    errors = np.sqrt(squeezed.variances / sizes)
    own, base = errors[..., one], errors[..., other]
    own_df, base_df = squeezed.df[..., one], squeezed.df[..., other]
    difference = means[..., one] - means[..., other]
    # Where all cells share one variance, both errors are right or wrong together: they are one.
    together = np.isinf(squeezed.prior)[..., None]
    own, base = np.where(together, np.hypot(own, base), own), np.where(together, 0.0, base)
    common = first.astype(np.float64) @ first.T.astype(np.float64)
    correlation = np.zeros_like(difference)
    if values.shape[-2] >= CORRELATED_FROM:
        spread = np.sqrt((residuals**2).sum(axis=-1, keepdims=True) / (sizes[:, None] - 1))
        correlation = correlation + _correlation(residuals / np.where(spread > 0, spread, 1.0), common)[..., None]
        correlation = np.where((correlation >= CORRELATED) & (common[one, other] > 1), correlation, 0.0)
    paired = correlation > 0
    if paired.any():
        apart = np.where((first[one] & first[other]), values[..., one, :] - values[..., other, :], np.nan)
        count = np.maximum(common[one, other], 2.0)
        mean = np.nansum(apart, axis=-1) / count
        variance = np.nansum((apart - mean[..., None]) ** 2, axis=-1) / (count - 1)
        # Differences that are all equal prove little: as in `squeeze`, no variance is nothing beside the others.
        floor = np.maximum(2 * least, 1e-5 * (squeezed.variances[..., one] + squeezed.variances[..., other]))
        own = np.where(paired, np.sqrt(np.maximum(variance, floor) / count), own)
        base = np.where(paired, 0.0, base)
        own_df, difference = np.where(paired, count - 1, own_df), np.where(paired, mean, difference)
    p = tail(np.abs(difference), own, base, own_df, base_df)
    return Compared(difference, own, base, own_df, base_df, correlation, p)


def _moderated(values: Numbers, scale: Scale, least: float) -> tuple[Numbers, Squeezed, Numbers]:
    """Means and moderated variances of cells, and the values' distances from the means, 0 where there is none."""
    there = np.isfinite(values)
    sizes = there.sum(axis=-1)
    means = np.where(there, values, 0.0).sum(axis=-1) / sizes
    residuals = np.where(there, values - means[..., None], 0.0)
    df = sizes - 1.0
    variances = (residuals**2).sum(axis=-1) / df
    if values.shape[-2] < 2:
        floored = np.maximum(variances, least)
        return means, Squeezed(floored, floored, np.zeros(means.shape[:-1]), df), residuals
    covariate = None
    if values.shape[-2] >= TREND_FROM:
        # Accuracies scatter less the nearer to 100 they are; so near that nothing is left, by the grid they are on.
        covariate = (
            np.log(np.maximum(100 - means, max(math.sqrt(3 * least), 0.01))) if scale is Scale.ACCURACY else means
        )
    return means, squeeze(variances, df, covariate, least, CAUTION), residuals


def _correlation(residuals: Numbers, common: Numbers) -> Numbers:
    """Mean correlation of cells over the seeds they have in common.

    Args:
        residuals: distances from the cells' means in standard deviations, 0 where there is no value.
        common: for each two cells the number of seeds that both have.
    """
    sizes = np.diag(common)
    products = (residuals.sum(axis=-2) ** 2).sum(axis=-1) - (residuals**2).sum(axis=(-1, -2))
    # What a correlation of 1 would make of the products: means are taken out, each over its own cell's seeds.
    whole = common * (1 - 1 / sizes[:, None] - 1 / sizes + common / np.outer(sizes, sizes))
    most = whole.sum() - np.trace(whole)
    return np.asarray(np.clip(products / most, 0.0, 0.99) if most > 1e-9 else np.zeros(products.shape))


def tail(x: Numbers, one: Numbers, other: Numbers, one_df: Numbers, other_df: Numbers) -> Numbers:
    """Chance that the sum of two scaled t-distributed errors is beyond x on either side: the Behrens-Fisher
    distribution.

    By Gauss-Legendre quadrature over the error of the smaller scale.

    Args:
        x: 0 or more.
        one: scale of one error.
        other: of the other.
        one_df: degrees of freedom of the one.
        other_df: of the other.
    """
    from scipy.special import gammaln, stdtr

    swap = one > other
    s, d = np.where(swap, other, one)[..., None], np.where(swap, other_df, one_df)[..., None]
    large, e = np.where(swap, one, other)[..., None], np.where(swap, one_df, other_df)[..., None]
    t, weight = _nodes()
    density = np.exp(
        gammaln((d + 1) / 2) - gammaln(d / 2) - 0.5 * np.log(d * np.pi) - (d + 1) / 2 * np.log1p(t * t / d)
    )
    beyond = stdtr(e, -(x[..., None] - s * t) / large)
    return np.asarray(np.minimum(1.0, 2 * (beyond * density * weight).sum(axis=-1)), dtype=np.float64)


@functools.cache
def _nodes() -> tuple[Numbers, Numbers]:
    """Places on the whole line, and the weights of an integral's sum over them."""
    node, weight = np.polynomial.legendre.leggauss(64)
    return 2 * node / (1 - node**2), weight * 2 * (1 + node**2) / (1 - node**2) ** 2


def contrasts(
    cells: Sequence[Mapping[int, float]],
    base: Mapping[int, float] | Sequence[Mapping[int, float] | None],
    scale: Scale,
    alpha: float = ALPHA,
) -> list[Contrast | None]:
    """Compare each cell of a panel with its baseline.

    p-values are corrected by Holm's method over the panel, and a cell that they tell from its baseline is better or
    worse. Intervals are simultaneous (each leaves out `alpha` over the number of comparisons); one that would reach
    beyond 0 where Holm's later steps tell a cell ends there, and one of accuracies ends where accuracies do. A cell is
    alike where its interval lies within `POINTS` or `SHARE`.

    Args:
        cells: of each cell, seed -> value. One value has no verdict; none has no contrast.
        base: the baseline, or that of each cell, None where there is none.
        scale: what the values are. A ratio needs values above 0: others have no interval.
        alpha: chance that in this panel what does not differ is called better or worse.
    """
    bases = [base] * len(cells) if isinstance(base, Mapping) else list(base)
    if len(bases) != len(cells):
        raise ValueError(f"{len(cells)} cells and {len(bases)} baselines")
    # A baseline is one cell of the panel, however many are compared with it.
    panel: list[Mapping[int, float]] = []
    pairs: dict[int, int] = {}
    for place, (cell, against) in enumerate(zip(cells, bases, strict=True)):
        if against is not None and _usable(cell, scale) and _usable(against, scale):
            panel += [against] if against not in panel else []
            pairs[place] = panel.index(against)
    own = range(len(panel), len(panel) + len(pairs))
    panel += [cells[place] for place in pairs]
    found: list[Contrast | None] = [_without(cell, against, scale) for cell, against in zip(cells, bases, strict=True)]
    if not pairs:
        return found
    values, least = _grid(panel, scale)
    other = list(pairs.values())
    compared = compare(values, other, scale, own, least)
    half = compared.half_width(alpha / len(pairs))
    adjusted = holm([float(p) for p in compared.p])
    for i, place in enumerate(pairs):
        p, mean = adjusted[i], float(compared.difference[i])
        assert p is not None
        low, high = mean - float(half[i]), mean + float(half[i])
        if p <= alpha:
            low, high = (max(low, 0.0), high) if mean > 0 else (low, min(high, 0.0))
        if scale is Scale.ACCURACY:
            level = math.fsum(panel[other[i]].values()) / len(panel[other[i]])
            low, high = max(low, -level), min(high, 100 - level)
        verdict = _verdict(low, high, p <= alpha, mean, scale)
        if scale is Scale.RATIO:
            mean, low, high = math.expm1(mean), math.expm1(low), math.expm1(min(high, 700.0))
        found[place] = Contrast(mean, low, high, p, verdict, len(panel[own[i]]), len(panel[other[i]]))
    return found


def _verdict(low: float, high: float, told: bool, mean: float, scale: Scale) -> Verdict:
    """The verdict by an interval on the scale of comparison."""
    least = POINTS if scale is Scale.ACCURACY else math.log1p(SHARE)
    if -least < low and high < least:
        return Verdict.ALIKE
    if not told:
        return Verdict.TOO_FEW
    return Verdict.BETTER if (mean > 0) is (scale is Scale.ACCURACY) else Verdict.WORSE


def _usable(cell: Mapping[int, float], scale: Scale) -> bool:
    """Whether a cell has a variance on its scale."""
    return len(cell) > 1 and (scale is Scale.ACCURACY or all(value > 0 for value in cell.values()))


def _without(cell: Mapping[int, float], base: Mapping[int, float] | None, scale: Scale) -> Contrast | None:
    """What there is to say of a cell without an interval."""
    if not cell or not base:
        return None
    one, other = (math.fsum(values.values()) / len(values) for values in (cell, base))
    if scale is Scale.ACCURACY:
        difference = one - other
    elif other > 0:
        difference = one / other - 1
    else:
        return None
    return Contrast(difference, None, None, None, Verdict.TOO_FEW, len(cell), len(base))


def _grid(panel: Sequence[Mapping[int, float]], scale: Scale) -> tuple[Numbers, float]:
    """Cells and seeds as a table on the scale of comparison, NaN where there is none, and the least variance of a cell.

    Accuracies are shares of a number of images, so that rounding alone gives them the variance of a uniform
    distribution over one image.
    """
    seeds = sorted({seed for cell in panel for seed in cell})
    values = np.array([[cell.get(seed, math.nan) for seed in seeds] for cell in panel], dtype=np.float64)
    if scale is Scale.RATIO:
        return np.log(values), 0.0
    steps = np.diff(np.unique(values[np.isfinite(values)]))
    steps = steps[steps > 1e-6]
    return values, float(steps.min()) ** 2 / 12 if len(steps) else 0.0


def intervals(cells: Sequence[Mapping[int, float]], scale: Scale, level: float = LEVEL) -> list[Estimate | None]:
    """Means of a panel's cells, each with an interval of its own from its moderated variance.

    Accuracies' are on the logit scale and ratios' on the log scale, back in their units, so that none leaves the range
    of what was measured.

    Args:
        cells: of each cell, seed -> value.
        scale: what the values are.
        level: coverage of each interval.

    Returns:
        None for a cell without a value, no interval with one value, or where a ratio's value is 0.
    """
    found: list[Estimate | None] = []
    for cell in cells:
        mean = math.fsum(cell.values()) / len(cell) if cell else 0.0
        method = "one value" if len(cell) == 1 else "no logarithm"
        found.append(Estimate(mean, None, None, len(cell), method) if cell else None)
    # Runs that two lines share, or that did nothing, are one cell.
    panel: list[Mapping[int, float]] = []
    for cell in cells:
        panel += [cell] if _usable(cell, scale) and cell not in panel else []
    if not panel:
        return found
    values, least = _grid(panel, scale)
    _, squeezed, _ = _moderated(values, scale, least)
    quantiles = t_quantile((1 + level) / 2, squeezed.df)
    for place, cell in enumerate(cells):
        known = found[place]
        if known is None or cell not in panel:
            continue
        at, n = panel.index(cell), len(cell)
        half = float(quantiles[at]) * math.sqrt(squeezed.variances[at] / n)
        if half == 0:
            found[place] = Estimate(known.mean, None, None, n, "equal values")
        else:
            found[place] = Estimate(known.mean, *_around(known.mean, half, scale), n, "moderated t")
    return found


def _around(mean: float, half: float, scale: Scale) -> tuple[float, float]:
    """The ends of an interval around a mean, from half its width in points or in logarithms."""
    if scale is Scale.RATIO:
        return mean * math.exp(-half), mean * math.exp(min(half, 700.0))
    room = mean * (100 - mean) / 100
    if room <= 0:
        return max(0.0, mean - half), min(100.0, mean + half)
    # By the delta method: the logit's slope at the mean.
    factor = math.exp(min(half / room, 700.0))
    odds = mean / (100 - mean)
    return 100 * odds / factor / (1 + odds / factor), 100 / (1 + 1 / (odds * factor))
