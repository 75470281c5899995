"""Processes of one group, each of which does the same piece of work on its share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

FRAME = """
import sys, warnings
warnings.filterwarnings("ignore")
import torch, torch.distributed as dist
rank, count, meeting, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if count > 1:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
"""


@pytest.fixture
def together(tmp_path: Path, shared_data: Path) -> Callable[[str, int], list[Any]]:
    """together(code, count): what `found` is at the end of the code in each of `count` processes."""

    def go(code: str, count: int) -> list[Any]:
        script = tmp_path / "work.py"
        script.write_text(FRAME + code + "\ntorch.save(found, out)\n")
        outs = [tmp_path / f"found-{count}-{rank}.pt" for rank in range(count)]
        processes = []
        for rank, out in enumerate(outs):
            env = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT), "LOCAL_RANK": str(rank)}
            command = [sys.executable, str(script), str(rank), str(count), str(tmp_path / f"meeting-{count}"), str(out)]
            processes.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
        errors = [process.communicate(timeout=300)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * count, errors
        return [torch.load(out, weights_only=True) for out in outs]

    return go
