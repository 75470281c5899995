"""`bench runs`: the runs on this machine, filtered and sorted by what their records hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.commands.parsing import Parser, add_runs
from bench.commands.words import filters
from bench.errors import BenchError, nearest
from bench.records.folder import RunFolder
from bench.records.schema import FIELD, FIELDS, LISTS

EPILOG = """\
  bench runs                                       all, the newest first
  bench runs data=mnist reg=spikepen sort=-test.acc
  bench runs status=unfinished                     what was interrupted
  bench runs regs.spikepen.weight=0.1,0.5          any entry of result.json, also within one
"""

NAME = re.compile(r"(?P<data>[^-]+)-(?P<model>[^-]+)-(?P<reg>.+)-s(?P<seed>-?\d+)-[0-9a-f]{8}")
"""Of a run: what its folder's name says of it."""

NEWEST = "-finished"
"""The order that they are listed in where none is asked for."""

WITHIN = ("regs", "model_args", "versions")
"""Entries of a record that have entries of their own."""


@dataclass(frozen=True)
class LocalRun:
    """A run on this machine.

    Attributes:
        folder: its own.
        result: the record; of a run that has none, what its name and its settings say.
        state: finished, diverged, damaged, or how far it has come.
    """

    folder: RunFolder
    result: dict[str, Any]
    state: str

    @property
    def ended(self) -> bool:
        """Whether it has a record."""
        return "schema_version" in self.result

    def value(self, key: str) -> Any:
        """What the record has under a dotted key; None where it has nothing."""
        if self.ended and key in FIELD:
            return FIELD[key].value(self.result)
        value: Any = self.result
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @property
    def when(self) -> str:
        """When it ended, or wrote its last epoch: `2026-01-31 12:00`, UTC."""
        return str(self.result.get("finished") or "-").replace("T", " ")[:16]


def parser() -> Parser:
    """The command line."""
    parser = Parser("runs", EPILOG)
    parser.add_words("KEY=VALUE", "those whose record has it (a,b: either); sort=KEY or sort=-KEY", filters)
    add_runs(parser)
    parser.add_argument("--json", action="store_true", help="their records as JSON")
    return parser


def main(arguments: Sequence[str]) -> None:
    """List the runs on this machine.

    Raises:
        BenchError: a filter or an order names no entry of a record.
    """
    options = parser().parse_intermixed_args(arguments)
    # Imported here: completion is to be quick.
    from bench.console import say, table

    wanted, order = understood(options.words)
    every = found(options.runs)
    chosen = ordered([run for run in every if all(fits(run.value(key), texts) for key, texts in wanted)], order)
    if options.json:
        print(json.dumps([{"folder": str(run.folder.path), **run.result} for run in chosen], indent=1))
        return
    if not chosen:
        say(f"no run in {options.runs}" if not every else f"none of the {len(every)} runs in {options.runs} is so")
        return
    names = named(chosen)
    columns = ("run", "data", "network", "setting", "seed", "status", "test acc", "spike rate", "when (UTC)")
    numbers = ("seed", "test acc", "spike rate")
    rows = [
        (
            run.folder.name,
            str(run.value("data") or "-"),
            str(run.value("model") or "-"),
            name,
            "-" if run.value("seed") is None else str(run.value("seed")),
            run.state,
            FIELD["test.acc"].text(run.value("test.acc")),
            FIELD["test.spike_rate"].text(run.value("test.spike_rate")),
            run.when,
        )
        for run, name in zip(chosen, names, strict=True)
    ]
    count = f"{len(chosen)} of {len(every)} runs" if len(chosen) < len(every) else f"{len(every)} runs"
    table(f"{count} in {options.runs}", columns, rows, whole=("run", *numbers, "when (UTC)"), right=numbers)


def understood(words: Iterable[str]) -> tuple[list[tuple[str, list[str]]], str]:
    """The filters that a command line names, and the order.

    Returns:
        Key and values of each; the key to sort by, behind a dash for the largest first.

    Raises:
        BenchError: a word is no filter, or names no entry of a record.
    """
    wanted, order = [], NEWEST
    for word in words:
        key, given, text = word.partition("=")
        if not given:
            raise BenchError(f"'{word}' is no filter: write key=value, as in data=mnist")
        if key == "sort":
            order = text
            known(text.removeprefix("-"))
        else:
            known(key)
            wanted.append((key, text.split(",")))
    return wanted, order


def known(key: str) -> None:
    """Refuse a key that no record has.

    Raises:
        BenchError: names the nearest that records have.
    """
    entries = [field.key for field in FIELDS if field.key.partition(".")[0] not in LISTS]
    head, dot, rest = key.partition(".")
    if key not in entries and not (head in WITHIN and dot and rest):
        raise BenchError(f"no record has an entry '{key}'. {nearest(key, entries)}")


def found(runs: Path) -> list[LocalRun]:
    """The runs in a folder, by name."""
    paths = sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    folders = (RunFolder(runs, path.name) for path in paths if not path.name.startswith("."))
    return [run for run in map(looked_at, folders) if run is not None]


def looked_at(folder: RunFolder) -> LocalRun | None:
    """A run as its folder shows it; None where the folder is none of a run."""
    if not (folder.result_path.exists() or (folder.path / "config.yaml").exists()):
        return None
    try:
        result = folder.finished()
    except BenchError:
        return LocalRun(folder, {**named_parts(folder), "status": "damaged"}, "damaged")
    if result is not None:
        return LocalRun(folder, result, str(result["status"]))
    return unfinished(folder)


def unfinished(folder: RunFolder) -> LocalRun:
    """A run without a record: what its name says, its settings, its epochs."""
    epochs, config = len(folder.rows()), settings_of(folder)
    trainer = config.get("trainer")
    planned = trainer.get("epochs") if isinstance(trainer, dict) else None
    regs = config.get("reg")
    last = folder.metrics_path if folder.metrics_path.exists() else folder.path / "config.yaml"
    result = {
        **named_parts(folder),
        "status": "unfinished",
        "budget": config.get("budget"),
        "regs": {name: without_target(node) for name, node in regs.items()} if isinstance(regs, dict) else {},
        "epochs": planned,
        "epochs_done": epochs,
        "finished": datetime.fromtimestamp(last.stat().st_mtime, UTC).isoformat(timespec="seconds"),
    }
    return LocalRun(folder, result, f"unfinished at epoch {epochs}" + (f" of {planned}" if planned else ""))


def settings_of(folder: RunFolder) -> dict[str, Any]:
    """A run's settings as its `config.yaml` has them; none where it is missing or damaged."""
    import yaml

    try:
        content = yaml.load(
            (folder.path / "config.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def without_target(node: Any) -> dict[str, Any]:
    """A component's settings without the path of its class."""
    return {key: value for key, value in node.items() if key != "_target_"} if isinstance(node, dict) else {}


def named_parts(folder: RunFolder) -> dict[str, Any]:
    """What a folder's name says of its run."""
    parts = NAME.fullmatch(folder.name)
    own = {} if parts is None else {**parts.groupdict(), "seed": int(parts["seed"])}
    return {"run_id": folder.name, **own}


def fits(value: Any, texts: Sequence[str]) -> bool:
    """Whether a value of a record is one of those typed: numbers by value, all else by its text."""
    return any(same(value, text) for text in texts)


def same(value: Any, text: str) -> bool:
    """Whether a value of a record is what was typed."""
    if isinstance(value, bool) or value is None:
        return text.lower() == json.dumps(value)
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == (value if isinstance(value, str) else json.dumps(value))


def ordered(runs: Sequence[LocalRun], order: str) -> list[LocalRun]:
    """Runs sorted by an entry; those without it come last.

    Args:
        runs: to be sorted.
        order: its key, behind a dash for the largest first.
    """
    key, down = order.removeprefix("-"), order.startswith("-")
    have = [run for run in runs if run.value(key) is not None]
    rank: Callable[[LocalRun], Any] = lambda run: rankable(run.value(key))  # noqa: E731
    return [*sorted(have, key=rank, reverse=down), *(run for run in runs if run.value(key) is None)]


def rankable(value: Any) -> tuple[int, float, str]:
    """A value of any kind as something that can be compared: numbers first."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def named(runs: Sequence[LocalRun]) -> list[str]:
    """The setting of each run: its regularizers and what is not the same in all that are listed of one network."""
    # Imported here: reports bring NumPy along.
    from bench.report.collect import StoredRun
    from bench.report.tables import names_of, strength_arguments

    names = {run.folder.name: str(run.value("reg") or "-") for run in runs}
    by_place: dict[tuple[Any, Any], list[StoredRun]] = {}
    for run in runs:
        if run.ended:
            place = (run.value("data"), run.value("model"))
            by_place.setdefault(place, []).append(StoredRun(run.result, run.folder.result_path))
    for own in by_place.values():
        labels = names_of([[record] for record in own], strength_arguments(own))
        names |= {record.path.parent.name: name for record, (name, _) in zip(own, labels, strict=True)}
    return [names[run.folder.name] for run in runs]
