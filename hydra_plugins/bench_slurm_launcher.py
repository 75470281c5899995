"""Hydra's launcher of the suite for Slurm: the runs of a grid as one job array, sent by submitit."""

# No `from __future__ import annotations`: Hydra runs this file before it is in `sys.modules`, where dataclasses would
# look the names up.
import io
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError, EnvironmentFault
from hydra_plugins._bench_job import LAUNCHER, SendingLauncher, SentJob, failure, outcome


@dataclass
class SlurmLauncherConf:
    """Settings of `hydra/launcher=submitit_slurm`, under submitit's names; null leaves it to the cluster.

    Attributes:
        submitit_folder: logs and what else submitit keeps, on a disk that all machines see.
        timeout_min: minutes until a run is interrupted and queued again.
        max_num_timeout: how often that may happen to a run.
        signal_delay_s: seconds before the end at which Slurm says so.
        array_parallelism: runs at once.
        cpus_per_task: cores of each run, and its threads.
        gpus_per_node: GPUs of each run.
        mem_gb: memory of each run.
        partition: to run in.
        account: to charge.
        qos: quality of service.
        constraint: features of the machines.
        setup: shell commands before each run.
        additional_parameters: other options of sbatch, `{mail-type: END}`.
    """

    _target_: str = "hydra_plugins.bench_slurm_launcher.SlurmLauncher"
    submitit_folder: str = "${runs}/.slurm/%j"
    timeout_min: int = 60
    max_num_timeout: int = 100
    signal_delay_s: int = 120
    array_parallelism: int = 256
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="submitit_slurm", node=SlurmLauncherConf, provider="bench")

# What submitit calls the same on every kind of cluster; the others begin with `slurm_`.
SHARED = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
# Slurm's controllers dislike to be asked often; a result on the disk is seen sooner.
ASK_QUEUE = 30.0
LOOK_FOR_RESULTS = 2.0


class SlurmLauncher(SendingLauncher):
    """The runs of a grid as a Slurm job array; see `SlurmLauncherConf`."""

    package = "submitit"
    extra = "slurm"

    def __init__(self, submitit_folder: str, max_num_timeout: int, setup: Any, **parameters: Any) -> None:
        self.folder, self.max_num_timeout, self.before = submitit_folder, max_num_timeout, list(setup)
        plain = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in parameters.items()}
        self.parameters: dict[str, Any] = {key: value for key, value in plain.items() if value is not None}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's first call.

        Raises:
            BenchError: submitit is missing, or a setting is one that Slurm cannot use.
            EnvironmentFault: this machine belongs to no Slurm cluster.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        least = {"timeout_min": 1, "signal_delay_s": 1, "array_parallelism": 1, "cpus_per_task": 1, "gpus_per_node": 0}
        for key, smallest in {**least, "mem_gb": 0}.items():
            LAUNCHER.at_least(smallest, **{key: self.parameters.get(key)})
        LAUNCHER.at_least(0, max_num_timeout=self.max_num_timeout)
        if self.parameters["signal_delay_s"] >= 60 * self.parameters["timeout_min"]:
            raise BenchError("hydra.launcher.signal_delay_s is not shorter than timeout_min: no run would get anywhere")
        missing = [command for command in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(command) is None]
        if missing:
            raise EnvironmentFault(f"no {missing[0]} on this machine: start the grid where jobs are sent to Slurm")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Send jobs and wait for all of them.

        Raises:
            BenchError: Slurm refused them.
        """
        jobs = self.jobs(job_overrides, initial_job_idx)
        sent = self.send(jobs)
        if not sent:
            return []
        array = array_of(sent[0].job_id)
        logs = sent[0].paths.get_first_id_independent_folder(self.folder)
        print(f"Slurm: {len(jobs)} runs as job {array}; logs in {logs}", flush=True)
        try:
            return collect(jobs, sent)
        except KeyboardInterrupt:
            print(f"\nSlurm goes on with job {array}; `scancel {array}` ends it", file=sys.stderr, flush=True)
            raise

    def send(self, jobs: Sequence[SentJob]) -> list[Any]:
        """Queue jobs.

        Returns:
            submitit's view of each.

        Raises:
            BenchError: Slurm refused them.
        """
        import submitit

        # It reports each attempt to read Slurm's accounts; the queue is asked here.
        logging.getLogger("submitit").setLevel(logging.ERROR)
        executor = submitit.AutoExecutor(
            folder=self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout
        )
        named = {key if key in SHARED else f"slurm_{key}": value for key, value in self.parameters.items()}
        before, cores = self.before, self.parameters.get("cpus_per_task")
        if cores is not None:
            # srun does not take it over from sbatch (Slurm 22.05 and later).
            named["slurm_srun_args"] = [f"--cpus-per-task={cores}"]
            before = [f"export OMP_NUM_THREADS={cores}", *before]
        executor.update_parameters(**named, name="snn-bench", stderr_to_stdout=True, slurm_setup=before)
        try:
            # submitit prints what sbatch says and then raises it.
            with redirect_stderr(io.StringIO()), executor.batch():
                return [executor.submit(job) for job in jobs]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines()
            raise BenchError(f"Slurm refused the grid: {said[-1].partition('error: ')[2] or said[-1]}") from error


def collect(jobs: Sequence[SentJob], sent: Sequence[Any]) -> list[JobReturn]:
    """Wait until every job has left a result or the queue.

    Args:
        jobs: that were sent.
        sent: submitit's view of each.
    """
    returns: list[JobReturn] = [JobReturn()] * len(jobs)
    waiting, gone = dict(enumerate(sent)), set[str]()
    asked = time.monotonic()
    while waiting:
        time.sleep(LOOK_FOR_RESULTS)
        lost = set[str]()
        if time.monotonic() - asked > ASK_QUEUE:
            queued = in_queue(array_of(sent[0].job_id))
            asked = time.monotonic()
            if queued is not None:
                absent = {job.job_id for job in waiting.values()} - queued
                # Twice in a row: a shared disk may show a result later than the queue shows the end.
                lost, gone = absent & gone, absent
        for place, job in list(waiting.items()):
            if job.paths.result_pickle.exists():
                returns[place] = result_of(job)
            elif job.job_id in lost:
                fault = f"Slurm job {job.job_id} left the queue without a result; its log: {job.paths.stdout}"
                returns[place] = failure(EnvironmentFault(fault))
            else:
                continue
            del waiting[place]
            print(outcome(jobs[place], returns[place]), flush=True)
    return returns


def result_of(job: Any) -> JobReturn:
    """What a job has returned; a fault of submitit's is the run's."""
    from submitit.core.utils import UncompletedJobError

    try:
        done: JobReturn = job.result()
    except UncompletedJobError:
        return failure(EnvironmentFault(f"Slurm job {job.job_id} could not run it; its log: {job.paths.stdout}"))
    return done


def array_of(job_id: str) -> str:
    """The number of a whole job array: `12` of `12_3`."""
    return job_id.partition("_")[0]


def in_queue(array: str) -> set[str] | None:
    """The ids of an array's jobs that wait, run, or wait again; None where Slurm does not answer.

    Args:
        array: its number.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={array}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Slurm forgets a job some minutes after its end.
    if said.returncode and "Invalid job id" not in said.stderr:
        return None
    return set(re.findall(r"^\s*(\d+(?:_\d+)?)\s*$", said.stdout, re.MULTILINE))
