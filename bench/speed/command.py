"""`bench speed`: its rounds, a process per arm, and the table, files and chart that come of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bench import files
from bench.config.component import component_name, settings
from bench.config.compose import compose
from bench.console import console, say
from bench.errors import BenchError, EnvironmentFault
from bench.registry import MODELS
from bench.speed import methods, start
from bench.speed.crew import checked, environment, why_died
from bench.speed.peers import NETWORKS, PEERS, check_parity
from bench.speed.settings import Settings, number, parse
from bench.speed.summary import Results, busy_notes, data_notes, lost, summarize


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job of `bench.speed.worker` in a process of its own.

    Raises:
        BenchError: what the worker found wrong with the input.
        EnvironmentFault: it died.
    """
    command = [sys.executable, "-m", "bench.speed.worker", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        why = why_died(done.returncode, done.stderr)
        raise EnvironmentFault(f"measuring {job.get('arm', job['job'])} failed: {why}")
    return checked(json.loads(done.stdout.splitlines()[-1]))


def able(asked: Settings, cfg: DictConfig) -> tuple[list[str], list[str]]:
    """The peers that can take part, and a line for each that cannot."""
    model, neuron = component_name(MODELS, cfg.model), settings(cfg.neuron)
    fit, out = [], []
    for name in asked.peers:
        peer = PEERS[name]
        if model not in NETWORKS:
            out.append(f"{name} is left out: it has no {model}; peers have {', '.join(sorted(NETWORKS))}")
        elif not peer.installed:
            out.append(f"{name} is left out: {peer.package} is not installed; pip install 'snn-bench[speed]' brings it")
        elif not peer.expresses(neuron):
            out.append(f"{name} is left out: it cannot express neuron={neuron.name} with these settings")
        else:
            fit.append(name)
    return fit, out


def speed(asked: Settings) -> dict[str, Any]:
    """Measure all arms, round by round.

    Returns:
        env, arms and ratios, as the JSON file holds them.

    Raises:
        BenchError: bad input.
        EnvironmentFault: a worker died, a peer's network is not ours, or the GPU is too small for the batch.
    """
    overrides = [*asked.overrides, f"trainer.batch_size={asked.batch_size}", "trainer.epochs=1"]
    cfg = compose(overrides)
    name = component_name(MODELS, cfg.model)
    if MODELS.get(name).learning != "gradient":
        raise BenchError(f"model={name} learns without gradients: `bench run` says how many images/s it takes")
    peers, notes = able(asked, cfg)
    for line in notes:
        say(line)
    # Before this process' own work adds to it.
    busy = busy_notes()
    job = {"overrides": overrides, "seconds": asked.seconds, "steps": asked.steps}
    overview = work({**job, "job": "overview", "peers": peers})
    check_parity(overview["parity_max_abs"])
    found = [*data_notes(cfg, overview), *busy]
    for line in found:
        say(line)
    notes += found
    say(f"{overview['hardware']}: {asked.rounds} rounds of {', '.join(['bench', *peers])}")
    rounds: list[Results] = []
    tops = []
    for turn in range(1, asked.rounds + 1):
        tops.append(work({**job, "job": "ceilings"}))
        results: Results = {}
        for name in ["bench", *(peer for peer in peers if peer not in lost(rounds))]:
            results[name] = work({**job, "job": "arm", "arm": name})
            say(f"round {turn}/{asked.rounds}  {name:<20}{told(name, results[name], asked.batch_size)}")
        rounds.append(results)
    notes += [line for name in ["bench", *peers] for line in noted(name, rounds, asked.batch_size)]
    return summarize(cfg, asked, overview, tops, rounds, notes)


def told(name: str, result: dict[str, Any], batch: int) -> str:
    """A measurement for the progress line.

    Raises:
        EnvironmentFault: our own arm does not fit.
    """
    if "oom" in result:
        fits = f"batch_size={result['oom']} would fit" if result["oom"] else "not even one image fits"
        text = f"out of GPU memory at batch_size={batch}; {fits}"
        if name == "bench":
            raise EnvironmentFault(text)
        return text
    parts = [f"{mode} {result[mode]['images_per_s']:,.1f} img/s" for mode in ("resident", "epoch") if mode in result]
    return "  ".join(parts)


def noted(name: str, rounds: Sequence[Results], batch: int) -> list[str]:
    """What an arm's rounds said, each line once."""
    lines: dict[str, None] = {}
    for results in rounds:
        for line in results.get(name, {}).get("notes", []):
            lines[f"{name}: {line}"] = None
        if "oom" in results.get(name, {}):
            lines[f"{name}: {told(name, results[name], batch)}"] = None
    return list(lines)


def begin(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure what was asked for.

    Args:
        arguments: `key=value` each; `startup` first, for the start of a run.

    Raises:
        BenchError: a mistaken setting.
    """
    if arguments and arguments[0] == start.WORD:
        own = [word for word in arguments[1:] if word.startswith("rounds=")]
        rounds = number("rounds", own[-1].partition("=")[2]) if own else Settings.rounds
        return start.measure([word for word in arguments[1:] if word not in own], int(rounds))
    asked = parse(arguments)
    return methods.compare(asked) if asked.methods else speed(asked)


def main(arguments: Sequence[str], json_file: Path | None, out: Path | None) -> None:
    """Measure, print the tables, write the files that were asked for.

    Args:
        arguments: see `begin`.
        json_file: where the JSON goes; the chart goes beside it.
        out: a folder for both, under a name that says what was measured.
    """
    # Imported here: completion asks for the settings alone, and Rich takes long.
    from bench.speed import pages

    if not arguments or arguments[0] != start.WORD:
        parse(arguments)  # a mistake leaves no folder behind
    for path in filter(None, (json_file, out and out / "x")):
        # Now rather than after minutes of measuring.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{path.parent} cannot be made: {error.strerror}") from error
    measured = begin(arguments)
    for table in pages.tables(measured):
        console().print(table)
    for line in pages.text(measured):
        say(line)
    paths = [json_file] if json_file else []
    if out:
        paths.append(out / pages.name(measured))
    for path in paths:
        files.write_atomic(path, json.dumps(measured, indent=1) + "\n")
        drawn = pages.chart(measured, path.with_suffix(".png"))
        say(f"wrote {path} and {drawn or 'no chart'}")
    if out:
        files.write_atomic(out / "README.md", pages.page(out))
        say(f"wrote {out / 'README.md'}, all that was measured into {out}")


def redraw(folder: Path) -> None:
    """Write a folder's page and charts anew, from the JSON files in it.

    Raises:
        BenchError: there are none.
    """
    from bench.speed import pages

    found = pages.measurements(folder)
    if not found:
        raise BenchError(f"{folder} holds no measurement: `bench speed ... --out {folder}` writes one there")
    for path, measured in found.items():
        pages.chart(measured, path.with_suffix(".png"))
    files.write_atomic(folder / "README.md", pages.page(folder))
    say(f"wrote {folder / 'README.md'} and the charts of {len(found)} measurements")
