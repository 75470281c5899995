"""The papers' testable findings, and whether they hold in our runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.published.papers import METRICS, known, of_experiment, paper
from bench.report.grids import Line
from bench.report.stats import Paired, holm, paired


def claims(experiment: str) -> tuple[dict[str, Any], ...]:
    """The testable findings that a paper's file lists under `experiments`, or those of the table or figure that an
    experiment is named after, `nandan2022/figure3_1`, or of the figures, `lyu2023/figures2_5`."""
    name, _, item = experiment.partition("/")
    own = of_experiment(experiment).get("claims")
    found = re.fullmatch(r"(table|figure)s?(\d+)_(\d+)", item)
    if own is not None or found is None or not known(name):
        return tuple(own or ())
    of = paper(name).get(f"{found[1]}s", {}).get(f"{found[2]}.{found[3]}", {})
    return tuple(of.get("claims", ()))


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
        claims: of a `Published`.
        lines: of our table.
        alpha: chance of a false outcome over all claims.
    """
    pairs = [_pair(claim, lines) for claim in claims]
    adjusted = holm([pair.p if pair is not None else None for pair in pairs])
    return [
        _outcome(claim, pair, p, alpha) for claim, pair, p in zip(claims, pairs, adjusted, strict=True)
    ]  # fmt: skip


def _find(lines: Sequence[Line], wanted: Mapping[str, Any]) -> Line | None:
    facts = [(line, {**(line.published or {}), "label": line.label}) for line in lines]
    found = [line for line, of in facts if all(of.get(key) == value for key, value in wanted.items())]
    return found[0] if len(found) == 1 else None


def _pair(claim: Mapping[str, Any], lines: Sequence[Line]) -> Paired | None:
    """Differences in the direction of the claim, so that positive ones speak for it."""
    if "above" in claim:
        return _curves(claim, lines)
    if "larger" in claim:
        line = _find(lines, claim["of"])
        if line is None:
            return None
        larger, than = line.values(claim["larger"]), claim["than"]
        pair = paired(larger, line.values(than) if isinstance(than, str) else dict.fromkeys(larger, float(than)))
        return pair if pair.difference is not None else None
    named = claim["falls"] if "falls" in claim else claim["in"]
    metric = METRICS.get(named, named)
    names = {"better": ("better", "than"), "falls": ("from", "to"), "alike": ("alike", "with")}
    kind = next(kind for kind in names if kind in claim)
    first, second = (_find(lines, claim[name]) for name in names[kind])
    if first is None or second is None:
        return None
    times = float(claim.get("times", 1))
    pair = paired(first.values(metric), {seed: times * value for seed, value in second.values(metric).items()})
    return pair if pair.difference is not None else None


def _curves(claim: Mapping[str, Any], lines: Sequence[Line]) -> Paired | None:
    means = []
    for side in ("above", "below"):
        points: dict[int, list[tuple[float, float]]] = {}
        for line in lines:
            arguments = [of for record in line.records for of in record.result["regs"].values()]
            if not arguments or not all(of.get(k) == v for of in arguments for k, v in claim[side].items()):
                continue
            rates, accuracies = line.values("test.spike_rate"), line.values("test.acc")
            for seed, rate in rates.items():
                if rate > 0:
                    points.setdefault(seed, []).append((float(np.log(rate)), accuracies[seed]))
        means.append({seed: sorted(of) for seed, of in points.items() if len(of) > 1})
    differences = {}
    for seed in means[0].keys() & means[1].keys():
        (x1, y1), (x2, y2) = (np.array(of[seed]).T for of in means)
        low, high = max(x1[0], x2[0]), min(x1[-1], x2[-1])
        if low < high:
            # The lower half of the rates that both reach: there the paper sees the difference.
            at = np.linspace(low, (low + high) / 2, 50)
            differences[seed] = float(np.mean(np.interp(at, x1, y1) - np.interp(at, x2, y2)))
    return paired(differences, dict.fromkeys(differences, 0.0)) if differences else None


def _outcome(claim: Mapping[str, Any], pair: Paired | None, p: float | None, alpha: float) -> Finding:
    says = str(claim["says"])
    if pair is None or pair.difference is None:
        return Finding(says, "not run", "runs it needs are missing")
    found = pair.difference
    digits = 4 if str(claim.get("falls", claim.get("in"))).endswith("spike_rate") else 2
    why = f"{found.mean:+.{digits}f}"
    if found.low is not None and found.high is not None:
        why += f" [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    if "times" in claim:
        why += " beyond the bound"
    why += f" over {found.n} seed{'s' if found.n > 1 else ''}"
    if p is None:
        return Finding(says, "open", f"{why}: one seed cannot tell")
    why += f", p = {p:.3f}"
    if "alike" in claim:
        within = float(claim["within"])
        low = found.mean if found.low is None else found.low
        high = found.mean if found.high is None else found.high
        if -within <= low and high <= within:
            return Finding(says, "holds", f"{why}, within {within:g}")
        far = p <= alpha and (low > within or high < -within)
        return Finding(says, "does not hold" if far else "open", f"{why}, not within {within:g}")
    if p > alpha:
        return Finding(says, "open", why)
    return Finding(says, "holds" if found.mean > 0 else "does not hold", why)
