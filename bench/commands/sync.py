"""`bench sync`: the upload of offline W&B runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.commands.parsing import Parser, add_runs, folders
from bench.commands.words import runs
from bench.errors import BenchError, EnvironmentFault


def parser() -> Parser:
    """The command line."""
    parser = Parser("sync")
    parser.add_words("RUN", "run ids, or folders of runs; all if left out", runs)
    add_runs(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Upload offline W&B runs.

    Raises:
        BenchError: as `sync` says.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.console import say

    sync(options.words, options.runs, say)


def sync(named: Sequence[str], runs: Path, say: Callable[[str], None]) -> None:
    """Upload offline W&B runs by `wandb sync`; what it uploaded, it marks and passes over the next time.

    Args:
        named: run ids or run folders; none means all under `runs`.
        runs: the folder of the records.
        say: takes a line for each run.

    Raises:
        BenchError: there is no offline run, or no key.
        EnvironmentFault: the server does not answer, or an upload failed.
    """
    # Imported here: Lightning takes seconds, and `submit` needs none of it.
    from bench.training.logger import reachable

    paths = folders(named, False, runs) if named else sorted(path for path in runs.glob("*") if path.is_dir())
    offline = [(path, run) for path in paths for run in sorted(path.glob("wandb/offline-run-*"))]
    if not offline:
        raise BenchError(f"no offline W&B run in {', '.join(named) or runs}")
    waiting = [(path, run) for path, run in offline if not list(run.glob("*.wandb.synced"))]
    say(f"{len(waiting)} to upload, {len(offline) - len(waiting)} uploaded before")
    if not waiting:
        return
    # `wandb sync` itself would try for minutes.
    reachable()
    failed = []
    for path, run in waiting:
        done = subprocess.run([sys.executable, "-m", "wandb", "sync", str(run)], capture_output=True, text=True)
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        if done.returncode:
            failed.append(f"  {path.name}: {lines[-1]}")
        else:
            say(f"{path.name}: uploaded")
    if failed:
        raise EnvironmentFault("\n".join([f"{len(failed)} of {len(waiting)} uploads failed", *failed]))
