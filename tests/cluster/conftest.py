"""Grids in processes that a test can watch, kill and interrupt; the command line's stub of a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.commands.conftest import asked, cli

__all__ = ["asked", "cli"]

ROOT = Path(__file__).resolve().parents[2]

# A smoke run of the smallest network.
SMALL = ("budget=smoke", "model=cnn", "model.channels=4", "model.depth=3", "logger=none", "trainer.accelerator=cpu")


class Grid:
    """`python -m bench run -m ...` in a process of its own whose lines can be waited for.

    Attributes:
        lines: of standard output so far.
        errors: of standard error so far.
    """

    def __init__(self, words: tuple[str, ...], env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.news = threading.Condition()
        command = [sys.executable, "-m", "bench", "run", "-m", *words]
        # A session of its own: Ctrl-C of the test reaches this process and none beside it.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
        )
        pairs = ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        self.readers = [threading.Thread(target=self.read, args=pair, daemon=True) for pair in pairs]
        for reader in self.readers:
            reader.start()

    def read(self, stream: IO[str], into: list[str]) -> None:
        with stream:
            for line in stream:
                with self.news:
                    into.append(line.rstrip("\n"))
                    self.news.notify_all()

    def until(self, pattern: str, seconds: float = 240) -> re.Match[str]:
        """The first line of standard output that matches, once it is there."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self.news:
            match = self.news.wait_for(lambda: found() or self.process.poll() is not None, seconds) and found()
        assert match, f"no line like {pattern!r} in:\n" + "\n".join([*self.lines, *self.errors])
        return match

    def finish(self, seconds: float = 500) -> int:
        """Its exit status, with all lines read."""
        status = self.process.wait(seconds)
        for reader in self.readers:
            reader.join(10)
        return status


@pytest.fixture
def grid(shared_data: Path) -> Iterator[Callable[..., Grid]]:
    """grid(*words, env={}): a grid of small runs; it is ended with the test."""
    started: list[Grid] = []

    def start(*words: str, env: dict[str, str] | None = None) -> Grid:
        kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        full = {**kept, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT), **(env or {})}
        started.append(Grid((*SMALL, *words), full))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.finish()


def records(runs: Path) -> dict[str, dict[str, Any]]:
    """All records under a folder by run id, each with the epochs that its `metrics.jsonl` has."""
    found = {}
    for path in runs.glob("*/result.json"):
        result = json.loads(path.read_text())
        lines = (path.parent / "metrics.jsonl").read_text().splitlines()
        found[path.parent.name] = {**result, "rows": [json.loads(line)["epoch"] for line in lines]}
    return found
