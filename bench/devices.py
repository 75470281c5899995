"""One run over several devices: a process for each, started and watched by the one that was asked for the run.

`python -m bench.devices FOLDER RANK RANKS` is such a process. Not Lightning's own launchers: one of them runs the
command line again, which is wrong where the run is one of a grid or of `reproduce`; the others lose what a process
did but the weights.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError, EnvironmentFault
from bench.results import RunFolder, run_id, write_atomic

GRACE = 10.0  # seconds that rank 0 has to close W&B when another rank has failed
LOOK_EVERY = 0.1  # seconds


# -- the process that watches -------------------------------------------------------------------------


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
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # What Lightning looks at: the processes are there, it is not to start any.
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(count),
        # What torch.distributed says when a process of the group is gone is said here in a line.
        "TORCH_CPP_LOG_LEVEL": "FATAL",
    }
    command = [sys.executable, "-m", "bench.devices", str(folder), str(rank), str(count)]
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


# -- the process of one device ------------------------------------------------------------------------


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
        lines = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        told |= {"line": line, "code": 1, "traceback": traceback.format_exc()}
    write_atomic(folder / f"fault-{rank}.json", json.dumps({**told, "time": time.monotonic()}))
    return int(told["code"])


def work(folder: Path, rank: int, count: int) -> None:
    """Join the others, then train."""
    import torch
    import torch.distributed as dist

    from bench import session
    from bench.config import settle
    from bench.evaluate import read_config
    from bench.facts import science
    from bench.run import train

    cfg = settle(read_config(folder / "config.yaml"))
    cuda = session.pick_device(cfg.trainer.accelerator.value, count) == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    elif cfg.trainer.sync_batchnorm:
        raise BenchError("trainer.sync_batchnorm needs GPUs; on the CPU each process has its own batch statistics")
    # A file instead of a port: another run on this machine cannot take it.
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    facts = science(cfg)
    train(cfg, facts, RunFolder(Path(cfg.runs), run_id(facts)))
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
