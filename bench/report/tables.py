"""Lines of runs and tables of lines: what they hold, how lines are named and lined up, which of them a rule picks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BenchError
from bench.published.papers import Published
from bench.report.collect import StoredRun
from bench.report.stats import LAST_EPOCH, Estimate, Rule, estimate

# Numbers that two trainings share only if they took the same way.
_TELLING = ("train.loss", "test.loss", "test.acc", "test.spike_rate")


@dataclass(eq=False)
class Line:
    """One setting and its seeds: a line of a table.

    Attributes:
        label: as the table shows it.
        series: what the figures join by a line: the setting without its strength.
        strength: the number that scales the regularization; None where there is none.
        records: ordered by seed, those that diverged included.
        group: lines that are compared with one baseline, or among which a selection rule picks.
        panel: lines that a figure draws together.
        published: the paper's numbers, by the paper's column; None where there are none.
        against: the baseline; None for a baseline itself.
        missing: seeds that other lines of the table have.
        moderated: means whose intervals the panel's other lines bear on, by dotted key, once
            `bench.report.analysis.moderate` has worked them out.
    """

    label: str
    series: str
    strength: float | None
    records: list[StoredRun]
    group: str = ""
    panel: str = ""
    published: Mapping[str, Any] | None = None
    against: Line | None = None
    missing: list[int] = field(default_factory=list)
    moderated: dict[str, Estimate | None] = field(default_factory=dict)

    @property
    def diverged(self) -> list[StoredRun]:
        """The runs without an outcome: counted, never averaged."""
        return [record for record in self.records if not record.finished]

    @property
    def seeds(self) -> list[int]:
        """The finished runs' seeds."""
        return [record.seed for record in self.records if record.finished]

    @property
    def plain(self) -> bool:
        """Whether nothing regularizes its runs."""
        return self.strength == 0 or any(record.result["reg"] == "none" for record in self.records)

    @property
    def idle(self) -> bool:
        """Whether what is regularized changed nothing: all runs say so, or are the baseline's to the last bit."""
        finished = [record for record in self.records if record.finished]
        if self.against is None or not finished:
            return False
        if all(record.result["no_effect"] == [*record.result["regs"]] for record in finished):
            return True
        base = {record.seed: record for record in self.against.records if record.finished}
        return all(
            record.seed in base
            and record is not base[record.seed]
            and all(record.number(key) == base[record.seed].number(key) for key in _TELLING)
            for record in finished
        )

    def values(self, key: str) -> dict[int, float]:
        """Seed -> number of each finished run that has it, by the number's dotted key."""
        numbers = ((record.seed, record.number(key)) for record in self.records if record.finished)
        return {seed: value for seed, value in numbers if value is not None}

    def mean(self, key: str) -> Estimate | None:
        """Mean and interval over seeds of a number, by its dotted key; None where nothing was measured."""
        return self.moderated[key] if key in self.moderated else estimate(self.values(key).values())


@dataclass
class Table:
    """Lines that may be compared: one experiment or group, one budget, one copy of one data set.

    Attributes:
        name: `nandan2022/table3_1`, or `digits-cnn` for a group of records.
        variant: the budget, and what else tells this table from others of the name.
        title: one line.
        lines: in order.
        arguments: what `bench report` builds it again from.
        axis: what the labels are values of: the head of their column.
        published: the paper's table; None for a group.
        claims: findings of the paper that can be tested.
        remarks: what the experiment's file says of it, each with its name: finding, note.
        rule: how it picks among strengths.
        candidates: the lines that the rule picked from.
        notes: what a reader must know of what is not in it.
    """

    name: str
    variant: str
    title: str
    lines: list[Line]
    arguments: tuple[str, ...] = ()
    axis: str = "setting"
    published: Published | None = None
    claims: tuple[dict[str, Any], ...] = ()
    remarks: dict[str, str] = field(default_factory=dict)
    rule: Rule = LAST_EPOCH
    candidates: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """The table's folder below `reports/`."""
        return f"{self.name}/{self.variant}"

    @property
    def records(self) -> list[StoredRun]:
        """The records of all lines, candidates included; one that stands in two lines comes once."""
        records = (record for line in [*self.lines, *self.candidates] for record in line.records)
        return list({record.run_id: record for record in records}.values())

    @property
    def budget(self) -> str:
        """The budget that all its runs have."""
        return str(self.records[0].result["budget"])

    @property
    def reduced(self) -> bool:
        """Whether the numbers are not of the papers' recipe."""
        return self.budget != "paper"

    @property
    def panels(self) -> list[str]:
        """The panels of the lines that have runs, in order."""
        return list(dict.fromkeys(line.panel for line in self.lines if line.records))


def strength_arguments(records: Iterable[StoredRun]) -> dict[str, str]:
    """Regularizer -> the argument that is its strength: the one equal to it in every record of it alone."""
    candidates: dict[str, list[str]] = {}
    for record in records:
        regs, strength = record.result["regs"], record.result["strength"]
        if strength is None or len(regs) != 1:
            continue
        ((name, arguments),) = regs.items()
        equal = [k for k, v in arguments.items() if isinstance(v, int | float) and v is not True and v == strength]
        candidates[name] = [key for key in candidates.get(name, equal) if key in equal]
    return {name: keys[0] for name, keys in candidates.items() if keys}


def names_of(lines: Sequence[Sequence[StoredRun]], strengths: Mapping[str, str]) -> list[tuple[str, str]]:
    """Label and series of each line: its regularizers and the settings that are not the same in all lines with them.

    Args:
        lines: the records of each line.
        strengths: of `strength_arguments`.
    """
    seen: dict[str, set[str]] = {}
    for records in lines:
        for key, value in _settings(records[0]).items():
            seen.setdefault(key, set()).add(canonical(value))
    names = []
    for records in lines:
        reg, values = str(records[0].result["reg"]), _settings(records[0])
        alone = len(records[0].result["regs"]) == 1
        scale = f"{reg}.{strengths[reg]}" if alone and reg in strengths else None
        shown = {key: value for key, value in values.items() if len(seen[key]) > 1 or key == scale}
        # `weight=0.1` is clear with one regularizer; with two it must say whose.
        text = {key: _assigned(key.rsplit(".", 1)[-1] if alone else key, value) for key, value in shown.items()}
        label, series = "".join(text.values()), "".join(part for key, part in text.items() if key != scale)
        names.append((reg + label, reg + series))
    return names


def _settings(record: StoredRun) -> dict[str, Any]:
    """What can tell one line of a table from another, under dotted keys."""
    result = record.result
    regs = {f"{name}.{key}": value for name, arguments in result["regs"].items() for key, value in arguments.items()}
    model = {f"model.{key}": value for key, value in result["model_args"].items()}
    return regs | model | {key: result[key] for key in ("model", "neuron", "optimizer", "lr", "time_steps")}


def canonical(value: Any) -> str:
    """A setting as a text that is the same for equal settings."""
    return json.dumps(value, sort_keys=True)


def _assigned(key: str, value: Any) -> str:
    # A switch is named where it is on.
    return (f" {key}" if value else "") if isinstance(value, bool) else f" {key}={setting_text(value)}"


def setting_text(value: Any) -> str:
    """A setting in a label."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def line_up(lines: Sequence[Line], notes: list[str]) -> None:
    """Order each line's runs by seed, take out those it has twice, and note which are missing or diverged.

    Args:
        lines: all of one table; their records and missing seeds are set.
        notes: gains a line for each thing that a reader must know.
    """
    for line in lines:
        seeds = [record.seed for record in line.records]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            line.records = [record for record in line.records if record.seed not in twice]
            notes.append(f"{line.label}: {_seeds(twice)} left out: two runs each, alike in all that a record shows")
    expected = {record.seed for line in lines for record in line.records}
    for line in lines:
        line.records.sort(key=lambda record: record.seed)
        line.missing = sorted(expected - {record.seed for record in line.records})
        if not line.records:
            notes.append(f"{line.label}: not run")
        elif line.missing:
            notes.append(f"{line.label}: {_seeds(line.missing)} missing")
        if line.diverged:
            notes.append(f"{line.label}: {_seeds([record.seed for record in line.diverged])} diverged, in no mean")


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def pick(table: Table) -> None:
    """Keep of each group only the lines that the table's rule picks; the others stay as candidates.

    Raises:
        BenchError: the rule needs what a record does not have.
    """
    table.candidates, table.lines = table.lines, []
    for group in dict.fromkeys(line.group for line in table.candidates):
        lines = [line for line in table.candidates if line.group == group]
        try:
            places = table.rule.keep([[record.result for record in line.records] for line in lines])
        except ValueError as error:
            raise BenchError(f"{table.name}, {group}: {error}") from error
        table.lines += [lines[place] for place in places]
