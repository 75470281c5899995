"""Statistics over seeds: intervals, paired differences, trends, Holm, selection, Pareto, curves, ranks.

Pure functions of numbers. A run that diverged has no number: callers leave it out of means and count it, and
`ranks` puts it last. All intervals are over seeds, which draw the test images too where a run takes a part
of them: they say how much training varies, not how much another test set would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
"""Chance, over all comparisons of a panel, that what does not differ is called different."""
LEVEL = 1 - ALPHA
BOOTSTRAP_FROM = 20
"""Seeds from which on the interval is a bootstrap. Resampling fewer covers too little where 95 % is meant (BCa on
normal values: 88 % at 8, 90 % at 10, 93.5 % at 20, against 94-96 % of Student's t)."""
RESAMPLES = 2000
RANKED_FROM = 5
"""Seeds from which on rows are ranked: those of fewer, resampled, leave intervals that are too short."""
EXACT_UP_TO = 16


class Verdict(StrEnum):
    """What a comparison with the baseline says: of spike rates and SynOps, fewer is better.

    `alike`: the interval of the difference lies within the smallest that is of interest.
    """

    BETTER = "better"
    WORSE = "worse"
    ALIKE = "alike"
    TOO_FEW = "too few seeds to say"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        low: lower end of the 95 % interval; None where there is none.
        high: its upper end.
        n: number of values.
        method: `t`, `moderated t` (`contrasts.intervals`), `bootstrap`, `one value`, `equal values` or `no logarithm`:
            the last three have no interval, since values that do not differ at all say nothing about how far others
            would, and one alone does not either.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str


def t_quantile(share: float, df: ArrayLike) -> NDArray[np.float64]:
    """The value that a share of Student's t distribution lies below.

    From `scipy.special`, as `scipy.stats.t` has it: importing `scipy.stats` takes longer than most reports' statistics.

    Args:
        share: between 0 and 1.
        df: degrees of freedom, above 0, infinite too.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    return np.asarray(stdtrit(df, share), dtype=np.float64)


def t_tail(t: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """The share of Student's t distribution that lies above a value.

    Args:
        t: the value.
        df: degrees of freedom, above 0, infinite too.
    """
    from scipy.special import stdtr

    return np.asarray(stdtr(df, -np.asarray(t, dtype=np.float64)), dtype=np.float64)


def estimate(values: Iterable[float], level: float = LEVEL) -> Estimate | None:
    """Mean and interval: Student's t for few values, BCa bootstrap (Efron 1987) from `BOOTSTRAP_FROM` on.

    Args:
        values: one a seed.
        level: coverage of the interval.

    Returns:
        None when there is no value.

    Raises:
        ValueError: a value is not finite: diverged runs are counted, not averaged.
    """
    x = np.asarray(list(values), dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite; leave diverged runs out and count them")
    n = len(x)
    if n == 0:
        return None
    mean = math.fsum(x) / n
    if n == 1:
        return Estimate(mean, None, None, n, "one value")
    if np.ptp(x) <= 1e-12 * max(1.0, abs(mean)):
        return Estimate(mean, None, None, n, "equal values")
    if n >= BOOTSTRAP_FROM:
        from scipy import stats  # type: ignore[import-untyped]

        interval = stats.bootstrap(
            (x,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0)
        ).confidence_interval
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            return Estimate(mean, float(interval.low), float(interval.high), n, "bootstrap")
    half = float(t_quantile((1 + level) / 2, n - 1)) * float(x.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, "t")


def over_pairs(values: Mapping[tuple[int, int], float], level: float = LEVEL) -> Paired:
    """Mean over all pairs of seeds, which share seeds and so are not independent: the jackknife over seeds of a
    U-statistic of degree two (Arvesen 1969), with Student's t.

    Args:
        values: of each pair of different seeds, in either order or both.
        level: coverage of the interval.

    Returns:
        The mean, with an interval and a p-value of 0 from three seeds on of which every pair has a value.
    """
    seeds = tuple(sorted({seed for pair in values for seed in pair}))
    n = len(seeds)
    joint = {
        (one, other): [values[pair] for pair in ((one, other), (other, one)) if pair in values]
        for one in seeds
        for other in seeds
        if one < other
    }
    known = {pair: math.fsum(both) / len(both) for pair, both in joint.items() if both}
    if not known:
        return Paired(None, None, ())
    mean = math.fsum(known.values()) / len(known)
    if n < 3 or len(known) < len(joint):
        return Paired(Estimate(mean, None, None, n, "one value"), None, seeds)
    own = [math.fsum(value for pair, value in known.items() if seed in pair) / (n - 1) for seed in seeds]
    error = 2 * (n - 1) / (n - 2) * float(np.std(own, ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Paired(Estimate(mean, None, None, n, "equal values"), None, seeds)
    half = float(t_quantile((1 + level) / 2, n - 1)) * error
    p = float(2 * t_tail(abs(mean) / error, n - 1))
    return Paired(Estimate(mean, mean - half, mean + half, n, "t"), p, seeds)


def band(curves: Sequence[Sequence[float]], level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end over seeds at each epoch; one seed alone has a band of no width.

    Args:
        curves: one a seed, all of one length.
    """
    x = np.asarray(curves, dtype=np.float64)
    mean = x.mean(axis=0)
    if len(x) < 2:
        return mean, mean, mean
    half = t_quantile((1 + level) / 2, len(x) - 1) * x.std(axis=0, ddof=1) / math.sqrt(len(x))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Paired:
    """Differences to the baseline, seed by seed.

    Attributes:
        difference: of the means over the seeds both have; None when there is no such seed.
        p: two-sided p-value of a difference of zero; None with fewer than two pairs.
        seeds: the seeds both have.
    """

    difference: Estimate | None
    p: float | None
    seeds: tuple[int, ...]


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
    """Compare with the baseline over the seeds that both have: paired t test.

    Differences that are all equal (accuracies on few images are coarse) leave t undefined: then the exact
    sign-flip test answers, which knows no spread and so never finds two or three equal differences significant.

    Args:
        values: seed -> number.
        baseline: the same of the baseline.
    """
    seeds = tuple(sorted(values.keys() & baseline.keys()))
    differences = [values[seed] - baseline[seed] for seed in seeds]
    difference = estimate(differences)
    if difference is None or difference.n < 2:
        return Paired(difference, None, seeds)
    if difference.method == "equal values":
        return Paired(difference, sign_flip(differences), seeds)
    standard_error = float(np.std(differences, ddof=1)) / math.sqrt(difference.n)
    t = abs(difference.mean) / standard_error
    return Paired(difference, float(2 * t_tail(t, difference.n - 1)), seeds)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p-value of the sign-flip permutation test of the mean: exact up to 16 values, then 100,000 draws.

    Fisher's randomization test (The Design of Experiments, 1935, section 21).

    Raises:
        ValueError: there are no differences.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if n == 0:
        raise ValueError("no differences")
    observed = abs(d.sum())
    slack = 1e-9 * max(1.0, float(np.abs(d).sum()))
    if n <= EXACT_UP_TO:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ d) >= observed - slack))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(100_000, n))
    return float((np.sum(np.abs(signs @ d) >= observed - slack) + 1) / 100_001)


@dataclass(frozen=True)
class Trend:
    """Whether a number falls along ordered settings.

    Attributes:
        falls: number of steps at which the mean over seeds falls.
        steps: number of steps.
        n: number of seeds.
        down: whether the order of the numbers within the seeds speaks for falling.
        p: two-sided p-value of no order; None with fewer than two seeds.
    """

    falls: int
    steps: int
    n: int
    down: bool
    p: float | None


def trend(columns: Sequence[Mapping[int, float]]) -> Trend | None:
    """Page's trend test (Page 1963, Journal of the American Statistical Association 58, pp. 216-230).

    Each seed ranks its own settings, so neither what a seed does to all of them nor the scale matters. It asks whether
    the settings order the numbers, not whether every single step does: neighbours nearer to each other than seeds are
    may swap places.

    Args:
        columns: for each setting, in order, seed -> number.

    Returns:
        None with fewer than three settings, or no seed that all have.
    """
    from scipy import stats

    seeds = sorted(set.intersection(*map(set, columns))) if columns else []
    if len(columns) < 3 or not seeds:
        return None
    table = np.array([[column[seed] for column in columns] for seed in seeds])
    ranked = stats.rankdata(-table, axis=1).sum(axis=0)
    means = table.mean(axis=0)
    slope = float(ranked @ (np.arange(len(columns)) - (len(columns) - 1) / 2))
    p = None
    if len(seeds) > 1:
        # One tail after the other, as scipy has one: that the columns rise in the order in which they are given.
        tails = (stats.page_trend_test(values).pvalue for values in (table[:, ::-1], table))
        p = min(1.0, 2 * float(min(tails)))
    return Trend(int((np.diff(means) < 0).sum()), len(columns) - 1, len(seeds), slope > 0, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for having looked at all of them (Holm 1979, step down); None stays and does not count."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for step, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - step)))
        adjusted[i] = largest
    return adjusted


def blind(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without anything measured on the test set: all that a selection rule may see."""
    return {key: value for key, value in record.items() if key not in ("test", "test_best_epoch", "gap")}


@dataclass(frozen=True)
class Rule:
    """How a table picks among strengths; the number reported is always the last epoch's.

    Attributes:
        name: as experiments name it.
        says: a clause for the report.
        score: gives a run's score from its record without the test set; the strength with the highest mean score is
            picked. None picks nothing and reports every strength.
    """

    name: str
    says: str
    score: Callable[[Mapping[str, Any]], float | None] | None = None

    def keep(self, candidates: Sequence[Sequence[Mapping[str, Any]]]) -> list[int]:
        """Places of the candidates to report.

        A candidate with fewer diverged runs comes first whatever its mean; of equals the first is taken.

        Args:
            candidates: for each strength the records of its seeds.

        Raises:
            ValueError: the score is missing in a finished run.
        """
        if self.score is None:
            return list(range(len(candidates)))
        order = []
        for place, records in enumerate(candidates):
            scores = [self.score(blind(record)) for record in records if record["status"] == "finished"]
            if any(score is None for score in scores):
                raise ValueError(f"{self.name} needs a validation split, and a run has none: data.val_fraction=0.1")
            if scores:
                mean = math.fsum(score for score in scores if score is not None) / len(scores)
                order.append((len(records) - len(scores), -mean, place))
        return [min(order)[2]] if order else []


def _on_validation(record: Mapping[str, Any]) -> float | None:
    return record["val"]["acc"] if record["val"] else None


LAST_EPOCH = Rule("last_epoch", "every strength is shown as the last epoch left it; nothing is picked")
BEST_ON_VALIDATION = Rule(
    "best_on_validation",
    "of each group the strength with the best mean validation accuracy is shown, as its last epoch left it",
    _on_validation,
)
RULES = {rule.name: rule for rule in (LAST_EPOCH, BEST_ON_VALIDATION)}


def pareto(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Places of the points that no other point beats: none costs at most as much and scores at least as high,
    with one of the two strictly. Cheapest first."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i]))
    front: list[int] = []
    for i in order:
        if not front or scores[i] > scores[front[-1]] or (costs[i], scores[i]) == (costs[front[-1]], scores[front[-1]]):
            front.append(i)
    return front


def lead(above: Sequence[tuple[float, float]], below: Sequence[tuple[float, float]], chance: float) -> float | None:
    """By how much one curve of accuracy over cost lies above another where cost is low: the mean difference over the
    lower half, in log cost, of the costs that both reach.

    Cost is an outcome here, as accuracy is, and only as long as a network learns do both fall together: collapsed
    ones spike much or little as chance has it, so no line through their points is a function of the cost. Two rules
    make it one. A run that keeps less than half of the best run's lead over chance has collapsed and is left out. What
    is left is fitted by the nearest curve that never falls (isotonic regression by pooling adjacent violators), linear
    between the centres of its pools. Pairing runs by the penalty's weight instead would compare networks at unequal
    costs; taking the cost in as a covariate mends that only where the curve is a line.

    Args:
        above: cost, above 0, and accuracy in percent of each run of one seed.
        below: the same of the other curve.
        chance: accuracy of guessing, in percent.

    Returns:
        In points; None where a curve has fewer than two pools, or the two share no costs.
    """
    if not above or not below:
        return None
    # One bound for both: else the curve that is worse would be allowed more.
    bound = (chance + max(accuracy for _, accuracy in [*above, *below])) / 2
    (x1, y1), (x2, y2) = (_rising([point for point in curve if point[1] > bound]) for curve in (above, below))
    if len(x1) < 2 or len(x2) < 2:
        return None
    low, high = max(x1[0], x2[0]), min(x1[-1], x2[-1])
    if low >= high:
        return None
    at = np.linspace(low, (low + high) / 2, 50)
    return float(np.mean(np.interp(at, x1, y1) - np.interp(at, x2, y2)))


def _rising(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Log cost and accuracy at the centres of the pools of an isotonic regression."""
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]

    if not points:
        return np.array([]), np.array([])
    x, y = np.array(sorted((math.log(cost), accuracy) for cost, accuracy in points)).T
    pools = isotonic_regression(y).blocks[:-1]
    sizes = np.diff([*pools, len(x)])
    return np.add.reduceat(x, pools) / sizes, np.add.reduceat(y, pools) / sizes


@dataclass(frozen=True)
class Rank:
    """A place among methods, 1 the best.

    Attributes:
        rank: by the mean over all seeds; ties share their mean place.
        low: lower end of the 95 % interval over resampled seeds; None with one seed.
        high: its upper end.
        first: share of the resamples in which it is the best, ties shared; None with one seed.
    """

    rank: float
    low: float | None
    high: float | None
    first: float | None


def ranks(scores: Mapping[str, Mapping[int, float | None]]) -> dict[str, Rank]:
    """Rank methods by their mean score, with the uncertainty that the seeds leave.

    The seeds are resampled jointly, so what a seed does to all methods stays paired.

    Args:
        scores: method -> seed -> score, more being better; None for a run that diverged, which ranks last.

    Returns:
        Nothing when the methods share no seed.
    """
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    if not scores:
        return {}
    seeds = sorted(set.intersection(*map(set, scores.values())))
    if not seeds:
        return {}
    # A diverged run counts as worse than any number: -inf carries through the mean.
    rows = [[-np.inf if by_seed[seed] is None else by_seed[seed] for seed in seeds] for by_seed in scores.values()]
    table = np.array(rows, dtype=np.float64)
    by_mean = rankdata(-table.mean(axis=1).round(10))
    if len(seeds) == 1:
        return {name: Rank(float(rank), None, None, None) for name, rank in zip(scores, by_mean, strict=True)}
    draws = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    resampled = rankdata(-table[:, draws].mean(axis=2).round(10), axis=0)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    best = resampled == resampled.min(axis=0)
    first = (best / best.sum(axis=0)).mean(axis=1)
    return {
        name: Rank(float(by_mean[i]), float(low[i]), float(high[i]), float(first[i])) for i, name in enumerate(scores)
    }
