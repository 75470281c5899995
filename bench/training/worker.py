"""The process of one device of a run over several, `python -m bench.training.worker FOLDER RANK RANKS`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bench.config.compose import read_config, settle
from bench.errors import BenchError, one_line
from bench.files import write_atomic
from bench.records.identity import science
from bench.training import setup
from bench.training.run import train


def main(folder: Path, rank: int, count: int) -> int:
    """Train this device's share of the run.

    Returns:
        The exit status; what went wrong is in a file.
    """
    threading.Thread(target=end_with_parent, daemon=True).start()
    # Output that a test or a pipe reads comes line by line, as from the process that was asked.
    sys.stdout = open(os.devnull, "w") if rank else open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    if rank:
        warnings.simplefilter("ignore")
    told: dict[str, Any] = {"rank": rank, "traceback": None}
    try:
        work(folder, rank, count)
        return 0
    except BenchError as error:
        told |= {"line": str(error), "code": error.code}
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        told |= {"line": one_line(error), "code": 1, "traceback": traceback.format_exc()}
    write_atomic(folder / f"fault-{rank}.json", json.dumps({**told, "time": time.monotonic()}))
    return int(told["code"])


def work(folder: Path, rank: int, count: int) -> None:
    """Join the others, then train."""
    cfg = settle(read_config(folder / "config.yaml"))
    cuda = setup.pick_device(cfg.trainer.accelerator.value, count) == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    elif cfg.trainer.sync_batchnorm:
        raise BenchError("trainer.sync_batchnorm needs GPUs; on the CPU each process has its own batch statistics")
    # A file instead of a port: another run on this machine cannot take it.
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    train(cfg, science(cfg))
    dist.destroy_process_group()


def end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.flush()
    # Not sys.exit: a group that a fault left open would be closed first, which waits for processes that are gone.
    os._exit(code)
