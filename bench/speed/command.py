"""`python -m bench speed`: its settings, its rounds of one process per arm, and what comes of them."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench import files
from bench.config.component import component_name, settings
from bench.config.compose import compose
from bench.config.options import groups
from bench.config.schema import Config
from bench.console import say
from bench.errors import BenchError, EnvironmentFault, nearest
from bench.ranges import Numbers
from bench.records import provenance
from bench.registry import MODELS
from bench.speed.measure import floor_images_per_s
from bench.speed.peers import NETWORKS, PEERS

PARITY = 1e-9
# What a run's configuration starts from here; the command line wins.
DEFAULTS = {"budget": "paper", "model": "cnn", "data": "cifar10", "logger": "none"}


@dataclass(frozen=True)
class Settings:
    """What `bench speed` is asked for.

    Attributes:
        overrides: of the run's configuration.
        batch_size: images in a step.
        peers: arms beside ours.
        rounds: how often each arm is measured.
        seconds: how long one measurement takes, about, warm-up left out.
    """

    overrides: tuple[str, ...]
    batch_size: int = 50
    peers: tuple[str, ...] = tuple(PEERS)
    rounds: int = 7
    seconds: float = 3.0


def parse(arguments: Sequence[str]) -> Settings:
    """Sort what is ours from what is the run's.

    Raises:
        BenchError: a key, a peer or a number that there is not.
    """
    own: dict[str, Any] = {}
    overrides: dict[str, str] = {}
    names = {field.name for field in dataclasses.fields(Settings)} - {"overrides"}
    known = names | {field.name for field in dataclasses.fields(Config)} | set(groups())
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign:
            raise BenchError(f"cannot read '{argument}': write key=value, as in model=sew")
        if key in names:
            own[key] = peers_of(value) if key == "peers" else number(key, value)
        elif key.isidentifier() and key not in known:
            raise BenchError(f"no setting is called '{key}'. {nearest(key, known)}")
        else:
            overrides[key] = argument
    chosen = {key: f"{key}={value}" for key, value in DEFAULTS.items()} | overrides
    return Settings(tuple(chosen.values()), **own)


def peers_of(text: str) -> tuple[str, ...]:
    """`all`, `none` or names separated by commas."""
    if text in ("all", "none"):
        return tuple(PEERS) if text == "all" else ()
    chosen = [name for name in text.strip("[]").split(",") if name]
    for name in chosen:
        if name not in PEERS:
            raise BenchError(f"no peer is called '{name}'. {nearest(name, ['all', 'none', *PEERS])}")
    return tuple(dict.fromkeys(chosen))


def number(key: str, text: str) -> float | int:
    """A positive number; a whole one for all but `seconds`."""
    try:
        value = float(text) if key == "seconds" else int(text)
    except ValueError:
        raise BenchError(f"{key} is '{text}', it must be a{'' if key == 'seconds' else ' whole'} number") from None
    Numbers().at_least(0 if key == "seconds" else 1, **{key: value})
    return value


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job of `bench.speed.worker` in a process of its own.

    Raises:
        BenchError: what the worker found wrong with the input.
        EnvironmentFault: it died.
    """
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "bench.speed.worker", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    what = job.get("arm", job["job"])
    if done.returncode:
        why = done.stderr.strip().splitlines()
        killed = f"killed by signal {-done.returncode}, perhaps for want of memory"
        raise EnvironmentFault(f"measuring {what} failed: {killed if done.returncode < 0 else why[-1] if why else '?'}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:
        raise EnvironmentFault(found["error"]) if found["code"] == EnvironmentFault.code else BenchError(found["error"])
    return found


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
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    job = {"overrides": overrides, "seconds": asked.seconds}
    about = work({**job, "job": "overview", "peers": peers})
    check_parity(about["parity_max_abs"])
    if about["data_copy"] == "random":
        notes.append(f"{cfg.data.name} is not on disk: random images of its shape")
        say(notes[-1])
    if list(cfg.reg) != ["none"]:
        notes.append(f"our arm trains with reg={'+'.join(cfg.reg)}, its peers with none")
    if busy > 0.5 * (os.cpu_count() or 1):
        notes.append(f"load average {busy:.1f} at the start: something else may have slowed some arms")
        say(notes[-1])
    say(f"{about['hardware']}: {asked.rounds} rounds of {', '.join(['bench', *peers])}")
    rounds: list[dict[str, dict[str, Any]]] = []
    tops = []
    for turn in range(1, asked.rounds + 1):
        tops.append(work({**job, "job": "ceilings"}))
        found = {}
        for name in ["bench", *(peer for peer in peers if peer not in lost(rounds))]:
            found[name] = work({**job, "job": "arm", "arm": name})
            say(f"round {turn}/{asked.rounds}  {name:<20}{told(name, found[name], asked.batch_size)}")
        rounds.append(found)
    notes += [line for name in ["bench", *peers] for line in noted(name, rounds, asked.batch_size)]
    return summary(cfg, asked, about, tops, rounds, notes)


def check_parity(found: dict[str, float]) -> None:
    """A peer that computes something else would make every ratio meaningless.

    Raises:
        EnvironmentFault: the logits of one that must be ours are not.
    """
    for name, distance in found.items():
        if PEERS[name].same and not distance <= PARITY:
            raise EnvironmentFault(
                f"the logits of {name} differ from ours by {distance:.1e} in float64, more than {PARITY:g}: "
                "the networks are not the same, nothing was measured"
            )


def lost(rounds: list[dict[str, dict[str, Any]]]) -> set[str]:
    """Arms that ran out of memory: once is enough."""
    return {name for found in rounds for name, result in found.items() if "oom" in result}


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


def noted(name: str, rounds: list[dict[str, dict[str, Any]]], batch: int) -> list[str]:
    """What an arm's rounds said, each line once."""
    lines: dict[str, None] = {}
    for found in rounds:
        for line in found.get(name, {}).get("notes", []):
            lines[f"{name}: {line}"] = None
        if "oom" in found.get(name, {}):
            lines[f"{name}: {told(name, found[name], batch)}"] = None
    return list(lines)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(
    cfg: DictConfig,
    asked: Settings,
    about: dict[str, Any],
    tops: list[dict[str, float]],
    rounds: list[dict[str, dict[str, Any]]],
    notes: list[str],
) -> dict[str, Any]:
    """Medians over the rounds, as the JSON file holds them.

    Args:
        cfg: the run's configuration.
        asked: the settings.
        about: the worker's overview.
        tops: the machine's ceilings, by round.
        rounds: by round and arm, what the worker measured.
        notes: lines for the reader.
    """
    ceiling = {key: statistics.median(top[key] for top in tops) for key in tops[0]}
    floor = floor_images_per_s(about["flops_per_image"], about["bytes_per_image"], ceiling)
    arms = []
    out_of_memory = lost(rounds)
    for name in [name for name in rounds[0] if name not in out_of_memory]:
        for mode in ("resident", "epoch"):
            seen = [found[name][mode] for found in rounds if mode in found.get(name, {})]
            if not seen:
                continue
            images = spread([one["images_per_s"] for one in seen])
            row = {
                "name": name,
                "mode": mode,
                "batch_size": asked.batch_size,
                "images_per_s": images,
                "peak_memory_bytes": max(one["peak_memory_bytes"] for one in seen),
                "share_of_floor": images["median"] / floor["overlapped"],
                "rounds": [one["images_per_s"] for one in seen],
            }
            if mode == "resident":
                row |= {
                    "step_memory_bytes": max(one["step_memory_bytes"] for one in seen),
                    "saved_bytes_for_backward": seen[0]["saved_bytes_for_backward"],
                    "saved_bytes_at_our_precision": seen[0].get("saved_bytes_at_our_precision"),
                    # The largest: later rounds find what the first one compiled.
                    "compile_s": max(one["compile_s"] for one in seen),
                    "first_step_s": max(one["first_step_s"] for one in seen),
                }
            else:
                row |= {"epoch_images": seen[0]["epoch_images"], "epochs": seen[0]["epochs"]}
            arms.append(row)
    by = {(row["name"], row["mode"]): row for row in arms}
    ours = by["bench", "resident"]
    ratios, each = {}, {}
    for name in [name for name, mode in by if mode == "resident" and name != "bench"]:
        ratios[name] = ours["images_per_s"]["median"] / by[name, "resident"]["images_per_s"]["median"]
        each[name] = spread([a / b for a, b in zip(ours["rounds"], by[name, "resident"]["rounds"], strict=True)])
    ratios["epoch_over_resident"] = by["bench", "epoch"]["images_per_s"]["median"] / ours["images_per_s"]["median"]
    commit, dirty = provenance.commit()
    versions = provenance.versions()
    for name in {PEERS[name].package for name in ratios if name in PEERS}:
        versions[name] = metadata.version(name)
    arguments: Any = OmegaConf.to_container(cfg.model, resolve=True, enum_to_str=True)
    return {
        "env": {
            "date": provenance.now(),
            "hardware": about["hardware"],
            "device": about["device"],
            "threads": about["threads"],
            "versions": versions,
            "commit": commit,
            "dirty": dirty,
            "rounds": asked.rounds,
            "seconds": asked.seconds,
            "model": component_name(MODELS, cfg.model),
            "model_args": {key: value for key, value in arguments.items() if key != "_target_"},
            "params": about["params"],
            "data": cfg.data.name,
            "data_copy": about["data_copy"],
            "batch_size": asked.batch_size,
            "time_steps": cfg.time_steps,
            "neuron": cfg.neuron.name,
            "reg": "+".join(cfg.reg),
            "precision": about["precision"],
            "ops": about["ops"],
            "flops_per_image": about["flops_per_image"],
            "bytes_per_image": about["bytes_per_image"],
            "ceilings": ceiling,
            "floor_images_per_s": floor,
            "parity_max_abs": about["parity_max_abs"],
            "differs": {name: PEERS[name].differs for name in ratios if name in PEERS},
            "notes": notes,
        },
        "arms": arms,
        "ratios": ratios,
        "ratios_per_round": each,
    }


def main(arguments: Sequence[str], json_file: Path | None, out: Path | None) -> None:
    """Measure, print the table, write the files that were asked for.

    Args:
        arguments: `key=value` each.
        json_file: where the JSON goes; the chart goes beside it.
        out: a folder for both, under a name that says what was measured.
    """
    from bench.console import console
    from bench.speed.show import chart, page, table, text

    asked = parse(arguments)
    for path in filter(None, (json_file, out and out / "x")):
        # Now rather than after minutes of measuring.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{path.parent} cannot be made: {error.strerror}") from error
    found = speed(asked)
    console().print(table(found))
    for line in text(found):
        say(line)
    env = found["env"]
    paths = [json_file] if json_file else []
    if out:
        paths.append(out / f"{env['model']}-{env['data']}-b{env['batch_size']}-{env['device']}.json")
    for path in paths:
        files.write_atomic(path, json.dumps(found, indent=1) + "\n")
        say(f"wrote {path} and {chart(found, path.with_suffix('.png')) or 'no chart: matplotlib is not installed'}")
    if out:
        files.write_atomic(out / "README.md", page(out))
        say(f"wrote {out / 'README.md'}, all that was measured into {out}")
