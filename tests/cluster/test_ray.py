"""Grids on Ray: a cluster of two machines with one core each, a worker that dies, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Grid, records

pytest.importorskip("ray")

RAY = "hydra/launcher=ray"
STORE = 2**27

FLAKY = '''
"""A regularizer that cannot be built with seed 1 in its weight."""

from bench.errors import EnvironmentFault
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer


@REGULARIZERS.register("flaky")
class Flaky(Regularizer):
    """Breaks.

    Source: none, eq. 0.
    """

    strength = "weight"

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = weight
        if weight == 1:
            raise EnvironmentFault("the disk of this machine is full")
        if weight == 2:
            raise ZeroDivisionError("a bug")
'''


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines with one core each, the second with a GPU that only Ray believes in."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    # What the workers see is this; the launcher has to say which threads they get.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={**node, "num_gpus": 0})
    made.add_node(**node, num_gpus=1)
    yield made
    made.shutdown()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_worker_killed_in_a_grid_of_two_machines_costs_no_run(
    grid: Callable[..., Grid], cluster: Any, tmp_path: Path
) -> None:
    """The only test that a machine's death costs time and nothing else: 24 real runs on a real two-node cluster."""
    words = (RAY, f"hydra.launcher.address={cluster.address}", "seed=range(12)", "reg=none,spikepen")
    many = grid(*words, "trainer.epochs=3", "trainer.limit_train_batches=20")
    many.until(r"^Ray: 24 runs on 2 machines, at most 2 at once$")
    pid, place = many.until(r"^\(\d+/24 pid=(\d+).*\) \[([5-9]|1\d)/24\] ").groups()
    os.kill(int(pid), signal.SIGKILL)
    assert many.finish() == 0, many.errors
    # It was at work: its run was started twice, on another process.
    starts = [re.search(r"pid=(\d+).*\) \[(\d+)/24\] ", line) for line in many.lines]
    again = [found[1] for found in starts if found and found[2] == place]
    assert len(again) == 2
    assert again[1] != pid
    assert len({line for line in many.lines if re.match(r"\[\d+/24\] finished: ", line)}) == 24
    done = records(tmp_path / "runs")
    assert len(done) == 24 == len(os.listdir(tmp_path / "runs"))
    assert {(result["seed"], result["reg"]) for result in done.values()} == {
        (seed, reg) for seed in range(12) for reg in ("none", "spikepen")
    }
    assert all(result["rows"] == [0, 1, 2] for result in done.values())
    assert all(result["hardware"].endswith(", 1 threads") for result in done.values())
    same = grid(*words, "trainer.epochs=3", "trainer.limit_train_batches=20")
    assert same.finish() == 0
    (line,) = same.lines
    assert line.startswith("24 runs, 24 finished, 0 to do")


@pytest.mark.cluster
@pytest.mark.slow
def test_failures_are_named_and_a_share_of_a_gpu_is_enough(
    grid: Callable[..., Grid], cluster: Any, tmp_path: Path
) -> None:
    """Real workers: exceptions cross processes, and Ray itself grants shares of a GPU."""
    plugin = tmp_path / "flaky.py"
    plugin.write_text(FLAKY)
    words = (RAY, f"hydra.launcher.address={cluster.address}", "hydra.launcher.num_cpus=0.25", "reg=flaky")
    many = grid(*words, "hydra.launcher.num_gpus=0.25", "reg.flaky.weight=0,1,2,3", env={"BENCH_PLUGINS": str(plugin)})
    assert many.finish() == 1
    assert "Ray: 4 runs on 2 machines, at most 4 at once" in many.lines
    summary = many.errors[many.errors.index("error: 2 of 4 runs failed") :]
    assert re.search(r"^  \[2/4\] .*weight=1: exit 1, the disk of this machine is full$", summary[1])
    assert re.search(r"^  \[3/4\] .*weight=2: exit 1, ZeroDivisionError$", summary[2])
    assert sorted(result["strength"] for result in records(tmp_path / "runs").values()) == [0, 3]
    refused = grid(*words, "seed=9", "hydra.launcher.num_gpus=2", env={"BENCH_PLUGINS": str(plugin)})
    assert refused.finish() == 2
    assert refused.errors[-1] == (
        "error: no machine of this Ray has room for a run with hydra.launcher.num_cpus=0.25 and "
        "hydra.launcher.num_gpus=2. There are: 1 cores, 0 GPUs; 1 cores, 1 GPUs."
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_an_interrupt_leaves_no_worker_and_the_next_grid_goes_on(grid: Callable[..., Grid], tmp_path: Path) -> None:
    """Ctrl-C as a terminal sends it, with workers at work in processes that do not get it."""
    words = (RAY, "hydra.launcher.local_cpus=2", "seed=0,1,2", "trainer.epochs=400", "trainer.limit_train_batches=20")
    many = grid(*words)
    pid = int(many.until(r"^\(\d+/3 pid=(\d+).*\) epoch +\d+/400 ")[1])
    many.process.send_signal(signal.SIGINT)
    assert many.finish(60) == 130
    assert many.errors[-1] == "interrupted; the same command goes on after the last finished epoch"
    assert not [line for line in many.errors if "Traceback" in line]
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("a worker is still there")
    assert not records(tmp_path / "runs")
    rows = {path.parent: len(path.read_text().splitlines()) for path in (tmp_path / "runs").glob("*/metrics.jsonl")}
    assert max(rows.values()) >= 1
    again = grid(*words)
    again.until(r"goes on after epoch \d+ of 400$")
    again.process.send_signal(signal.SIGINT)
    assert again.finish(60) == 130
