"""W&B and trackio never prompt, never hang, never cost a run: real sockets, offline W&B, trackio's own database."""

from __future__ import annotations

import csv
import json
import os
import pwd
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.config.schema import LoggerConfig, LoggerName, WandbMode
from bench.errors import BenchError
from bench.records.folder import RunFolder
from bench.training import logger as module
from bench.training.logger import Tracker, WandbRun, answers, at_home, choose_mode, flatten

Bench = Callable[..., subprocess.CompletedProcess[str]]

ROW = {
    "epoch": 1,
    "lr": 0.1,
    "train": {"acc": 50.0, "loss": 1.5, "spike_rate": 0.25, "spike_rate_layer_mean": 0.2},
    "test": {"acc": 40.0, "loss": 1.7, "spike_rate": None, "spike_rate_layer_mean": None},
    "penalties": {"spikepen": 0.01},
    "layers": {"spikings.0": 0.3},
    "images": 10,
    "images_per_s": 100.0,
    "seconds": {"train": 1.0, "eval": 0.5},
}


class Refuses(BaseHTTPRequestHandler):
    """A server that is there, and has nothing for us."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refuses) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def deaf() -> Iterator[str]:
    """Accepts a connection and never says a word: what a key without a network looks like behind some firewalls."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_answers_or_does_not(server: str, deaf: str) -> None:
    assert answers(server), "any answer will do, a 404 too"
    began = time.monotonic()
    assert not answers(deaf, seconds=0.3)
    assert time.monotonic() - began < 5
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert not answers(closed)


@pytest.mark.parametrize(
    ("asked", "variable", "key", "up", "mode"),
    [
        ("auto", None, False, True, "offline"),
        ("auto", None, True, True, "online"),
        ("auto", None, True, False, "offline"),
        ("auto", "offline", True, True, "offline"),
        ("auto", "dryrun", True, True, "offline"),
        ("auto", "disabled", True, True, "disabled"),
        ("auto", "online", True, False, "offline"),
        ("online", "offline", True, True, "online"),
        ("online", None, False, True, "offline"),
        ("offline", "online", True, True, "offline"),
        ("disabled", None, True, True, "disabled"),
    ],
)
def test_mode(
    asked: str,
    variable: str | None,
    key: bool,
    up: bool,
    mode: str,
    server: str,
    deaf: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server if up else deaf)
    monkeypatch.setattr(module, "answers", lambda url: answers(url, seconds=0.3))
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    chosen, reason = choose_mode(LoggerConfig(mode=WandbMode(asked)))
    assert chosen == mode
    # Silence is right only when the user gets what was asked for, or has no account at all.
    surprised = chosen == "offline" and asked != "offline" and variable not in ("offline", "dryrun")
    assert (reason is not None) == (surprised and (key or asked == "online"))


def test_a_key_in_netrc_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str) -> None:
    (tmp_path / "netrc").write_text(f"machine {server.removeprefix('http://')}\n  login user\n  password {'x' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert choose_mode(LoggerConfig())[0] == "online"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "WANDB_MODE",
            "ofline",
            "$WANDB_MODE is 'ofline', which is no choice. Did you mean 'offline' or 'online'? There",
        ),
        (
            "WANDB_MODE",
            "",
            "$WANDB_MODE is '', which is no choice. There are: disabled, dryrun, offline, online, run, ",
        ),
        ("WANDB_BASE_URL", "garbage", "$WANDB_BASE_URL is 'garbage', it must be an address like https://"),
    ],
)
def test_a_variable_that_wandb_does_not_take_is_one_line(
    bench: Bench, tiny: tuple[str, ...], tmp_path: Path, name: str, value: str, said: str
) -> None:
    done = bench("run", *tiny, "logger=wandb", env={"WANDB_API_KEY": "x" * 40, name: value})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {said}")
    assert not (tmp_path / "runs").exists()
    # Where nothing goes to W&B, its variables are nobody's business.
    assert bench("run", *tiny, env={name: value}).returncode == 0


@pytest.mark.parametrize(("value", "project"), [("mine", "mine"), ("", "snn-regularizers")])
def test_the_project_is_the_environments(bench: Bench, value: str, project: str) -> None:
    shown = bench("run", "--cfg", "job", "-p", "logger", env={"WANDB_PROJECT": value}).stdout
    assert f"project: {project}\n" in shown
    asked = bench("run", "--cfg", "job", "-p", "logger", "logger.project=other", env={"WANDB_PROJECT": value}).stdout
    assert "project: other\n" in asked


def test_without_a_home_wandb_writes_no_log_to_the_terminal(
    bench: Bench, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    done = bench("run", *tiny, "logger=wandb", "logger.mode=offline")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs").rglob("*.wandb"))
    lines = (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if re.match(r"\d{4}/\d\d/\d\d ", line)]


@pytest.mark.parametrize("before", [None, "", "/somewhere"])
def test_a_home_is_lent_where_there_is_none(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("HOME")
    if before is not None:
        monkeypatch.setenv("HOME", before)
    with at_home():
        assert os.environ["HOME"] == (before or pwd.getpwuid(os.getuid()).pw_dir)
    assert os.environ.get("HOME") == before


def test_rows_as_wandb_keys() -> None:
    assert flatten(ROW) == {
        "epoch": 2,  # counted from 1, as in the terminal
        "lr": 0.1,
        "images_per_s": 100.0,
        "train/acc": 50.0,
        "train/loss": 1.5,
        "spike_rate/train": 0.25,
        "spike_rate_layer_mean/train": 0.2,
        "test/acc": 40.0,
        "test/loss": 1.7,
        "penalty/spikepen": 0.01,
        "spike_rate_layer/spikings.0": 0.3,
    }


def inspect(folder: RunFolder) -> list[dict[str, Any]]:
    (log,) = folder.wandb_path.rglob("*.wandb")
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", log]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return [json.loads(line) for line in shown.splitlines() if line.startswith("{")]


def test_offline_history_and_config_can_be_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "some-run")
    folder.path.mkdir()
    config = LoggerConfig(mode=WandbMode.offline)
    tracker = Tracker(config, folder, {"reg": "spikepen", "strength": 0.5}, "some-run", [{**ROW, "epoch": 0}])
    assert tracker.mode == "offline"
    tracker.log(ROW)
    tracker.finish({"gap": 2.5, "synops_per_image": 1e6, "nothing": None}, 2)
    lines = inspect(folder)
    text = json.dumps(lines)
    assert text.count("test/acc") >= 2
    assert "spike_rate_layer/spikings.0" in text
    assert "strength" in text
    assert "synops_per_image" in text
    # W&B draws each curve over the step that its key was last defined with.
    steps = [line["metric"]["step_metric"] for line in lines if "glob_name" in line.get("metric", {})]
    assert steps[-1] == "epoch"
    assert [line["history"]["item"].get("trainer/global_step") for line in lines if "history" in line] == [None] * 3


def offline(bench: Bench, runs: Path, *overrides: str, **env: str) -> dict[str, Any]:
    """The run in W&B's offline file of a smoke run, which is a process of its own; its epochs and summary beside."""
    done = bench(
        "run",
        *SMOKE,
        *overrides,
        "logger=wandb",
        "logger.mode=offline",
        f"runs={runs}",
        env={"WANDB_SILENT": "true", **env},
    )
    assert done.returncode == 0, done.stderr
    (path,) = [path.parent for path in runs.glob("*/result.json")]
    lines = inspect(RunFolder(runs, path.name))
    items = [line["history"]["item"] for line in lines if "history" in line]
    epochs = [item["epoch"] for item in items if "lr" in item]  # the outcome's line repeats the last
    summary: dict[str, Any] = {}
    for line in lines:
        summary |= line.get("history", {}).get("item", {})
    (own,) = [line["run"] for line in lines if "run" in line]
    return {**own, "epochs": epochs, "summary": summary, "id": path.name}


SMOKE = (
    "budget=smoke",
    "model=cnn",
    "model.channels=4",
    "model.depth=3",
    "trainer.accelerator=cpu",
    "trainer.epochs=2",
)


def test_a_run_is_grouped_and_tagged_and_its_settings_are_levels(bench: Bench, tmp_path: Path) -> None:
    one = offline(bench, tmp_path / "a", "reg=spikepen", "seed=0", BENCH_EXPERIMENT="suite/digits,a/b")
    other = offline(bench, tmp_path / "b", "reg=spikepen", "seed=1", "logger.job_type=tune")
    third = offline(bench, tmp_path / "c", "reg=spikepen", "reg.spikepen.weight=0.5", "logger.job_type=tune-final")
    # The seeds of a setting share a group, which is the run's name without its seed.
    group = one["run_group"]
    assert group == other["run_group"] != third["run_group"]
    assert re.fullmatch(r"digits-cnn-spikepen-[0-9a-f]{8}", group)
    assert one["id"] == group.replace("spikepen-", "spikepen-s0-")
    assert [run["job_type"] for run in (one, other, third)] == ["train", "tune", "tune-final"]
    assert sorted(one["tags"]) == ["a/b", "cnn", "digits", "smoke", "suite/digits"]
    assert sorted(other["tags"]) == ["cnn", "digits", "smoke"]
    config = one["config"]["update"]
    assert {key: config[key] for key in ("reg", "data", "model", "strength", "seed", "budget")} == {
        "reg": "spikepen", "data": "digits", "model": "cnn", "strength": 0.1, "seed": 0, "budget": "smoke",
    }  # fmt: skip
    assert config["regs"]["spikepen"]["weight"] == 0.1
    assert config["model_args"] == {"channels": 4, "depth": 3}
    assert config["trainer"]["epochs"] == 2
    assert not any("." in key for key in keys_of(config))
    assert one["epochs"] == [1, 2]
    assert {"dead", "saturated", "params", "seconds", "gap", "final/test_acc"} <= set(one["summary"])
    result = json.loads((tmp_path / "a" / one["id"] / "result.json").read_text())
    assert one["summary"]["params"] == result["params"]
    assert one["summary"]["seconds"] == pytest.approx(result["seconds"]["total"])


def keys_of(node: Any) -> Iterator[str]:
    """Every key in some settings; W&B's own begin with an underscore."""
    for key, item in node.items() if isinstance(node, dict) else ():
        if not key.startswith("_"):
            yield key
            yield from keys_of(item)


def test_the_job_type_is_no_part_of_a_run_and_is_checked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.config.compose import compose
    from bench.records.identity import run_id, science

    names = {run_id(science(compose([f"logger.job_type={kind}"]))) for kind in module.JOB_TYPES}
    assert len(names) == 1
    done = bench("run", *SMOKE, "logger=none", "logger.job_type=tuen")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: logger.job_type is 'tuen', which is no choice. Did you mean 'tune'")


def test_the_runs_of_an_experiment_are_tagged_with_it(bench: Bench, tmp_path: Path) -> None:
    """Through the grid: the run itself knows no experiment, and its name must not either."""
    typed = ("experiment=nandan2022/table4_2", "budget=smoke", "seed=0", "data=digits")
    done = bench("run", *typed, "logger=wandb", "logger.mode=offline", timeout=300)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "runs").glob("*/result.json"):
        (run,) = [line["run"] for line in inspect(RunFolder(tmp_path / "runs", path.parent.name)) if "run" in line]
        assert sorted(run["tags"]) == ["cnn", "digits", "nandan2022/table4_2", "smoke"]


def test_a_failing_init_ends_offline_or_off_and_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path, "some-run")
    folder.path.mkdir()
    asked: list[str] = []

    def fail(config: Any, folder: Any, settings: Any, run_id: str, group: str, mode: str) -> Any:
        asked.append(mode)
        raise RuntimeError("the service fell over\nand said much more")

    monkeypatch.setattr(WandbRun, "_init", staticmethod(fail))
    monkeypatch.setattr(module, "choose_mode", lambda config: ("online", None))
    tracker = Tracker(LoggerConfig(), folder, {}, "some-run", [])
    tracker.log(ROW)
    tracker.finish({}, 0)
    assert asked == ["online", "offline"]
    assert tracker.mode == "off"
    out = capsys.readouterr().out
    assert "W&B continues offline: RuntimeError: the service fell over\n" in out
    assert "W&B is off for this run: RuntimeError: RuntimeError: the service fell over\n" in out
    assert "much more" not in out


def test_no_logger_writes_no_wandb_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "some-run")
    tracker = Tracker(LoggerConfig(name=LoggerName.none), folder, {}, "some-run", [])
    tracker.log(ROW)
    tracker.finish({}, 0)
    assert tracker.mode == "off"
    assert not folder.wandb_path.exists()


# -- files of Lightning's, and several at once --------------------------------------------------------


def test_two_loggers_at_once_write_what_the_record_has(bench: Bench, tmp_path: Path) -> None:
    runs = tmp_path / "files"
    done = bench("run", *SMOKE, "logger=[csv,tensorboard]", f"runs={runs}", timeout=400)
    assert done.returncode == 0, done.stderr
    assert re.search(r"CSV, TensorBoard *. files, files", done.stdout)
    (folder,) = [path.parent for path in runs.glob("*/result.json")]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with (folder / "csv" / "metrics.csv").open() as file:
        *epochs, last = csv.DictReader(file)
    assert [float(row["train/loss"]) for row in epochs] == [row["train"]["loss"] for row in rows]
    assert [int(row["epoch"]) for row in epochs] == [1, 2]
    result = json.loads((folder / "result.json").read_text())
    assert float(last["final/test_acc"]) == result["test"]["acc"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [1, 2]
    assert [scalar.value for scalar in events.Scalars("train/loss")] == pytest.approx(
        [row["train"]["loss"] for row in rows], rel=1e-6
    )
    assert not (folder / "wandb").exists()


def test_a_resumed_run_begins_its_files_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "some-run")
    folder.path.mkdir()
    config = LoggerConfig(name=LoggerName.csv, chosen={"csv": True})
    for rows in ([], [{**ROW, "epoch": 0}]):
        tracker = Tracker(config, folder, {"reg": "none"}, "some-run", rows)
        tracker.log({**ROW, "epoch": len(rows)})
        tracker.finish(None, len(rows))
    with (folder.path / "csv" / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2]


def test_one_logger_that_fails_takes_none_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path, "some-run")
    folder.path.mkdir()

    def fail(*_: Any) -> None:
        raise RuntimeError("no room")

    config = LoggerConfig(name=LoggerName.csv, chosen={"tensorboard": True, "csv": True})
    tracker = Tracker(config, folder, {}, "some-run", [])
    monkeypatch.setattr(tracker.sinks[0], "log", fail)
    tracker.log(ROW)
    tracker.finish({"gap": 1.0}, 2)
    assert (tracker.name, tracker.mode) == ("TensorBoard, CSV", "off, files")
    assert "TensorBoard stopped logging: RuntimeError: no room" in capsys.readouterr().out
    assert "gap" in (folder.path / "csv" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (LoggerConfig(), ["wandb"]),
        (LoggerConfig(name=LoggerName.none), []),
        (LoggerConfig(name=LoggerName.csv, chosen={"none": True, "csv": True}), ["csv"]),
        (LoggerConfig(name=LoggerName.wandb, chosen={"csv": True, "wandb": True}), ["csv", "wandb"]),
        # `logger.name=` alone, over the file of another.
        (LoggerConfig(name=LoggerName.trackio, chosen={"wandb": True}), ["trackio"]),
    ],
)
def test_which_loggers_are_chosen(config: LoggerConfig, names: list[str]) -> None:
    assert [name.value for name in module.chosen(config)] == names


def test_a_logger_whose_package_is_missing_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "tensorboard" else object())
    both = LoggerConfig(name=LoggerName.tensorboard, chosen={"csv": True, "tensorboard": True})
    with pytest.raises(BenchError, match=r"needs the package tensorboard.*pip install 'snn-bench\[tensorboard\]'"):
        module.check(both)


# -- trackio ------------------------------------------------------------------------------------------

# Loaded by Python at its start: writes down every address that the process would reach.
WATCH = """
import os, socket
def watch(name):
    real = getattr(socket.socket, name)
    def seen(self, address, *rest):
        if self.family != socket.AF_UNIX:
            open(os.environ["REACHED"], "a").write(f"{address}\\n")
        return real(self, address, *rest)
    setattr(socket.socket, name, seen)
for name in ("connect", "connect_ex", "sendto"):
    watch(name)
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    open(os.environ["REACHED"], "a").write(f"{host}\\n")
    return real(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""

# A regularizer that ends the process at one step, as a machine does that fails: no clean-up code runs.
KILLER = """
import os, signal, time
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("killer")
class Killer(Regularizer):
    "Kills the process at one step of it, when asked to."
    steps = 0
    def after_step(self, activity):
        Killer.steps += 1
        if Killer.steps == int(os.environ.get("KILL_AT", -1)):
            time.sleep(3)  # trackio writes twice a second: what is killed has left its rows behind
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def trackio(
    bench: Callable[..., subprocess.CompletedProcess[str]], tiny: tuple[str, ...], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """trackio(*overrides, **env): a tiny run with logger=trackio in a process of its own, its connections noted."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "killer.py").write_text(KILLER)

    def go(*overrides: str, **env: str) -> subprocess.CompletedProcess[str]:
        full = {
            "PYTHONPATH": f"{tmp_path / 'path'}{os.pathsep}{Path(module.__file__).parents[2]}",
            "BENCH_PLUGINS": str(tmp_path / "killer.py"),
            "REACHED": str(tmp_path / "reached"),
            "TRACKIO_DIR": str(tmp_path / "trackio"),
            # With an account at hand trackio asks for its name; with a space or a server it would send the run there.
            "HF_TOKEN": "hf_" + "x" * 34,
            "TRACKIO_SPACE_ID": "somebody/space",
            **env,
        }
        return bench("run", *tiny, "logger=trackio", *overrides, env=full)

    return go


def stored(folder: Path, question: str) -> list[tuple[Any, ...]]:
    """What trackio's database of the default project answers."""
    with sqlite3.connect(folder / "snn-regularizers.db") as database:
        return database.execute(question).fetchall()


def test_trackio_gets_each_epoch_once_through_a_kill_and_nothing_leaves(
    trackio: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    overrides = ("reg=[spikepen,killer]", "trainer.epochs=3")
    killed = trackio(*overrides, KILL_AT="12")  # five steps an epoch: in the third
    assert killed.returncode == -signal.SIGKILL
    assert stored(tmp_path / "trackio", "select step from metrics order by 1") == [(1,), (2,)]
    resumed = trackio(*overrides)
    assert resumed.returncode == 0, resumed.stderr
    assert "goes on after epoch 2 of 3" in resumed.stdout
    assert "trackio show --project snn-regularizers" in resumed.stdout
    assert "* " not in resumed.stdout, "what trackio prints"
    (record,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(record.read_text())
    epochs = [json.loads(line) for line in record.with_name("metrics.jsonl").read_text().splitlines()]
    (run,) = {run for run, _ in stored(tmp_path / "trackio", "select run_name, run_id from metrics")}
    assert run == record.parent.name
    rows = [(s, json.loads(m)) for s, m in stored(tmp_path / "trackio", "select step, metrics from metrics order by 1")]
    assert [step for step, _ in rows] == [1, 2, 3, 4], "three epochs and, apart from them, the outcome"
    assert [row["test/acc"] for _, row in rows[:3]] == [epoch["test"]["acc"] for epoch in epochs]
    assert [row["penalty/spikepen"] for _, row in rows[:3]] == [epoch["penalties"]["spikepen"] for epoch in epochs]
    assert rows[3][1]["final/spike_rate"] == result["test"]["spike_rate"]
    ((config,),) = stored(tmp_path / "trackio", "select config from configs")
    settings = json.loads(config)
    assert [settings[key] for key in ("reg", "strength", "seed")] == ["spikepen+killer", result["strength"], 0]
    assert settings["trainer"]["epochs"] == 3
    assert not (tmp_path / "reached").exists(), (tmp_path / "reached").read_text()
    assert (record.parent / "wandb").exists() is False


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    """That no address was noted above means something only if one would have been."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "REACHED": str(tmp_path / "reached")}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False).returncode == 1
    assert "127.0.0.1" in (tmp_path / "reached").read_text()


def test_a_place_that_trackio_cannot_write_costs_no_run(
    trackio: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = trackio(TRACKIO_DIR=str(tmp_path / "file" / "below"))
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if "trackio is off for this run: NotADirectory" in line]) == 1
    assert list((tmp_path / "runs").rglob("result.json"))


def test_without_trackio_nothing_is_begun(
    trackio: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "path" / "sitecustomize.py").write_text("import sys; sys.modules['trackio'] = None")
    refused = trackio()
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "error: logger=trackio needs the package trackio, which is not installed: pip install 'snn-bench[trackio]'"
    ]
    assert not (tmp_path / "runs").exists()
