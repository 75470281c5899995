"""Jobs that know their tables, done side by side in forks of this process; results of earlier commands are taken."""

from __future__ import annotations

import base64
import gc
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from bench.report import kept

Files = list[tuple[str, bytes]]
"""Names and contents."""


@dataclass(frozen=True)
class Job:
    """Something that makes files.

    Attributes:
        make: makes them; it may know anything of this process, as only a fork can take it along.
        place: where they are kept, as `kept.place` has it; None for nowhere.
    """

    make: Callable[[], Files]
    place: Path | None = None


def side_by_side(jobs: Sequence[Job], processes: int | None = None) -> list[Files]:
    """The files of each of some jobs, in their order; made one after the other where processes cannot be forked.

    Args:
        jobs: the longest first.
        processes: how many make them; None is one a core.
    """
    stored = [kept.take(job.place) for job in jobs]
    missing = [job for job, known in zip(jobs, stored, strict=True) if known is None]
    made = _made(missing, processes)
    kept.keep({
        job.place: [(name, base64.b64encode(content).decode()) for name, content in files]
        for job, files in zip(missing, made, strict=True)
        if job.place is not None
    })  # fmt: skip
    anew = iter(made)
    return [
        next(anew) if known is None else [(name, base64.b64decode(content)) for name, content in known]
        for known in stored
    ]


_waiting: list[Job] = []


def _made(jobs: Sequence[Job], processes: int | None) -> list[Files]:
    processes = min(processes or len(os.sched_getaffinity(0)), len(jobs)) if sys.platform == "linux" else 1
    if processes < 2:
        return [job.make() for job in jobs]
    _waiting[:] = jobs
    # What is here already is no garbage: the forks' collectors need not go through it again and again, which would
    # copy its pages too.
    gc.freeze()
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
            return list(pool.map(_made_at, range(len(jobs))))
    finally:
        gc.unfreeze()
        _waiting.clear()


def _made_at(place: int) -> Files:
    return _waiting[place].make()
