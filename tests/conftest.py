"""What all tests share: no network, no W&B account, runs in a temporary folder, one cache of the digits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")

# The smallest run that trains a spiking network on real scans: 2 epochs of 5 steps.
TINY = (
    "model=cnn",
    "model.channels=4",
    "model.depth=3",
    "data.limit=40",
    "data.test_limit=30",
    "trainer.batch_size=8",
    "trainer.epochs=2",
    "time_steps=2",
    "logger=none",
)


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root for the whole session: the digits are parsed into it once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's W&B account, plugins or runs reaches a test."""
    for name in list(os.environ):
        # pytest-xdist sets COLUMNS for its workers.
        if name.startswith(("WANDB_", "BENCH_PLUGINS", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # The compiled kernels stay where they are: not every process is to build them.
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Overrides that make any run tiny."""
    return TINY


@pytest.fixture
def run_tiny(shared_data: Path) -> Callable[..., dict[str, Any]]:
    """run_tiny(*overrides): the record of a tiny run in this process."""
    from bench.config.compose import compose
    from bench.training.run import run

    def go(*overrides: str) -> dict[str, Any]:
        return run(compose([*TINY, f"data.root={shared_data}", *overrides]))

    return go


@pytest.fixture
def bench(shared_data: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """bench(*arguments, env={}, largest_file=None): `python -m bench` in a process of its own."""

    def go(
        *arguments: str, env: dict[str, str] | None = None, largest_file: int | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        command = [sys.executable, "-m", "bench", *arguments]
        full = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT), **(env or {})}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=full, preexec_fn=limit, check=False
        )

    return go
