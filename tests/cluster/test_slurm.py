"""Grids on a real Slurm, which `slurm.sh` sets up on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Grid, records

pytest.importorskip("submitit")

SCRIPT = Path(__file__).parent / "slurm.sh"
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.array_parallelism=2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """slurm.conf of a cluster of this machine alone."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0" and os.geteuid() == 0:
        pytest.skip("another worker of this test session has the ports of Slurm")
    # Short: the path of a socket has at most 108 characters.
    folder = Path("/tmp") / f"bench-slurm-{os.getpid()}"
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, timeout=400, check=False)
    if started.returncode == 3:
        pytest.skip(started.stderr.splitlines()[-1])
    assert started.returncode == 0, started.stderr
    again = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, timeout=100, check=False)
    assert again.stdout == started.stdout
    yield folder / "slurm.conf"
    subprocess.run([SCRIPT, "stop", folder], timeout=100, check=True)
    left = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def slurm(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """slurm(command, *words): what one of Slurm's commands prints."""
    monkeypatch.setenv("SLURM_CONF", str(cluster))

    def call(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout

    return call


def at_work(runs: Path, array: str, task: int) -> bool:
    """Whether a task has begun to train."""
    log = runs / ".slurm" / f"{array}_{task}" / f"{array}_{task}_0_log.out"
    return log.exists() and "training images" in log.read_text()


def wait_for(what: Callable[[], bool], seconds: float = 200) -> None:
    """Until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_queued_again_and_one_killed_cost_no_record(
    grid: Callable[..., Grid], slurm: Callable[..., str], tmp_path: Path
) -> None:
    """Several minutes: 24 runs on a real Slurm, which alone knows what happens to a job that is requeued or killed."""
    runs = tmp_path / "runs"
    words = (*SLURM, "seed=range(12)", "reg=none,spikepen", "trainer.epochs=3", "trainer.limit_train_batches=20")
    many = grid(*words)
    array = many.until(r"^Slurm: 24 runs as job (\d+); logs in ")[1]
    wait_for(lambda: at_work(runs, array, 3))
    slurm("scontrol", "requeue", f"{array}_3")
    wait_for(lambda: at_work(runs, array, 5))
    slurm("scancel", "--signal=KILL", f"{array}_5")

    def hurried() -> bool:
        # Slurm lets a requeued job wait for two minutes.
        slurm("scontrol", "update", f"jobid={array}_3", "StartTime=now")
        time.sleep(2)
        return many.process.poll() is not None

    wait_for(hurried, 500)
    assert many.finish() == 1
    assert many.errors[0] == "error: 1 of 24 runs failed"
    assert re.search(rf"\[6/24\] .*: exit 1, Slurm job {array}_5 left the queue without a result; .*", many.errors[1])
    log = (runs / f".slurm/{array}_3/{array}_3_0_log.out").read_text()
    assert log.count("[4/24] budget=") == 2
    assert len(records(runs)) == 23
    rest = grid(*words)
    assert rest.finish() == 0
    assert rest.lines[0].startswith("24 runs, 23 finished, 1 to do")
    done = records(runs)
    assert {(result["seed"], result["reg"]) for result in done.values()} == {
        (seed, reg) for seed in range(12) for reg in ("none", "spikepen")
    }
    assert len(done) == 24 == len(list(runs.glob("digits-*")))
    assert all(result["rows"] == [0, 1, 2] for result in done.values())
    assert all(result["hardware"].endswith(", 1 threads") for result in done.values())


@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_at_its_time_limit_goes_on_where_it_was(
    grid: Callable[..., Grid], slurm: Callable[..., str], tmp_path: Path
) -> None:
    """Some minutes: Slurm counts time limits in minutes, and its signal, submitit and Lightning meet here alone."""
    epochs = 1200
    one = grid(
        *SLURM, "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=10", "seed=0",
        f"trainer.epochs={epochs}", "trainer.limit_train_batches=20",
    )  # fmt: skip
    job = one.until(r"^Slurm: 1 runs as job (\d+); ")[1]
    log = tmp_path / f"runs/.slurm/{job}/{job}_0_log.out"

    def resumed() -> bool:
        slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
        return log.exists() and "goes on after epoch" in log.read_text()

    wait_for(resumed, 300)
    text = log.read_text()
    assert "this job is timed-out" in text
    assert re.search(r"Requeued job \d+ \(99 remaining timeouts\)", text)
    assert "Traceback" not in text
    before, after = text.split("goes on after epoch ", 1)
    kept = int(after.split(" of ")[0])
    printed = [int(n) for n in re.findall(rf"epoch +(\d+)/{epochs} ", before)]
    assert printed == list(range(1, printed[-1] + 1))
    # An epoch whose line was out when the signal came may not have reached the checkpoint.
    assert kept in (printed[-1], printed[-1] - 1)
    wait_for(lambda: len(re.findall(rf"epoch +{kept + 1}/{epochs} ", log.read_text())) > printed[-1] - kept)
    slurm("scancel", job)
