"""What a run prints: lines that fit, a table of the outcome, a bar only where there is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.training.summary import epoch_line, summary_table

ROOT = Path(__file__).resolve().parents[2]


def test_epoch_line_fits_a_terminal() -> None:
    row = {
        "epoch": 99,
        "train": {"acc": 100.0, "loss": 12.3456, "spike_rate": 0.1118},
        "test": {"acc": 86.95},
        "images_per_s": 123456.0,
    }
    line = epoch_line(row, 100)
    expected = "epoch 100/100  loss 12.3456  train 100.00 %  test 86.95 %  spikes 0.1118  123,456 img/s"
    assert line == expected
    assert len(line) <= 100
    assert "val 50.00 %" in epoch_line({**row, "val": {"acc": 50.0}}, 100), "what one may select by is shown"
    assert "test -" in epoch_line({**row, "test": None}, 100)


def test_table_of_a_run_fits_a_terminal(run_tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run_tiny("reg=spikepen")
    console = Console(width=80, file=(tmp_path / "out").open("w"))
    console.print(summary_table(result, "runs/x", "W&B", "offline"))
    console.file.close()
    text = (tmp_path / "out").read_text()
    assert max(map(len, text.splitlines())) <= 80
    for part in ("test accuracy", f"{result['test']['acc']:.2f} %", "SynOps", "img/s", "runs/x", "offline"):
        assert part in text


def test_what_users_call_things_is_shown_as_it_is(run_tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """No mark-up, no picture, and a closing tag without an opening one is no error."""
    result = {**run_tiny(), "status": "diverged", "status_reason": "[red]nan[/red] :dog:"}
    console = Console(width=100, file=(tmp_path / "out").open("w"))
    console.print(summary_table(result, "runs/[exp]/[/b]/:cat:", "W&B", "offline"))
    console.file.close()
    text = (tmp_path / "out").read_text()
    assert "[red]nan[/red] :dog:" in text
    assert "runs/[exp]/[/b]/:cat:" in text


def test_a_terminal_gets_a_bar_and_a_pipe_plain_lines(
    bench: Callable[..., Any], tiny: tuple[str, ...], shared_data: Path, tmp_path: Path
) -> None:
    piped = bench("run", *tiny)
    assert piped.returncode == 0, piped.stderr
    assert "\x1b" not in piped.stdout
    assert piped.stdout.count("epoch ") == 2
    terminal, other_end = pty.openpty()
    env = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = [sys.executable, "-m", "bench", "run", *tiny, "seed=1"]
    with subprocess.Popen(command, stdout=other_end, stderr=other_end, env=env, close_fds=True) as process:
        os.close(other_end)
        seen = b""
        try:
            while chunk := os.read(terminal, 65536):
                seen += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
        assert process.wait(timeout=60) == 0
    os.close(terminal)
    assert b"\x1b[" in seen
    assert "━".encode() in seen, "a progress bar"
    assert seen.count(b"epoch 2/2  loss") == 1, "and the same lines as in a pipe"
