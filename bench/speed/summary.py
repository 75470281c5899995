"""What the rounds of `bench speed` come to, as its JSON file holds it: medians, ratios, circumstances."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.config.component import component_name
from bench.records import provenance
from bench.records.identity import arguments_of, plugins_of
from bench.registry import MODELS
from bench.speed.measure import roof_images_per_s
from bench.speed.peers import PEERS
from bench.speed.settings import Settings

Results = dict[str, dict[str, Any]]
"""Of one round: what the worker measured, by arm."""


def busy_notes() -> list[str]:
    """What is to be said of a machine that does something else already."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy <= 0.5 * (os.cpu_count() or 1):
        return []
    return [f"load average {busy:.1f} at the start: something else may have slowed some arms"]


def data_notes(cfg: DictConfig, overview: dict[str, Any]) -> list[str]:
    """What is to be said of images that nobody took.

    Args:
        cfg: of the runs.
        overview: the worker's.
    """
    return [f"{cfg.data.name} is not on disk: random images of its shape"] if overview["data_copy"] == "random" else []


def lost(rounds: Sequence[Results]) -> set[str]:
    """Arms that ran out of memory: once is enough."""
    return {name for results in rounds for name, result in results.items() if "oom" in result}


def summarize(
    cfg: DictConfig,
    asked: Settings,
    overview: dict[str, Any],
    tops: Sequence[dict[str, float]],
    rounds: Sequence[Results],
    notes: list[str],
) -> dict[str, Any]:
    """Medians over the rounds, as the JSON file holds them.

    Args:
        cfg: the run's configuration.
        asked: the settings.
        overview: the worker's.
        tops: the machine's ceilings, by round.
        rounds: what was measured.
        notes: lines for the reader.
    """
    ceiling = {key: statistics.median(top[key] for top in tops) for key in tops[0]}
    roof = roof_images_per_s(overview["flops_per_image"], overview["bytes_per_image"], ceiling)
    out_of_memory = lost(rounds)
    arms = []
    for name in [name for name in rounds[0] if name not in out_of_memory]:
        for mode in ("resident", "epoch"):
            measured = [results[name][mode] for results in rounds if mode in results.get(name, {})]
            if measured:
                arms.append(arm_row(name, mode, measured, asked.batch_size, roof["overlapped"]))
    ratios, per_round = ratios_of(arms)
    peers = [name for name in ratios if name in PEERS]
    return {
        "env": {
            **circumstances(cfg, asked, overview, peers),
            "ceilings": ceiling,
            "roof_images_per_s": roof,
            "parity_max_abs": overview["parity_max_abs"],
            "differs": {name: PEERS[name].differs for name in peers},
            "notes": notes,
        },
        "arms": arms,
        "ratios": ratios,
        "ratios_per_round": per_round,
    }


def arm_row(name: str, mode: str, measured: Sequence[dict[str, Any]], batch_size: int, roof: float) -> dict[str, Any]:
    """An arm in one mode.

    Args:
        name: of the arm.
        mode: `resident`, on one batch that stays on the device, or `epoch`, through the Trainer.
        measured: by the worker, by round.
        batch_size: images in a step.
        roof: images per second that the machine's ceilings allow.
    """
    images = spread([one["images_per_s"] for one in measured])
    row = {
        "name": name,
        "mode": mode,
        "batch_size": batch_size,
        "images_per_s": images,
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in measured),
        "share_of_roof": images["median"] / roof,
        "rounds": [one["images_per_s"] for one in measured],
    }
    if mode == "epoch":
        return row | {"epoch_images": measured[0]["epoch_images"], "epochs": measured[0]["epochs"]}
    return row | {
        "step_memory_bytes": max(one["step_memory_bytes"] for one in measured),
        "saved_bytes_for_backward": measured[0]["saved_bytes_for_backward"],
        "saved_bytes_at_our_precision": measured[0].get("saved_bytes_at_our_precision"),
        # The largest: later rounds find what the first one compiled.
        "compile_s": max(one["compile_s"] for one in measured),
        "first_step_s": max(one["first_step_s"] for one in measured),
    }


def ratios_of(arms: Sequence[dict[str, Any]]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """How many times as fast as each peer the suite is, by the medians and round by round.

    Args:
        arms: of `arm_row`, ours in both modes among them.

    Returns:
        By peer, with our epochs over our resident batch last, and by peer.
    """
    by = {(row["name"], row["mode"]): row for row in arms}
    ours = by["bench", "resident"]
    ratios, per_round = {}, {}
    for name in [name for name, mode in by if mode == "resident" and name != "bench"]:
        theirs = by[name, "resident"]
        ratios[name] = ours["images_per_s"]["median"] / theirs["images_per_s"]["median"]
        per_round[name] = spread([a / b for a, b in zip(ours["rounds"], theirs["rounds"], strict=True)])
    ratios["epoch_over_resident"] = by["bench", "epoch"]["images_per_s"]["median"] / ours["images_per_s"]["median"]
    return ratios, per_round


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def circumstances(cfg: DictConfig, asked: Settings, overview: dict[str, Any], peers: Sequence[str]) -> dict[str, Any]:
    """When, on what and with which settings the arms were measured; versions include those of the peers' packages."""
    commit, dirty, _ = provenance.commit([plugin for _, plugin in plugins_of(cfg)])
    versions = provenance.versions()
    for package in {PEERS[name].package for name in peers}:
        versions[package] = metadata.version(package)
    arguments: Any = OmegaConf.to_container(cfg.model, resolve=True, enum_to_str=True)
    return {
        "date": provenance.now(),
        "hardware": overview["hardware"],
        "device": overview["device"],
        "threads": overview["threads"],
        "versions": versions,
        "commit": commit,
        "dirty": dirty,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "steps": asked.steps,
        "model": component_name(MODELS, cfg.model),
        "model_args": arguments_of(arguments),
        "params": overview["params"],
        "data": cfg.data.name,
        "data_copy": overview["data_copy"],
        "batch_size": asked.batch_size,
        "time_steps": cfg.time_steps,
        "neuron": cfg.neuron.name,
        "reg": "+".join(cfg.reg),
        "precision": overview["precision"],
        "ops": overview["ops"],
        "flops_per_image": overview["flops_per_image"],
        "bytes_per_image": overview["bytes_per_image"],
    }
