"""The papers' testable findings, and whether they hold in our runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.published.papers import METRICS, known, of_experiment, paper
from bench.records.schema import DIGITS, FIELD, Unit
from bench.report.collect import StoredRun
from bench.report.stats import ALPHA, Paired, holm, lead, over_pairs, paired, trend
from bench.report.tables import Line

_Numbers = dict[int, tuple[float, float | None]]
"""Seed -> number, and half of the least that could have been counted, where that is known."""

_LOGGED = (Unit.rate, Unit.count, Unit.microjoule)


def claims(experiment: str) -> tuple[dict[str, Any], ...]:
    """The testable findings that a paper's file lists under `experiments`, or those of the table or figure that an
    experiment is named after, `nandan2022/figure3_1`, or of the figures, `lyu2023/figures2_5`."""
    name, _, item = experiment.partition("/")
    own = of_experiment(experiment).get("claims")
    match = re.fullmatch(r"(table|figure)s?(\d+)_(\d+)", item)
    if own is not None or match is None or not known(name):
        return tuple(own or ())
    kind, chapter, number = match.groups()
    entry = paper(name).get(f"{kind}s", {}).get(f"{chapter}.{number}", {})
    return tuple(entry.get("claims", ()))


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and what our runs say to it.

    Attributes:
        says: the claim.
        outcome: `holds`, `does not hold`, `open` (the runs cannot tell) or `not run`.
        why: the numbers behind it.
    """

    says: str
    outcome: str
    why: str


@dataclass(frozen=True)
class _Test:
    """What our runs say to a claim, before the correction.

    Attributes:
        p: two-sided p-value; None where there is none.
        speaks: whether they speak for the claim.
        why: the numbers behind it.
    """

    p: float | None
    speaks: bool
    why: str


def judge(claims: Sequence[Mapping[str, Any]], lines: Sequence[Line], alpha: float = ALPHA) -> list[Finding]:
    """Test each claim on our runs, with Holm's correction over all of them.

    A claim is one of

    - `better: {column: value}, than: {column: value}, in: metric`: a paired difference above 0;
    - `falls: metric, from: {column: value}, to: {column: value}`: a paired difference below 0;
    - either with `times: factor`: the second side counts so many times (it falls to a tenth: 10);
    - `falls: metric, over: column`: the metric falls as the column's published value grows (`stats.trend`), `of:
      {column: value}` names the lines where it is not all;
    - `larger: metric, than: metric, of: {column: value}`, or `smaller`: two numbers of one line, paired by seed, or one
      number and a constant;
    - `alike: {...}, with: {...}, in: metric, within: points`: the paired difference lies within +- points, by two
      one-sided tests (Schuirmann 1987), each at half of alpha; of ratios, within a share: 0.05 is 1 / 1.05 to 1.05;
    - `alike: metric, with: metric, of: {column: value}, within: points`: the same of two numbers of one line, or of one
      number and a constant;
    - `agrees: number, by: importance, less: {column: value}, than: {column: value}`: of `probe=ranking`, two runs of
      the second line agree more than one of each, over all pairs of seeds (`stats.over_pairs`);
    - `above: {argument: value}, below: {argument: value}`: at equal, low spike rates the lines whose regularizer has
      the first argument have the higher accuracy (`stats.lead`, seed by seed).

    A line is named by what is published of it, or by its `label`; a metric by its column, or as records have it
    (`StoredRun.number`). Spike rates, counts and energies, and any metric with `scale: log`, are compared by their
    ratio: their scatter grows with them.

    Args:
        claims: the paper's.
        lines: our table's.
        alpha: chance of a false outcome over all claims.
    """
    tests = [_test(claim, lines) for claim in claims]
    adjusted = holm([None if test is None else test.p for test in tests])
    judged = zip(claims, tests, adjusted, strict=True)
    return [_finding(str(claim["says"]), test, p, alpha) for claim, test, p in judged]


def _finding(says: str, test: _Test | None, p: float | None, alpha: float) -> Finding:
    """The outcome, by the p-value after the correction."""
    if test is None:
        return Finding(says, "not run", "runs it needs are missing")
    if p is None:
        return Finding(says, "open", test.why)
    why = f"{test.why}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    return Finding(says, "open" if p > alpha else "holds" if test.speaks else "does not hold", why)


def _test(claim: Mapping[str, Any], lines: Sequence[Line]) -> _Test | None:
    """None where a run that it needs is missing."""
    if "above" in claim:
        return _curves(claim, lines)
    if "over" in claim:
        return _order(claim, lines)
    if "agrees" in claim:
        return _agreement(claim, lines)
    sides = _sides(claim, lines)
    if sides is None or not sides[0] or not sides[1]:
        return None
    return _compared(claim, *sides)


def _fitting(lines: Sequence[Line], wanted: Mapping[str, Any]) -> list[Line]:
    """The lines that a claim names."""
    named = [(line, {**(line.published or {}), "label": line.label}) for line in lines]
    return [line for line, facts in named if all(facts.get(key) == value for key, value in wanted.items())]


def _line(lines: Sequence[Line], wanted: Mapping[str, Any]) -> Line | None:
    """The one line that a claim names; None where there is none, or more than one."""
    fitting = _fitting(lines, wanted)
    return fitting[0] if len(fitting) == 1 else None


def _metric(claim: Mapping[str, Any]) -> str:
    """The number that a claim is about, as records have it."""
    named = next(str(claim[key]) for key in ("larger", "smaller", "falls", "in", "alike") if key in claim)
    return METRICS.get(named, named)


def _unit(metric: str) -> Unit | None:
    """The unit of a record's number, or of an epoch's; None where the schema knows none."""
    field = FIELD.get(metric.split(".", 2)[-1] if metric.startswith("epochs.") else metric)
    return None if field is None else field.unit


def _logged(claim: Mapping[str, Any]) -> bool:
    """Whether ratios are compared: of rates, counts and energies, and of a probe's spikes by their name."""
    metric = _metric(claim)
    return claim.get("scale") == "log" or _unit(metric) in _LOGGED or metric.endswith("(spikes/image)")


def _sides(claim: Mapping[str, Any], lines: Sequence[Line]) -> tuple[_Numbers, _Numbers] | None:
    """The runs' numbers that are compared, those that ought to be larger first; None where a line is missing."""
    metric = _metric(claim)
    if "of" in claim:
        given = claim["with" if "alike" in claim else "than"]
        line, than = _line(lines, claim["of"]), METRICS.get(given, given)
        if line is None:
            return None
        own = _numbers(line, metric)
        other: _Numbers = _numbers(line, than) if isinstance(than, str) else {seed: (float(than), None) for seed in own}
        return (other, own) if "smaller" in claim else (own, other)
    names = {"better": ("better", "than"), "falls": ("from", "to"), "alike": ("alike", "with")}
    kind = next(kind for kind in names if kind in claim)
    first, second = (_line(lines, claim[name]) for name in names[kind])
    if first is None or second is None:
        return None
    return _numbers(first, metric), _numbers(second, metric)


def _numbers(line: Line, metric: str) -> _Numbers:
    runs = {record.seed: record for record in line.records}
    return {seed: (value, _half(runs[seed], metric)) for seed, value in line.values(metric).items()}


def _half(record: StoredRun, metric: str) -> float | None:
    """Half a spike in all that was counted, in a metric's unit; None where it is not known how much that was."""
    if metric.startswith("probes."):
        images = record.probes[metric.split(".", 2)[1]]["settings"].get("images")
        return 0.5 / images if images else None
    images = record.result[f"{metric.split('.')[0]}_images"] if metric.split(".")[0] in ("train", "test") else None
    if _unit(metric) is Unit.count:
        return float(0.5 / record.result["test_images"])
    neurons = sum(layer["neurons"] for layer in record.result["layers"])
    if _unit(metric) is not Unit.rate or not images or not neurons:
        return None
    return float(0.5 / (neurons * record.result["time_steps"] * images))


def _compared(claim: Mapping[str, Any], first: _Numbers, second: _Numbers) -> _Test | None:
    """Paired differences, of logarithms where ratios are compared; those of the claim's direction lie above 0."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    times, within = float(claim.get("times", 1)), float(claim.get("within", 0))
    bound = ", beyond the bound" if "times" in claim else ""
    zeros = 0
    ours, theirs = ({seed: side[seed][0] for seed in seeds} for side in (first, second))
    if _logged(claim):
        logs = [_logs(side, seeds) for side in (first, second)]
        if logs[0] is None or logs[1] is None:
            return _Test(None, False, "a number is 0 and has no ratio")
        zeros = sum(value == 0 for side in (ours, theirs) for value in side.values())
        ours, theirs = logs[0], {seed: value + math.log(times) for seed, value in logs[1].items()}
        bound = bound and f", bound {times:g}"
        pair, toward = paired(ours, theirs), math.log1p(within)
        why = _shown(pair, lambda value: _factor(times * math.exp(value)), " times", bound)
    else:
        theirs = {seed: times * value for seed, value in theirs.items()}
        pair, toward = paired(ours, theirs), within
        # Accuracies have two digits; losses and other probes' numbers are shown with two as well.
        why = _shown(pair, lambda value: f"{value:+.{DIGITS[Unit.percent]}f}", "", bound)
    if zeros:
        why += f", {zeros} count{'s' if zeros > 1 else ''} of 0 taken as half a count"
    assert pair.difference is not None
    mean = pair.difference.mean
    if "alike" not in claim:
        return _Test(pair.p, mean > 0, why)
    # Whether the mean lies on the same side of the nearer bound as it seems to.
    shifted = {seed: value - math.copysign(toward, mean) for seed, value in ours.items()}
    inside = abs(mean) <= toward
    return _Test(paired(shifted, theirs).p, inside, f"{why}, {'' if inside else 'not '}within {within:g}")


def _logs(numbers: _Numbers, seeds: Sequence[int]) -> dict[int, float] | None:
    """Seed -> logarithm. A count of 0 has none and stands as half of the least that could have been counted; None where
    that is not known."""
    filled = {seed: numbers[seed][0] or numbers[seed][1] for seed in seeds}
    return {seed: math.log(value) for seed, value in filled.items() if value} if all(filled.values()) else None


def _factor(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _shown(pair: Paired, text: Callable[[float], str], unit: str = "", bound: str = "") -> str:
    """A mean difference with its interval, its bound and its number of seeds."""
    estimate = pair.difference
    assert estimate is not None
    shown = text(estimate.mean) + unit
    if estimate.low is not None and estimate.high is not None:
        shown += f" [{text(estimate.low)}, {text(estimate.high)}]"
    shown += f" over {estimate.n} seed{'s' if estimate.n > 1 else ''}{bound}"
    return shown if estimate.n > 1 else f"{shown}: one seed cannot tell"


def _order(claim: Mapping[str, Any], lines: Sequence[Line]) -> _Test | None:
    """Whether a metric falls along a published column."""
    fitting = [line for line in _fitting(lines, claim.get("of", {})) if claim["over"] in (line.published or {})]
    fitting.sort(key=lambda line: float((line.published or {})[claim["over"]]))
    found = trend([line.values(_metric(claim)) for line in fitting])
    if found is None:
        return None
    why = f"falls at {found.falls} of {found.steps} steps over {found.n} seed{'s' if found.n > 1 else ''}"
    return _Test(found.p, found.down, why if found.n > 1 else f"{why}: one seed cannot tell")


def _agreement(claim: Mapping[str, Any], lines: Sequence[Line]) -> _Test | None:
    """How much more two runs of a line agree than one of it and one of another, of different seeds."""
    less, than = _line(lines, claim["less"]), _line(lines, claim["than"])
    if less is None or than is None:
        return None
    null, crossed = _agreements(than, claim), _agreements(less, claim)
    pair = over_pairs({pair: null[pair] - crossed[pair] for pair in null.keys() & crossed.keys()})
    if pair.difference is None:
        return None
    why = _shown(pair, lambda value: f"{value:+.{DIGITS[Unit.percent]}f}")
    return _Test(pair.p, pair.difference.mean > 0, why)


def _agreements(line: Line, claim: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    """(Seed, the other run's seed) -> how far a run agrees with one of another seed without a regularizer."""
    return {
        (record.seed, int(row["against"].removeprefix("seed "))): float(row[claim["agrees"]])
        for record in line.records
        if record.finished and "ranking" in record.probes
        for row in record.probes["ranking"]["rows"]
        if row["by"] == claim["by"] and row["against"] != f"seed {record.seed}"
    }


def _curves(claim: Mapping[str, Any], lines: Sequence[Line]) -> _Test | None:
    """Two curves of accuracy over spike rate, seed by seed."""
    above, below = (_points(lines, claim[side]) for side in ("above", "below"))
    chance = 100 / max((record.result["classes"] for line in lines for record in line.records), default=1)
    leads = {seed: lead(above[seed], below[seed], chance) for seed in above.keys() & below.keys()}
    known = {seed: value for seed, value in leads.items() if value is not None}
    pair = paired(known, dict.fromkeys(known, 0.0))
    if pair.difference is None:
        return None
    left_out = len(leads) - len(known)
    why = _shown(pair, lambda value: f"{value:+.{DIGITS[Unit.points]}f}")
    if left_out:
        why += f", {left_out} without rates that both orders reach"
    return _Test(pair.p, pair.difference.mean > 0, why)


def _points(lines: Sequence[Line], wanted: Mapping[str, Any]) -> dict[int, list[tuple[float, float]]]:
    """Seed -> spike rate and accuracy of the lines whose regularizers have the wanted arguments; without networks
    that never spiked."""
    points: dict[int, list[tuple[float, float]]] = {}
    for line in lines:
        regs = [arguments for record in line.records for arguments in record.result["regs"].values()]
        if not regs or not all(arguments.get(key) == value for arguments in regs for key, value in wanted.items()):
            continue
        rates, accuracies = line.values("test.spike_rate"), line.values("test.acc")
        for seed, rate in rates.items():
            if rate > 0:
                points.setdefault(seed, []).append((rate, accuracies[seed]))
    return points
