"""Tables of experiments: the rows of configs/experiment joined with the records that they stand for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import experiments
from bench.config.compose import given
from bench.config.options import config_dir
from bench.errors import BenchError
from bench.experiments import Experiment, Row
from bench.published import papers
from bench.records.identity import run_id
from bench.report import kept
from bench.report.claims import claims
from bench.report.collect import Collection, StoredRun
from bench.report.stats import RULES
from bench.report.tables import Line, Table, line_up, names_of, pick, strength_arguments

_Facts = list[tuple[Row, dict[str, Any]]]


class _Wanted(NamedTuple):
    """What rows are composed for.

    Attributes:
        name: of the experiment.
        budget: of its runs.
        extra: further overrides.
        where: the configuration's folder: another one has other experiments of the name.
    """

    name: str
    budget: str
    extra: tuple[str, ...]
    where: Path


_known: dict[_Wanted, _Facts] = {}


def _composed(wanted: _Wanted) -> _Facts:
    """Each row with the settings that its runs' ids are made of, for seed 0 and whatever data there may be.

    Composed once, and kept: seeds, copies of the data and what `trainer.precision=auto` stood for are put in
    afterwards, so that a report is built on any machine, where there are no data sets, and in seconds.
    """
    if wanted not in _known:
        _compose([(wanted, experiments.load(wanted.name))])
    return _known[wanted]


def _compose(tables: Sequence[tuple[_Wanted, Experiment]]) -> None:
    """Compose the rows of several tables at once: many share their options, which is what takes the time.

    Rows that were composed by an earlier command, from the same settings, are taken from there.
    """
    jobs = {
        wanted: experiments.expand(experiment, [*wanted.extra, f"budget={wanted.budget}", "seed=0"])
        for wanted, experiment in tables
    }
    places = {
        wanted: kept.place("rows", json.dumps([job.overrides for job in own]).encode()) for wanted, own in jobs.items()
    }
    facts = {wanted: kept.take(place) for wanted, place in places.items()}
    missing = [wanted for wanted, known in facts.items() if known is None]
    identified = iter(
        experiments.identified([job for wanted in missing for job in jobs[wanted]], _AnyData(), auto="auto")
        if missing
        else ()
    )
    for wanted in missing:
        of_jobs = [next(identified)[2] for _ in jobs[wanted]]
        facts[wanted] = [{k: v for k, v in own.items() if k not in ("runs", "force")} for own in of_jobs]
    kept.keep({places[wanted]: facts[wanted] for wanted in missing})
    for wanted, own in jobs.items():
        _known[wanted] = [(job.row, known) for job, known in zip(own, facts[wanted], strict=True)]


class _AnyData(dict[str, tuple[str, str]]):
    """An identity for every data set, so that none is looked up."""

    def get(self, name: str, default: object = None) -> tuple[str, str]:
        return ("", "unknown")


def run_ids(
    experiment: Experiment,
    budget: str,
    seeds: Sequence[int],
    extra: Sequence[str],
    data: Mapping[str, tuple[str, str]],
    precision: str,
) -> list[tuple[str, int, str]]:
    """Row, by group and label, seed and run id of all runs.

    Args:
        experiment: the table.
        budget: of all its runs.
        seeds: of every row.
        extra: further overrides.
        data: (checksum, copy) by data set; rows on others are left out.
        precision: of the rows that leave it to the machine.
    """
    ids = []
    for row, facts in _composed(_Wanted(experiment.name, budget, tuple(extra), config_dir())):
        if facts["data"]["name"] in data:
            checksum, copy = data[facts["data"]["name"]]
            own = {**facts, "data": {**facts["data"], "checksum": checksum, "copy": copy}}
            if own["precision"] == "auto":
                own["precision"] = precision
            ids += [(_name(row), seed, run_id({**own, "seed": seed})) for seed in seeds]
    return ids


def _name(row: Row) -> str:
    return f"{row.group}\n{row.label}"


class Sorted:
    """Records, and which of them the tables of an experiment may have.

    A search is no comparison of settings: its runs are in the leaderboard, and in tables that are of its own budget.

    Args:
        collection: all records.
        searched: the runs that studies consist of.

    Attributes:
        rest: the records of no study.
    """

    def __init__(self, collection: Collection, searched: AbstractSet[str]) -> None:
        self.collection = collection
        self.rest = replace(collection, records=[r for r in collection.records if r.run_id not in searched])
        self._budgets = {record.result["budget"] for record in collection.records if record.run_id in searched}

    def tables(self, wanted: Iterable[str], arguments: Sequence[str], left_out: list[str]) -> list[Table]:
        """See `tables`."""
        names = [*wanted]
        tuned = [name for name in names if experiments.load(name).budget in self._budgets]
        others = [name for name in names if name not in tuned]
        return [*tables(self.rest, others, arguments, left_out), *tables(self.collection, tuned, arguments, left_out)]


def tables(collection: Collection, wanted: Iterable[str], arguments: Sequence[str], left_out: list[str]) -> list[Table]:
    """The tables of some experiments, one for each budget and copy of the data that there are records of.

    Args:
        collection: the records.
        wanted: names of experiments.
        arguments: further overrides of every row; `budget=` picks one.
        left_out: gains a line for each table that cannot be made, with the reason.
    """
    asked = given(arguments).get("budget")
    extra = [override for override in arguments if override.split("=", 1)[0] not in ("budget", "seed")]
    by_budget: dict[str, list[StoredRun]] = {}
    for record in collection.records:
        by_budget.setdefault(str(record.result["budget"]), []).append(record)
    possible = [
        (experiment, budget)
        for experiment in map(experiments.load, wanted)
        for budget in asked or sorted(by_budget)
        # Workloads are of their own budget: at another their rows are other tables' runs.
        if asked or not experiment.workloads or budget == experiment.budget
        if _comparable(experiment, by_budget.get(budget, ()), budget, extra)
    ]
    own = [
        (_Wanted(experiment.name, budget, tuple(extra), config_dir()), experiment) for experiment, budget in possible
    ]
    # Where one of them cannot be composed, each is composed by itself below and says so of itself.
    with suppress(BenchError):
        _compose([(key, experiment) for key, experiment in own if key not in _known])
    joined = []
    for experiment, budget in possible:
        try:
            joined += _tables(experiment, by_budget.get(budget, ()), budget, extra)
        except BenchError as error:
            left_out.append(f"left out: {experiment.name} at budget={budget}: {error}")
    return joined


_PLAIN = re.compile(r"\w+|\[\w+(?:,\w+)*\]")


def _comparable(experiment: Experiment, records: Sequence[StoredRun], budget: str, extra: Sequence[str]) -> bool:
    """Whether two rows could have records, by the data, network and regularizers that both name: a quick look, which
    spares the composing of tables that nobody ran."""
    there = {tuple(str(record.result[key]) for key in ("data", "model", "reg")) for record in records}
    rows = 0
    for row in experiment.rows:
        own = named([*row.at(budget), *extra])
        rows += any(all(a in (None, b) for a, b in zip(own, place, strict=True)) for place in there)
    return rows > 1


def named(overrides: Iterable[str]) -> tuple[str | None, str | None, str | None]:
    """What some overrides name of data, network and regularizers, as a record calls it; None where that is not theirs
    to say, or for Hydra to read."""
    values = dict(line.partition("=")[::2] for line in overrides)
    data, model, reg = (_label(values.get(key)) for key in ("data", "model", "reg"))
    return data, model, reg


def _label(value: str | None) -> str | None:
    """What a record calls an option; None where that is for Hydra to say."""
    if value is None or not _PLAIN.fullmatch(value):
        return None
    names = value.strip("[]").split(",")
    return "+".join(name for name in names if name != "none" or len(names) == 1)


def _tables(experiment: Experiment, records: Sequence[StoredRun], budget: str, extra: Sequence[str]) -> list[Table]:
    """An experiment's tables at one budget, one for each copy of the data and each precision it was run on."""
    by_id = {record.run_id: record for record in records}
    copies = _copies(experiment, records, budget, extra)
    if not copies:
        return []
    seeds = sorted({record.seed for record in records})
    built = []
    seen: set[frozenset[str]] = set()
    precisions = sorted({str(record.result["precision"]) for record in records})
    combinations = itertools.product(*map(sorted, copies.values()))
    for combination, precision in itertools.product(combinations, precisions):
        ids = run_ids(experiment, budget, seeds, extra, dict(zip(copies, combination, strict=True)), precision)
        # One row alone, shared with another table, compares nothing; rows that set their precision come again.
        own = frozenset(name for _, _, name in ids if name in by_id)
        if len({row for row, _, name in ids if name in own}) > 1 and own not in seen:
            seen.add(own)
            built.append((combination, precision, _table(experiment, budget, extra, ids, by_id)))
    if len({precision for _, precision, _ in built}) > 1:
        for _, precision, table in built:
            table.variant += f"-{precision}"
            table.notes.insert(0, f"runs of another precision are in a table of their own; these are {precision}")
    if len({combination for combination, _, _ in built}) > 1:
        for combination, _, table in built:
            table.variant += f"-{combination[0][0][:6]}"
            copy = ", ".join(copy for _, copy in combination)
            table.notes.insert(0, f"runs on other copies of the data are in tables of their own; these are on {copy}")
    return [table for _, _, table in built]


def _copies(
    experiment: Experiment, records: Sequence[StoredRun], budget: str, extra: Sequence[str]
) -> dict[str, set[tuple[str, str]]]:
    """Data set -> checksum and name of each of its copies among the records, for those data sets that rows name."""
    overrides = [override for row in experiment.rows for override in [*row.at(budget), *extra]]
    wanted = {override.removeprefix("data=") for override in overrides if override.startswith("data=")}
    copies: dict[str, set[tuple[str, str]]] = {}
    for record in records:
        result = record.result
        if not wanted or result["data"] in wanted:
            copies.setdefault(result["data"], set()).add((result["data_checksum"], result["data_copy"]))
    return copies


def _table(
    experiment: Experiment,
    budget: str,
    extra: Sequence[str],
    ids: Sequence[tuple[str, int, str]],
    by_id: Mapping[str, StoredRun],
) -> Table:
    by_row: dict[str, list[StoredRun]] = {}
    for row, _, name in ids:
        by_row.setdefault(row, []).extend([by_id[name]] if name in by_id else [])
    lines = _lines(experiment, [by_row.get(_name(row), []) for row in experiment.rows])
    table = Table(
        name=experiment.name,
        variant="+".join([budget, *(override.replace("/", "_") for override in extra)]),
        title=experiment.title,
        lines=lines,
        arguments=(experiment.name, *([f"budget={budget}", *extra] if extra else [])),
        claims=claims(experiment.name),
        remarks={"finding": experiment.finding, "note": experiment.note},
        rule=RULES[experiment.selection],
    )
    if experiment.published:
        table.published = papers.load(experiment.published)
        table.axis = table.published.axis
    if budget not in experiments.FULL_SIZE:
        table.remarks["small networks"] = experiment.small_note
    line_up(lines, table.notes)
    if table.rule.score is not None:
        pick(table)
        base = next((line for line in table.lines if line.group == experiment.baseline), None)
        for line in table.lines:
            line.against = None if line is base else base
    return table


def _lines(experiment: Experiment, rows: Sequence[list[StoredRun]]) -> list[Line]:
    """A line for each row of the experiment, from each row's records."""
    # A group with several regularizers is a comparison of its own and gets its own panel in the figures; groups of
    # one regularizer each (two orders of a penalty, two widths) are curves of one panel.
    regs: dict[str, set[str]] = {}
    for row, records in zip(experiment.rows, rows, strict=True):
        regs.setdefault(row.group, set()).update(str(record.result["reg"]) for record in records)
    panels = len(regs) > 1 and any(len(names - {"none"}) > 2 for names in regs.values())
    selects = experiment.selection != experiments.SELECTIONS[0]
    alone = len(regs) == 1
    lines = {}
    for group in regs:
        members = [(row, records) for row, records in zip(experiment.rows, rows, strict=True) if row.group == group]
        present = [records for _, records in members if records]
        names = names_of(present, strength_arguments(itertools.chain(*present)))
        series = {id(records): name for records, (_, name) in zip(present, names, strict=True)}
        for row, records in members:
            own = series[id(records)] if records else row.label
            lines[id(row)] = Line(
                label=row.label if alone else f"{group}: {row.label}",
                series=own if alone or panels else group,
                strength=records[0].number("strength") if records else None,
                records=list(records),
                group=group,
                panel=group if panels and not selects else "",
                published=row.published,
            )
    ordered = [lines[id(row)] for row in experiment.rows]
    for row, line in zip(experiment.rows, ordered, strict=True):
        base = experiment.baseline_of(row)
        line.against = lines[id(base)] if base is not None and base is not row else None
    return ordered
