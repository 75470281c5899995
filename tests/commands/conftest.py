"""A run that trains nothing but remembers what it was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bench.__main__ import main
from bench.errors import BenchError, EnvironmentFault

FAULTS: dict[int, BaseException] = {
    7: BenchError("seed 7 is bad input"),
    8: EnvironmentFault("seed 8 found the disk full"),
    9: RuntimeError("seed 9 met a bug"),
    10: KeyboardInterrupt(),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[DictConfig]:
    """The configurations that reached `bench.training.run.run`, in an empty working directory; seeds 7 to 10 fail."""
    seen: list[DictConfig] = []

    def run(cfg: DictConfig) -> dict[str, Any]:
        seen.append(cfg)
        if cfg.seed in FAULTS:
            raise FAULTS[cfg.seed]
        return {"seed": cfg.seed}

    monkeypatch.setattr("bench.training.run.run", run)
    monkeypatch.chdir(tmp_path)
    # `--hydra-help` and `--info` write through the root logger, and leave it so.
    monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    return seen


@pytest.fixture
def cli(asked: list[DictConfig], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`cli("run", "seed=1")`: exit status, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        return status, *capsys.readouterr()

    return call
