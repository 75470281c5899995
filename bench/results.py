"""The record of a run: its identity, its folder, its schema; atomic writes, careful reads."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import __version__
from bench.errors import BenchError, Busy, EnvironmentFault

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


def run_id(science: dict[str, Any]) -> str:
    """`<data>-<model>-<regs>-s<seed>-<hash8>`; the hash is over everything that changes the numbers.

    Settings at null are left out, so that a setting added later, null unless asked for, changes no earlier run's name.

    Args:
        science: what `bench.facts.science` returns.
    """
    digest = hashlib.sha256(json.dumps(_set(science), sort_keys=True).encode()).hexdigest()[:8]
    regs = "+".join(science["reg"])
    return f"{science['data']['name']}-{science['model']['name']}-{regs}-s{science['seed']}-{digest}"


def _set(value: Any) -> Any:
    """The same without the keys whose value is None."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in value.items() if item is not None}
    return value


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there.

    Raises:
        EnvironmentFault: the folder is read-only or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise EnvironmentFault(f"{path} could not be written: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        BenchError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is damaged ({error})") from error


class RunFolder:
    """One run on disk: `config.yaml`, `env.json`, `metrics.jsonl`, `checkpoints/`, `wandb/`, `result.json`.

    Args:
        root: the folder of all runs.
        name: the run's id.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / name
        self.name = name
        self.result_path = self.path / "result.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoint_path = self.path / "checkpoints" / "last.ckpt"
        self.wandb_path = self.path / "wandb"

    def finished(self) -> dict[str, Any] | None:
        """The record, when the run has ended.

        Raises:
            BenchError: `result.json` is damaged or of another schema; it is left as it is.
        """
        if not self.result_path.exists():
            return None
        try:
            result = read_json(self.result_path)
            validate(result)
        except BenchError as error:
            raise BenchError(f"{self.result_path}: {error}; force=true runs it again") from error
        return result

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder; it is created when missing.

        Raises:
            Busy: another process has it.
            EnvironmentFault: it cannot be written.
        """
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise EnvironmentFault(
                f"the run's folder {self.path} cannot be written: {error.strerror}; another: runs=DIR or $BENCH_RUNS"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(f"another process is at work on {self.path}; wait for it or stop it") from error
            yield

    def clear(self) -> None:
        """Remove an earlier run; the lock stays."""
        for path in (self.result_path, self.metrics_path, self.checkpoint_path, self.path / "config.yaml"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.wandb_path, ignore_errors=True)

    def write_config(self, text: str) -> None:
        """Store the resolved configuration, or check that the one stored is whole.

        Raises:
            BenchError: an interrupted run's `config.yaml` is damaged.
        """
        import yaml

        path = self.path / "config.yaml"
        if path.exists() and self.checkpoint_path.exists():
            try:
                stored = yaml.safe_load(path.read_text())
                # A setting that came later and was not asked for is in no older file.
                asked = {key for key, value in yaml.safe_load(text).items() if value is not None}
                whole = isinstance(stored, dict) and asked <= set(stored)
            except (yaml.YAMLError, UnicodeDecodeError):
                whole = False
            if not whole:
                raise BenchError(f"{path} is damaged, so the run cannot be continued; force=true runs it again")
        write_atomic(path, text)

    def append(self, row: dict[str, Any]) -> None:
        """Add one epoch's line to `metrics.jsonl`.

        Raises:
            EnvironmentFault: the disk is full or the folder read-only.
        """
        try:
            with self.metrics_path.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EnvironmentFault(f"{self.metrics_path} could not be written: {error.strerror}") from error

    def rows(self) -> list[dict[str, Any]]:
        """The finished epochs' lines; a last line that was cut off is left out."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def cut_back(self, epochs: int) -> list[dict[str, Any]]:
        """Keep the first `epochs` lines of `metrics.jsonl`: those the checkpoint knows of.

        Raises:
            BenchError: there are fewer.
        """
        rows = self.rows()[:epochs]
        if len(rows) < epochs:
            raise BenchError(
                f"{self.metrics_path} has {len(rows)} epochs, its checkpoint has {epochs}; force=true runs it again"
            )
        write_atomic(self.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def finish(self, result: dict[str, Any]) -> None:
        """Write `result.json`, checked and at once."""
        validate(result)
        write_atomic(self.result_path, json.dumps(result, indent=1) + "\n")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of what a run's numbers depend on."""
    names = ("torch", "torchvision", "lightning", "spikingjelly", "timm", "numpy", "hydra-core", "wandb")
    found = {"snn-bench": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def commit() -> tuple[str | None, bool]:
    """The suite's git commit (None outside a checkout), and whether tracked files outside reports/ differ from it."""
    here = Path(__file__).parent

    def git(*args: str) -> str | None:
        try:
            out = subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return out.stdout.strip() if out.returncode == 0 else None

    # Installed inside somebody else's repository, the package is not tracked there.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None, False
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)reports")
    return git("rev-parse", "HEAD"), bool(dirty)


def hardware(device: str) -> str:
    """What the run ran on, in a line: the GPU's name, or the processor's with its cores."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} threads"


def peak_memory(device: str) -> int:
    """Peak bytes: allocated on the GPU, or resident in this process so far."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if platform.system() == "Darwin" else peak * 1024
