"""The launchers without a cluster: their settings, what they refuse, what they send, how they read the answer."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from bench.errors import BenchError, EnvironmentFault
from hydra_plugins import _bench_job, bench_ray_launcher, bench_slurm_launcher
from tests.cluster.conftest import Grid, records

Cli = Callable[..., tuple[int, str, str]]
RAY, SLURM = "hydra/launcher=ray", "hydra/launcher=submitit_slurm"


def test_the_settings_compose_and_are_typed(cli: Cli) -> None:
    status, out, _ = cli("run", RAY, "hydra.launcher.num_gpus=0.25", "hydra.launcher.num_cpus=2", "--cfg", "hydra")
    assert status == 0
    assert "num_gpus: 0.25\n" in out
    assert "num_cpus: 2.0\n" in out
    status, out, _ = cli("run", SLURM, "hydra.launcher.setup=[module load cuda]", "--cfg", "hydra")
    assert status == 0
    assert "- module load cuda\n" in out
    assert "submitit_folder: ${runs}/.slurm/%j\n" in out


@pytest.mark.parametrize(
    ("launcher", "setting", "said"),
    [
        ("hydra/launcher=rya", "seed=0", "no launcher is called 'rya'. Did you mean 'ray'? There are: basic, ray, "),
        (RAY, "hydra.launcher.adress=x", "hydra.launcher has no setting 'adress'. Did you mean 'address'?"),
        (RAY, "hydra.launcher.num_cpus=x", "hydra.launcher.num_cpus is 'x', it must be a number"),
        (RAY, "hydra.launcher.num_cpus=0", "hydra.launcher.num_cpus is 0, it must be above 0"),
        (
            RAY,
            "hydra.launcher.num_gpus=1.5",
            "hydra.launcher.num_gpus is 1.5, it must be a share of one GPU",
        ),
        (RAY, "hydra.launcher.num_gpus=-1", "hydra.launcher.num_gpus is -1, it must be a share"),
        (RAY, "hydra.launcher.max_retries=-2", "hydra.launcher.max_retries is -2, it must be -1 (no limit) or more"),
        (RAY, "hydra.launcher.local_cpus=0", "hydra.launcher.local_cpus is 0, it must be at least 1"),
        (SLURM, "hydra.launcher.timeout_min=0", "hydra.launcher.timeout_min is 0, it must be at least 1"),
        (SLURM, "hydra.launcher.cpus_per_task=0", "hydra.launcher.cpus_per_task is 0, it must be at least 1"),
        (SLURM, "hydra.launcher.mem_gb=x", "hydra.launcher.mem_gb is 'x', it must be a number or null"),
        (SLURM, "hydra.launcher.max_num_timeout=-1", "hydra.launcher.max_num_timeout is -1, it must be at least 0"),
        (SLURM, "hydra.launcher.signal_delay_s=3600", "hydra.launcher.signal_delay_s is not shorter than timeout_min"),
    ],
)
def test_a_mistake_is_one_line(cli: Cli, asked: list[DictConfig], launcher: str, setting: str, said: str) -> None:
    status, out, err = cli("run", "-m", launcher, setting)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {said}")
    assert not asked


@pytest.mark.parametrize(("name", "extra"), [("ray", "ray"), ("submitit_slurm", "slurm")])
def test_a_missing_package_names_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr(_bench_job, "find_spec", lambda package: None)
    status, _, err = cli("run", "-m", f"hydra/launcher={name}", "seed=0,1")
    package = name.partition("_")[0]
    assert (status, err) == (2, f"error: hydra/launcher={name} needs {package}: pip install 'snn-bench[{extra}]'\n")


def test_a_machine_outside_the_cluster_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    status, _, err = cli("run", "-m", SLURM, "seed=0,1")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: no sbatch on this machine")


def test_nobody_at_an_address_is_said_at_once() -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EnvironmentFault, match=f"no Ray at 127.0.0.1:{port}: .*refused"):
        bench_ray_launcher.check_answers(f"127.0.0.1:{port}")
    with pytest.raises(BenchError, match="must be HOST:PORT, auto or null"):
        bench_ray_launcher.check_answers("head:")
    with socket.create_server(("127.0.0.1", 0)) as server:
        bench_ray_launcher.check_answers(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "runs"),
    [
        (1, 0, [(2, 0)], 2),
        (0.1, 0, [(1, 0)], 10),
        (1, 0.25, [(16, 1)], 4),
        (1, 0.25, [(3, 1)], 3),
        (2, 0, [(3, 0), (5, 1)], 1 + 2),
        (1, 1, [(64, 0), (2, 8)], 2),
        (1, 2, [(64, 1), (64, 1)], 0),
        (8, 0, [(4, 0), (4, 0)], 0),
    ],
)
def test_how_many_runs_fit_at_once(cpus: float, gpus: float, nodes: list[tuple[float, float]], runs: int) -> None:
    resources = [{"CPU": float(c), "GPU": float(g)} if g else {"CPU": float(c)} for c, g in nodes]
    needs = {"CPU": cpus, "GPU": gpus}
    assert bench_ray_launcher.at_once(needs, resources) == runs
    if runs:
        bench_ray_launcher.check_fits(needs, resources)
    else:
        with pytest.raises(BenchError, match="no machine of this Ray has room for a run with"):
            bench_ray_launcher.check_fits(needs, resources)


@given(st.integers(1, 64), st.integers(1, 10_000))
def test_shares_of_a_gpu_add_up(cores: int, share: int) -> None:
    """In whole numbers, where no sum of shares is rounded."""
    found = bench_ray_launcher.at_once({"CPU": 1, "GPU": share / 10_000}, [{"CPU": cores, "GPU": 1}])
    assert found == min(cores, 10_000 // share)


def test_a_worker_gets_the_suites_variables_and_no_key() -> None:
    given = {"BENCH_DATA": "/data", "WANDB_MODE": "offline", "WANDB_API_KEY": "secret", "HOME": "/home/me"}
    found = bench_ray_launcher.worker_environment(given, 2.5)
    assert set(found) == {"BENCH_DATA", "WANDB_MODE", "PYTHONPATH", "OMP_NUM_THREADS"}
    assert (found["BENCH_DATA"], found["OMP_NUM_THREADS"]) == ("/data", "2")
    assert bench_ray_launcher.worker_environment({}, 0.25)["OMP_NUM_THREADS"] == "1"
    assert all(found["PYTHONPATH"].split(os.pathsep))


class Stubborn(Exception):
    """Cannot be read again: its constructor wants two arguments."""

    def __init__(self, key: str, value: str) -> None:
        super().__init__(f"{key} is {value}")


def test_exceptions_cross_processes() -> None:
    fault = EnvironmentFault("the disk is full")
    same = _bench_job.portable(fault)
    assert (type(same), str(same)) == (EnvironmentFault, "the disk is full")
    other = _bench_job.portable(Stubborn("a", "b"))
    assert (type(other), str(other)) == (RuntimeError, "Stubborn: a is b")
    pickle.loads(pickle.dumps(other))


def test_what_is_said_of_a_job_that_ended() -> None:
    job: Any = SimpleNamespace(name="3/24")
    value = {"run_id": "digits-cnn-none-s0-00000000", "status": "finished", "test": {"acc": 97.126}}
    done = JobReturn(status=JobStatus.COMPLETED, _return_value=value)
    assert _bench_job.outcome(job, done) == "[3/24] finished: digits-cnn-none-s0-00000000, test 97.13 %"
    value |= {"status": "diverged", "test": {"acc": None}}
    assert _bench_job.outcome(job, done) == "[3/24] diverged: digits-cnn-none-s0-00000000"
    assert _bench_job.outcome(job, _bench_job.failure(BenchError("no\nand more"))) == "[3/24] failed: no"


def test_a_folder_that_a_machine_lacks_is_the_runs_fault(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create({"hydra": {"runtime": {"cwd": str(tmp_path / "gone")}}})
    nothing: Any = None
    done = _bench_job.SentJob("1/1", config, nothing, nothing, {})()
    assert done.status is JobStatus.FAILED
    assert re.search(r"cannot enter .*gone \(No such file or directory\); machines share it", str(done._return_value))


# -- Slurm, played by scripts -------------------------------------------------------------------------

# What submitit calls of Slurm, one task after the other; the second has a machine that dies at once.
SBATCH = r"""#!/bin/bash
echo "Submitted batch job 7"
script=$1
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$script")
for task in $(seq 0 "$last"); do
    echo "7_$task" >>QUEUE
done
for task in $(seq 0 "$last"); do
    # submitit puts the tasks' pickles in place once it has the number, however long that takes.
    until [ -e "$(dirname "$script")/7_$task/7_${task}_submitted.pkl" ]; do sleep 0.1; done
    if [ "$task" != 1 ]; then
        SLURM_JOB_ID=$((8 + task)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_NTASKS=1 SLURM_PROCID=0 \
            SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_LOCALID=0 bash "$script"
    fi
    sed -i "/^7_$task$/d" QUEUE
done >/dev/null 2>&1 </dev/null &
disown
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    if [[ $1 == --output ]]; then out=$2; shift; fi
    echo "$1" >>OPTIONS
    shift
done
out=${out//\\%A_\\%a/7_$SLURM_ARRAY_TASK_ID}
exec "$@" >"${out//\\%t/0}" 2>&1
"""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on $PATH with Slurm's commands as scripts."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    queue, options = folder / "queue", folder / "options"
    queue.touch()
    scripts = {
        "sbatch": SBATCH.replace("QUEUE", str(queue)),
        "srun": SRUN.replace("OPTIONS", str(options)),
        "squeue": f"#!/bin/bash\ncat {queue}\n",
        "scontrol": "#!/bin/bash\nexit 1\n",
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_the_queue_is_read(played: Path) -> None:
    (played / "queue").write_text("  7_0\n7_12 \n")
    assert bench_slurm_launcher.in_queue("7") == {"7_0", "7_12"}
    (played / "squeue").write_text("#!/bin/bash\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n")
    assert bench_slurm_launcher.in_queue("7") == set()
    (played / "squeue").write_text("#!/bin/bash\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    assert bench_slurm_launcher.in_queue("7") is None


def test_a_job_lost_twice_is_given_up_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(bench_slurm_launcher, "ASK_QUEUE", 0.0)
    monkeypatch.setattr(bench_slurm_launcher, "LOOK_FOR_RESULTS", 0.001)
    done = JobReturn(status=JobStatus.FAILED, _return_value=BenchError("bad"))

    def sent(task: int) -> Any:
        paths = SimpleNamespace(result_pickle=tmp_path / str(task), stdout=f"{task}.log")
        return SimpleNamespace(job_id=f"7_{task}", paths=paths, result=lambda: done)

    # Job 0 is queued again after a moment out of sight, and Slurm once does not answer; job 1 is gone for good.
    answers = iter([{"7_0", "7_1"}, {"7_0"}, None, set(), {"7_0"}, {"7_0"}])

    def asked(array: str) -> set[str] | None:
        try:
            return next(answers)
        except StopIteration:
            (tmp_path / "0").touch()
            return {"7_0"}

    monkeypatch.setattr(bench_slurm_launcher, "in_queue", asked)
    jobs: list[Any] = [SimpleNamespace(name="1/2"), SimpleNamespace(name="2/2")]
    first, second = bench_slurm_launcher.collect(jobs, [sent(0), sent(1)])
    assert first is done
    assert str(second._return_value) == "Slurm job 7_1 left the queue without a result; its log: 1.log"
    assert capsys.readouterr().out.splitlines() == [
        "[2/2] failed: Slurm job 7_1 left the queue without a result; its log: 1.log",
        "[1/2] failed: bad",
    ]


def test_a_run_inside_a_slurm_job_is_one_process(
    played: Path, run_tiny: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would want four, and warns wherever there is an `srun`; warnings are errors here."""
    for name, value in {"JOB_ID": "7", "NTASKS": "4", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert run_tiny()["status"] == "finished"
    for name in ("JOB_ID", "NTASKS"):
        monkeypatch.delenv(f"SLURM_{name}")
    assert run_tiny("seed=1")["status"] == "finished"


def test_slurm_refuses_in_one_line(played: Path, bench: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    pytest.importorskip("submitit")
    (played / "sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition specified: gpu' >&2\n"
        "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2\nexit 1\n"
    )
    done = bench("run", "-m", SLURM, "hydra.launcher.partition=gpu", "budget=smoke", "seed=0,1", "logger=none")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: Slurm refused the grid: Batch job submission failed: Invalid partition name specified"
    ]


@pytest.mark.slow
def test_a_grid_through_submitit(played: Path, grid: Callable[..., Grid], tmp_path: Path) -> None:
    """Three real processes that submitit starts; where Slurm cannot be installed, nothing else runs this path."""
    pytest.importorskip("submitit")
    many = grid(SLURM, "hydra.launcher.cpus_per_task=1", "hydra.launcher.array_parallelism=1", "seed=0,1,2")
    assert many.finish() == 1
    assert many.lines[:2] == [
        "3 runs, 0 finished, 3 to do",
        f"Slurm: 3 runs as job 7; logs in {tmp_path}/runs/.slurm",
    ]
    assert {result["seed"]: result["hardware"][-9:] for result in records(tmp_path / "runs").values()} == {
        0: "1 threads",
        2: "1 threads",
    }
    log = f"{tmp_path}/runs/.slurm/7_1/7_1_0_log.out"
    assert re.search(rf"^  \[2/3\] .*seed=1.*: exit 1, Slurm job 7_1 left the queue .*{log}$", many.errors[-1])
    assert "[1/3] " in (tmp_path / "runs/.slurm/7_0/7_0_0_log.out").read_text()
    assert "--cpus-per-task=1" in (played / "options").read_text()
