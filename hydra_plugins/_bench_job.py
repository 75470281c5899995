"""A run of a grid on its way to another process: what is sent, what comes back, what is said of it."""

from __future__ import annotations

import os
import pickle
import platform
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from bench import grid
from bench.errors import BenchError, EnvironmentFault, first_line
from bench.ranges import Numbers

LAUNCHER = Numbers("hydra.launcher.")
"""The numbers that launchers are set to."""


@dataclass(frozen=True)
class SentJob:
    """One run with all that Hydra needs to start it elsewhere.

    Attributes:
        name: its place in the grid, `3/24`.
        config: composed, the node `hydra` included.
        context: of the Hydra that composed it.
        task: what a run is.
        singletons: Hydra's state that is global to a process.
    """

    name: str
    config: DictConfig
    context: HydraContext
    task: TaskFunction
    singletons: dict[str, Any]

    def __call__(self) -> JobReturn:
        """Run it in this process, in the folder where the grid was started."""
        folder = self.config.hydra.runtime.cwd
        try:
            os.chdir(folder)
        except OSError as error:
            fault = EnvironmentFault(f"{platform.node()} cannot enter {folder} ({error.strerror}); machines share it")
            return failure(fault)
        # A copy: what this process adds to the state is not to be sent on with a run that is queued again.
        Singleton.set_state({**self.singletons, "instances": dict(self.singletons["instances"])})
        setup_globals()
        try:
            done = run_job(
                hydra_context=self.context,
                task_function=self.task,
                config=self.config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except KeyboardInterrupt:
            # A time limit's signal, or the cluster's: no fault, so no traceback.
            print(f"[{self.name}] interrupted", flush=True)
            raise SystemExit(130) from None
        if done.status is JobStatus.FAILED:
            return failure(portable(done._return_value))
        # The configuration stays here: its classes are made from signatures, and the grid's process has its own.
        return JobReturn(status=JobStatus.COMPLETED, _return_value=done.return_value)

    def checkpoint(self) -> Any:
        """Itself once more, for submitit: a run goes on after its last finished epoch by being started again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


class SendingLauncher(Launcher):
    """A launcher whose runs are `SentJob`s.

    Attributes:
        package: what has to be installed.
        extra: the suite's extra that brings it.
    """

    package: str
    extra: str

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's first call.

        Raises:
            BenchError: the package is missing.
        """
        if find_spec(self.package) is None:
            name = config.hydra.runtime.choices["hydra/launcher"]
            raise BenchError(f"hydra/launcher={name} needs {self.package}: pip install 'snn-bench[{self.extra}]'")
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @abstractmethod
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and wait for all of them."""

    def jobs(self, job_overrides: Sequence[Sequence[str]], start: int) -> list[SentJob]:
        """Composed jobs, ready to be sent.

        Args:
            job_overrides: of each.
            start: how many came before them.
        """
        setup_globals()
        jobs = []
        for place, overrides in enumerate(job_overrides, start):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(place), place
            name = config.hydra.job.name
            jobs.append(SentJob(name, config, self.hydra_context, self.task_function, Singleton.get_state()))
        return jobs


def failure(error: BaseException) -> JobReturn:
    """What Hydra calls a job that ended with an exception."""
    return JobReturn(status=JobStatus.FAILED, _return_value=error)


def portable(error: BaseException) -> BaseException:
    """An exception that another process can read: itself where that works, else its text."""
    try:
        same: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the classes of strangers raise when they are copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return same


def outcome(job: SentJob, done: JobReturn) -> str:
    """What the grid's process says when a job has ended: how, in a line, and how far the grid is, in another."""
    progress = grid.ended(failed=done.status is not JobStatus.COMPLETED)
    return f"{ending(job, done)}\n{progress}" if progress else ending(job, done)


def ending(job: SentJob, done: JobReturn) -> str:
    """How a job has ended, in a line."""
    value = done._return_value
    if done.status is JobStatus.COMPLETED:
        acc = value["test"]["acc"]
        test = "" if acc is None else f", test {acc:.2f} %"
        return f"[{job.name}] {value['status']}: {value['run_id']}{test}"
    return f"[{job.name}] failed: {first_line(value)}"
