"""What a word of a command line can be: experiments, runs, settings and their values.

Nothing slow is imported to answer: the names are read from a small index in the user's cache, which is
built anew (in seconds) when a file of the suite or a plugin has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.records.folder import runs_folder
from bench.records.schema import FIELDS, LISTS
from bench.registry import named_plugins

# Takes the beginning of a word and the words between it and the command; a word that is complete ends in a space.
Words = Callable[[str, Sequence[str]], Iterable[str]]


def starting(word: str, candidates: Iterable[str]) -> list[str]:
    """Those that begin with `word`, complete."""
    return [f"{candidate} " for candidate in candidates if candidate.startswith(word)]


def among(*names: str) -> Words:
    """Words that are known beforehand."""
    return lambda word, before: starting(word, names)


def experiments(word: str, before: Sequence[str]) -> list[str]:
    """Names of experiments."""
    return starting(word, index()["groups"]["experiment"])


def datasets(word: str, before: Sequence[str]) -> list[str]:
    """Names of data sets."""
    return starting(word, index()["groups"]["data"])


def runs(word: str, before: Sequence[str]) -> list[str]:
    """The finished runs in the usual folder."""
    return starting(word, sorted(path.parent.name for path in runs_folder().glob("*/result.json")))


def started(word: str, before: Sequence[str]) -> list[str]:
    """The runs in the usual folder, those that have not finished included."""
    return starting(word, sorted(path.parent.name for path in runs_folder().glob("*/config.yaml")))


def filters(word: str, before: Sequence[str]) -> Iterator[str]:
    """The keys of a record with values, and the order that `bench runs` lists runs in."""
    key, given, value = word.partition("=")
    listed = [field.key for field in FIELDS if field.derive is not None or not field.key.startswith(LISTS)]
    if not given:
        yield from keys(word, ["sort", *listed])
    elif key == "sort":
        yield from (f"sort={name} " for name in [*listed, *(f"-{name}" for name in listed)] if name.startswith(value))
    elif key == "status":
        yield from values(word, ["finished", "diverged", "unfinished"])
    else:
        yield from values(word, index()["groups"].get(key, []))


def overrides(word: str, before: Sequence[str]) -> Iterator[str]:
    """Settings of a run, and their values."""
    known = index()
    key, given, _ = word.partition("=")
    if given:
        return values(word, known["groups"].get(key) or settings(known, before).get(key, []))
    return keys(word, [*known["groups"], *settings(known, before)])


def budgets(word: str, before: Sequence[str]) -> Iterator[str]:
    """The setting `budget` alone."""
    key, given, _ = word.partition("=")
    return values(word, index()["groups"]["budget"] if key == "budget" else []) if given else keys(word, ["budget"])


def eval_settings(word: str, before: Sequence[str]) -> Iterator[str]:
    """Settings of `bench eval` and of its probes."""
    known = index()
    choices: dict[str, list[str]] = known["eval"]
    choices |= {f"{probe}.{key}": names for probe, own in known["probes"].items() for key, names in own.items()}
    key, given, _ = word.partition("=")
    return values(word, choices.get(key, []), several=key == "probe") if given else keys(word, choices)


def speed_settings(word: str, before: Sequence[str]) -> Iterator[str]:
    """The settings that `bench speed` has beside those of a run."""
    choices: dict[str, list[str]] = index()["speed"]
    key, given, value = word.partition("=")
    if not given:
        return keys(word, choices)
    names = choices.get(key, [])
    return values(word, [name for name in names if name not in ("all", "none")] if "," in value else names)


def keys(word: str, names: Iterable[str]) -> Iterator[str]:
    """The keys that begin with `word`, as far as the next dot: `trainer.` first, then what is in it."""
    ahead = [f"{name}=" for name in names if name.startswith(word)]
    yield from sorted({key[: key.find(".", len(word)) + 1] or key for key in ahead})


def values(word: str, names: Iterable[str], several: bool = True) -> Iterator[str]:
    """What could follow `key=`.

    Args:
        word: key and value so far.
        names: that the key can be set to.
        several: also within a list or a sweep.
    """
    key, _, value = word.partition("=")
    # Up to the last comma or bracket it stands already.
    given = value[: max(value.rfind(","), value.rfind("[")) + 1] if several else ""
    taken = given.strip("[").split(",")
    end = "" if given.startswith("[") else " "
    for name in names:
        if name.startswith(value[len(given) :]) and name not in taken:
            yield f"{key}={given}{name}{end}"


def settings(known: dict[str, Any], before: Sequence[str]) -> dict[str, list[str]]:
    """All keys below the groups and their choices, given what the line has chosen so far."""
    chosen = dict(part.split("=", 1) for part in before if "=" in part)
    choices: dict[str, list[str]] = dict(known["settings"])
    for model in chosen.get("model", known["model"]).split(","):
        choices |= {f"model.{key}": names for key, names in known["models"].get(model, {}).items()}
    for reg in chosen["reg"].strip("[]").split(",") if "reg" in chosen else known["regs"]:
        choices |= {f"reg.{reg}.{key}": names for key, names in known["regs"].get(reg, {}).items()}
    return choices


def index() -> dict[str, Any]:
    """Every group, option and setting; from the cache, if nothing has changed since."""
    package = Path(__file__).resolve().parents[1]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snn-bench"
    path = cache / f"completion-{hashlib.sha256(str(package).encode()).hexdigest()[:8]}.json"
    now = fingerprint(package)
    try:
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == now:
            return stored
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: it is built anew
    built = {"fingerprint": now, **build()}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_text(json.dumps(built))
        part.replace(path)
    except OSError:
        pass  # completion works without a cache, only slowly
    return built


def fingerprint(package: Path) -> str:
    """Changes when a file of the suite or a plugin does, or a package is installed."""
    named = named_plugins()
    files = [*package.rglob("*.py"), *package.glob("_configs/**/*"), *package.parent.glob("configs/**/*")]
    files += [Path(sysconfig.get_path("purelib")), *(Path(name) for name in named if name.endswith(".py"))]
    stamps = [f"{path} {path.stat().st_mtime_ns}" for path in sorted(files) if path.exists()]
    return hashlib.sha256("\n".join([*named, *stamps]).encode()).hexdigest()


def build() -> dict[str, Any]:
    """The index, from the schema."""
    import dataclasses
    from enum import Enum
    from typing import get_type_hints

    import yaml

    from bench.config import component, options, schema
    from bench.probes.evaluate import EvalConfig
    from bench.registry import MODELS, PROBES, REGULARIZERS, Registry
    from bench.speed import settings as speed

    def choices(kind: Any) -> list[str]:
        for part in getattr(kind, "__args__", (kind,)):
            if isinstance(part, type) and issubclass(part, Enum):
                return [member.name for member in part]
            if part is bool:
                return ["true", "false"]
        return []

    def fields(cls: type) -> Iterator[tuple[str, list[str]]]:
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kind = hints[field.name]
            if dataclasses.is_dataclass(kind) and kind is not component.Component:
                yield from ((f"{field.name}.{key}", names) for key, names in fields(kind))  # type: ignore[arg-type]
            elif field.name != "_target_":
                yield field.name, choices(kind)

    def arguments(registry: Registry) -> dict[str, dict[str, list[str]]]:
        return {name: dict(fields(component.schema(registry, name))) for name in registry.names()}

    options.register_configs()
    groups = {group: options.options(group) for group in options.groups()}
    defaults = yaml.safe_load((options.config_dir() / "config.yaml").read_text())["defaults"]
    own = sorted(speed.own_names())
    return {
        "groups": groups,
        "settings": {key: names for key, names in fields(schema.Config) if key not in groups},
        "model": next(line["model"] for line in defaults if "model" in line),
        "models": arguments(MODELS),
        "regs": arguments(REGULARIZERS),
        "probes": arguments(PROBES),
        "eval": {**dict(fields(EvalConfig)), "probe": PROBES.names()},
        "speed": {**{key: [] for key in own}, "peers": ["all", "none", *speed.PEERS]},
    }
