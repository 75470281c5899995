"""A grid while it runs: the runs it is made of, how many have ended, how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.console import duration


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        run_id: its name.
        runs: the folder of all runs in which it has, or will have, its own.
        overrides: that set it apart, its seed's included.
        skipped: whether it had a record before the grid began.
        experiments: that it is run for.
    """

    run_id: str
    runs: Path
    overrides: tuple[str, ...]
    skipped: bool
    experiments: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return self.runs / self.run_id


@dataclass
class Grid:
    """The runs of a grid and how far they are; launchers and runs report each end to it.

    Attributes:
        runs: all of them, those that are skipped included.
        done: runs that ended with a record.
        failed: runs that ended without one.
        clock: gives the seconds that the estimate is made of.
    """

    runs: Sequence[GridRun]
    done: int = 0
    failed: int = 0
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.last = self.clock()

    @property
    def to_do(self) -> int:
        """The runs that had no record when the grid began."""
        return sum(not run.skipped for run in self.runs)

    @property
    def seconds(self) -> float:
        """Wall time since the grid began."""
        return self.clock() - self.began

    def end(self, failed: bool = False) -> None:
        """Count a run that has ended."""
        self.failed += failed
        self.done += not failed
        self.last = self.clock()

    def remaining(self) -> float | None:
        """Seconds that the rest will take, if it goes on as the runs that are done did; None before the first of them.

        It counts all that goes on side by side, since it is the grid's time that is divided by the runs that are done.
        """
        if not self.done:
            return None
        left = self.to_do - self.done - self.failed
        ahead = (self.last - self.began) / self.done * left
        return max(0.0, ahead - (self.clock() - self.last))

    def progress(self) -> str:
        """How far it is: `3 of 12 runs done, about 14 min left`; nothing for a grid of one run."""
        if self.to_do < 2:
            return ""
        failed = f", {self.failed} failed" if self.failed else ""
        text, ahead = f"{self.done} of {self.to_do} runs done{failed}", self.remaining()
        if ahead is None or self.done + self.failed >= self.to_do:
            return text
        return f"{text}, about {duration(ahead)} left"


_opened: list[Grid] = []


@contextmanager
def following() -> Iterator[Callable[[], Grid | None]]:
    """While this context is open, a grid that is opened can be asked for: what it yields gives the grid, or None."""
    before = _opened[:]
    _opened.clear()
    try:
        yield current
    finally:
        _opened[:] = before


def opened(runs: Sequence[GridRun]) -> Grid:
    """A new grid, which runs and launchers of this process find as `current`."""
    grid = Grid(runs)
    _opened[:] = [grid]
    return grid


def current() -> Grid | None:
    """The grid of this process; None in one that a launcher has sent a run to, and for a single run."""
    return _opened[0] if _opened else None


def ended(failed: bool = False) -> str:
    """Count a run of this process's grid that has ended.

    Args:
        failed: whether it left no record.

    Returns:
        How far the grid is, for people; nothing where there is none, or no rest of one.
    """
    grid = current()
    if grid is None:
        return ""
    grid.end(failed)
    return grid.progress() if grid.done + grid.failed < grid.to_do else ""
