"""Faults that reach the user as one clear line, and the search for the nearest right name."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class BenchError(Exception):
    """Bad input: the message is the one line the user sees, the exit status is `code`."""

    code = 2


class RunsFailed(BenchError):
    """Some runs of a grid failed; the message names each with its exit code, the code is the worst of theirs.

    Not in the plugin that raises it: Hydra may import its plugins anew, and their classes with them.
    """


class EnvironmentFault(BenchError):
    """The input was right, but the machine could not do it (no network, disk full, file locked)."""

    code = 1


class Busy(EnvironmentFault):
    """Another process has what is needed, and will let go of it."""


def disk_full(error: BaseException) -> EnvironmentFault | None:
    """A full disk, under a file or under standard output; None for any other fault."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return EnvironmentFault(f"{error.filename or 'a file or the output'} could not be written: {error.strerror}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a "no such name" message: the closest known names, then all of them.

    Examples:
        >>> nearest("swe", ["cnn", "sew"])
        "Did you mean 'sew'? There are: cnn, sew."
    """
    known = sorted(known)
    # A lower cutoff than difflib's: names here are short, and "swe" must still find "sew".
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{hint}There are: {', '.join(known)}."


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def one_line(error: BaseException) -> str:
    """An exception in a line: its type, and what it says first."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
