"""Studies: a regularizer on a workload under the protocol of equal tuning budgets, from its trials to its final runs.

`docs/protocol.md` states the protocol. A study's runs are ordinary runs; the study itself is a folder with
`study.json`, what was searched, chosen and run, and `trials.jsonl`, a line a trial.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import experiments
from bench.config.compose import compose
from bench.errors import BenchError, nearest
from bench.experiments import Job, Row
from bench.files import read_json, write_atomic
from bench.ranges import Numbers
from bench.records.folder import RunFolder
from bench.registry import REGULARIZERS
from bench.space import Axis, Choice, Log, Space, rounded

PROTOCOL = 1
"""Raised whenever a change makes studies incomparable."""

TRIALS, SEEDS = 16, 5
"""Trials a method and fresh seeds a choice, unless other numbers are asked for."""

VAL_FRACTION = 0.1
WITHIN = 1.0
"""Points of validation accuracy below the baseline's best that the cheapest choice may lie."""

LR = (1 / 8, 8.0)
"""The learning rate's range, as factors of the workload's own."""
DECAY = Log(1e-6, 1e-2, authors=0.0, source="shared by all methods")
NO_DECAY = 1 / 8
"""Share of the trials without weight decay."""

COORDINATES = 16
"""Axes of the Sobol points, whatever a method has: the leading two are learning rate and weight decay, so that these
are the same for all methods."""

ACCURATE, FRUGAL, DEFAULT = "tuned", "frugal", "default"
RULESETS = (ACCURATE, DEFAULT)
FOLDER = "studies"
FILE, LINES = "study.json", "trials.jsonl"

_NUMBERS = Numbers()


@dataclass(frozen=True)
class Design:
    """What a study is to be.

    Attributes:
        experiment: whose workload it is, `suite/small`.
        workload: its name there, `mnist-1k`.
        method: the regularizers, together one entry.
        trials: number of trials, the authors' values included.
        seeds: number of fresh seeds of each choice.
        study: seeds the search points, the validation split and the trials' runs.
        settings: further overrides of every run, which make another workload.
    """

    experiment: str
    workload: str
    method: tuple[str, ...]
    trials: int = TRIALS
    seeds: int = SEEDS
    study: int = 0
    settings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The method's name in tables."""
        return "+".join(self.method)

    @property
    def base(self) -> tuple[str, ...]:
        """What all runs of the workload have."""
        experiment = experiments.load(self.experiment)
        return experiments.merge([f"budget={experiment.budget}"], experiment.workloads[self.workload], self.settings)

    @property
    def trial_seed(self) -> int:
        """Of all trials' runs, and so of the validation split."""
        return 1000 * self.study

    @property
    def final_seeds(self) -> tuple[int, ...]:
        """Fresh seeds: none is a trial's, of this study or another."""
        return tuple(self.trial_seed + place for place in range(1, self.seeds + 1))

    @property
    def name(self) -> str:
        """Of its folder: workload, method, size, and a hash of all that makes it comparable."""
        facts = [PROTOCOL, self.experiment, self.workload, self.method, self.trials, self.seeds, self.study,
                 self.settings, {key: asdict(axis) for key, axis in space_of(self.method).items()}]  # fmt: skip
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:6]
        return f"{self.workload}-{self.label}-t{self.trials}-{digest}"

    def points(self) -> list[dict[str, Any]]:
        """The settings of every trial, by dotted key: the authors' values, then scrambled Sobol points."""
        from scipy.stats import qmc  # type: ignore[import-untyped]

        space, lr = space_of(self.method), learning_rate(self.base)
        first: dict[str, Any] = {key: axis.authors for key, axis in space.items()}
        found = [{"optim.lr": lr, "reg.weight_decay.weight": 0.0} | first]
        sobol = qmc.Sobol(COORDINATES, scramble=True, rng=self.study)
        shares = sobol.random_base2(max(1, math.ceil(math.log2(self.trials))))[: self.trials - 1]
        for rate, decay, *own in shares.tolist():
            shared = {
                "optim.lr": rounded(lr * LR[0] * (LR[1] / LR[0]) ** rate),
                "reg.weight_decay.weight": 0.0 if decay < NO_DECAY else DECAY.at((decay - NO_DECAY) / (1 - NO_DECAY)),
            }
            values = {key: axis.at(share) for (key, axis), share in zip(space.items(), own, strict=False)}
            found.append(shared | values)
        return found

    def overrides(self, point: Mapping[str, Any], seed: int, final: bool) -> tuple[str, ...]:
        """What composes a run.

        Args:
            point: the settings of a trial.
            seed: of the run.
            final: train on all images; else a part of them is split off for validation.
        """
        decay = point["reg.weight_decay.weight"]
        names = [name for name in self.method if name != "none"]
        if decay and "weight_decay" not in names:
            names.append("weight_decay")
        chosen = f"reg=[{','.join(names)}]" if names else "reg=none"
        kept = {k: v for k, v in point.items() if k != "reg.weight_decay.weight" or "weight_decay" in names}
        values = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in kept.items()]
        split = f"data.val_fraction={0 if final else VAL_FRACTION}"
        return experiments.merge(self.base, [chosen, *values, split, f"seed={seed}"])

    def jobs(self, points: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], final: bool) -> list[Job]:
        """A run for each point and seed.

        Args:
            points: by the label of its row.
            seeds: of every point.
            final: see `overrides`.
        """
        jobs = []
        for label, point in points.items():
            for seed in seeds:
                overrides = self.overrides(point, seed, final)
                jobs.append(Job(Row(label, overrides, overrides), seed, overrides))
        return jobs


def design(experiment: str, workload: str, method: Sequence[str], **numbers: Any) -> Design:
    """A checked design.

    Raises:
        BenchError: there is no such workload or method, or a number is out of its range.
    """
    loaded = experiments.load(experiment)
    if not loaded.workloads:
        known = [name for name in experiments.names() if experiments.load(name).workloads]
        raise BenchError(f"{experiment} has no workloads to tune on; {', '.join(known)} has")
    if workload not in loaded.workloads:
        raise BenchError(f"{experiment} has no workload '{workload}'. {nearest(workload, list(loaded.workloads))}")
    names = tuple(sorted(method))
    if "none" in names and len(names) > 1:
        names = tuple(name for name in names if name != "none")
    for name in names:
        REGULARIZERS.declaration(name)
        if names.count(name) > 1:
            raise BenchError(f"reg=[{','.join(method)}] names '{name}' twice")
    made = Design(experiment, workload, names, **numbers)
    _NUMBERS.at_least(1, trials=made.trials, seeds=made.seeds)
    _NUMBERS.at_least(0, study=made.study)
    check_space(names)
    return made


def check_space(method: Sequence[str]) -> None:
    """Refuse a search space that its regularizer would not take.

    Raises:
        BenchError: it has more than three parameters, one that is no argument, or values that the constructor refuses.
    """
    for name in method:
        cls = REGULARIZERS.get(name)
        space: Space = cls.space
        known = {argument.name for argument in REGULARIZERS.declaration(name).arguments}
        if len(space) > 3:
            raise BenchError(f"{name}'s search space has {len(space)} parameters, at most three are tuned")
        for argument, axis in space.items():
            if argument not in known:
                raise BenchError(f"{name}'s search space has '{argument}'. {nearest(argument, sorted(known))}")
            ends = axis.options if isinstance(axis, Choice) else (axis.low, axis.high, axis.authors)
            for value in (*ends, axis.authors):
                try:
                    cls(**{argument: value})
                except BenchError as error:
                    raise BenchError(f"{name}'s search space leaves its bounds: {error}") from error
                except (TypeError, ValueError) as error:
                    raise BenchError(f"{name}'s search space: {argument}={value} is refused ({error})") from error
    if 2 + sum(len(REGULARIZERS.get(name).space) for name in method) > COORDINATES:
        raise BenchError(f"{'+'.join(method)}: too many parameters together, at most {COORDINATES - 2} are tuned")


def space_of(method: Sequence[str]) -> dict[str, Axis]:
    """The joint space of some regularizers, by dotted key. Weight decay's own replaces the one that all search."""
    return {f"reg.{name}.{key}": axis for name in method for key, axis in REGULARIZERS.get(name).space.items()}


@cache
def learning_rate(base: tuple[str, ...]) -> float:
    """The workload's own learning rate."""
    return float(compose([*base, "reg=none"]).optim.lr)


@dataclass(frozen=True)
class Trial:
    """A trial with its outcome.

    Attributes:
        trial: its number, 0 the authors' values.
        run: the run's id.
        settings: by dotted key.
        status: finished or diverged; `missing` while it has not run.
        val_acc: validation accuracy of the last epoch, in percent; None where there is none.
        val_spike_rate: the validation images' spike rate.
    """

    trial: int
    run: str
    settings: dict[str, Any]
    status: str
    val_acc: float | None = None
    val_spike_rate: float | None = None

    @property
    def score(self) -> float:
        """What the choice goes by: a diverged trial scores 0."""
        return self.val_acc if self.status == "finished" and self.val_acc is not None else 0.0


def trials_of(made: Design, runs: str | Path) -> list[Trial]:
    """The trials with what their runs have come to.

    Raises:
        BenchError: a run has no validation accuracy.
    """
    points = made.points()
    jobs = made.jobs({str(place): point for place, point in enumerate(points)}, [made.trial_seed], final=False)
    found = []
    for place, (_, run, _) in enumerate(experiments.identified(jobs)):
        result = RunFolder(runs, run).finished()
        if result is None:
            found.append(Trial(place, run, points[place], "missing"))
            continue
        val = result["val"]
        if result["status"] == "finished" and (val is None or val["acc"] is None):
            raise BenchError(f"{run} has no validation split, so no trial can be chosen on {made.workload}")
        acc, rate = (None, None) if val is None else (val["acc"], val["spike_rate"])
        found.append(Trial(place, run, points[place], result["status"], acc, rate))
    return found


def best(trials: Iterable[Trial]) -> Trial | None:
    """The trial of the best validation accuracy; of equals the one of fewer spikes, then the first."""
    done = [trial for trial in trials if trial.status != "missing"]
    return min(done, key=lambda trial: (-trial.score, _spikes(trial), trial.trial), default=None)


def cheapest(trials: Iterable[Trial], floor: float) -> Trial | None:
    """The trial of the fewest spikes among those with at least so much validation accuracy; None where there is none.

    Args:
        trials: of one method.
        floor: in percent.
    """
    able = [trial for trial in trials if trial.status == "finished" and trial.score >= floor]
    return min(able, key=lambda trial: (_spikes(trial), -trial.score, trial.trial), default=None)


def _spikes(trial: Trial) -> float:
    return math.inf if trial.val_spike_rate is None else trial.val_spike_rate


def choices(trials: Sequence[Trial], reference: Sequence[Trial], rulesets: Sequence[str]) -> dict[str, Trial]:
    """What is retrained: `tuned`, the best; `frugal`, the cheapest near the baseline; `default`, the first.

    Args:
        trials: all of a method's, none missing.
        reference: those of the baseline.
        rulesets: of `RULESETS`.
    """
    chosen = {}
    if ACCURATE in rulesets:
        first, top = best(trials), best(reference)
        if first is not None:
            chosen[ACCURATE] = first
        frugal = None if top is None else cheapest(trials, top.score - WITHIN)
        if frugal is not None:
            chosen[FRUGAL] = frugal
    if DEFAULT in rulesets:
        chosen[DEFAULT] = trials[0]
    return chosen


def words_of(settings: Mapping[str, Any]) -> str:
    """The settings of a trial, as people read them."""
    parts = []
    owners = {key.split(".")[1] for key in settings if key.startswith("reg.")} - {"weight_decay"}
    # Of one method's settings everybody knows whose they are.
    owner = f"{owners.pop()}." if len(owners) == 1 else ""
    for key, value in settings.items():
        if key == "reg.weight_decay.weight" and value == 0:
            continue
        name = {"optim.lr": "lr", "reg.weight_decay.weight": "weight decay"}.get(
            key, key.removeprefix("reg.").removeprefix(owner)
        )
        text = f"{value:g}" if isinstance(value, float) else str(value).lower() if value in (True, False) else value
        parts.append(f"{name} {text}")
    return ", ".join(parts)


def finals_of(made: Design, chosen: Mapping[str, Trial]) -> dict[str, list[str]]:
    """The runs of each choice with fresh seeds on all training images, by choice; equal choices share them."""
    jobs = made.jobs({name: trial.settings for name, trial in chosen.items()}, made.final_seeds, final=True)
    runs: dict[str, list[str]] = {name: [] for name in chosen}
    for job, run, _ in experiments.identified(jobs):
        runs[job.row.label].append(run)
    return runs


def facts_of(made: Design, chosen: Mapping[str, Trial], runs: str | Path) -> dict[str, Any]:
    """The content of `study.json`."""
    finals = finals_of(made, chosen)
    known = [RunFolder(runs, run).finished() for names in finals.values() for run in names]
    results = [result for result in known if result is not None]
    counted = [result["passes_per_step"] for result in results if result["passes_per_step"] is not None]
    stated = math.prod(REGULARIZERS.get(name).passes_per_step for name in made.method)
    facts = {
        "protocol": PROTOCOL,
        "experiment": made.experiment,
        "workload": made.workload,
        "base": list(made.base),
        "settings": list(made.settings),
        "method": list(made.method),
        "trials": made.trials,
        "seeds": made.seeds,
        "study": made.study,
        "space": {key: {"kind": type(axis).__name__, **asdict(axis)} for key, axis in space_of(made.method).items()},
        "passes_per_step": sum(counted) / len(counted) if counted else stated,
        "data_checksum": results[0]["data_checksum"] if results else None,
        "choices": {name: {"trial": trial.trial, "runs": finals[name]} for name, trial in chosen.items()},
        "hardware": sorted({result["hardware"] for result in results}),
    }  # fmt: skip
    # As it is read again: JSON has no tuples.
    return dict(json.loads(json.dumps(facts)))


def write(folder: Path, facts: Mapping[str, Any], trials: Sequence[Trial]) -> None:
    """Leave a study's two files, each whole or not there.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / LINES, "".join(json.dumps(asdict(trial)) + "\n" for trial in trials))
    write_atomic(folder / FILE, json.dumps(facts, indent=1) + "\n")


@dataclass(frozen=True)
class Study:
    """A study as its folder has it.

    Attributes:
        folder: where it lies.
        facts: of `study.json`.
        trials: of `trials.jsonl`.
    """

    folder: Path
    facts: dict[str, Any]
    trials: tuple[Trial, ...]

    @property
    def design(self) -> Design:
        """What it was to be."""
        facts = self.facts
        return Design(
            facts["experiment"], facts["workload"], tuple(facts["method"]), facts["trials"], facts["seeds"],
            facts["study"], tuple(facts["settings"]),
        )  # fmt: skip

    @property
    def label(self) -> str:
        """The method's name in tables."""
        return "+".join(self.facts["method"])

    @property
    def comparable(self) -> str:
        """Equal for studies that may stand in one table."""
        keys = ("protocol", "experiment", "workload", "base", "study")
        return json.dumps([self.facts[key] for key in keys])


_NEEDED = ("protocol", "experiment", "workload", "base", "settings", "method", "trials", "seeds", "study", "space",
           "passes_per_step", "data_checksum", "choices", "hardware")  # fmt: skip


def read(folder: Path) -> Study:
    """A study from its folder.

    Raises:
        BenchError: a file is missing or damaged, or it is of another version of the protocol.
    """
    try:
        facts = read_json(folder / FILE)
        lines = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
        protocol = facts["protocol"]
        if protocol != PROTOCOL:
            raise BenchError(f"it is by protocol {protocol}, this suite's is {PROTOCOL}")
        missing = [key for key in _NEEDED if key not in facts]
        if missing:
            raise BenchError(f"{FILE} lacks '{missing[0]}'")
        return Study(folder, facts, tuple(Trial(**line) for line in lines))
    except OSError as error:
        raise BenchError(f"{Path(str(error.filename)).name} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BenchError(f"{FILE} or {LINES} is damaged ({error})") from error
