"""Finds the records below some folders, reads them with care, and says of each one left out why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError
from bench.files import read_json
from bench.records import probe, provenance
from bench.records.folder import REPLICATES
from bench.records.schema import FIELD, Role, keys
from bench.records.versions import current

# What two honest repetitions of a run on one machine may differ in.
_CIRCUMSTANCES = keys(Role.circumstance)
# What the last digits, and so after training some points, depend on beside the settings.
_MACHINE = ("hardware", "versions", "ops", "numerics")

Say = Callable[[str], None]
"""Takes what the user is told, a line at a time."""


@dataclass(frozen=True)
class StoredRun:
    """The record of a run, with what lies beside it.

    Attributes:
        result: the content of `result.json`, checked, in today's form.
        path: the file that the result was read from.
        epochs: the lines of `metrics.jsonl`, empty when it is missing or not whole.
        config: the content of `config.yaml`, empty when it is missing or not whole.
        dirty: whether code that ran was not in the commit; None when no `env.json` says so.
        probes: by name, the content of each `probes/<name>.json` that belongs to the result and is whole.
        replicates: records of the same run with other outcomes, from another machine or number of threads; no table
            counts them.
    """

    result: dict[str, Any]
    path: Path
    epochs: list[dict[str, Any]] = field(default_factory=list, repr=False)
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    dirty: bool | None = None
    probes: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    replicates: tuple[StoredRun, ...] = field(default=(), repr=False)

    @property
    def run_id(self) -> str:
        """The run's name."""
        return str(self.result["run_id"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.result["seed"])

    @property
    def finished(self) -> bool:
        """Whether it has an outcome: a run that diverged has none."""
        return self.result["status"] == "finished"

    def number(self, key: str) -> float | None:
        """A number by its dotted key, `test.acc`, or `probes.noise.` and its name in that probe's headline, or
        `epochs.0.` and its key in that epoch's line, the first being 0; None where it was not measured."""
        if key.startswith("epochs."):
            _, epoch, number = key.split(".", 2)
            value: Any = self.epochs[int(epoch)] if int(epoch) < len(self.epochs) else None
            for part in number.split("."):
                value = None if value is None else value.get(part)
        elif key.startswith("probes."):
            _, name, number = key.split(".", 2)
            value = self.probes.get(name, {}).get("headline", {}).get(number)
        else:
            value = FIELD[key].value(self.result)
        return None if value is None else float(value)


@dataclass
class Collection:
    """All usable records, ordered by run id, and what was left out.

    Attributes:
        records: one a run id.
        left_out: path of the record and reason, for each record and each probe that was left out.
        repeated: records found again elsewhere, the same in all that matters.
        unfinished: run folders without `result.json`.
        unexplained: a line for each replicate that nothing tells from its run but the outcome.
    """

    records: list[StoredRun] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    repeated: int = 0
    unfinished: int = 0
    unexplained: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What the user is told: one line for each record left out, then counts."""
        lines = [f"left out: {path}: {reason}" for path, reason in self.left_out] + self.unexplained
        replicates = sum(len(record.replicates) for record in self.records)
        counts = [f"{len(self.records)} records"]
        counts += [f"{len(self.left_out)} left out"] if self.left_out else []
        counts += [f"{self.repeated} found twice, alike"] if self.repeated else []
        counts += [f"{replicates} replicates beside them"] if replicates else []
        counts += [f"{self.unfinished} runs unfinished"] if self.unfinished else []
        return [*lines, ", ".join(counts)]


def collect(folders: Sequence[Path], dirty: bool = False) -> Collection:
    """Read every record below some folders.

    Left out are records that are damaged, of a later schema version, or from a dirty commit. Of several records of one
    run the first counts; those with other outcomes are its replicates.

    Args:
        folders: `reports/records`, `runs`: what lies in an earlier one comes first, and a run before what lies in its
            `replicates`. One that does not exist has no records.
        dirty: take records of a dirty commit too.
    """
    collection = Collection()
    by_id: dict[str, list[StoredRun]] = {}
    for path in _paths(folders, collection):
        try:
            record = read(path)
            if record.dirty and not dirty:
                why = provenance.changes(read_json(path.with_name("env.json")), "it")
                raise BenchError(f"from a dirty commit: {why} (--dirty takes it in)")
        except BenchError as error:
            collection.left_out.append((path, str(error)))
        else:
            probes = _probes(path.with_name("probes"), record, collection)
            by_id.setdefault(record.run_id, []).append(replace(record, probes=probes))
    for _, same in sorted(by_id.items()):
        collection.records.append(_joined(same, collection))
    return collection


def gather(folders: Sequence[Path], dirty: bool, say: Say) -> Collection:
    """`collect`, and tell the user what was left out.

    Raises:
        BenchError: there is no record.
    """
    collection = collect(folders, dirty)
    for line in collection.lines():
        say(line)
    if not collection.records:
        where = " or ".join(str(folder) for folder in folders)
        raise BenchError(f"no usable record in {where}; `bench run` or `reproduce` makes some")
    return collection


def _paths(folders: Sequence[Path], collection: Collection) -> Iterator[Path]:
    """The files of records; unfinished runs are counted in the collection."""
    seen = set()
    for folder in folders:
        # Flat files too: a record that travelled alone is still a record.
        paths = [*folder.rglob("result.json"), *folder.glob("*.json")] if folder.is_dir() else []
        for path in sorted(paths):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path
        for run in sorted(folder.iterdir()) if folder.is_dir() else []:
            collection.unfinished += (run / "metrics.jsonl").exists() and not (run / "result.json").exists()


def read(path: Path) -> StoredRun:
    """One record with its curves and the state of its commit.

    Raises:
        BenchError: it is damaged, of a later schema version, or has a number that is none.
    """
    try:
        result = read_json(path)
    except BenchError as error:
        # The path is said already where this is shown.
        raise BenchError(str(error).removeprefix(f"{path} ")) from error
    except OSError as error:
        raise BenchError(f"cannot be read: {error.strerror}") from error
    result = current(result)
    for key, value in _numbers(result):
        if not math.isfinite(value):
            raise BenchError(f"key '{key}' is {value}, no finite number")
    if result["status"] == "finished" and (result["test"]["acc"] is None or result["train"]["acc_eval"] is None):
        raise BenchError("it is finished but has no accuracy")
    if path.name != "result.json":
        return StoredRun(result, path)
    epochs = _epochs(path.with_name("metrics.jsonl"), result["epochs"])
    return StoredRun(result, path, epochs, _config(path.with_name("config.yaml")), _dirty(path))


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Dotted key and value of every float in a record."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, float):
        yield key, value
    for name, item in items:
        yield from _numbers(item, f"{key}.{name}" if key else str(name))


def _epochs(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; none when it has not one for each of the epochs."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return []
    whole = len(rows) == epochs and all(isinstance(row, dict) and "train" in row for row in rows)
    return rows if whole else []


def _config(path: Path) -> dict[str, Any]:
    # The loader in C where there is one: a few hundred files are read at once.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(), Loader=loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _dirty(path: Path) -> bool | None:
    try:
        return bool(read_json(path.with_name("env.json"))["dirty"])
    except (OSError, BenchError, KeyError, TypeError):
        return None


def _probes(folder: Path, record: StoredRun, collection: Collection) -> dict[str, dict[str, Any]]:
    """The probes of a record by name; the collection notes those that are left out."""
    probes = {}
    for file in sorted(folder.glob("*.json")):
        name = f"probes/{file.name}"
        try:
            content = probe.read(file, record.result)
            if content is None:
                raise BenchError(f"{name} was measured on an earlier training of the run")
        except OSError as error:
            collection.left_out.append((record.path, f"{name} cannot be read: {error.strerror}"))
        except BenchError as error:
            # The path is said already where this is shown.
            collection.left_out.append((record.path, str(error).replace(str(file), name)))
        else:
            probes[file.stem] = content
    return probes


def _joined(same: Sequence[StoredRun], collection: Collection) -> StoredRun:
    """One record of several of a run: the first, with the probes of those that are alike and the others as replicates.

    The collection notes how many were alike, and which of the others nothing explains.
    """
    first, *others = sorted(same, key=lambda record: record.path.parent.parent.name == REPLICATES)
    alike, replicates = [first], list[StoredRun]()
    for record in others:
        if _alike(first, record):
            alike.append(record)
        elif not any(_alike(record, known) for known in replicates):
            replicates.append(record)
    collection.repeated += len(others) - len(replicates)
    for record in replicates:
        if all(record.result[key] is not None and record.result[key] == first.result[key] for key in _MACHINE):
            collection.unexplained.append(
                f"{record.path} has another outcome than {first.path}, with the same hardware, versions and numerics"
            )
    probes = {name: probe for record in reversed(alike) for name, probe in record.probes.items()}
    return replace(first, probes=probes, replicates=tuple(replicates))


def _alike(one: StoredRun, other: StoredRun) -> bool:
    """Whether two records of a run have the same outcome; what one version does not know agrees with anything."""
    a, b = one.result, other.result
    mixed = a["schema_version"] != b["schema_version"]
    return all(
        a[key] == b[key] or (mixed and (key == "schema_version" or a[key] is None or b[key] is None))
        for key in a
        if key not in _CIRCUMSTANCES
    )
