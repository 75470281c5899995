"""Generated Markdown: tables, and parts of a file between `<!-- bench list regs -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.errors import BenchError, EnvironmentFault

RULES = {"l": "---", "r": "--:"}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], align: str = "l") -> str:
    """A table for GitHub, without a line's end after the last row.

    Args:
        columns: their headings.
        rows: the cells' texts; a `|` in one is escaped.
        align: `l` (left) or `r` (right) for each column; the last letter also holds for all columns after it.
    """
    rules = [RULES[letter] for letter in align.ljust(len(columns), align[-1])]
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in (columns, *rows)]
    return "\n".join([head, f"|{'|'.join(rules)}|", *body])


def fill(path: Path, command: str, render: Callable[[str], str]) -> bool:
    """Write anew what stands between a command's marks.

    Args:
        path: the Markdown file.
        command: the marks' first words, `bench list`.
        render: the marks' last word -> Markdown.

    Returns:
        Whether the file changed.

    Raises:
        BenchError: it has no such mark.
        EnvironmentFault: it cannot be read or written.
    """
    mark = re.compile(rf"(<!-- {command} (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    try:
        old = path.read_text()
        new, count = mark.subn(lambda m: f"{m[1]}\n{render(m[2])}\n\n{m[3]}", old)
        if not count:
            raise BenchError(f"{path} has no '<!-- {command} NAME -->' ... '<!-- end -->'")
        if new != old:
            path.write_text(new)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {error.strerror}") from error
    return new != old
