"""Synthetic records: of the schema, with known numbers, and no training."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bench.records.schema import SCHEMA, SCHEMA_VERSION, validate
from bench.report import kept

LAYERS = (("spiking.0", 32768), ("spiking.1", 8192), ("spiking.2", 2048))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def record(**changes: Any) -> dict[str, Any]:
    """A valid record. Dotted keys are reached with two underscores: `test__acc=90.0`."""
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "run_id": "digits-cnn-none-s0-00000000", "status": "finished",
        "status_reason": None, "budget": "quick", "data": "digits", "data_copy": "embedded",
        "data_checksum": "ab" * 32, "train_images": 1437, "test_images": 360, "classes": 10, "model": "cnn",
        "model_args": {"channels": 32, "depth": 4}, "neuron": "if", "time_steps": 4, "reg": "none", "strength": None,
        "regs": {"none": {}}, "no_effect": [], "optimizer": "adamw", "lr": 0.002, "weight_decay": 0.0, "epochs": 3,
        "batch_size": 64, "seed": 0, "precision": "fp32", "ops": "reference", "numerics": 1,
        "train": {"acc": 96.0, "loss": 0.2, "acc_eval": 97.0, "loss_eval": 0.15, "spike_rate": 0.11}, "val": None,
        "test": {"acc": 94.0, "loss": 0.25, "spike_rate": 0.1, "spike_rate_layer_mean": 0.12},
        "test_best_epoch": {"acc": 94.5, "epoch": 1}, "gap": 3.0,
        "layers": [
            {"name": name, "neurons": neurons, "spike_rate": 0.1, "dead": 0.05, "saturated": 0.0}
            for name, neurons in LAYERS
        ],
        "synops_per_image": 1e6, "synops_nonbinary_per_image": 0.0, "macs_per_image": 2e5, "energy_uj": 1.82,
        "params": 33000,
        "passes_per_step": 1.0, "train_images_per_s": 500.0, "seconds": {"total": 12.0, "train": 10.0, "eval": 2.0},
        "peak_memory_bytes": 10**9, "hardware": "test bench, 2 threads", "versions": {"torch": "2.15.0"},
        "commit": COMMIT, "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00",
    }  # fmt: skip
    assert list(result) == list(SCHEMA)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = result
        for parent in parents:
            node = node[parent]
        assert last in node, key
        node[last] = value
    validate(result)
    return result


def diverge(result: dict[str, Any]) -> dict[str, Any]:
    """The same run without an outcome."""
    for part in ("train", "test"):
        result[part] = dict.fromkeys(result[part])
    result |= {
        "status": "diverged", "status_reason": "loss is nan in epoch 1", "gap": None, "layers": [],
        "synops_per_image": None, "synops_nonbinary_per_image": None, "macs_per_image": None, "energy_uj": None,
        "test_best_epoch": {"acc": None, "epoch": None},
    }  # fmt: skip
    validate(result)
    return result


def epochs_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl` that end at the record's numbers."""
    rows, count = [], result["epochs"]
    for epoch in range(count):
        share = (epoch + 1) / count
        train, test = result["train"], result["test"]
        diverged = result["status"] == "diverged"
        rows.append({
            "epoch": epoch,
            "train": {
                "acc": None if diverged else train["acc"] * share,
                "loss": None if diverged else train["loss"] / share,
                "spike_rate": None if diverged else train["spike_rate"] * (2 - share),
            },
            "test": None if diverged else {"acc": test["acc"] * share, "loss": test["loss"] / share},
        })  # fmt: skip
    return rows


def put(folder: Path, result: dict[str, Any], dirty: bool = False, config: dict[str, Any] | None = None) -> Path:
    """Write a record as a run leaves it; returns the path of `result.json`."""
    run = folder / result["run_id"]
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in epochs_of(result)))
    (run / "env.json").write_text(json.dumps({"commit": result["commit"], "dirty": dirty}))
    (run / "config.yaml").write_text(yaml.safe_dump(config or {"neuron": {"name": result["neuron"], "alpha": 2.0}}))
    (run / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return run / "result.json"


def measured(result: dict[str, Any], acc: float, rate: float) -> dict[str, Any]:
    """The record with an accuracy, a spike rate and what follows from them."""
    result["test"] |= {"acc": acc, "spike_rate": rate, "spike_rate_layer_mean": rate * 1.1}
    result["train"] |= {"acc": acc + 1.5, "acc_eval": acc + 2.0, "spike_rate": rate * 1.1}
    result["gap"] = 2.0
    result["synops_per_image"], result["energy_uj"] = 1e7 * rate, 0.2 + 9 * rate
    for i, layer in enumerate(result["layers"]):
        layer |= {"spike_rate": rate * (1.6 - 0.5 * i), "dead": min(1.0, 0.01 / rate)}
    return result


def grid(folder: Path, seeds: int = 3, **changes: Any) -> list[dict[str, Any]]:
    """Records of the baseline, a spike penalty (two orders) and a dropout, at three strengths each."""
    chosen = {"weight": (0.05, 0.5, 5.0), "p": (0.1, 0.2, 0.5)}
    settings: list[tuple[str, float | None, dict[str, Any]]] = [("none", None, {"none": {}})]
    for order in (2, 1):
        settings += [("spikepen", w, {"spikepen": {"weight": w, "order": order}}) for w in chosen["weight"]]
    settings += [("dropout", p, {"dropout": {"p": p, "mask": "per_step"}}) for p in chosen["p"]]
    made = []
    for place, (reg, strength, regs) in enumerate(settings):
        for seed in range(seeds):
            noise = random.Random(f"{place} {seed}")
            acc, rate = 94.0, 0.1
            if reg == "spikepen":
                assert strength is not None
                pull = math.log10(1 + 20 * strength)
                acc, rate = 94.2 - (2.5 if regs["spikepen"]["order"] == 1 else 1.2) * pull**2, 0.1 * 0.35**pull
            elif reg == "dropout":
                assert strength is not None
                acc, rate = 94.8 - 6 * strength, 0.1 * (1 + strength)
            result = record(
                run_id=f"digits-cnn-{reg}-s{seed}-{place:08x}", reg=reg, strength=strength, regs=regs, seed=seed,
                epochs=6, **changes,
            )  # fmt: skip
            measured(result, round(acc + noise.gauss(0, 0.3) + 0.2 * seed, 4), rate * (1 + noise.gauss(0, 0.02)))
            made.append(result)
            put(folder, result)
    return made


def of_experiment(
    folder: Path,
    name: str,
    budget: str,
    seeds: int,
    numbers: Callable[[Any, int], tuple[float, float]],
    auto: str = "fp32",
    **changes: Any,
) -> list[dict[str, Any]]:
    """Records of an experiment's runs, on a copy of the data that is not on this machine.

    Args:
        folder: where to.
        name: of the experiment.
        budget: of the runs.
        seeds: 0, 1, ... of every row.
        numbers: (row, seed) -> test accuracy and spike rate.
        auto: precision of the rows that leave it to the machine.
        changes: as for `record`.
    """
    from bench.experiments import expand, identified, load

    copies = dict.fromkeys(("cifar10", "mnist", "digits"), ("cd" * 32, "a copy"))
    jobs = expand(load(name), [f"budget={budget}", f"seed={','.join(map(str, range(seeds)))}"])
    made: dict[str, dict[str, Any]] = {}
    for job, run_id, facts in identified(jobs, copies, auto):
        weights = [
            value for arguments in facts["reg"].values() for key, value in arguments.items() if key in ("weight", "p")
        ]
        arguments = {key: value for key, value in facts["model"].items() if key != "name"}
        result = record(
            run_id=run_id, budget=budget, data=facts["data"]["name"], data_copy="a copy", data_checksum="cd" * 32,
            model=facts["model"]["name"], model_args=arguments, reg="+".join(facts["reg"]), regs=facts["reg"],
            strength=float(weights[0]) if len(weights) == len(facts["reg"]) == 1 else None, seed=job.seed,
            epochs=facts["trainer"]["epochs"], optimizer=facts["optim"]["name"], lr=facts["optim"]["lr"],
            precision=facts["precision"], **changes,
        )  # fmt: skip
        if run_id not in made:
            made[run_id] = measured(result, *numbers(job.row, job.seed))
    for result in made.values():
        put(folder, result)
    return list(made.values())


@pytest.fixture(scope="session")
def records() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        record=record,
        diverge=diverge,
        measured=measured,
        epochs_of=epochs_of,
        put=put,
        grid=grid,
        of_experiment=of_experiment,
        COMMIT=COMMIT,
    )


@pytest.fixture(scope="session", autouse=True)
def kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What reports keep for later ones is nothing of the user's."""
    where = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "folder", lambda: where)
        yield


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `reports/` written from the records of `grid`; not to be changed."""
    pytest.importorskip("altair", reason="extra `report`")
    pytest.importorskip("vl_convert", reason="extra `report`")
    from bench.report.build import write

    out = tmp_path_factory.mktemp("written") / "reports"
    grid(out / "records")
    write([out / "records"], out, say=lambda line: None)
    return out
