"""A table's statistics, worked out once for the page, the CSV, the LaTeX and the figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bench.records.schema import MEASURES
from bench.report.claims import Finding, judge
from bench.report.grids import Line, Table
from bench.report.stats import (
    BEST_ON_VALIDATION,
    Estimate,
    Paired,
    Rank,
    Verdict,
    area,
    estimate,
    holm,
    paired,
    pareto,
    ranks,
    sign_flip,
    verdict,
)


@dataclass(frozen=True)
class TableRow:
    """What the statistics say of a line.

    Attributes:
        line: the line.
        means: by column of `MEASURES`; None where nothing was measured.
        pair: test accuracy against the baseline's, seed by seed; None for a baseline.
        adjusted: its p-value after Holm's correction over the table.
        sign_flip: p-value of the exact sign-flip test, as a check that assumes no distribution.
        verdict: None where it cannot be given: a baseline, fewer than two pairs.
        rank: among all lines of its panel.
        cheap: on the Pareto front of accuracy and spike rate.
        frugal: on that of accuracy and SynOps.
    """

    line: Line
    means: dict[str, Estimate | None]
    pair: Paired | None
    adjusted: float | None
    sign_flip: float | None
    verdict: Verdict | None
    rank: Rank | None
    cheap: bool
    frugal: bool

    def mean(self, column: str) -> float | None:
        """Of a column; None where nothing was measured."""
        found = self.means[column]
        return None if found is None else found.mean

    def off(self, column: str) -> float | None:
        """Our mean minus the published number."""
        ours, theirs = self.mean(column), (self.line.published or {}).get(column)
        return None if ours is None or theirs is None else ours - float(theirs)


@dataclass(frozen=True)
class Standing:
    """A regularizer over all its strengths.

    Attributes:
        panel: of the table.
        series: the regularizer.
        score: what it is ranked by, over seeds.
        area: test accuracy over the decades of strength, over seeds; None with fewer than two strengths.
        rank: by score.
    """

    panel: str
    series: str
    score: Estimate | None
    area: Estimate | None
    rank: Rank | None


@dataclass(frozen=True)
class Analysis:
    """All of a table.

    Attributes:
        table: the table.
        rows: one a line.
        standings: one a regularizer, where a panel has two or more besides the baseline.
        scored: how the standings were scored.
        findings: the paper's claims.
    """

    table: Table
    rows: list[TableRow]
    standings: list[Standing]
    scored: str
    findings: list[Finding]


def analyse(table: Table) -> Analysis:
    """Work out everything that a report says of a table."""
    lines = [line for line in table.lines if line.records]
    pairs = [
        None if line.against is None else paired(line.values("test.acc"), line.against.values("test.acc"))
        for line in lines
    ]
    adjusted = holm([None if pair is None else pair.p for pair in pairs])
    placed: dict[int, Rank] = {}
    cheap, frugal = set(), set()
    for panel in table.panels:
        own = [line for line in lines if line.panel == panel]
        # One set of runs may stand in two lines (the baseline of two curves): it has one place.
        found = ranks({str(place): accuracies(line) for place, line in enumerate(own)})
        placed |= {id(line): found[str(place)] for place, line in enumerate(own) if str(place) in found}
        cheap |= front(own, "test.spike_rate")
        frugal |= front(own, "synops_per_image")
    rows = []
    for line, pair, p in zip(lines, pairs, adjusted, strict=True):
        means = {column: line.mean(field.key) for column, field in MEASURES.items()}
        said = None if pair is None else verdict(pair, p)
        if said is Verdict.BETTER and line.against is not None and len(line.diverged) > len(line.against.diverged):
            # The seeds that survived speak for the method; those that diverged cannot.
            said = Verdict.OPEN
        rows.append(
            TableRow(
                line, means, pair, p, None if pair is None or len(pair.seeds) < 2 else _sign_flip(line, pair), said,
                placed.get(id(line)), id(line) in cheap, id(line) in frugal,
            )
        )  # fmt: skip
    standings, scored = _standings(table, lines)
    return Analysis(table, rows, standings, scored, judge(table.claims, table.lines))


def _sign_flip(line: Line, pair: Paired) -> float:
    assert line.against is not None
    own, base = line.values("test.acc"), line.against.values("test.acc")
    return sign_flip([own[seed] - base[seed] for seed in pair.seeds])


def accuracies(line: Line) -> dict[int, float | None]:
    """Seed -> test accuracy, None where the run diverged."""
    return {record.seed: record.number("test.acc") if record.finished else None for record in line.records}


def front(lines: list[Line], cost: str) -> set[int]:
    """The `id` of each line on the Pareto front of mean test accuracy and a mean cost."""
    points = [(line, line.mean(cost), line.mean("test.acc")) for line in lines]
    known = [(line, c.mean, acc.mean) for line, c, acc in points if c is not None and acc is not None]
    return {id(known[place][0]) for place in pareto([c for _, c, _ in known], [acc for _, _, acc in known])}


def _standings(table: Table, lines: list[Line]) -> tuple[list[Standing], str]:
    validated = all(record.result["val"] for line in lines for record in line.records if record.finished)
    if validated:
        scored = "test accuracy at the strength of the best mean validation accuracy"
    else:
        scored = (
            "test accuracy, averaged over the strengths run (no strength is picked, as no validation split was made)"
        )
    found = []
    for panel in table.panels:
        series: dict[str, list[Line]] = {}
        for line in lines:
            if line.panel == panel:
                series.setdefault(line.series, []).append(line)
        if len(series) < 3:
            continue
        scores = {name: _score(of, validated) for name, of in series.items()}
        placed = ranks(scores)
        for name, of in series.items():
            values = [score for score in scores[name].values() if score is not None]
            areas = _per_seed(of, lambda some: area([float(s or 0) for s, _ in some], [value for _, value in some]))
            found.append(Standing(panel, name, estimate(values), estimate(areas.values()), placed.get(name)))
    found.sort(key=lambda of: (of.panel, of.rank.rank if of.rank else math.inf, of.series))
    return found, scored


def _score(lines: list[Line], validated: bool) -> dict[int, float | None]:
    if validated:
        (best,) = BEST_ON_VALIDATION.keep([[record.result for record in line.records] for line in lines]) or (0,)
        return accuracies(lines[best])
    by_line = [accuracies(line) for line in lines]
    scores: dict[int, float | None] = {}
    for seed in set.intersection(*(set(of) for of in by_line)):
        values = [of[seed] for of in by_line]
        finished = [value for value in values if value is not None]
        scores[seed] = math.fsum(finished) / len(finished) if len(finished) == len(values) else None
    return scores


def _per_seed(lines: list[Line], of: Callable[[list[tuple[float | None, float]]], float | None]) -> dict[int, float]:
    """A number of each seed's curve over strengths, for the seeds that all strengths have."""
    curves = [(line.strength, line.values("test.acc")) for line in lines]
    found = {}
    for seed in set.intersection(*(set(values) for _, values in curves)):
        value = of([(strength, values[seed]) for strength, values in curves])
        if value is not None:
            found[seed] = value
    return found
