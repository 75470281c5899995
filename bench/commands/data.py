"""`bench data`: what data is on disk; it is downloaded and checked there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from bench.commands.parsing import Parser
from bench.commands.words import among, datasets
from bench.errors import BenchError, nearest

ACTIONS = ("status", "prepare")


def parser() -> Parser:
    """The command line."""
    parser = Parser("data")
    parser.add_argument(
        "action", nargs="?", default="status", completes=[among(*ACTIONS)], help="status (if left out) or prepare"
    )
    parser.add_words("NAME", "data sets to prepare", prepared)
    parser.add_argument("--root", default=os.environ.get("BENCH_DATA") or "data", help="where it lies [%(default)s]")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    return parser


def prepared(word: str, before: Sequence[str]) -> list[str]:
    """What completes the names: only `prepare` takes some."""
    return datasets(word, before) if "prepare" in before else []


def main(arguments: Sequence[str]) -> None:
    """Say what data is on disk, or bring it there.

    Raises:
        BenchError: there is no such action or data set, or none is named.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.console import say, table
    from bench.data import DATASETS, prepare_named, status

    if options.action == "prepare":
        if not options.words:
            raise BenchError(f"prepare what? There are: {', '.join(DATASETS.names())}.")
        for name in options.words:
            DATASETS.get(name)
        for name in options.words:
            ready = prepare_named(name, options.root)
            counts = f"{len(ready.train_images):,} + {len(ready.test_images):,} images"
            say(f"{ready.name}: {ready.copy}, {counts}, {len(ready.classes)} classes, {ready.checksum}")
        return
    if options.action != "status":
        raise BenchError(f"bench data cannot '{options.action}'. {nearest(options.action, ACTIONS)}")
    rows = status(options.root)
    if options.json:
        print(json.dumps(rows, indent=1, default=str))
        return
    columns = ("name", "present", "copy", "images", "classes", "size", "checksum", "path", "note")
    table(f"data under {options.root}", columns, [
        tuple(shown(column, row["bytes" if column == "size" else column]) for column in columns) for row in rows
    ])  # fmt: skip


def shown(column: str, value: Any) -> str:
    """A cell of the table of `status`."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column == "size":
        return f"{value / 2**20:.1f} MiB"
    return str(value)[:12] if column == "checksum" else f"{value:,}" if isinstance(value, int) else str(value)
