"""Shell completion: the scripts, and what could stand at the end of a command line.

Nothing slow is imported to answer: the names are read from a small index in the user's cache, which is
built anew (in seconds) when a file of the suite or a plugin has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BASH = r"""# eval "$(bench completion bash)"
_bench() {
    local line=${COMP_LINE:0:COMP_POINT} word candidate
    word=${line##*[[:space:]]}
    COMPREPLY=()
    while IFS= read -r candidate; do
        # Readline replaces only what follows the last '=' of a word.
        [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && candidate=${candidate#"${word%=*}="}
        COMPREPLY+=("$candidate")
    done < <("${COMP_WORDS[0]}" completion --query "$line" 2>/dev/null)
}
complete -o nospace -F _bench bench
"""

ZSH = r"""#compdef bench
# eval "$(bench completion zsh)", after compinit. Behind an open bracket zsh completes quoted words only:
# 'reg=[spik<TAB>
_bench() {
    local -a candidates
    candidates=("${(@f)$(${words[1]} completion --query "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    compadd -Q -S '' -- ${candidates:#}
}
# reg=[a,b] is no pattern.
alias bench='noglob bench'
compdef _bench bench
"""

FISH = r"""# bench completion fish | source
complete -c bench -f -a '(bench completion --query (commandline -cp) 2>/dev/null | string trim --right)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

FLAGS = ["-m", "--multirun", "-c", "--cfg", "-p", "--package", "--resolve", "--info", "--help", "--hydra-help"]


def complete(line: str, commands: Iterable[str]) -> list[str]:
    """The words that could stand at the end of `line`; one that is complete ends in a space.

    Args:
        line: the command line up to the cursor, the program's name included.
        commands: of the program.
    """
    *before, word = line.split(" ") if line else ["", ""]
    before = [part for part in before if part][1:]
    if not before:
        return starting(word, commands)
    command, *rest = before
    if command == "run":
        return [*of_run(word, rest)]
    if command == "list":
        return starting(word, ["models", "regs", "data", "experiments", "probes", "--json", "--markdown", "--into"])
    if command == "data":
        names = index()["groups"]["data"] if "prepare" in rest else ["status", "prepare", "--json", "--root"]
        return starting(word, [name for name in names if name not in rest])
    if command == "reproduce":
        if "=" in word or word.startswith("-"):
            return [*of_run(word, rest)]
        return [*starting(word, index()["groups"]["experiment"]), *of_run(word, rest)]
    if command == "report":
        if "=" in word:
            return [*of_run(word, rest)]
        flags = ["--check", "--runs", "--out", "--dirty"]
        return starting(word, flags if word.startswith("-") else index()["groups"]["experiment"])
    if command == "submit":
        return starting(word, [*runs(), "--all", "--into", "--runs"])
    if command == "sync":
        return starting(word, [*runs(), "--runs"])
    if command == "speed":
        return [*of_speed(word, rest)]
    if command == "eval":
        return of_eval(word)
    return starting(word, SCRIPTS) if command == "completion" and not rest else []


def starting(word: str, candidates: Iterable[str]) -> list[str]:
    """Those that begin with `word`, complete."""
    return [f"{candidate} " for candidate in candidates if candidate.startswith(word)]


def runs() -> list[str]:
    """The finished runs in the usual folder."""
    return sorted(path.parent.name for path in Path(os.environ.get("BENCH_RUNS") or "runs").glob("*/result.json"))


def of_run(word: str, before: list[str]) -> Iterator[str]:
    """Overrides and flags of `bench run`."""
    if before and before[-1] in ("-c", "--cfg"):
        yield from starting(word, ["job", "hydra", "all"])
    elif word.startswith("-"):
        yield from starting(word, FLAGS)
    elif "=" in word:
        yield from values(word, before)
    else:
        known = index()
        keys = {f"{name}=" for name in known["groups"]} | {f"{name}=" for name in settings(known, before)}
        # As far as the next dot: `trainer.` first, then what is in it.
        found = {key[: key.find(".", len(word)) + 1] or key for key in keys if key.startswith(word)}
        yield from sorted(found)


def of_eval(word: str) -> list[str]:
    """Runs, flags, and the settings of `bench eval` and its probes."""
    known = index()["probes"]
    key, there, value = word.partition("=")
    if not there:
        keys = ["probe", *(f"{probe}.{name}" for probe in known for name in known[probe])]
        return [*starting(word, [*runs(), "--all", "--runs"]), *(f"{k}=" for k in keys if k.startswith(word))]
    *chosen, last = value.split(",")
    if key == "probe":
        return [f"{word.removesuffix(last)}{name} " for name in known if name.startswith(last) and name not in chosen]
    probe, _, name = key.partition(".")
    return [f"{key}={choice} " for choice in known.get(probe, {}).get(name, []) if choice.startswith(value)]


SPEED = {
    "batch_size": [],
    "peers": ["all", "none", "spikingjelly_eager", "spikingjelly_best", "snntorch", "norse"],
    "rounds": [],
    "seconds": [],
}


def of_speed(word: str, before: list[str]) -> Iterator[str]:
    """Settings of `bench speed`: its own, and those of a run."""
    key, sign, value = word.partition("=")
    if word.startswith("-"):
        yield from starting(word, ["--json", "--out", "--help"])
    elif sign and key in SPEED:
        given, comma, _ = value.rpartition(",")
        taken = {*given.split(","), *(["all", "none"] if comma else [])}
        names = [name for name in SPEED[key] if name not in taken]
        yield from starting(word, [f"{key}={given}{comma}{name}" for name in names])
    else:
        if not sign:
            yield from (f"{own}=" for own in SPEED if own.startswith(word))
        yield from of_run(word, before)


def values(word: str, before: list[str]) -> Iterator[str]:
    """What could follow `key=`, also within a list or a sweep."""
    known = index()
    key, _, value = word.partition("=")
    names = known["groups"].get(key) or settings(known, before).get(key, [])
    # Up to the last comma or bracket it stands already.
    given = value[: max(value.rfind(","), value.rfind("[")) + 1]
    taken = given.strip("[").split(",")
    end = "" if given.startswith("[") else " "
    for name in names:
        if name.startswith(value[len(given) :]) and name not in taken:
            yield f"{key}={given}{name}{end}"


def settings(known: dict[str, Any], before: list[str]) -> dict[str, list[str]]:
    """All keys below the groups and their choices, given what the line has chosen so far."""
    chosen = dict(part.split("=", 1) for part in before if "=" in part)
    found: dict[str, list[str]] = dict(known["settings"])
    for model in chosen.get("model", known["model"]).split(","):
        found |= {f"model.{key}": choices for key, choices in known["models"].get(model, {}).items()}
    for reg in chosen["reg"].strip("[]").split(",") if "reg" in chosen else known["regs"]:
        found |= {f"reg.{reg}.{key}": choices for key, choices in known["regs"].get(reg, {}).items()}
    return found


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
    plugins = os.environ.get("BENCH_PLUGINS", "")
    files = [*package.rglob("*.py"), *package.glob("_configs/**/*"), *package.parent.glob("configs/**/*")]
    files += [Path(sysconfig.get_path("purelib")), *(Path(name) for name in plugins.split(",") if name.endswith(".py"))]
    stamps = [f"{path} {path.stat().st_mtime_ns}" for path in sorted(files) if path.exists()]
    return hashlib.sha256("\n".join([plugins, *stamps]).encode()).hexdigest()


def build() -> dict[str, Any]:
    """The index, from the schema."""
    import dataclasses
    from enum import Enum
    from typing import get_type_hints

    import yaml

    from bench.config import component, options, schema
    from bench.registry import MODELS, PROBES, REGULARIZERS, Registry

    def choices(kind: Any) -> list[str]:
        for part in getattr(kind, "__args__", (kind,)):
            if isinstance(part, type) and issubclass(part, Enum):
                return [member.name for member in part]
            if part is bool:
                return ["true", "false"]
        return []

    def keys(cls: type) -> Iterator[tuple[str, list[str]]]:
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kind = hints[field.name]
            if dataclasses.is_dataclass(kind) and kind is not component.Component:
                yield from ((f"{field.name}.{key}", found) for key, found in keys(kind))  # type: ignore[arg-type]
            elif field.name != "_target_":
                yield field.name, choices(kind)

    def arguments(registry: Registry) -> dict[str, dict[str, list[str]]]:
        return {name: dict(keys(component.schema(registry, name))) for name in registry.names()}

    options.register_configs()
    groups = {group: options.options(group) for group in options.groups()}
    defaults = yaml.safe_load((options.config_dir() / "config.yaml").read_text())["defaults"]
    return {
        "groups": groups,
        "settings": {key: found for key, found in keys(schema.Config) if key not in groups},
        "model": next(line["model"] for line in defaults if "model" in line),
        "models": arguments(MODELS),
        "regs": arguments(REGULARIZERS),
        "probes": arguments(PROBES),
    }
