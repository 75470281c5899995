"""What a run is and what came of it: its settings as plain facts, `env.json`, `result.json`."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bench import results
from bench.config import component_name, settings
from bench.data import identity
from bench.registry import MODELS
from bench.results import RunFolder

if TYPE_CHECKING:
    from bench.base_task import BaseTask
    from bench.data import Splits


# Settings under `trainer` that say where to compute, not what. Precision counts as what `auto` stands for.
UNCOUNTED = ("accelerator", "precision", "devices", "sync_batchnorm", "cuda_graph")


def science(cfg: DictConfig, data_identity: tuple[str, str] | None = None, auto: str | None = None) -> dict[str, Any]:
    """Everything that changes the numbers of a run, as plain values; its hash is the run's identity.

    Left out: paths, logger, kernels, devices. Added: the checksum of the data and the precision that `auto` stands for
    here.

    Args:
        cfg: of one run.
        data_identity: (checksum, copy) of the data, for those who ask without having it; else it is looked up.
        auto: what `trainer.precision=auto` stands for, for those who ask about another machine's runs.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # type: ignore[assignment]
    checksum, copy = data_identity or identity(settings(cfg.data))
    data = {key: value for key, value in plain["data"].items() if key not in ("root", "path")}
    trainer = {k: v for k, v in plain["trainer"].items() if k not in UNCOUNTED}
    precision = plain["trainer"]["precision"]
    return {
        "budget": plain["budget"],
        "data": {**data, "checksum": checksum, "copy": copy},
        "model": {"name": component_name(MODELS, cfg.model), **arguments_of(plain["model"])},
        "neuron": plain["neuron"],
        "time_steps": plain["time_steps"],
        "reg": {name: arguments_of(node) for name, node in plain["reg"].items()},
        "optim": plain["optim"],
        "trainer": trainer,
        "precision": (auto or best_precision(plain["trainer"]["accelerator"])) if precision == "auto" else precision,
        "seed": plain["seed"],
        "init_seed": plain["init_seed"],
    }


@cache
def best_precision(accelerator: str) -> str:
    """bf16 where the processor that will train has instructions for it (AVX512_BF16, Ampere and later), else fp32.

    Args:
        accelerator: auto, cpu or gpu.
    """
    # torch takes seconds to import: it is asked only where there is an NVIDIA driver.
    if accelerator != "cpu" and Path("/dev/nvidiactl").exists():
        import torch

        if torch.cuda.is_available():
            return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    info = Path("/proc/cpuinfo")
    return "bf16" if info.exists() and "avx512_bf16" in info.read_text() else "fp32"


def arguments_of(node: dict[str, Any]) -> dict[str, Any]:
    """A component's settings without the path of its class: moving a file must change no identity."""
    return {key: value for key, value in node.items() if key != "_target_"}


def write_env(
    folder: RunFolder, facts: dict[str, Any], splits: Splits, device: str, ops: str, started: str, resumed: bool
) -> dict[str, Any]:
    """Write `env.json`: where, with what and on which data; a resumed run keeps its start and W&B id."""
    from bench import distributed  # which imports torch

    path = folder.path / "env.json"
    commit, dirty = results.commit()
    env = {
        "started": started,
        # A finished run that is forced again is another W&B run: its history starts anew.
        "wandb_id": f"{folder.name}-{int(time.time()):x}",
        "versions": results.versions(),
        "commit": commit,
        "dirty": dirty,
        "hardware": results.hardware(device),
        "device": device,
        "devices": distributed.ranks(),
        "data_copy": splits.dataset.copy,
        "data_checksum": splits.dataset.checksum,
        "precision": facts["precision"],
        "ops": ops,
    }
    if resumed and path.exists():
        old = results.read_json(path)
        env |= {"started": old["started"], "wandb_id": old["wandb_id"]}
    results.write_atomic(path, json.dumps(env, indent=1) + "\n")
    return env


def flat_config(facts: dict[str, Any], strength: float | None) -> dict[str, Any]:
    """The settings as W&B groups and filters by them: `reg`, `strength`, `model`, `data`, `seed` and all
    others under dotted keys."""
    flat: dict[str, Any] = {}

    def spread(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                spread(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value

    spread("", facts)
    return {
        **flat,
        "reg": "+".join(facts["reg"]),
        "strength": strength,
        "model": facts["model"]["name"],
        "data": facts["data"]["name"],
    }


def strength_of(task: BaseTask) -> float | None:
    """The one number that scales the regularization; None where there is none or more than one."""
    found = [float(getattr(reg, reg.strength)) for reg in task.regs if reg.strength is not None]
    return found[0] if len(found) == 1 else None


def compile_result(
    facts: dict[str, Any],
    env: dict[str, Any],
    folder: RunFolder,
    task: BaseTask,
    splits: Splits,
    outcome: dict[str, Any] | None,
    reason: str | None,
) -> dict[str, Any]:
    """The record, with the keys of `bench.results.SCHEMA`.

    Args:
        facts: of `science`.
        env: of `write_env`.
        folder: its `metrics.jsonl` has the finished epochs.
        task: the trained task.
        splits: the data it saw.
        outcome: of `bench.session.fit_and_test`; None when the run diverged.
        reason: why it diverged.
    """
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
        "schema_version": results.SCHEMA_VERSION,
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
        "optimizer": facts["optim"]["name"],
        "lr": facts["optim"]["lr"],
        "weight_decay": max(float(group.get("weight_decay", 0.0)) for group in optimizer),
        "epochs": facts["trainer"]["epochs"],
        "batch_size": batch_size,
        "seed": facts["seed"],
        "precision": facts["precision"],
        "ops": env["ops"],
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
        "synops_per_image": outcome["ops"].get("synops_per_image"),
        "macs_per_image": outcome["ops"].get("macs_per_image"),
        "energy_uj": outcome["ops"].get("energy_uj"),
        "params": sum(p.numel() for p in task.model.parameters()),
        "train_images_per_s": images / seconds["train"] if images else None,
        "seconds": {"total": seconds["train"] + seconds["eval"], **seconds},
        "peak_memory_bytes": results.peak_memory(env["device"]),
        "hardware": env["hardware"],
        "versions": env["versions"],
        "commit": env["commit"],
        "started": env["started"],
        "finished": results.now(),
    }


def headline(result: dict[str, Any], outcome: dict[str, Any] | None) -> dict[str, Any]:
    """The outcome as W&B shows it for a run: final accuracies, gap, spike rates, SynOps."""
    return {
        "final/test_acc": result["test"]["acc"],
        "final/train_acc_eval": result["train"]["acc_eval"],
        "final/spike_rate": result["test"]["spike_rate"],
        "final/spike_rate_layer_mean": result["test"]["spike_rate_layer_mean"],
        "gap": result["gap"],
        **(outcome["ops"] if outcome else {}),
        **{f"final/spike_rate_layer/{layer['name']}": layer["spike_rate"] for layer in result["layers"]},
        **{f"final/dead/{layer['name']}": layer["dead"] for layer in result["layers"]},
    }
