"""The start of a run: no garbage is collected while modules are imported, and who waits for the first step is told."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Callable

_waiting: list[Callable[[], None]] = []


class _Start:
    """That of this process.

    Attributes:
        held: whether garbage waits.
        over: whether it has come to its end; a grid's later runs have none.
    """

    held = over = False


def hold() -> None:
    """Collect no garbage until `ready`: a run's thousands of modules are none, and to look at them again and again
    takes a tenth of its start."""
    if not _Start.over and gc.isenabled():
        atexit.register(_let_go)
        gc.disable()
        _Start.held = True


def _let_go() -> None:
    """At the end all is looked at: extensions that find their own objects kept would complain on stderr."""
    gc.unfreeze()
    gc.enable()


def ready(keep: bool = True) -> None:
    """Collect garbage again, if `hold` has stopped it.

    Args:
        keep: never look again at what is there now, which are modules, and stay.
    """
    if _Start.held:
        if keep:
            gc.freeze()
        gc.enable()
        _Start.held, _Start.over = False, True


def at_first_step(call: Callable[[], None]) -> None:
    """Have something called after the next training step of this process."""
    _waiting.append(call)


def first_step() -> None:
    """Tell those who wait that a training step is done."""
    while _waiting:
        _waiting.pop()()
