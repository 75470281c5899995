"""What a run leaves: `env.json`, `result.json`, and the same for W&B."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from bench import files
from bench.errors import BenchError
from bench.records import provenance
from bench.records.identity import plugins_of, run_id
from bench.records.schema import COUNTED, FIELDS, SCHEMA_VERSION

if TYPE_CHECKING:
    from bench.data import Splits
    from bench.training.base_task import BaseTask
    from bench.training.setup import Run


def write_env(run: Run, splits: Splits, started: str, resumed: bool) -> dict[str, Any]:
    """Write `env.json`: where, with what and on which data.

    A resumed run keeps its start and W&B id, and what of its code was in no commit when its first epochs ran.

    Raises:
        BenchError: that of a resumed run is damaged.
    """
    from bench.training import distributed  # which imports torch

    path = run.folder.path / "env.json"
    plugins = [plugin for _, plugin in plugins_of(run.cfg)]
    commit, dirty, uncommitted = provenance.commit(plugins)
    env: dict[str, Any] = {
        "started": started,
        # A finished run that is forced again is another W&B run: its history starts anew.
        "wandb_id": f"{run.folder.name}-{int(time.time()):x}",
        "versions": provenance.versions(),
        "commit": commit,
        "dirty": dirty,
        "uncommitted": uncommitted,
        "plugins": {
            plugin.name: {"file": provenance.plugin_file(plugin), "sha256": plugin.sha256} for plugin in plugins
        },
        "hardware": provenance.hardware(run.device),
        "device": run.device,
        "devices": distributed.ranks(),
        "data_copy": splits.dataset.copy,
        "data_checksum": splits.dataset.checksum,
        "precision": run.precision,
        "ops": run.kernels,
        "numerics": provenance.NUMERICS,
    }
    if resumed and path.exists():
        old = files.read_json(path)
        if not isinstance(old, dict) or not {"started", "wandb_id"} <= set(old):
            raise BenchError(f"{path} is damaged, so the run cannot be continued; force=true runs it again")
        env |= {"started": old["started"], "wandb_id": old["wandb_id"]}
        if old.get("numerics") != env["numerics"]:
            env["numerics"] = None  # its epochs were not all computed alike
        env["dirty"] = dirty or bool(old.get("dirty"))
        env["uncommitted"] = list(dict.fromkeys([*old.get("uncommitted", []), *env["uncommitted"]]))
    files.write_atomic(path, json.dumps(env, indent=1) + "\n")
    return env


def logged_config(facts: dict[str, Any], strength: float | None) -> dict[str, Any]:
    """The settings as W&B groups and filters by them: `reg`, `strength`, `model`, `data` are names and numbers, with
    their arguments in `regs`, `model_args` and `data_args`; no name has a dot in it, which W&B takes for a level.

    Args:
        facts: of `bench.records.identity.science`.
        strength: the number that scales the regularization.
    """
    parts = {
        "reg": "+".join(facts["reg"]),
        "strength": strength,
        "model": facts["model"]["name"],
        "data": facts["data"]["name"],
        "regs": facts["reg"],
        "model_args": {key: value for key, value in facts["model"].items() if key != "name"},
        "data_args": {key: value for key, value in facts["data"].items() if key != "name"},
    }
    return {**facts, **parts}


def setting_name(facts: dict[str, Any]) -> str:
    """The name that the runs of one setting share, whatever their seeds: a run's id without its seed.

    Args:
        facts: of `bench.records.identity.science`.
    """
    name, _, digest = run_id({**facts, "seed": 0}).rpartition("-s0-")
    return f"{name}-{digest}"


def strength_of(task: BaseTask) -> float | None:
    """The one number that scales the regularization; None where there is none or more than one."""
    strengths = [float(getattr(reg, reg.strength)) for reg in task.regs if reg.strength is not None]
    return strengths[0] if len(strengths) == 1 else None


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def compile_result(
    run: Run,
    env: dict[str, Any],
    task: BaseTask,
    splits: Splits,
    outcome: dict[str, Any] | None,
    reason: str | None,
) -> dict[str, Any]:
    """The record, with the keys of `bench.records.schema.SCHEMA`.

    Args:
        run: whose folder has the finished epochs in `metrics.jsonl`.
        env: of `write_env`.
        task: the trained task.
        splits: the data it saw.
        outcome: of `bench.training.fit.fit_and_test`; None when the run diverged.
        reason: why it diverged.
    """
    facts, folder = run.facts, run.folder
    rows = folder.rows()
    nothing = {"acc": None, "loss": None, "spike_rate": None, "spike_rate_layer_mean": None}
    outcome = outcome or {"test": nothing, "train_clean": nothing, "layers": [], "ops": {}, "seconds": 0.0}
    running = rows[-1]["train"] if rows and reason is None else nothing
    clean, test = outcome["train_clean"], outcome["test"]
    best = max((row for row in rows if row["test"]), key=lambda row: row["test"]["acc"], default=None)
    seconds = {part: sum(row["seconds"][part] for row in rows) for part in ("train", "eval")}
    seconds["eval"] += outcome["seconds"]
    images = sum(row["images"] for row in rows)
    optimizer = task.parameter_groups()
    limit, batch_size = facts["trainer"]["limit_train_batches"], facts["trainer"]["batch_size"]
    # What an epoch sees: steps may be limited on top of the images.
    train_images = splits.train_images if limit is None else min(splits.train_images, limit * batch_size)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": folder.name,
        "status": "finished" if reason is None else "diverged",
        "status_reason": reason,
        "budget": facts["budget"],
        "data": facts["data"]["name"],
        "data_copy": splits.dataset.copy,
        "data_checksum": splits.dataset.checksum,
        "train_images": train_images,
        "test_images": splits.test_images,
        "classes": splits.classes,
        "model": facts["model"]["name"],
        "model_args": {key: value for key, value in facts["model"].items() if key != "name"},
        "neuron": facts["neuron"]["name"],
        "time_steps": task.model.time_steps,
        "reg": "+".join(facts["reg"]),
        "strength": strength_of(task),
        "regs": facts["reg"],
        "no_effect": None if reason is not None else [n for n in facts["reg"] if not task.had_effect(n, rows)],
        "optimizer": facts["optim"]["name"],
        "lr": facts["optim"]["lr"],
        "weight_decay": max(float(group.get("weight_decay", 0.0)) for group in optimizer),
        "epochs": facts["trainer"]["epochs"],
        "batch_size": batch_size,
        "seed": facts["seed"],
        "precision": facts["precision"],
        "ops": env["ops"],
        "numerics": env["numerics"],
        "train": {
            "acc": running["acc"],
            "loss": running["loss"],
            "acc_eval": clean["acc"],
            "loss_eval": clean["loss"],
            "spike_rate": running["spike_rate"],
        },
        "val": outcome.get("val") or (None if splits.val is None else nothing),
        "test": test,
        "test_best_epoch": {"acc": best["test"]["acc"] if best else None, "epoch": best["epoch"] if best else None},
        "gap": clean["acc"] - test["acc"] if test["acc"] is not None else None,
        "layers": outcome["layers"],
        **{field.key: outcome["ops"].get(field.key) for field in COUNTED},
        "params": sum(p.numel() for p in task.model.parameters()),
        "passes_per_step": _mean([row["passes_per_step"] for row in rows if "passes_per_step" in row]),
        "train_images_per_s": images / seconds["train"] if images else None,
        "seconds": {"total": seconds["train"] + seconds["eval"], **seconds},
        "peak_memory_bytes": provenance.peak_memory(env["device"]),
        "hardware": env["hardware"],
        "versions": env["versions"],
        "commit": env["commit"],
        "started": env["started"],
        "finished": provenance.now(),
    }


def headline(result: dict[str, Any], outcome: dict[str, Any] | None) -> dict[str, Any]:
    """The outcome as W&B shows it for a run: final accuracies, gap, spike rates, SynOps."""
    of_layers = [field for field in FIELDS if field.wandb and field.key.startswith("layers.")]
    return {
        **{field.wandb: field.value(result) for field in FIELDS if field.wandb and field not in of_layers},
        **(outcome["ops"] if outcome else {}),
        **{
            f"{field.wandb}/{layer['name']}": layer[field.key.partition(".")[2]]
            for field in of_layers
            for layer in result["layers"]
        },
    }
