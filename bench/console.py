"""Standard output: lines for the user, and tables that cut nothing off."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.table import Table


def console() -> Console:
    """Standard output, as wide as the terminal; wide enough for no line to be cut when it is none."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line for the user, as it stands."""
    # Not through Rich, whose import takes longer than all that most commands do.
    print(line, flush=True)


def duration(seconds: float) -> str:
    """A time for people: `45 s`, `14 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


BARS, PLAIN = "▁▂▃▄▅▆▇█", "12345678"
"""Heights of a curve's points, and those for an output that cannot show them."""


def sparkline(values: Sequence[float | None], low: float, high: float, most: int = 40) -> str:
    """A curve in a line of characters; a gap is a space.

    Args:
        values: of which several share a character, by their mean, where there are more than `most`.
        low: value of the lowest character.
        high: of the highest.
        most: characters.
    """
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
        heights = BARS
    except UnicodeEncodeError:
        heights = PLAIN
    text = ""
    for place in range(count := min(most, len(values))):
        part = values[place * len(values) // count : (place + 1) * len(values) // count]
        known = [value for value in part if value is not None]
        if not known:
            text += " "
            continue
        share = (sum(known) / len(known) - low) / (high - low) if high > low else 0.0
        text += heights[min(len(heights) - 1, int(share * len(heights)))]
    return text


def plain_table(title: str) -> Table:
    """A table without columns yet: no lines but its words."""
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    wide: int = 200,
    whole: Sequence[str] = ("name",),
    right: Sequence[str] = (),
) -> None:
    """Print a table that cuts nothing off: as wide as a terminal, or as $COLUMNS, or as is said.

    Args:
        title: above it.
        columns: their headings.
        rows: the cells' texts.
        wide: characters where the output is no terminal and $COLUMNS is not set.
        whole: the columns that are not folded.
        right: the columns of numbers, which end at one edge.
    """
    from rich.console import Console

    given = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(given) if given.isdecimal() and int(given) else wide
    lines = plain_table(title)
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        lines.add_column(column, overflow="fold", no_wrap=column in whole, justify=justify)
    for row in rows:
        lines.add_row(*row)
    # The texts are users': neither [a] nor :b: in them is for Rich.
    output = Console(width=width, highlight=False, markup=False, emoji=False)
    output.print(lines)
    output.print()
