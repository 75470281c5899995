"""Standard output: lines for the user, and tables that cut nothing off."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Standard output, as wide as the terminal; wide enough for no line to be cut when it is none."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line for the user, as it stands."""
    # Not through Rich, whose import takes longer than all that most commands do.
    print(line, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that cuts nothing off: as wide as a terminal, or as $COLUMNS, or 200 characters.

    Args:
        title: above it.
        columns: their headings; one called `name` is not folded.
        rows: the cells' texts.
    """
    from rich.console import Console
    from rich.table import Table

    given = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(given) if given.isdecimal() and int(given) else 200
    lines = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        lines.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        lines.add_row(*row)
    # The texts are users': neither [a] nor :b: in them is for Rich.
    output = Console(width=width, highlight=False, markup=False, emoji=False)
    output.print(lines)
    output.print()
