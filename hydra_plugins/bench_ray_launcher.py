"""Hydra's launcher of the suite for Ray: the runs of a grid as tasks on this machine's cores or on a cluster."""

# No `from __future__ import annotations`: Hydra runs this file before it is in `sys.modules`, where dataclasses would
# look the names up.
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bench.errors import BenchError, EnvironmentFault
from hydra_plugins._bench_job import LAUNCHER, SendingLauncher, SentJob, failure, outcome


@dataclass
class RayLauncherConf:
    """Settings of `hydra/launcher=ray`.

    Attributes:
        address: of a running Ray, `HOST:6379` or `auto` for the one on this machine; null starts one for the grid.
        num_cpus: cores of each run, and its threads.
        num_gpus: GPUs of each run; 0.25 puts four runs on one.
        max_retries: how often a run is started again after its worker or its machine died; -1 is without end.
        local_cpus: cores of the Ray that is started here; null is all.
    """

    _target_: str = "hydra_plugins.bench_ray_launcher.RayLauncher"
    address: str | None = "${oc.env:RAY_ADDRESS,null}"
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    max_retries: int = 3
    local_cpus: int | None = None


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="bench")

# Runs share nothing through Ray, whose own choice is a third of the memory.
OBJECT_STORE = 2**28
# Of the workers' output; Ray brings it in twice a second.
LAST_LINES = 1.0


class RayLauncher(SendingLauncher):
    """The runs of a grid as Ray tasks; see `RayLauncherConf`."""

    package = "ray"
    extra = "ray"

    def __init__(
        self, address: str | None, num_cpus: float, num_gpus: float, max_retries: int, local_cpus: int | None
    ) -> None:
        self.address, self.local_cpus, self.max_retries = address, local_cpus, max_retries
        self.needs = {"CPU": num_cpus, "GPU": num_gpus}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's first call.

        Raises:
            BenchError: Ray is missing, or a setting is one that it cannot use.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        cpus, gpus = self.needs["CPU"], self.needs["GPU"]
        LAUNCHER.above(0, num_cpus=cpus)
        if gpus < 0 or (gpus > 1 and gpus % 1):
            raise BenchError(f"hydra.launcher.num_gpus is {gpus:g}, it must be a share of one GPU or a whole number")
        if self.max_retries < -1:
            raise BenchError(f"hydra.launcher.max_retries is {self.max_retries}, it must be -1 (no limit) or more")
        LAUNCHER.at_least(1, local_cpus=self.local_cpus)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and wait for all of them.

        Raises:
            BenchError: no machine of the cluster can take a run.
            EnvironmentFault: there is no Ray at the address, or none could be started.
        """
        jobs = self.jobs(job_overrides, initial_job_idx)
        if not jobs:
            return []
        environment = worker_environment(os.environ, self.needs["CPU"])
        with running_ray(self.address, self.local_cpus, environment) as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            check_fits(self.needs, nodes)
            many = f"{len(nodes)} machine{'s' * (len(nodes) > 1)}"
            print(f"Ray: {len(jobs)} runs on {many}, at most {at_once(self.needs, nodes)} at once", flush=True)
            task = ray.remote(
                num_cpus=self.needs["CPU"],
                num_gpus=self.needs["GPU"],
                max_retries=self.max_retries,
            )(SentJob.__call__)
            # The name stands before each line that the run prints.
            waiting = {task.options(name=job.name).remote(job): i for i, job in enumerate(jobs)}
            returns: list[JobReturn] = [JobReturn()] * len(jobs)
            while waiting:
                (ref,), _ = ray.wait(list(waiting), num_returns=1)
                place = waiting.pop(ref)
                returns[place] = received(ray, ref, self.max_retries)
                print(outcome(jobs[place], returns[place]), flush=True)
            time.sleep(LAST_LINES)
            return returns


def received(ray: Any, ref: Any, retries: int) -> JobReturn:
    """What a task has returned; a fault of Ray's is the run's."""
    try:
        done: JobReturn = ray.get(ref)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        return failure(EnvironmentFault(f"Ray gave it up after {retries} retries: {said[0]}"))
    return done


@contextmanager
def running_ray(address: str | None, local_cpus: int | None, environment: dict[str, str]) -> Iterator[Any]:
    """The module `ray`, connected; what was started here is stopped, and with it the grid's tasks everywhere.

    Args:
        address: of a running Ray; None starts one.
        local_cpus: cores of the one that is started; None is all.
        environment: variables of all workers.

    Raises:
        EnvironmentFault: it could not be reached or started.
    """
    # All lines of all runs, not one for those that look alike; colours for a terminal alone; no report of use to
    # Ray's makers; what will once be its default, lest it warns; no workers made ready for nobody.
    own = {"DEDUP_LOGS": "0", "COLOR_PREFIX": str(int(sys.stdout.isatty())), "USAGE_STATS_ENABLED": "0"}
    for name, value in {**own, "ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "prestart_worker_first_driver": "0"}.items():
        os.environ.setdefault(f"RAY_{name}", value)
    import ray

    if address and ":" in address and "://" not in address:
        check_answers(address)
    here: dict[str, Any] = {"num_cpus": local_cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        # For the whole grid and not for each task: Ray keeps workers ready that have it.
        ray.init(
            address or "local",
            logging_level=logging.ERROR,
            runtime_env={"env_vars": environment},
            **({} if address else here),
        )
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise EnvironmentFault(f"no Ray at {address or 'this machine'}: {said[0]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Find out in five seconds what takes Ray minutes.

    Args:
        address: `HOST:PORT`.

    Raises:
        BenchError: the port is no number.
        EnvironmentFault: nobody listens there.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise BenchError(f"hydra.launcher.address is '{address}', it must be HOST:PORT, auto or null")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise EnvironmentFault(f"no Ray at {address}: {error}") from error


def check_fits(needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse what would wait for ever.

    Args:
        needs: resources of a run.
        nodes: resources of each machine.

    Raises:
        BenchError: no machine has what a run needs.
    """
    if at_once(needs, nodes):
        return
    asked = " and ".join(f"hydra.launcher.num_{kind.lower()}s={value:g}" for kind, value in needs.items() if value)
    have = "; ".join(sorted({f"{n.get('CPU', 0):g} cores, {n.get('GPU', 0):g} GPUs" for n in nodes}))
    raise BenchError(f"no machine of this Ray has room for a run with {asked}. There are: {have}.")


def at_once(needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int:
    """How many runs fit on the machines side by side.

    Args:
        needs: resources of a run.
        nodes: resources of each machine.
    """
    # Ray counts in ten-thousandths, so that 10 x 0.1 is 1.
    wanted = {kind: round(10_000 * value) for kind, value in needs.items() if value}
    return sum(min(round(10_000 * node.get(kind, 0)) // value for kind, value in wanted.items()) for node in nodes)


def worker_environment(environment: Mapping[str, str], cpus: float) -> dict[str, str]:
    """The variables that a worker has beside its machine's: the suite's and W&B's, threads for its cores.

    W&B's key is not among them: Ray shows these to everyone who can see the cluster.
    """
    kept = {k: v for k, v in environment.items() if k.startswith(("BENCH_", "WANDB_")) and k != "WANDB_API_KEY"}
    # A checkout that is not installed is found from wherever the worker starts.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": str(max(1, int(cpus)))}
