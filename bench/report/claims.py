"""The papers' testable findings, and whether they hold in our runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.published.papers import METRICS, known, of_experiment, paper
from bench.records.schema import DIGITS, FIELD, Unit
from bench.report.stats import Paired, holm, paired
from bench.report.tables import Line


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


def judge(claims: Sequence[Mapping[str, Any]], lines: Sequence[Line], alpha: float = 0.05) -> list[Finding]:
    """Test each claim on our runs, with Holm's correction over all of them.

    A claim is one of

    - `better: {column: value}, than: {column: value}, in: metric`: a paired difference above 0;
    - `falls: metric, from: {column: value}, to: {column: value}`: a paired difference below 0;
    - either with `times: factor`: the second side counts so many times (it falls to a tenth: 10);
    - `larger: metric, than: metric, of: {column: value}`: two numbers of one line, paired by seed, or one number and a
      constant;
    - `alike: {...}, with: {...}, in: metric, within: points`: the paired interval lies within +- points;
    - `above: {argument: value}, below: {argument: value}`: at equal, low spike rates the lines whose regularizer has
      the first argument have the higher accuracy (interpolated over the log of the rate, seed by seed).

    A line is named by what is published of it, or by its `label`; a metric by its column, or as records have it
    (`StoredRun.number`).

    Args:
        claims: the paper's.
        lines: our table's.
        alpha: chance of a false outcome over all claims.
    """
    pairs = [_pair(claim, lines) for claim in claims]
    adjusted = holm([pair.p if pair is not None else None for pair in pairs])
    return [_outcome(claim, pair, p, alpha) for claim, pair, p in zip(claims, pairs, adjusted, strict=True)]


def _line(lines: Sequence[Line], wanted: Mapping[str, Any]) -> Line | None:
    """The one line that a claim names; None where there is none, or more than one."""
    named = [(line, {**(line.published or {}), "label": line.label}) for line in lines]
    fitting = [line for line, facts in named if all(facts.get(key) == value for key, value in wanted.items())]
    return fitting[0] if len(fitting) == 1 else None


def _metric(claim: Mapping[str, Any]) -> str:
    """The number that a claim is about, as records have it."""
    named = next(str(claim[key]) for key in ("larger", "falls", "in") if key in claim)
    return METRICS.get(named, named)


def _pair(claim: Mapping[str, Any], lines: Sequence[Line]) -> Paired | None:
    """Differences in the direction of the claim, so that positive ones speak for it."""
    if "above" in claim:
        return _curves(claim, lines)
    metric = _metric(claim)
    if "larger" in claim:
        line, than = _line(lines, claim["of"]), METRICS.get(claim["than"], claim["than"])
        if line is None:
            return None
        larger = line.values(metric)
        smaller = line.values(than) if isinstance(than, str) else dict.fromkeys(larger, float(than))
        pair = paired(larger, smaller)
        return pair if pair.difference is not None else None
    names = {"better": ("better", "than"), "falls": ("from", "to"), "alike": ("alike", "with")}
    kind = next(kind for kind in names if kind in claim)
    first, second = (_line(lines, claim[name]) for name in names[kind])
    if first is None or second is None:
        return None
    times = float(claim.get("times", 1))
    pair = paired(first.values(metric), {seed: times * value for seed, value in second.values(metric).items()})
    return pair if pair.difference is not None else None


def _curves(claim: Mapping[str, Any], lines: Sequence[Line]) -> Paired | None:
    """Mean difference of two curves of accuracy over the log of the spike rate, seed by seed."""
    above, below = (_points(lines, claim[side]) for side in ("above", "below"))
    differences = {}
    for seed in above.keys() & below.keys():
        (x1, y1), (x2, y2) = np.array(above[seed]).T, np.array(below[seed]).T
        low, high = max(x1[0], x2[0]), min(x1[-1], x2[-1])
        if low < high:
            # The lower half of the rates that both reach: there the paper sees the difference.
            at = np.linspace(low, (low + high) / 2, 50)
            differences[seed] = float(np.mean(np.interp(at, x1, y1) - np.interp(at, x2, y2)))
    return paired(differences, dict.fromkeys(differences, 0.0)) if differences else None


def _points(lines: Sequence[Line], wanted: Mapping[str, Any]) -> dict[int, list[tuple[float, float]]]:
    """Seed -> log of the spike rate and accuracy of the lines whose regularizers have the wanted arguments, by rising
    rate; without the seeds that have fewer than two points."""
    points: dict[int, list[tuple[float, float]]] = {}
    for line in lines:
        regs = [arguments for record in line.records for arguments in record.result["regs"].values()]
        if not regs or not all(arguments.get(key) == value for arguments in regs for key, value in wanted.items()):
            continue
        rates, accuracies = line.values("test.spike_rate"), line.values("test.acc")
        for seed, rate in rates.items():
            if rate > 0:
                points.setdefault(seed, []).append((float(np.log(rate)), accuracies[seed]))
    return {seed: sorted(curve) for seed, curve in points.items() if len(curve) > 1}


def _outcome(claim: Mapping[str, Any], pair: Paired | None, p: float | None, alpha: float) -> Finding:
    says = str(claim["says"])
    if pair is None or pair.difference is None:
        return Finding(says, "not run", "runs it needs are missing")
    difference = pair.difference
    # Accuracies have two digits, rates four; losses and probes' numbers are shown with two as well.
    field = None if "above" in claim else FIELD.get(_metric(claim))
    digits = DIGITS[Unit.rate] if field is not None and field.unit is Unit.rate else DIGITS[Unit.percent]
    why = f"{difference.mean:+.{digits}f}"
    if difference.low is not None and difference.high is not None:
        why += f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    if "times" in claim:
        why += " beyond the bound"
    why += f" over {difference.n} seed{'s' if difference.n > 1 else ''}"
    if p is None:
        return Finding(says, "open", f"{why}: one seed cannot tell")
    why += f", p = {p:.3f}"
    if "alike" in claim:
        within = float(claim["within"])
        low = difference.mean if difference.low is None else difference.low
        high = difference.mean if difference.high is None else difference.high
        if -within <= low and high <= within:
            return Finding(says, "holds", f"{why}, within {within:g}")
        far = p <= alpha and (low > within or high < -within)
        return Finding(says, "does not hold" if far else "open", f"{why}, not within {within:g}")
    if p > alpha:
        return Finding(says, "open", why)
    return Finding(says, "holds" if difference.mean > 0 else "does not hold", why)
