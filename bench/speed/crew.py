"""The process that `bench speed` gives its jobs to where there are many: each is done by a fresh fork of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import BenchError, EnvironmentFault


def environment() -> dict[str, str]:
    """This process' own, in which a worker finds this suite."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def why_died(code: int, errors: str) -> str:
    """What to say of a worker that has not answered.

    Args:
        code: its exit status, negative for a signal.
        errors: what it wrote to standard error.
    """
    lines = errors.strip().splitlines()
    if code < 0:
        return f"killed by signal {-code}, perhaps for want of memory"
    return lines[-1] if lines else "?"


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer.

    Raises:
        BenchError: what it found wrong with the input.
        EnvironmentFault: what the machine could not do.
    """
    if "error" in answer:
        raise (EnvironmentFault if answer["code"] == EnvironmentFault.code else BenchError)(answer["error"])
    return answer


class Crew:
    """A context in which jobs of `bench.speed.worker` are done, each in a process of its own that starts at once."""

    def __enter__(self) -> Crew:
        # On a GPU torch may look for one by NVML alone: CUDA that was started once cannot be forked.
        around = environment() | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        self.errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "bench.speed.worker"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=around,
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        if kind is not None:
            # With whom it has forked.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def work(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do one job.

        Raises:
            BenchError: what the worker found wrong with the input.
            EnvironmentFault: it died, or the machine could not do it.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            pass  # it is told below
        answer = json.loads(line) if line else {"died": self.process.wait()}
        if "died" in answer:
            self.errors.seek(0)
            raise EnvironmentFault(f"measuring {job['job']} failed: {why_died(answer['died'], self.errors.read())}")
        return checked(answer)
