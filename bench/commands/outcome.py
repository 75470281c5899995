"""What came out of a grid: a row a setting, the best of them marked, and what it all cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.console import duration, say, table
from bench.errors import BenchError
from bench.grid import Grid, GridRun
from bench.records.folder import RunFolder
from bench.records.schema import FIELD
from bench.report.analysis import moderate
from bench.report.collect import StoredRun, read
from bench.report.stats import Estimate
from bench.report.tables import Line, names_of, strength_arguments
from bench.report.words import interval

WIDTH = 80
"""Characters that the table has where the output is no terminal."""

CLOSE = 1.0
"""Points of accuracy below the baseline that a setting may have to be the cheapest."""

ACCURACY, RATE = FIELD["test.acc"], FIELD["test.spike_rate"]


@dataclass(eq=False)
class Setting:
    """A row: one setting and its seeds.

    Attributes:
        runs: all of them.
        records: those there are, by the runs' order.
        label: what tells it from the other rows.
        marks: what it is the best of.
    """

    runs: list[GridRun]
    records: list[StoredRun]
    label: str = ""
    marks: list[str] = field(default_factory=list)

    @cached_property
    def line(self) -> Line:
        """As reports have it, once it has its label and its records."""
        return Line(self.label, self.label, None, self.records)

    @property
    def plain(self) -> bool:
        """Whether nothing regularizes its runs."""
        return bool(self.records) and self.records[0].result["reg"] == "none"

    @property
    def accuracy(self) -> Estimate | None:
        """Mean test accuracy; None where no run has one."""
        return self.line.mean(ACCURACY.key)

    @property
    def rate(self) -> Estimate | None:
        """Mean test spike rate; None where no run has one."""
        return self.line.mean(RATE.key)

    def counts(self) -> str:
        """How many of its runs the means are over, and what became of the others."""
        diverged, missing = len(self.line.diverged), len(self.runs) - len(self.records)
        text = str(len(self.records) - diverged)
        others = [f"{n} {what}" for n, what in ((diverged, "diverged"), (missing, "failed")) if n]
        return f"{text} ({', '.join(others)})" if others else text


def show(grid: Grid) -> None:
    """Print what came out of a grid.

    Args:
        grid: that has ended, whatever became of its runs.
    """
    rows, title = settings(grid.runs)
    if any(row.records for row in rows):
        mark(rows)
        seeds, marked = "seeds", any(row.marks for row in rows)
        columns = ["setting", ACCURACY.title, "spike rate", seeds, *(["best"] if marked else [])]
        cells = [
            [
                row.label,
                interval(ACCURACY, row.accuracy),
                RATE.text(None if row.rate is None else row.rate.mean),
                row.counts(),
                *([", ".join(row.marks)] if marked else []),
            ]
            for row in rows
        ]
        numbers = columns[1:3]
        say("")
        table(title, columns, cells, wide=WIDTH, whole=numbers, right=numbers)
    for line in cost(grid, rows):
        say(line)


def settings(runs: Sequence[GridRun]) -> tuple[list[Setting], str]:
    """The rows of a grid, labelled, in its order, and what all of them share as a title."""
    rows: dict[tuple[str, ...], Setting] = {}
    seen: dict[str, Setting] = {}
    for run in runs:
        key = tuple(line for line in run.overrides if not line.startswith("seed="))
        row = rows.setdefault(key, Setting([], []))
        if run.run_id in seen:
            continue  # another spelling of the same run
        seen[run.run_id] = row
        row.runs.append(run)
        record = record_of(run)
        row.records += [] if record is None else [record]
    found = [row for row in rows.values() if row.runs]
    title = label(found)
    for panel in panels(found):
        moderate([row.line for row in panel])
    return found, title


def panels(rows: Iterable[Setting]) -> list[list[Setting]]:
    """The rows with records, those of one data set, network and budget together."""
    by_place: dict[tuple[str, ...], list[Setting]] = {}
    for row in rows:
        if row.records:
            by_place.setdefault(place(row, ("data", "model", "budget")), []).append(row)
    return list(by_place.values())


def record_of(run: GridRun) -> StoredRun | None:
    """A run's record; None where it left none that can be read."""
    path = run.folder / "result.json"
    if not path.is_file():
        return None
    try:
        return read(path)
    except BenchError:
        return None


def label(rows: Sequence[Setting]) -> str:
    """Name the rows by what differs between them: data, network and budget, then the regularizers and their settings,
    then whatever else was set.

    Returns:
        Data, network and budget that all share.
    """
    known = [row for row in rows if row.records]
    shared: list[str] = []
    differing: list[str] = []
    for key in ("data", "model", "budget"):
        values = {str(row.records[0].result[key]) for row in known}
        (shared if len(values) == 1 else differing).append(key)
    by_place: dict[tuple[str, ...], list[Setting]] = {}
    for row in known:
        by_place.setdefault(place(row, differing), []).append(row)
    for where, own in by_place.items():
        strengths = strength_arguments(record for row in own for record in row.records)
        for row, (name, _) in zip(own, names_of([row.records for row in own], strengths), strict=True):
            row.label = " ".join([*where, name])
    for row in rows:
        # A setting without a record is what was typed.
        row.label = row.label or " ".join(typed(row))
    alike: dict[str, list[Setting]] = {}
    for row in rows:
        alike.setdefault(row.label, []).append(row)
    for same in alike.values():
        common = set.intersection(*(set(typed(row)) for row in same))
        for row in same if len(same) > 1 else ():
            row.label = " ".join([row.label, *(line for line in typed(row) if line not in common)])
    first = known[0].records[0].result if known else {}
    return ", ".join(str(first[key]) for key in shared if known)


def place(row: Setting, keys: Iterable[str]) -> tuple[str, ...]:
    """What of data, network and budget a row has."""
    return tuple(str(row.records[0].result[key]) for key in keys)


def typed(row: Setting) -> list[str]:
    """The overrides of a row, its seeds' left out."""
    return [line for line in row.runs[0].overrides if not line.startswith("seed=")]


def mark(rows: Sequence[Setting]) -> None:
    """Mark, on each data set, network and budget, the row of the best mean accuracy, and the one with the fewest spikes
    among those that lose no more than `CLOSE` points to the baseline, where there is one."""
    for panel in panels(rows):
        own = [row for row in panel if row.accuracy is not None]
        if len(own) < 2:
            continue
        best = max(map(accuracy, own))
        baselines = [accuracy(row) for row in own if row.plain]
        near = {
            id(row): row.rate.mean
            for row in own
            if baselines and row.rate is not None and accuracy(row) >= max(baselines) - CLOSE
        }
        for row in own:
            # Those that tie are all the best.
            row.marks += ["accuracy"] if accuracy(row) == best else []
            row.marks += ["spikes"] if near and near.get(id(row)) == min(near.values()) else []


def accuracy(row: Setting) -> float:
    """The mean test accuracy of a row that has one."""
    assert row.accuracy is not None
    return row.accuracy.mean


def cost(grid: Grid, rows: Sequence[Setting]) -> Iterator[str]:
    """What the grid cost, in lines."""
    records = {record.run_id: record for row in rows for record in row.records}
    own = [records[run.run_id] for run in grid.runs if not run.skipped and run.run_id in records]
    diverged = sum(not record.finished for record in own)
    skipped = len(grid.runs) - grid.to_do
    counts = [f"{grid.done} done" + (f" ({diverged} diverged)" if diverged else "")]
    counts += [f"{skipped} skipped (finished before)"] if skipped else []
    counts += [f"{grid.failed} failed"] if grid.failed else []
    yield f"{len(grid.runs)} runs: {', '.join(counts)}"
    if own:
        run_time = sum(float(record.result["seconds"]["total"]) for record in own)
        images = sum(map(images_trained, own))
        yield (f"wall time {duration(grid.seconds)}, run time {duration(run_time)} in all, {images:,} images trained")


def images_trained(record: StoredRun) -> int:
    """How many images a run was trained on, each counted once an epoch."""
    rows: list[dict[str, Any]] = RunFolder(record.path.parent.parent, record.path.parent.name).rows()
    return sum(int(row.get("images", record.result["train_images"])) for row in rows)
