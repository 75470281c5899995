"""A table's statistics, worked out once for the page, the CSV, the LaTeX and the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.records.schema import MEASURES, Unit
from bench.report.claims import Finding, judge
from bench.report.contrasts import Contrast, Scale, contrasts, intervals
from bench.report.stats import (
    BEST_ON_VALIDATION,
    RANKED_FROM,
    Estimate,
    Paired,
    Rank,
    Verdict,
    pareto,
    ranks,
)
from bench.report.tables import Line, Table

JUDGED = {"test_acc": Scale.ACCURACY, "test_spike_rate": Scale.RATIO, "synops_per_image": Scale.RATIO}
"""The columns that have verdicts: what is bought, and what it is bought with. Each is a family of comparisons."""

_SCALES = {
    Unit.percent: Scale.ACCURACY, Unit.rate: Scale.RATIO, Unit.count: Scale.RATIO, Unit.microjoule: Scale.RATIO
}  # fmt: skip


@dataclass(frozen=True)
class TableRow:
    """What the statistics say of a line.

    Attributes:
        line: the line.
        contrasts: against the baseline, by column of `JUDGED`; None for a baseline, for a line that did nothing, and
            where nothing was measured.
        rank: among all lines of its panel; None in panels that are not ranked and for a line that did nothing.
        cheap: whether it is on the Pareto front of accuracy and spike rate.
        frugal: whether it is on the Pareto front of accuracy and SynOps.
    """

    line: Line
    contrasts: dict[str, Contrast | None]
    rank: Rank | None
    cheap: bool
    frugal: bool

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on test accuracy."""
        contrast = self.contrasts["test_acc"]
        return None if contrast is None else contrast.verdict

    @property
    def adjusted(self) -> float | None:
        """The p-value of test accuracy after Holm's correction over the panel."""
        contrast = self.contrasts["test_acc"]
        return None if contrast is None else contrast.p

    @property
    def pair(self) -> Paired | None:
        """The difference of test accuracy with its interval, for what shows it beside paired ones."""
        contrast = self.contrasts["test_acc"]
        if contrast is None:
            return None
        shown = Estimate(contrast.difference, contrast.low, contrast.high, contrast.seeds, "moderated t")
        return Paired(shown, contrast.p, tuple(self.line.seeds))

    def estimate(self, column: str) -> Estimate | None:
        """The mean of a column of `MEASURES` with its interval; None where nothing was measured."""
        return self.line.mean(MEASURES[column].key)

    def mean(self, column: str) -> float | None:
        """The mean of a column; None where nothing was measured."""
        found = self.estimate(column)
        return None if found is None else found.mean

    def off(self, column: str) -> float | None:
        """Our mean minus the published number; None where either is missing."""
        ours, theirs = self.mean(column), (self.line.published or {}).get(column)
        return None if ours is None or theirs is None else ours - float(theirs)


@dataclass(frozen=True)
class Standing:
    """A regularizer at the strength that validation picked, among those of its panel.

    Attributes:
        panel: the panel.
        series: the regularizer, as `Line.series` names it.
        picked: the label of the line that stands for it.
        score: that line's test accuracy over seeds.
        rank: by score.
    """

    panel: str
    series: str
    picked: str
    score: Estimate | None
    rank: Rank | None


@dataclass(frozen=True)
class Analysis:
    """All that a report says of a table.

    Attributes:
        table: the table.
        rows: one for each line that has records.
        standings: one for each regularizer of the panels that have two or more besides the baseline, where a
            validation split picked the strengths and the seeds are enough.
        unranked: a sentence that says why rows are not ranked; empty where they are.
        findings: the paper's claims and what our runs say to them.
    """

    table: Table
    rows: list[TableRow]
    standings: list[Standing]
    unranked: str
    findings: list[Finding]


def analyse(table: Table) -> Analysis:
    """Work out everything that a report says of a table; its lines' intervals are moderated over their panels then."""
    lines = [line for line in table.lines if line.records]
    placed: dict[int, Rank] = {}
    against: dict[int, dict[str, Contrast | None]] = {id(line): {} for line in lines}
    cheap, frugal = set(), set()
    unranked = []
    for panel in table.panels:
        own = [line for line in lines if line.panel == panel]
        moving = [line for line in own if not line.idle]
        if (seeds := _common_seeds(moving)) >= RANKED_FROM:
            # By place, as keys must differ; lines of the same runs (the baseline of two curves) tie.
            by_place = ranks({str(place): _accuracies(line) for place, line in enumerate(moving)})
            placed |= {id(line): by_place[str(place)] for place, line in enumerate(moving)}
        else:
            unranked.append((panel, seeds))
        moderate(own)
        for column in JUDGED:
            for line, contrast in zip(own, _contrasts(own, column), strict=True):
                against[id(line)][column] = contrast
        cheap |= front(own, "test.spike_rate")
        frugal |= front(own, "synops_per_image")
    rows = [
        TableRow(line, against[id(line)], placed.get(id(line)), id(line) in cheap, id(line) in frugal) for line in lines
    ]
    return Analysis(table, rows, _standings(table, lines), _why(unranked), judge(table.claims, table.lines))


def _why(unranked: Sequence[tuple[str, int]]) -> str:
    """Why panels are not ranked; empty where all are."""
    if not unranked:
        return ""
    named = ", ".join(panel for panel, _ in unranked if panel)
    fewest = min(seeds for _, seeds in unranked)
    have = f"the rows have {fewest} seed{'' if fewest == 1 else 's'} in common"
    return f"No ranks{f' in {named}' if named else ''}: they need {RANKED_FROM} seeds of every row, and {have}."


def _common_seeds(lines: Sequence[Line]) -> int:
    """How many seeds all lines have, diverged runs included."""
    return len(set.intersection(*({record.seed for record in line.records} for line in lines))) if lines else 0


def moderate(lines: Sequence[Line]) -> None:
    """Give the lines of one panel intervals from its moderated variances, for every measure that has a scale."""
    for field in MEASURES.values():
        scale = _SCALES.get(field.unit)
        if scale is not None:
            values = [line.values(field.key) for line in lines]
            for line, found in zip(lines, intervals(values, scale), strict=True):
                line.moderated[field.key] = found


def _contrasts(lines: Sequence[Line], column: str) -> list[Contrast | None]:
    """Each line of a panel against its baseline; None for a baseline and for a line that did nothing."""
    key = MEASURES[column].key
    compared = [line for line in lines if line.against is not None and not line.idle]
    bases = [None if line.against is None else line.against.values(key) for line in compared]
    found = contrasts([line.values(key) for line in compared], bases, JUDGED[column])
    by_line = {
        id(line): None if contrast is None else _honest(line, contrast)
        for line, contrast in zip(compared, found, strict=True)
    }
    return [by_line.get(id(line)) for line in lines]


def _honest(line: Line, contrast: Contrast) -> Contrast:
    """No method is better one more of whose runs diverged than of the baseline's: the seeds that survived speak for
    it, and those that diverged cannot."""
    lost = line.against is not None and len(line.diverged) > len(line.against.diverged)
    return replace(contrast, verdict=Verdict.TOO_FEW) if lost and contrast.verdict is Verdict.BETTER else contrast


def front(lines: list[Line], cost: str) -> set[int]:
    """The `id` of each line on the Pareto front of mean test accuracy and a mean cost."""
    points = [(line, line.mean(cost), line.mean("test.acc")) for line in lines]
    known = [(line, c.mean, acc.mean) for line, c, acc in points if c is not None and acc is not None]
    return {id(known[place][0]) for place in pareto([c for _, c, _ in known], [acc for _, _, acc in known])}


def _accuracies(line: Line) -> dict[int, float | None]:
    """Seed -> a line's test accuracy, None where the run diverged."""
    return {record.seed: record.number("test.acc") if record.finished else None for record in line.records}


def _standings(table: Table, lines: list[Line]) -> list[Standing]:
    """The standings by panel and rank."""
    standings = []
    for panel in table.panels:
        series: dict[str, list[Line]] = {}
        for line in lines:
            if line.panel == panel and not line.idle:
                series.setdefault(line.series, []).append(line)
        validated = all(
            record.result["val"] for members in series.values() for line in members for record in line.records
            if record.finished
        )  # fmt: skip
        if len(series) < 3 or not validated:
            continue
        picked = {name: _picked(members) for name, members in series.items()}
        if _common_seeds([*picked.values()]) < RANKED_FROM:
            continue
        placed = ranks({name: _accuracies(line) for name, line in picked.items()})
        for name, line in picked.items():
            standings.append(Standing(panel, name, line.label, line.mean("test.acc"), placed.get(name)))
    return sorted(standings, key=lambda standing: (standing.panel, _place(standing), standing.series))


def _place(standing: Standing) -> float:
    """Where it stands in its panel: those without a rank last."""
    return math.inf if standing.rank is None else standing.rank.rank


def _picked(lines: list[Line]) -> Line:
    """The line of the best mean validation accuracy."""
    (best,) = BEST_ON_VALIDATION.keep([[record.result for record in line.records] for line in lines]) or (0,)
    return lines[best]
