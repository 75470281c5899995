"""One run over several devices: a process for each, started and watched by the one that was asked for the run.

Not Lightning's own launchers: one of them runs the command line again, which is wrong where the run is one of a grid
or of `reproduce`; the others lose what a process did but the weights.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError, EnvironmentFault

GRACE = 10.0  # seconds that rank 0 has to close W&B when another rank has failed
LOOK_EVERY = 0.1  # seconds


def launch(cfg: DictConfig) -> None:
    """Train one run, a process for each device, and wait for its end.

    Raises:
        BenchError: what a process found wrong with the input.
        EnvironmentFault: a process found the machine unable, or ended for another reason.
        KeyboardInterrupt: Ctrl-C; the processes have ended.
    """
    count = cfg.trainer.devices
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        processes = [start(folder, rank, count) for rank in range(count)]
        try:
            codes = wait(processes)
            if any(codes):
                end(processes, patient=codes[0] is None)
                raise fault(folder, codes)
        except KeyboardInterrupt:
            processes[0].send_signal(signal.SIGINT)
            end(processes, patient=True)
            raise
        finally:
            end(processes, patient=False)


def start(folder: Path, rank: int, count: int) -> subprocess.Popen[bytes]:
    """Start one process; it ends when this one does, however that comes about."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # What Lightning looks at: the processes are there, it is not to start any.
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(count),
        # What torch.distributed says when a process of the group is gone is said here in a line.
        "TORCH_CPP_LOG_LEVEL": "FATAL",
    }
    command = [sys.executable, "-m", "bench.training.worker", str(folder), str(rank), str(count)]
    # A group of its own: Ctrl-C in a terminal is for this process, which passes it on once.
    return subprocess.Popen(command, env={**os.environ, **own}, stdin=subprocess.PIPE, process_group=0)


def wait(processes: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Wait until all have ended well, or one has not; the exit codes at that moment, None of those that still run."""
    while True:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes:
            return codes
        time.sleep(LOOK_EVERY)


def end(processes: list[subprocess.Popen[bytes]], patient: bool) -> None:
    """Kill what still runs, rank 0 with patience: it has W&B to close."""
    first, *others = processes
    for process in others:
        process.kill()
    try:
        first.wait(GRACE if patient else 0)
    except subprocess.TimeoutExpired:
        first.kill()
    for process in processes:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def fault(folder: Path, codes: list[int | None]) -> BenchError:
    """Why the run ended, from what failed first; a bug's traceback is printed.

    Args:
        folder: where the processes say what went wrong.
        codes: of `wait`.
    """
    told = sorted((json.loads(path.read_text()) for path in folder.glob("fault-*.json")), key=lambda one: one["time"])
    goes_on = "the same command goes on after the last finished epoch"
    for one in told:
        if one["traceback"] is None:
            return EnvironmentFault(one["line"]) if one["code"] == EnvironmentFault.code else BenchError(one["line"])
    # Before what the others say: to them it is a lost connection.
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            return EnvironmentFault(
                f"the process of device {rank} was killed ({signal.Signals(-code).name}); {goes_on}"
            )
    if not told:
        return EnvironmentFault(f"the run's processes ended without a word (exit codes {codes}); {goes_on}")
    print(told[0]["traceback"], file=sys.stderr, end="", flush=True)
    return EnvironmentFault(f"device {told[0]['rank']}: {told[0]['line']}; {goes_on}")
