"""What trains nothing imports no torch: a list, a look at the settings, a finished run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCH = """
import sys
from bench.__main__ import main
status = main(sys.argv[1:])
slow = [name for name in ("torch", "lightning", "spikingjelly", "matplotlib", "wandb") if name in sys.modules]
sys.exit(f"imported {slow}" if slow else status)
"""


@pytest.fixture
def watched(shared_data: Path) -> Callable[..., CompletedProcess[str]]:
    """watched(*arguments): a command in a process that fails if something slow was imported."""

    def go(*arguments: str) -> CompletedProcess[str]:
        environment = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", WATCH, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return go


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "regs", "--json"),
        ("run", "--cfg", "job", "model=sew", "reg=[spikepen,dropout]", "reg.spikepen.weight=0.5"),
        ("run", "--help"),
        ("run", "model=swe"),
        ("data", "status"),
        ("runs",),
        ("compare", "--help"),
        ("report", "--help"),
    ],
)
def test_a_look_costs_no_torch(watched: Callable[..., CompletedProcess[str]], arguments: tuple[str, ...]) -> None:
    done = watched(*arguments)
    assert done.returncode == (2 if "model=swe" in arguments else 0), done.stderr


def test_a_finished_run_is_skipped_without_torch(
    watched: Callable[..., CompletedProcess[str]], bench: Callable[..., CompletedProcess[str]], tiny: tuple[str, ...]
) -> None:
    first = bench("run", *tiny, "reg=spikepen")
    assert first.returncode == 0, first.stderr
    again = watched("run", *tiny, "reg=spikepen")
    assert again.returncode == 0, again.stderr
    assert "is finished: test " in again.stdout
    listed = watched("runs", "sort=-finished")
    assert listed.returncode == 0, listed.stderr
    assert "finished" in listed.stdout
    grid = watched("run", "-m", *tiny, "reg=spikepen", "seed=0")
    assert grid.returncode == 0, grid.stderr
    assert "1 runs, 1 finished, 0 to do" in grid.stdout
