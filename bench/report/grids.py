"""Turns records into tables: which runs make a line, which lines make a table, what each is compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BenchError
from bench.published.papers import Published
from bench.records.identity import UNCOUNTED
from bench.records.schema import Role, keys
from bench.report.collect import Collection, StoredRun
from bench.report.stats import LAST_EPOCH, Estimate, Rule, estimate

# What must be the same for two lines of a table to be compared; the regularizer, its strength and the seed may differ.
_SAME = keys(Role.setting)
# What `config.yaml` knows beyond the record: thresholds, schedules, augmentation.
_CONFIG = ("data", "neuron", "optim", "trainer")
_IRRELEVANT = ("root", "path", *UNCOUNTED)


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

    @property
    def diverged(self) -> list[StoredRun]:
        """Runs without an outcome: shown, never averaged."""
        return [record for record in self.records if not record.finished]

    @property
    def seeds(self) -> list[int]:
        """Of the finished runs."""
        return [record.seed for record in self.records if record.finished]

    @property
    def plain(self) -> bool:
        """Whether nothing regularizes it."""
        return self.strength == 0 or any(record.result["reg"] == "none" for record in self.records)

    def values(self, key: str) -> dict[int, float]:
        """Seed -> number of the finished runs, by its dotted key; those without it left out."""
        found = ((record.seed, record.number(key)) for record in self.records if record.finished)
        return {seed: value for seed, value in found if value is not None}

    def mean(self, key: str) -> Estimate | None:
        """Mean and interval over seeds; None where nothing was measured."""
        return estimate(self.values(key).values())


@dataclass
class Table:
    """Lines that may be compared: one experiment or group, one budget, one copy of one data set.

    Attributes:
        name: `nandan2022/table3_1`, or `digits-cnn` for a group that no experiment names.
        variant: the budget, and what else tells this table from others of the name.
        title: one line.
        lines: in order.
        arguments: of `bench report` that build it again.
        axis: what the labels are values of.
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
        """Below `reports/`."""
        return f"{self.name}/{self.variant}"

    @property
    def records(self) -> list[StoredRun]:
        """Of all lines, candidates included; one that stands in two lines once."""
        found = (record for line in [*self.lines, *self.candidates] for record in line.records)
        return list({record.run_id: record for record in found}.values())

    @property
    def budget(self) -> str:
        """Of all its runs."""
        return str(self.records[0].result["budget"])

    @property
    def reduced(self) -> bool:
        """Whether the numbers are not of the papers' recipe."""
        return self.budget != "paper"

    @property
    def panels(self) -> list[str]:
        """What the figures draw side by side."""
        return list(dict.fromkeys(line.panel for line in self.lines if line.records))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def context(record: StoredRun) -> dict[str, Any]:
    """Everything but regularizer, strength and seed, under dotted keys."""
    found = {key: record.result[key] for key in _SAME}
    for part in _CONFIG:
        section = record.config.get(part)
        for key, value in section.items() if isinstance(section, dict) else ():
            # A key that a later version added, at rest, must not part old records from new ones.
            if key not in _IRRELEVANT and value is not None and value != "auto":
                found.setdefault(f"{part}.{key}", value)
    # Seeds of one start are no sample of starts.
    if record.config.get("init_seed") is not None:
        found["init_seed"] = record.config["init_seed"]
    return found


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


def features(record: StoredRun) -> dict[str, Any]:
    """What can tell one line of a table from another, under dotted keys."""
    result = record.result
    found = {f"{name}.{key}": value for name, arguments in result["regs"].items() for key, value in arguments.items()}
    found |= {f"model.{key}": value for key, value in result["model_args"].items()}
    return found | {key: result[key] for key in ("model", "neuron", "optimizer", "lr", "time_steps")}


def names_of(groups: Sequence[Sequence[StoredRun]], strengths: Mapping[str, str]) -> list[tuple[str, str]]:
    """Label and series of each line: its regularizers and the settings that are not the same in all lines with them.

    Args:
        groups: the records of each line.
        strengths: of `strength_arguments`.
    """
    seen: dict[str, set[str]] = {}
    for group in groups:
        for key, value in features(group[0]).items():
            seen.setdefault(key, set()).add(_key(value))
    names = []
    for group in groups:
        reg, values = str(group[0].result["reg"]), features(group[0])
        alone = len(group[0].result["regs"]) == 1
        scale = f"{reg}.{strengths[reg]}" if alone and reg in strengths else None
        shown = {key: value for key, value in values.items() if len(seen[key]) > 1 or key == scale}
        # `weight=0.1` is clear with one regularizer; with two it must say whose.
        text = {key: _said(key.rsplit(".", 1)[-1] if alone else key, value) for key, value in shown.items()}
        label, series = "".join(text.values()), "".join(part for key, part in text.items() if key != scale)
        names.append((reg + label, reg + series))
    return names


def _said(key: str, value: Any) -> str:
    # A switch is named where it is on.
    return (f" {key}" if value else "") if isinstance(value, bool) else f" {key}={show(value)}"


def show(value: Any) -> str:
    """A setting in a label."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def line_up(lines: Sequence[Line], notes: list[str]) -> list[Line]:
    """Note the seeds that a line lacks and the runs that diverged; take out runs that a line has twice.

    Args:
        lines: of one table.
        notes: gains a line for each thing found.
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
            notes.append(f"{line.label}: {_seeds([r.seed for r in line.diverged])} diverged, in no mean")
    return list(lines)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def groups(collection: Collection) -> list[Table]:
    """One table for each network, data set and budget among the records: regularizers and strengths compared.

    Records that differ in anything else are not put into one table: the tables' variants then end in a short hash
    and their notes say what differs.
    """
    split: dict[tuple[str, str], dict[str, list[StoredRun]]] = {}
    for record in collection.records:
        place = (f"{record.result['data']}-{record.result['model']}", str(record.result["budget"]))
        split.setdefault(place, {}).setdefault(_key(context(record)), []).append(record)
    tables = []
    for (name, budget), of in sorted(split.items()):
        contexts = [json.loads(key) for key in of]
        keys = sorted({key for one in contexts for key in one})
        differ = [key for key in keys if len({_key(one.get(key)) for one in contexts}) > 1]
        for key, records in sorted(of.items()):
            own, notes = json.loads(key), []
            variant = budget
            if differ:
                variant += "-" + hashlib.sha256(key.encode()).hexdigest()[:6]
                said = ", ".join(f"{part}={show(own.get(part))}" for part in differ)
                notes.append(f"other {budget} runs of {name} are in tables of their own; these have {said}")
            title = f"Regularizers on {records[0].result['data']}, {records[0].result['model']}"
            lines = line_up(_lines(records), notes)
            if not any(line.plain for line in lines):
                notes.append(f"no run without a regularizer: {lines[0].label} stands in as the baseline")
            tables.append(Table(name, variant, title, lines, notes=notes))
    return tables


def _lines(records: Sequence[StoredRun]) -> list[Line]:
    of: dict[str, list[StoredRun]] = {}
    for record in records:
        of.setdefault(_key(record.result["regs"]), []).append(record)
    strengths = strength_arguments(records)
    found = list(of.values())
    lines = [
        Line(label, series, group[0].number("strength"), group)
        for group, (label, series) in zip(found, names_of(found, strengths), strict=True)
    ]
    # The baseline first, then by regularizer and rising strength.
    lines.sort(key=lambda line: (line.series != "none", line.series, line.strength or 0.0, line.label))
    base = next((line for line in lines if line.plain), lines[0])
    for line in lines:
        line.against = None if line is base else base
    return lines


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
