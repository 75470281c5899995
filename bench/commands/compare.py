"""`bench compare`: two runs side by side: the settings that differ, outcomes, curves, the layers' spike rates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.commands.parsing import Parser, add_runs
from bench.commands.runs import LocalRun, found, looked_at, settings_of
from bench.commands.words import started
from bench.errors import BenchError, nearest
from bench.records.folder import RunFolder
from bench.records.schema import FIELD, FIELDS, Field, Role

EPILOG = """\
  bench compare digits-cnn-none-s0 digits-cnn-spikepen-s0     as much of the names as tells them apart
  bench compare reports/records/A reports/records/B           or folders
"""

ASIDE = {"runs", "force", "logger", "ops", "data.root", "data.path"}
"""Settings that change no number."""

OUTCOMES = tuple(field for field in FIELDS if field.role is Role.measure and field.title)
"""What is compared of two records, beside what they took."""

COST = tuple(FIELD[key] for key in ("params", "seconds.total", "train_images_per_s"))

CURVES = {
    "test accuracy": ("test", "acc"),
    "training accuracy": ("train", "acc"),
    "training loss": ("train", "loss"),
    "spike rate, train": ("train", "spike_rate"),
}
"""Of `metrics.jsonl`: what a curve is called, and where an epoch's line has it."""

Rows = list[tuple[str, ...]]


def parser() -> Parser:
    """The command line."""
    parser = Parser("compare", EPILOG)
    parser.add_words("RUN", "two: each by its name, or what it begins with, or its folder", either)
    add_runs(parser)
    return parser


def either(word: str, before: Sequence[str]) -> list[str]:
    """What completes the two runs."""
    return started(word, before) if len(before) < 2 else []


def main(arguments: Sequence[str]) -> None:
    """Lay two runs side by side.

    Raises:
        BenchError: a run is not there, or its name could be several; or both are the same.
    """
    options = parser().parse_intermixed_args(arguments)
    # Imported here: completion is to be quick.
    from bench.console import say, table

    if len(options.words) != 2:
        raise BenchError(f"compare takes two runs, not {len(options.words)}; `bench runs` lists them")
    one, other = (named(word, options.runs) for word in options.words)
    if one.folder.path.resolve() == other.folder.path.resolve():
        raise BenchError(f"both are {one.folder.name}")
    for name, run in (("A", one), ("B", other)):
        say(f"{name}  {run.folder.name}: {run.state}, {run.when}")
    say("")
    sections = (
        ("settings that differ", ("setting", "A", "B"), settings(one, other)),
        ("outcome", ("", "A", "B", "B - A"), outcomes(one, other)),
        ("curves, on one scale", ("", "", "from", "to", "epochs"), curves(one, other)),
        ("spike rate of each layer", ("layer", "A", "B", "B - A"), layers(one, other)),
    )
    for title, columns, rows in sections:
        if rows:
            numbers = columns[1:] if columns[-1] == "B - A" else ("from", "to")
            table(title, columns, rows, wide=100, right=numbers)
    if not sections[0][2]:
        say("no setting differs")


def named(word: str, runs: Path) -> LocalRun:
    """The run that a word names.

    Raises:
        BenchError: there is none, or there are several.
    """
    path = Path(word)
    if word and path.is_dir() and (path.is_absolute() or not (runs / word).is_dir()):
        run = looked_at(RunFolder(path.resolve().parent, path.resolve().name))
        if run is None:
            raise BenchError(f"{word} is no folder of a run: neither config.yaml nor result.json is in it")
        return run
    every = {run.folder.name: run for run in found(runs)}
    if word in every:
        return every[word]
    fitting = [name for name in every if word and name.startswith(word)]
    if len(fitting) > 1:
        more = f" and {len(fitting) - 4} more" if len(fitting) > 4 else ""
        raise BenchError(f"'{word}' could be {len(fitting)} runs: {', '.join(fitting[:4])}{more}")
    if not fitting:
        hint = nearest(word, every) if len(every) <= 8 else nearest(word, every).partition(" There are")[0]
        raise BenchError(f"no run '{word}' in {runs}, and no such folder. " + (hint if every else "There is none."))
    return every[fitting[0]]


def settings(one: LocalRun, other: LocalRun) -> Rows:
    """The settings that are not the same in both."""
    a, b = flat(one), flat(other)
    return [(key, shown(a.get(key)), shown(b.get(key))) for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def flat(run: LocalRun) -> dict[str, Any]:
    """A run's settings under dotted keys: from `config.yaml`, and the names that it spells as classes."""
    config = settings_of(run.folder)
    result: dict[str, Any] = run.result
    if not config:
        # A record that travelled alone.
        config = {field.key: run.value(field.key) for field in FIELDS if field.role is Role.setting}
        config |= {"reg": result.get("regs"), "seed": result.get("seed")}
    found: dict[str, Any] = {key: result.get(key) for key in ("data", "model")}

    def spread(prefix: str, value: Any) -> None:
        if prefix in ASIDE or prefix.endswith("_target_"):
            return
        if isinstance(value, dict):
            for key, item in value.items():
                spread(f"{prefix}.{key}" if prefix else str(key), item)
            if not value or set(value) == {"_target_"}:
                found[prefix] = True  # a regularizer without settings
        else:
            found[prefix] = value

    spread("", config)
    return found


def shown(value: Any) -> str:
    """A setting as a text."""
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def outcomes(one: LocalRun, other: LocalRun) -> Rows:
    """What both came to, with the difference."""
    rows: Rows = []
    for field in OUTCOMES if one.ended or other.ended else ():
        a, b = (run.value(field.key) if run.ended else None for run in (one, other))
        if a is not None or b is not None:
            # That energies are of computing alone is said where they are explained.
            texts = [field.with_unit(value).partition(" (")[0] for value in (a, b)]
            rows.append((field.title, *texts, difference(field, a, b)))
    for field in COST if one.ended or other.ended else ():
        a, b = (run.value(field.key) if run.ended else None for run in (one, other))
        texts = ["-" if value is None else f"{value:,.0f}" for value in (a, b)]
        names = {"params": "parameters", "seconds.total": "seconds", "train_images_per_s": "training images / s"}
        apart = "-" if a is None or b is None else f"{b - a:+,.0f}"
        rows.append((names[field.key], *texts, apart))
    return rows


def difference(field: Field, a: float | None, b: float | None) -> str:
    """B less A, with a sign; with its share of A where the number is a rate, a count or an energy."""
    if a is None or b is None:
        return "-"
    text = f"{b - a:+,.0f}" if field.digits == 0 else field.text(b - a, sign=True)
    ratio = field.key.startswith(("synops", "energy")) or field.key.endswith(("spike_rate", "layer_mean"))
    return f"{text} ({(b - a) / a:+.0%})" if ratio and a else text


def curves(one: LocalRun, other: LocalRun) -> Rows:
    """Both runs' curves over their epochs, one above the other."""
    # Imported here as in `main`.
    from bench.console import sparkline

    rows: Rows = []
    lines = {"A": one.folder.rows(), "B": other.folder.rows()}
    for title, place in CURVES.items():
        values = {name: list(numbers(own, place)) for name, own in lines.items()}
        known = [value for own in values.values() for value in own if value is not None]
        if not known:
            continue
        key = ".".join(place)
        for name, own in values.items():
            ends = [value for value in own if value is not None]
            first, last = (FIELD[key].text(ends[i]) if ends else "-" for i in (0, -1))
            line = sparkline(own, min(known), max(known))
            rows.append((f"{title if name == 'A' else ''}", f"{name} {line}", first, last, str(len(own))))
    return rows


def numbers(rows: Sequence[dict[str, Any]], place: Sequence[str]) -> Iterator[float | None]:
    """A number of each epoch; None where it was not measured."""
    for row in rows:
        value: Any = row
        for part in place:
            value = value.get(part) if isinstance(value, dict) else None
        yield value


def layers(one: LocalRun, other: LocalRun) -> Rows:
    """The spike rate of each layer on the test set."""
    field = FIELD["layers.spike_rate"]
    a, b = ({layer["name"]: layer["spike_rate"] for layer in run.result.get("layers", ())} for run in (one, other))
    return [
        (name, field.text(a.get(name)), field.text(b.get(name)), difference(field, a.get(name), b.get(name)))
        for name in dict.fromkeys([*a, *b])
    ]
