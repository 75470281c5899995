"""A table's statistics, worked out once for the page, the CSV, the LaTeX and the figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.records.schema import MEASURES
from bench.report.claims import Finding, judge
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
from bench.report.tables import Line, Table


@dataclass(frozen=True)
class TableRow:
    """What the statistics say of a line.

    Attributes:
        line: the line.
        means: over seeds, by column of `MEASURES`; None where nothing was measured.
        pair: test accuracy against the baseline's, seed by seed; None for a baseline.
        adjusted: the pair's p-value after Holm's correction over the table.
        sign_flip: p-value of the sign-flip test, as a check that assumes no distribution.
        verdict: None where it cannot be given: a baseline, fewer than two pairs.
        rank: among all lines of its panel.
        cheap: whether it is on the Pareto front of accuracy and spike rate.
        frugal: whether it is on the Pareto front of accuracy and SynOps.
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
        """The mean of a column; None where nothing was measured."""
        mean = self.means[column]
        return None if mean is None else mean.mean

    def off(self, column: str) -> float | None:
        """Our mean minus the published number; None where either is missing."""
        ours, theirs = self.mean(column), (self.line.published or {}).get(column)
        return None if ours is None or theirs is None else ours - float(theirs)


@dataclass(frozen=True)
class Standing:
    """A regularizer over all its strengths, among those of its panel.

    Attributes:
        panel: the panel.
        series: the regularizer, as `Line.series` names it.
        score: what it is ranked by, over seeds.
        area: area under test accuracy over log strength, by its width, over seeds; None with fewer than two strengths.
        rank: by score.
    """

    panel: str
    series: str
    score: Estimate | None
    area: Estimate | None
    rank: Rank | None


@dataclass(frozen=True)
class Analysis:
    """All that a report says of a table.

    Attributes:
        table: the table.
        rows: one for each line that has records.
        standings: one for each regularizer of the panels that have two or more besides the baseline.
        scored: how the standings were scored.
        findings: the paper's claims and what our runs say to them.
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
        # By place, as keys must differ; lines of the same runs (the baseline of two curves) tie.
        by_place = ranks({str(place): _accuracies(line) for place, line in enumerate(own)})
        placed |= {id(line): by_place[str(place)] for place, line in enumerate(own) if str(place) in by_place}
        cheap |= front(own, "test.spike_rate")
        frugal |= front(own, "synops_per_image")
    rows = []
    for line, pair, p in zip(lines, pairs, adjusted, strict=True):
        means = {column: line.mean(field.key) for column, field in MEASURES.items()}
        judged = None if pair is None else verdict(pair, p)
        if judged is Verdict.BETTER and line.against is not None and len(line.diverged) > len(line.against.diverged):
            # The seeds that survived speak for the method; those that diverged cannot.
            judged = Verdict.TOO_FEW
        rows.append(
            TableRow(
                line, means, pair, p, None if pair is None or len(pair.seeds) < 2 else _sign_flip(line, pair), judged,
                placed.get(id(line)), id(line) in cheap, id(line) in frugal,
            )
        )  # fmt: skip
    standings, scored = _standings(table, lines)
    return Analysis(table, rows, standings, scored, judge(table.claims, table.lines))


def _sign_flip(line: Line, pair: Paired) -> float:
    assert line.against is not None
    own, base = line.values("test.acc"), line.against.values("test.acc")
    return sign_flip([own[seed] - base[seed] for seed in pair.seeds])


def front(lines: list[Line], cost: str) -> set[int]:
    """The `id` of each line on the Pareto front of mean test accuracy and a mean cost."""
    points = [(line, line.mean(cost), line.mean("test.acc")) for line in lines]
    known = [(line, c.mean, acc.mean) for line, c, acc in points if c is not None and acc is not None]
    return {id(known[place][0]) for place in pareto([c for _, c, _ in known], [acc for _, _, acc in known])}


def _accuracies(line: Line) -> dict[int, float | None]:
    """Seed -> a line's test accuracy, None where the run diverged."""
    return {record.seed: record.number("test.acc") if record.finished else None for record in line.records}


def _standings(table: Table, lines: list[Line]) -> tuple[list[Standing], str]:
    """The standings by panel and rank, and how they were scored."""
    validated = all(record.result["val"] for line in lines for record in line.records if record.finished)
    if validated:
        scored = "test accuracy at the strength of the best mean validation accuracy"
    else:
        scored = (
            "test accuracy, averaged over the strengths run (no strength is picked, as no validation split was made)"
        )
    standings = []
    for panel in table.panels:
        series: dict[str, list[Line]] = {}
        for line in lines:
            if line.panel == panel:
                series.setdefault(line.series, []).append(line)
        if len(series) < 3:
            continue
        scores = {name: _scores(members, validated) for name, members in series.items()}
        placed = ranks(scores)
        for name, members in series.items():
            score = estimate(value for value in scores[name].values() if value is not None)
            standings.append(Standing(panel, name, score, estimate(_areas(members).values()), placed.get(name)))
    standings.sort(key=lambda standing: (standing.panel, _place(standing), standing.series))
    return standings, scored


def _place(standing: Standing) -> float:
    """Where it stands in its panel: those without a rank last."""
    return math.inf if standing.rank is None else standing.rank.rank


def _scores(lines: list[Line], validated: bool) -> dict[int, float | None]:
    """Seed -> score of a regularizer, from its lines; None where a run diverged."""
    if validated:
        (best,) = BEST_ON_VALIDATION.keep([[record.result for record in line.records] for line in lines]) or (0,)
        return _accuracies(lines[best])
    by_line = [_accuracies(line) for line in lines]
    scores: dict[int, float | None] = {}
    for seed in set.intersection(*map(set, by_line)):
        values = [by_seed[seed] for by_seed in by_line]
        finished = [value for value in values if value is not None]
        scores[seed] = math.fsum(finished) / len(finished) if len(finished) == len(values) else None
    return scores


def _areas(lines: list[Line]) -> dict[int, float]:
    """Seed -> area under a regularizer's curve over strengths, for the seeds that all strengths have."""
    strengths = [line.strength or 0.0 for line in lines]
    by_line = [line.values("test.acc") for line in lines]
    areas = {}
    for seed in set.intersection(*map(set, by_line)):
        value = area(strengths, [by_seed[seed] for by_seed in by_line])
        if value is not None:
            areas[seed] = value
    return areas
