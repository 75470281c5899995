"""W&B never prompts, never hangs, never costs a run: against real sockets on this machine, and offline for real."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench import logger as module
from bench.config import LoggerConfig, LoggerName, WandbMode
from bench.logger import Tracker, answers, choose_mode, flatten
from bench.results import RunFolder

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


def test_rows_as_wandb_keys() -> None:
    assert flatten(ROW) == {
        "epoch": 1,
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
    text = json.dumps(inspect(folder))
    assert text.count("test/acc") >= 2
    assert "spike_rate_layer/spikings.0" in text
    assert "strength" in text
    assert "synops_per_image" in text


def test_a_failing_init_ends_offline_or_off_and_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path, "some-run")
    folder.path.mkdir()
    asked: list[str] = []

    def fail(config: Any, folder: Any, settings: Any, run_id: str, mode: str) -> Any:
        asked.append(mode)
        raise RuntimeError("the service fell over\nand said much more")

    monkeypatch.setattr(Tracker, "_init", staticmethod(fail))
    monkeypatch.setattr(module, "choose_mode", lambda config: ("online", None))
    tracker = Tracker(LoggerConfig(), folder, {}, "some-run", [])
    tracker.log(ROW)
    tracker.finish({}, 0)
    assert asked == ["online", "offline"]
    assert tracker.mode == "off"
    out = capsys.readouterr().out
    assert "W&B continues offline: RuntimeError: the service fell over\n" in out
    assert "W&B is off for this run" in out
    assert "much more" not in out


def test_no_logger_writes_no_wandb_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "some-run")
    tracker = Tracker(LoggerConfig(name=LoggerName.none), folder, {}, "some-run", [])
    tracker.log(ROW)
    tracker.finish({}, 0)
    assert tracker.mode == "off"
    assert not folder.wandb_path.exists()
