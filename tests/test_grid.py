"""How far a grid is: counts, and the rest's time worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import grid
from bench.console import duration
from bench.grid import Grid, GridRun


def runs(to_do: int, skipped: int = 0) -> list[GridRun]:
    """A grid's runs, those with a record first."""
    return [GridRun(f"run-{i}", Path("runs"), (f"seed={i}",), i < skipped) for i in range(to_do + skipped)]


def test_the_rest_takes_as_long_as_what_was_done() -> None:
    now = 100.0
    of = Grid(runs(4, skipped=3), clock=lambda: now)
    assert (of.to_do, of.remaining(), of.progress()) == (4, None, "0 of 4 runs done")
    now = 130.0
    of.end()
    # Three more of 30 s.
    assert of.remaining() == 90.0
    assert of.progress() == "1 of 4 runs done, about 2 min left"
    now = 150.0
    assert of.remaining() == 70.0
    now = 160.0
    of.end()
    of.end(failed=True)
    # Two in 60 s; one is left.
    assert of.remaining() == 30.0
    assert of.progress() == "2 of 4 runs done, 1 failed, about 30 s left"
    now = 500.0
    assert of.remaining() == 0.0
    of.end()
    assert of.progress() == "3 of 4 runs done, 1 failed"
    assert of.seconds == 400.0


def test_runs_side_by_side_share_the_time() -> None:
    now = 0.0
    of = Grid(runs(6), clock=lambda: now)
    now = 60.0
    for _ in range(3):  # three at once, each of a minute
        of.end()
    assert of.remaining() == 60.0


def test_a_failure_alone_tells_nothing_of_the_time() -> None:
    of = Grid(runs(3))
    of.end(failed=True)
    assert of.remaining() is None
    assert of.progress() == "0 of 3 runs done, 1 failed"


def test_only_the_process_of_the_grid_knows_it() -> None:
    assert grid.ended() == ""
    with grid.following() as of:
        assert of() is None
        opened = grid.opened(runs(2))
        assert of() is opened is grid.current()
        assert grid.ended().startswith("1 of 2 runs done, about ")
        # After the last one there is no rest.
        assert grid.ended() == ""
        with grid.following() as inner:
            assert inner() is None
        assert of() is opened
    assert grid.current() is None


def test_one_run_is_no_grid() -> None:
    assert Grid(runs(1, skipped=5)).progress() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5369, "89 min"), (5400, "1 h 30 min"), (7500, "2 h 05 min")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
