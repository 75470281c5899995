"""The tables and figures under configs/experiment: their rows, and the runs these stand for.

A file has, beside Hydra's `mode: MULTIRUN`, a node `experiment` with the keys of `ExperimentFile`. Its first comment
line is the title. Nothing here is part of a run: a table finds its records by expanding its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.config.compose import compose_all, given
from bench.config.explain import unknown
from bench.config.options import config_dir, config_file, options
from bench.errors import BenchError, first_line, nearest
from bench.published import papers
from bench.published.papers import Published
from bench.records.folder import RunFolder, runs_folder
from bench.records.identity import run_id, science
from bench.registry import MODELS

FULL = "paper"
"""The papers' own budget."""

FULL_SIZE = (FULL, "short")
"""The budgets with the papers' own networks; under all others the networks are small."""

SELECTIONS = ("last_epoch", "best_on_validation")


@dataclass
class RowFile:
    """One row as its file has it.

    Attributes:
        label: what the table calls it.
        overrides: what sets it apart, as on the command line.
        small: what replaces or joins them under every budget but `paper`.
        published: the leading cells of its row in the published table, as many as tell it from the others.
        group: a curve of a figure, or the rows that a selection chooses from.
    """

    label: str = MISSING
    overrides: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    published: Any = None
    group: str = ""


@dataclass
class ExperimentFile:
    """The node `experiment` of a file.

    Attributes:
        published: paper and table, `nandan2022/2.1`.
        finding: what the paper concludes from it, in our words.
        note: what of it is our choice.
        small_note: what the small networks change.
        budget: the one it has when the command line names none.
        selection: `last_epoch`: every row counts. `best_on_validation`: of each group the row of the best mean
            validation accuracy counts, and what is published belongs to that one.
        baseline: label of the row the others are compared with, in each group; under a selection, a group.
        seeds: of every row.
        fixed: overrides of every row.
        across: the rows are repeated for each value of this setting, which names their group.
        workloads: the rows are repeated for each of these, by name, with its overrides; `bench tune` takes one by its
            name.
        probes: what `bench reproduce` probes the finished runs with: names, and settings such as `noise.images=100`.
        rows: the table.
    """

    published: str | None = None
    finding: str = ""
    note: str = ""
    small_note: str = ""
    budget: str = FULL
    selection: str = SELECTIONS[0]
    baseline: str = MISSING
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    fixed: list[str] = field(default_factory=list)
    across: dict[str, list[str]] = field(default_factory=dict)
    workloads: dict[str, list[str]] = field(default_factory=dict)
    probes: list[str] = field(default_factory=list)
    rows: list[RowFile] = MISSING


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        label: its name, unique within its group.
        overrides: all it sets, the experiment's fixed ones included, on the paper's networks.
        small: the same on small networks.
        published: the published table's row by column; None where nothing is published.
        group: curve or candidates it belongs to; "" where there is one group only.
    """

    label: str
    overrides: tuple[str, ...]
    small: tuple[str, ...]
    published: Mapping[str, Any] | None = None
    group: str = ""

    def at(self, budget: str) -> tuple[str, ...]:
        """What it sets under a budget."""
        return self.overrides if budget in FULL_SIZE else self.small


@dataclass(frozen=True)
class Experiment:
    """A table or figure; see `ExperimentFile` for what is not explained here.

    Attributes:
        name: as `experiment=` takes it.
        title: one line.
    """

    name: str
    title: str
    published: str | None
    finding: str
    note: str
    small_note: str
    budget: str
    selection: str
    baseline: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    probes: tuple[str, ...] = ()
    workloads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """The rows' groups, in order."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def baseline_of(self, row: Row) -> Row | None:
        """The row that this one is compared with; None under a selection, where groups are compared."""
        if self.selection != SELECTIONS[0]:
            return None
        return next(r for r in self.rows if r.label == self.baseline and r.group == row.group)


@dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        row: that it belongs to.
        seed: of the run.
        overrides: all that composes it, as `bench run` would take it.
    """

    row: Row
    seed: int
    overrides: tuple[str, ...]


class Planned(NamedTuple):
    """What has to be done for an experiment.

    Attributes:
        missing: the runs that have no record yet, or are to be done again, by run id.
        said: what the user is told before the first of them.
    """

    missing: dict[str, Job]
    said: str


def names() -> list[str]:
    """All experiments, as `experiment=` takes them."""
    return options("experiment")


def load(name: str) -> Experiment:
    """Read and check one file.

    Raises:
        BenchError: there is none of that name, or something in it is wrong.
    """
    if name not in names():
        raise unknown("experiment", name)
    path = config_file("experiment", name)
    where = f"configs/experiment/{name}.yaml" if path.is_relative_to(config_dir()) else str(path)
    text = path.read_text()
    try:
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if content.get("hydra") != {"mode": "MULTIRUN"}:
            raise BenchError(f"{where} lacks 'hydra: {{mode: MULTIRUN}}'")
        typed = OmegaConf.merge(OmegaConf.structured(ExperimentFile), content["experiment"])
        file: ExperimentFile = OmegaConf.to_object(typed)  # type: ignore[assignment]
    except (OmegaConfBaseException, yaml.YAMLError, AttributeError, KeyError) as error:
        raise BenchError(f"{where}: {first_line(error)}") from error
    comments = (line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    try:
        return _checked(Experiment(
            name=name,
            title=next((line for line in comments if not line.startswith("@package")), name),
            rows=tuple(_rows(file)),
            seeds=tuple(file.seeds),
            probes=tuple(file.probes),
            workloads={name: merge(file.fixed, overrides) for name, overrides in file.workloads.items()},
            **{key: getattr(file, key) for key in _COPIED},
        ))  # fmt: skip
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error


_COPIED = ("published", "finding", "note", "small_note", "budget", "selection", "baseline")


def _rows(file: ExperimentFile) -> Iterable[Row]:
    if len(file.across) > 1:
        raise BenchError("across repeats the rows over one setting")
    if file.across and file.workloads:
        raise BenchError("the rows are repeated across a setting or over workloads, not both")
    table = papers.load(file.published) if file.published else None
    repeated = file.workloads or {value: [f"{key}={value}"] for key, values in file.across.items() for value in values}
    for value, chosen in (repeated or {"": []}).items():
        for row in file.rows:
            full = merge(file.fixed, chosen, row.overrides)
            cells = None if row.published is None else _published_row(table, row)
            yield Row(row.label, full, merge(full, row.small), cells, value or row.group)


def _published_row(table: Published | None, row: RowFile) -> dict[str, Any]:
    start = row.published if isinstance(row.published, list) else [row.published]
    fitting = [] if table is None else [cells for cells in table.rows if list(cells[: len(start)]) == start]
    if table is None or len(fitting) != 1:
        raise BenchError(f"row '{row.label}': {len(fitting)} published rows begin with {start}")
    return dict(zip(table.columns, fitting[0], strict=True))


def _checked(experiment: Experiment) -> Experiment:
    """Refuse what no report could make sense of.

    Raises:
        BenchError: says what.
    """
    if experiment.selection not in SELECTIONS:
        raise BenchError(
            f"no selection is called '{experiment.selection}'. {nearest(experiment.selection, SELECTIONS)}"
        )
    if experiment.budget not in options("budget"):
        raise BenchError(f"no budget is called '{experiment.budget}'. {nearest(experiment.budget, options('budget'))}")
    places = [(row.group, row.label) for row in experiment.rows]
    for place in places:
        if places.count(place) > 1:
            raise BenchError(f"two rows are called '{' '.join(place).strip()}'")
    by_group = experiment.selection == SELECTIONS[0]
    for group in experiment.groups:
        if by_group and (group, experiment.baseline) not in places:
            raise BenchError(f"the baseline '{experiment.baseline}' is no row{f' of {group}' if group else ''}")
    if not by_group and experiment.baseline not in experiment.groups:
        raise BenchError(f"the baseline '{experiment.baseline}' is no group")
    return experiment


def merge(*parts: Sequence[str]) -> tuple[str, ...]:
    """Overrides one after the other, where a later value of a key takes an earlier one's place."""
    return tuple({line.partition("=")[0]: line for part in parts for line in part}.values())


def expand(experiment: Experiment, arguments: Sequence[str] = ()) -> list[Job]:
    """All runs of an experiment: the rows with what the command line sets or sweeps, seed by seed.

    The whole table with one seed comes before the next seed. `seed=` and `budget=` take the place of the file's.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    lines = merge([f"budget={experiment.budget}", f"seed={','.join(map(str, experiment.seeds))}"], arguments)
    (grid,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(lines)), None)
    jobs = []
    for point in grid:
        values = {key: value for key, (value,) in given(point).items()}
        for row in experiment.rows:
            overrides = merge([f"budget={values['budget']}"], row.at(values["budget"]), point)
            jobs.append(Job(row, whole(values["seed"]), overrides))
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    return sorted(jobs, key=lambda job: seeds.index(job.seed))


def whole(seed: str, key: str = "seed") -> int:
    """A seed, or another setting of the command line, as a number.

    Raises:
        BenchError: it is none.
    """
    try:
        return int(seed)
    except ValueError as error:
        raise BenchError(f"{key} is '{seed}', it must be a whole number") from error


def identified(
    jobs: Sequence[Job], data: Mapping[str, tuple[str, str]] | None = None, auto: str | None = None
) -> list[tuple[Job, str, dict[str, Any]]]:
    """Each job with its run id and the settings of `bench.records.identity.science`; `runs` and `force` beside them.

    Args:
        jobs: of `expand`.
        data: (checksum, copy) of data sets by name; else they are looked up.
        auto: the precision that `auto` stands for; else this machine's best.
    """
    named = []
    # Seeds share a composition: it is what takes the time.
    bare = [merge(job.overrides, ["seed=0"]) for job in jobs]
    once = list(dict.fromkeys(bare))
    composed = dict(zip(once, compose_all(once), strict=True))
    for job, key in zip(jobs, bare, strict=True):
        cfg = composed[key]
        cfg.seed = job.seed
        facts = science(cfg, None if data is None else data.get(cfg.data.name), auto)
        named.append((job, run_id(facts), {**facts, "runs": str(runs_folder(cfg.runs)), "force": cfg.force}))
    return named


def chosen(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The experiments that a command line names, and its other overrides."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    experiments: list[str] = []
    rest = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.key_or_group != "experiment":
            rest.append(str(override.input_line))
        elif override.is_sweep_override():
            experiments += [str(name) for name in override.sweep_string_iterator()]
        else:
            experiments.append(str(override.value()))
    return experiments, rest


def plan(name: str, arguments: Sequence[str] = ()) -> Planned:
    """Expand an experiment, bring its data, and see what has no record yet.

    Raises:
        BenchError: a row cannot be composed, or its data is not there and cannot be had.
    """
    experiment = load(name)
    missing: dict[str, Job] = {}
    settled: dict[str, dict[str, Any]] = {}
    for job, identity, facts in identified(expand(experiment, arguments)):
        if identity in settled:
            continue
        settled[identity] = facts
        if facts["force"] or not is_finished(Path(facts["runs"]), identity):
            missing[identity] = job
    said = _said(experiment, list(settled.values()), len(missing))
    asked = any(line.startswith("budget=") for line in arguments)
    if experiment.budget == FULL and missing and not asked and any(map(_by_gradients, settled.values())):
        said += f"\n  budget={FULL} is the table's own and wants a GPU; budget=cpu is its small version"
    return Planned(missing, said)


def is_finished(runs: Path, name: str) -> bool:
    """Whether a run has a record; with a damaged one it has not: the run itself will say so."""
    try:
        return RunFolder(runs, name).finished() is not None
    except BenchError:
        return False


def _by_gradients(facts: Mapping[str, Any]) -> bool:
    """Whether a run wants a GPU at the papers' size: local learning is done on the CPU."""
    return str(MODELS.get(facts["model"]["name"]).learning) == "gradient"


def _said(experiment: Experiment, settled: Sequence[dict[str, Any]], missing: int) -> str:
    seeds = {facts["seed"] for facts in settled}
    done = len(settled) - missing
    counts = f"{len(experiment.rows)} rows, {len(seeds)} seed{'s' * (len(seeds) > 1)}, {len(settled)} runs"
    lines = [f"{experiment.name}: {counts}, {done} finished, {missing} to do"]
    for facts in settled:
        trainer = facts["trainer"]
        epochs = f"{trainer['epochs']} epoch{'s' * (trainer['epochs'] > 1)}"
        cut = facts["data"]["limit"] or trainer["max_train_images"]
        images = f"at most {cut:,} images" if cut else "all images"
        if trainer["limit_train_batches"]:
            images = f"{trainer['limit_train_batches']} batches of {trainer['batch_size']}"
        data = f"{facts['data']['name']} ({facts['data']['copy']})"
        line = f"  budget={facts['budget']}: {epochs} of {images}, {data}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)
