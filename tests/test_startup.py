"""The start of a run: when garbage is collected, and who is told of the first step."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from bench import startup


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has not started anything."""
    monkeypatch.setattr(startup._Start, "over", False)
    monkeypatch.setattr(startup._Start, "held", False)
    was = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    (gc.enable if was else gc.disable)()


def test_garbage_waits_once() -> None:
    before = gc.get_freeze_count()
    startup.hold()
    startup.hold()
    assert not gc.isenabled()
    startup.ready()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before + 1000
    # What a grid's later runs leave behind must be found: nothing of theirs is kept for good.
    kept = gc.get_freeze_count()
    startup.hold()
    assert gc.isenabled()
    startup.ready()
    assert gc.get_freeze_count() == kept


def test_a_line_that_ran_nothing_keeps_nothing() -> None:
    before = gc.get_freeze_count()
    startup.hold()
    startup.ready(keep=False)
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, before)


def test_who_had_it_off_keeps_it_off() -> None:
    gc.disable()
    startup.hold()
    startup.ready()
    assert not gc.isenabled()


def test_the_first_step_is_told_once() -> None:
    told: list[int] = []
    startup.at_first_step(lambda: told.append(1))
    startup.first_step()
    startup.first_step()
    assert told == [1]
