"""One run's folder: its files, its lock, its epochs; and where runs lie."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError, Busy, EnvironmentFault
from bench.files import at_home, read_json, write_atomic
from bench.records.schema import validate
from bench.records.versions import current

REPLICATES = "replicates"
"""The folder, in that of a submitted record, of other machines' records of the same run."""


WEIGHTS = "model.safetensors"
"""The trained network in a run's folder, a hub folder or the zoo."""

CARD = "model.md"
"""What is to be known of it, beside it."""


def runs_folder(named: str | Path = "") -> Path:
    """The folder of all runs, in which a leading `~` is the user's home.

    Args:
        named: the folder; "" is $BENCH_RUNS, or `runs`.

    Raises:
        BenchError: the home of that user is not known.
    """
    return at_home(Path(named or os.environ.get("BENCH_RUNS") or "runs"), "the folder of the runs")


def reports_folders() -> list[Path]:
    """Where reports lie: those of the working directory, then those beside the package."""
    own = Path(__file__).resolve().parents[2] / "reports"
    return list(dict.fromkeys([Path("reports").resolve(), own]))


class RunFolder:
    """One run on disk: `config.yaml`, `env.json`, `metrics.jsonl`, `checkpoints/`, `wandb/`, `result.json`,
    and of a run that has finished `model.safetensors` with `model.md`.

    Args:
        root: the folder of all runs, as `runs_folder` takes it.
        name: the run's id.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        self.path = runs_folder(root) / name
        self.name = name
        self.result_path = self.path / "result.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoint_path = self.path / "checkpoints" / "last.ckpt"
        self.wandb_path = self.path / "wandb"
        self.weights_path = self.path / WEIGHTS
        self.card_path = self.path / CARD

    def finished(self) -> dict[str, Any] | None:
        """The record in today's form, when the run has ended.

        Raises:
            BenchError: `result.json` is damaged or of another schema; it is left as it is.
        """
        if not self.result_path.exists():
            return None
        try:
            return current(read_json(self.result_path))
        except BenchError as error:
            # What cannot be read is named in the line already.
            why = str(error).removeprefix(f"{self.result_path} ")
            raise BenchError(f"{self.result_path}: {why}; force=true runs it again") from error

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
        own = (self.result_path, self.metrics_path, self.checkpoint_path, self.weights_path, self.card_path)
        for path in (*own, self.path / "config.yaml"):
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
        """The finished epochs' lines, up to the first that is damaged: a last line may have been cut off."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(row, dict):
                break
            rows.append(row)
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
