"""The record's schema: keys and types of `result.json`."""

from __future__ import annotations

from typing import Any

from bench.errors import BenchError

SCHEMA_VERSION = 1
_SPLIT = {"acc": float, "loss": float}
SCHEMA: dict[str, Any] = {
    "schema_version": int,
    "run_id": str,
    "status": ("finished", "diverged"),
    "status_reason": (str, None),
    "budget": str,
    "data": str,
    "data_copy": str,
    "data_checksum": str,
    "train_images": int,
    "test_images": int,
    "classes": int,
    "model": str,
    "model_args": dict,
    "neuron": str,
    "time_steps": int,
    "reg": str,
    "strength": (float, None),
    "regs": dict,
    "optimizer": str,
    "lr": float,
    "weight_decay": float,
    "epochs": int,
    "batch_size": int,
    "seed": int,
    "precision": str,
    "ops": str,
    "train": {**_SPLIT, "acc_eval": float, "loss_eval": float, "spike_rate": float},
    "val": ({**_SPLIT, "spike_rate": float, "spike_rate_layer_mean": float}, None),
    "test": {**_SPLIT, "spike_rate": float, "spike_rate_layer_mean": float},
    "test_best_epoch": {"acc": float, "epoch": int},
    "gap": float,
    "layers": [{"name": str, "neurons": int, "spike_rate": float, "dead": float, "saturated": float}],
    "synops_per_image": float,
    "macs_per_image": float,
    "energy_uj": float,
    "params": int,
    "train_images_per_s": float,
    "seconds": {"total": float, "train": float, "eval": float},
    "peak_memory_bytes": int,
    "hardware": str,
    "versions": dict,
    "commit": (str, None),
    "started": str,
    "finished": str,
}
"""Keys and types of `result.json`, in order. A measured number is null where it does not exist: spike
rates and SynOps of the ReLU twin, every outcome of a run that diverged."""

# A number that was measured may not exist; one that was asked for always does.
_MEASURED = {
    "acc", "loss", "acc_eval", "loss_eval", "spike_rate", "spike_rate_layer_mean", "epoch", "gap", "dead",
    "saturated", "synops_per_image", "macs_per_image", "energy_uj", "train_images_per_s",
}  # fmt: skip


def validate(result: Any, schema: Any = None, where: str = "") -> None:
    """Check a record against `SCHEMA`: the same keys, each of its type.

    Raises:
        BenchError: names the first key that does not fit.
    """
    schema = SCHEMA if schema is None else schema
    if not isinstance(result, dict):
        raise BenchError(f"{where or 'the record'} is no object")
    if not where and result.get("schema_version") != SCHEMA_VERSION:
        raise BenchError(f"schema_version is {result.get('schema_version')}, this suite reads {SCHEMA_VERSION}")
    for key in [*schema, *result]:
        if key not in result or key not in schema:
            raise BenchError(f"key '{where}{key}' is {'missing' if key not in result else 'not in the schema'}")
    for key, kind in schema.items():
        _check(result[key], kind, key, f"{where}{key}")


def _check(value: Any, kind: Any, key: str, where: str) -> None:
    if value is None and (key in _MEASURED or (isinstance(kind, tuple) and None in kind)):
        return
    if isinstance(kind, dict):
        validate(value, kind, where + ".")
    elif isinstance(kind, list):
        if not isinstance(value, list):
            raise BenchError(f"key '{where}' is no list")
        for i, item in enumerate(value):
            validate(item, kind[0], f"{where}[{i}].")
    elif isinstance(kind, tuple) and isinstance(kind[0], str):
        if value not in kind:
            raise BenchError(f"key '{where}' is {value!r}, not one of {', '.join(kind)}")
    elif isinstance(kind, tuple):
        _check(value, kind[0], key, where)
    else:
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise BenchError(f"key '{where}' is {value!r}, not a {kind.__name__}")
