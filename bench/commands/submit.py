"""`bench submit`: finished runs, checked, as records that others can use."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.commands.parsing import Parser, add_runs, folders
from bench.commands.words import runs
from bench.errors import BenchError, EnvironmentFault
from bench.files import read_json, whole, write_atomic
from bench.records import probe, provenance
from bench.records.folder import CARD, REPLICATES, WEIGHTS
from bench.records.schema import validate
from bench.records.versions import current

LARGEST = 4 * 2**20
"""Bytes of weights that go into the repository."""

FILES = ("result.json", "metrics.jsonl", "config.yaml", "env.json")

# Settings that say where things lie on a machine, and nothing about the run.
PLACES = (("runs",), ("data", "root"), ("data", "path"))

# An absolute path, wherever in a text: /a, ~/a, C:\a; but no https://a and no a/b.
PATH = re.compile(r"(?:^|[\s\"'=(\[{,;:])((?:/|~/|[A-Za-z]:\\)[\w.][^\s\"']*)")


def parser() -> Parser:
    """The command line."""
    parser = Parser("submit")
    parser.add_words("RUN", "run ids, folders of runs, or studies of `bench tune`", runs)
    parser.add_argument("--all", action="store_true", help="all finished runs")
    add_runs(parser)
    parser.add_argument("--weights", action="store_true", help="with the trained networks, where they are at most 4 MB")
    parser.add_argument("--into", type=Path, default=Path("reports/records"), metavar="DIR", help="[%(default)s]")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Copy records to where the reports find them.

    Raises:
        BenchError: no runs are named, or some were refused.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.console import say

    submit(folders(options.words, options.all, options.runs), options.into, say, options.weights)


def submit(paths: Sequence[Path], records: Path, say: Callable[[str], None], weights: bool = False) -> None:
    """Copy records that others can trust, without what tells of this machine's folders.

    Args:
        paths: run folders.
        records: where to, `reports/records`.
        say: takes a line for each copied record.
        weights: bring trained networks along, of runs that are named themselves.

    Raises:
        BenchError: some were refused; a line each. The others are copied.
    """
    # Imported here, so that completion is quick.
    from bench import studies

    refused = []
    for path in paths:
        try:
            if (path / studies.FILE).exists():
                submit_study(path, records, say)
                continue
            texts = prepared(path)
            say(f"{path.name}: {put(texts, records / path.name)}")
            if weights:
                say(f"{path.name}: {bring_weights(path, texts, records / path.name)}")
        except BenchError as error:
            refused.append(f"  {path.name}: {error}")
    if refused:
        raise BenchError("\n".join([f"{len(refused)} of {len(paths)} records refused", *refused]))


def bring_weights(path: Path, texts: dict[str, str], target: Path) -> str:
    """Copy a run's trained network beside its record.

    Args:
        path: of the run's folder.
        texts: of `prepared`.
        target: the record's folder; or the run is a replicate in it.

    Returns:
        What became of it, for people.

    Raises:
        BenchError: the weights say a path of this machine.
        EnvironmentFault: the folder cannot be written.
    """
    from bench.weights.store import read_weights

    source = path / WEIGHTS
    if not source.is_file():
        return "it has no weights to go along"
    if (size := source.stat().st_size) > LARGEST:
        return f"its weights of {size / 2**20:.1f} MB stay here: at most {LARGEST // 2**20} MB go along"
    for where, text in strings(read_weights(source)[0]):
        if found := PATH.search(text):
            raise BenchError(f"{WEIGHTS}: {where} holds a path of this machine, '{found[1]}'")
    places = [target, *sorted((target / REPLICATES).glob("*"))]
    own = next(place for place in places if (place / FILES[0]).read_text() == texts[FILES[0]])
    for name in (WEIGHTS, CARD):
        if (path / name).is_file():
            with whole(own / name) as part:
                shutil.copyfile(path / name, part)
    return f"weights of {size / 2**20:.2f} MB beside it"


def submit_study(folder: Path, records: Path, say: Callable[[str], None]) -> None:
    """Copy a study: its final runs as whole records, its trials as a line each.

    Args:
        folder: of the study, in the folder `studies` of its runs.
        records: where records go; the study goes beside it, into `studies`.
        say: takes a line for each thing copied.

    Raises:
        BenchError: it is not complete, does not follow from its runs, or one of these could not be submitted itself.
    """
    from bench import experiments, studies

    study, runs = studies.read(folder), folder.resolve().parents[1]
    if study.design.experiment not in experiments.names():
        raise BenchError(
            f"its workload is one of your own '{study.design.experiment}': put that file into configs/experiment/, so "
            "that others can run it"
        )
    trials = studies.trials_of(study.design, runs)
    lacking = [trial for trial in trials if trial.status == "missing"]
    if lacking:
        raise BenchError(f"{len(lacking)} of its {len(trials)} trials have not run; `bench tune` goes on with them")
    choices = {name: trials[choice["trial"]] for name, choice in study.facts["choices"].items()}
    best = studies.best(trials)
    follows = tuple(trials) == study.trials and study.facts == studies.facts_of(study.design, choices, runs)
    if not follows or choices.get(studies.ACCURATE, best) != best:
        raise BenchError("it does not follow from its runs; `bench tune` writes it anew")
    finals = list(dict.fromkeys(run for choice in study.facts["choices"].values() for run in choice["runs"]))
    ready = {}
    for run in [*(trial.run for trial in trials), *finals]:
        try:
            ready[run] = prepared(runs / run)
        except BenchError as error:
            raise BenchError(f"its run {run}: {error}") from error
    for where, text in strings(study.facts):
        if found := PATH.search(text):
            raise BenchError(f"{studies.FILE}: {where} holds a path of this machine, '{found[1]}'")
    for run in finals:
        say(f"{run}: {put(ready[run], records / run)}")
    target = records.parent / studies.FOLDER / folder.resolve().name
    studies.write(target, study.facts, trials)
    say(f"{target.name}: {len(trials)} trials and {len(finals)} final runs copied to {target}")


def prepared(path: Path) -> dict[str, str]:
    """The checked content of a record's files, ready to be copied.

    Raises:
        BenchError: the record cannot stand beside others; says why.
    """
    # Imported here, so that completion is quick.
    import yaml

    for name in FILES:
        if not (path / name).is_file():
            raise BenchError(
                "it is not finished: there is no result.json" if name == FILES[0] else f"{name} is missing"
            )
    result, env = read_json(path / "result.json"), read_json(path / "env.json")
    validate(result)
    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    except (yaml.YAMLError, ValueError) as error:
        raise BenchError(f"config.yaml or metrics.jsonl is damaged ({str(error).splitlines()[0]})") from error
    check(path.name, result, env, config, rows)
    for *parents, key in PLACES:
        node = config
        for parent in parents:
            node = node.get(parent, {})
        node.pop(key, None)
    texts = {
        "result.json": json.dumps(result, indent=1) + "\n",
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "config.yaml": yaml.safe_dump(config, sort_keys=False),
        "env.json": json.dumps(env, indent=1) + "\n",
    }
    contents = dict(zip(FILES, (result, rows, config, env), strict=True))
    for file in sorted((path / "probes").glob("*.json")):
        name = f"probes/{file.name}"
        contents[name] = probed(file, result)
        texts[name] = json.dumps(contents[name], indent=1) + "\n"
    for name, content in contents.items():
        for where, text in strings(content):
            if found := PATH.search(text):
                raise BenchError(f"{name}: {where} holds a path of this machine, '{found[1]}'")
    return texts


def probed(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The content of a probe that belongs to the record and that others could repeat.

    Raises:
        BenchError: says why not.
    """
    content = probe.read(file, result)
    again = f"`bench eval {result['run_id']} probe={file.stem} force=true` measures it again"
    if content is None:
        raise BenchError(f"probes/{file.name} was measured on an earlier training of the run; {again}")
    if content.get("commit") is None or content.get("dirty") is not False:
        raise BenchError(f"probes/{file.name} was not measured at a commit without changes; {again}")
    return content


def check(name: str, result: dict[str, Any], env: Any, config: Any, rows: Sequence[Any]) -> None:
    """Refuse a record whose parts do not belong together, or that nobody could repeat.

    Raises:
        BenchError: says why.
    """
    if not isinstance(env, dict) or not isinstance(config, dict):
        raise BenchError("env.json or config.yaml holds no settings")
    if result["run_id"] != name:
        raise BenchError(f"its folder is called {name}, its record {result['run_id']}")
    if result["budget"] == "smoke":
        raise BenchError("budget=smoke only shows that a run works")
    # Not time_steps: the ReLU twin needs one, local learning has its own.
    for key in ("budget", "seed"):
        if config.get(key) != result[key]:
            raise BenchError(f"{key} is {config.get(key)} in config.yaml, {result[key]} in result.json")
    for key in ("torch", "spikingjelly", "snn-bench"):
        if result["versions"].get(key, "none") == "none":
            raise BenchError(f"the version of {key} is not in it")
    if result["commit"] is None:
        raise BenchError("it names no commit: run it from a git checkout")
    if env.get("commit") != result["commit"]:
        raise BenchError("env.json and result.json name different commits")
    if env.get("dirty") is not False:
        why, again = provenance.changes(env, f"the commit {result['commit'][:8]}"), "commit, and run it again"
        homes = {
            "regularizers" if name in result["regs"] else "models" if name == result["model"] else "data/sets"
            for name in provenance.loose_plugins(env)
        }
        move = f"put it into {' and '.join(f'bench/{home}/' for home in sorted(homes))}, " if homes else ""
        raise BenchError(f"{why}: {move}{again}")
    if result["status"] == "finished" and len(rows) != result["epochs"]:
        raise BenchError(f"metrics.jsonl has {len(rows)} epochs of {result['epochs']}")


def strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in some JSON, keys too, with its dotted place."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, str):
        yield where, value
    for key, item in items:
        place = f"{where}.{key}" if where else str(key)
        if isinstance(key, str):
            yield place, key
        yield from strings(item, place)


def put(texts: dict[str, str], target: Path) -> str:
    """Write a record's files, all or none.

    Where another record of the run is, it stays, and this one becomes its replicate, `replicates/<digest>` below it;
    but a record of earlier numerics gives way.

    Returns:
        What became of it, for people.

    Raises:
        BenchError: the same record is there with another measurement of a probe, or what is there is damaged.
        EnvironmentFault: the folder cannot be written.
    """
    if not target.exists():
        return _written(texts, target)
    if (target / FILES[0]).is_file() and (target / FILES[0]).read_text() == texts[FILES[0]]:
        return _joined(texts, target)
    try:
        there = current(read_json(target / FILES[0]))["numerics"]
    except (BenchError, OSError) as error:
        raise BenchError(f"{target} has another record of this run, which is damaged: remove it") from error
    own = json.loads(texts[FILES[0]]).get("numerics")
    if there is not None and own is not None and there < own:
        return f"{_written(texts, target)}, in place of the record by numerics {there}"
    beside = target / REPLICATES / hashlib.sha256(texts[FILES[0]].encode()).hexdigest()[:8]
    if beside.exists():
        return _joined(texts, beside)
    return f"{_written(texts, beside)}: a replicate, as {target} has another record of this run"


def _joined(texts: dict[str, str], target: Path) -> str:
    """Add the probes that a record lacks.

    Raises:
        BenchError: another measurement of a probe is there.
        EnvironmentFault: the folder cannot be written.
    """
    other = [n for n, text in texts.items() if not (target / n).is_file() or (target / n).read_text() != text]
    for name in other:
        if (target / name).exists():
            raise BenchError(f"{target} has another {name}; which of them counts is yours to say: remove it")
    try:
        for name in other:
            (target / name).parent.mkdir(exist_ok=True)
            write_atomic(target / name, texts[name])
    except OSError as error:
        raise EnvironmentFault(f"{target} cannot be written: {error.strerror}") from error
    return f"is there already; {', '.join(other)} joined it" if other else "is there already"


def _written(texts: dict[str, str], target: Path) -> str:
    """Write a record's files into a folder of their own, in place of one that is there once all are written.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, text in texts.items():
            (part / name).parent.mkdir(exist_ok=True)
            write_atomic(part / name, text)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:
        raise EnvironmentFault(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"copied to {target}"
