"""`bench tune` as people run it: real processes, real records, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.commands import submit
from bench.config.options import beside
from bench.errors import BenchError

WORKLOADS = """\
# @package _global_
# Two workloads of the embedded digits
hydra: {mode: MULTIRUN}
experiment:
  budget: smoke
  baseline: none
  workloads:
    tiny: [data=digits, model=cnn]
    tinier: [data=digits, model=mlp]
  rows:
    - {label: none, overrides: [reg=none]}
    - {label: dropout, overrides: [reg=dropout]}
"""


def command(folder: Path, *words: str) -> list[str]:
    own = folder / "own" / "experiment"
    own.mkdir(parents=True, exist_ok=True)
    (own / "mine.yaml").write_text(WORKLOADS)
    return [sys.executable, "-m", "bench", "tune", "mine", "--config-dir", str(folder / "own"), "logger=none", *words]


def alone(folder: Path) -> dict[str, str]:
    """The environment of a user whose runs lie in a folder of their own."""
    return os.environ | {"BENCH_RUNS": str(folder / "runs")}


def tune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *words), cwd=folder, env=alone(folder), capture_output=True, text=True, timeout=600
    )


def files(folder: Path) -> dict[str, str]:
    studies = folder / "runs" / "studies"
    return {str(path.relative_to(studies)): path.read_text() for path in sorted(studies.rglob("*")) if path.is_file()}


def test_a_study_killed_in_the_middle_ends_as_one_that_was_not(tmp_path: Path) -> None:
    asked = ("workload=tiny", "reg=none,dropout", "trials=2", "seeds=2")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
    process = subprocess.Popen(
        command(killed, *asked),
        cwd=killed,
        env=alone(killed),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 300
    while not list(killed.glob("runs/*/result.json")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not files(killed)

    again, once = tune(killed, *asked), tune(whole, *asked)
    assert (again.returncode, once.returncode) == (0, 0), again.stderr + once.stderr
    assert files(killed) == files(whole)
    assert "complete: studies in" in once.stdout
    assert {name.rsplit("-", 2)[0] for name in files(whole)} == {"tiny-none", "tiny-dropout"}

    # Each trial is a line, each choice has its final runs; the default is the first trial.
    for name, text in files(whole).items():
        if name.endswith("trials.jsonl"):
            lines = [json.loads(line) for line in text.splitlines()]
            assert [line["trial"] for line in lines] == [0, 1]
            assert all(line["status"] == "finished" and line["val_acc"] is not None for line in lines)
            assert not any("test" in key for line in lines for key in line)
        else:
            study = json.loads(text)
            assert study["choices"]["default"]["trial"] == 0
            for choice in study["choices"].values():
                seeds = [json.loads((whole / "runs" / run / "result.json").read_text()) for run in choice["runs"]]
                assert [result["seed"] for result in seeds] == [1, 2]
                assert all(result["val"] is None for result in seeds)

    before = sorted(path.stat().st_mtime_ns for path in whole.rglob("result.json"))
    third = tune(whole, *asked)
    assert third.returncode == 0
    assert "nothing to run" in third.stdout
    assert before == sorted(path.stat().st_mtime_ns for path in whole.rglob("result.json"))

    # Nobody else has this workload, a study of budget=smoke says nothing, and without a trial it is not complete.
    study = next((whole / "runs" / "studies").glob("tiny-dropout-*"))
    with pytest.raises(BenchError, match="its workload is one of your own 'mine': put that file into configs/"):
        submit.submit_study(study, whole / "records", print)
    with beside(whole / "own"):
        with pytest.raises(BenchError, match=r"its run \S+: budget=smoke only shows that a run works"):
            submit.submit_study(study, whole / "records", print)
        lost = json.loads((study / "trials.jsonl").read_text().splitlines()[1])["run"]
        (whole / "runs" / lost / "result.json").unlink()
        with pytest.raises(BenchError, match="1 of its 2 trials have not run; `bench tune` goes on with them"):
            submit.submit_study(study, whole / "records", print)
    assert not (whole / "studies").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workload=tny", "reg=none"], "mine has no workload 'tny'. Did you mean 'tiny'"),
        (["workload=tiny"], "tune what? reg=NAME"),
        (["workload=tiny", "reg=dropuot"], "no regularizer is called 'dropuot'. Did you mean 'dropout'"),
        (["workload=tiny", "reg=none", "trials=few"], "trials is 'few', it must be a whole number"),
        (["workload=tiny", "reg=none", "trials=0"], "trials is 0, it must be at least 1"),
        (["workload=tiny", "reg=none", "ruleset=tunde"], "no ruleset is called 'tunde'. Did you mean 'tuned'"),
        (["workload=tiny", "reg=none", "optim.lr=0.1"], "'optim.lr=0.1' cannot be set here: the protocol searches"),
        (["workload=tiny", "reg=none", "data.val_fraction=0"], "'data.val_fraction=0' cannot be set here"),
        (["workload=tiny", "reg=dropout", "reg.dropout.p=0.2"], "'reg.dropout.p=0.2' cannot be set here"),
        (["workload=tiny", "reg=none", "model=sew"], "'model=sew' cannot be set here: workload= names both"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    from bench.commands import tune as module

    with pytest.raises(BenchError) as error:
        module.main(command(tmp_path, *words)[4:])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_an_experiment_without_workloads_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench", "tune", "suite/digits", "reg=none", "workload=x"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["error: suite/digits has no workloads to tune on; suite/small has"]
