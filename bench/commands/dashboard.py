"""`bench dashboard`: its command line; what it builds is in `panels.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.commands.parsing import Parser
from bench.commands.words import budgets, experiments

EPILOG = """\
  bench dashboard --json dashboard.json                 all experiments, offline
  bench dashboard nandan2022/table3_1 budget=cpu        one table, saved to the project
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("dashboard", EPILOG)
    parser.add_words("EXPERIMENT", "of the report, and budget=; all if left out", experiments, budgets)
    parser.add_argument("--entity", metavar="E", help="the W&B team or user; the key's own if left out")
    parser.add_argument("--project", metavar="P", help="the W&B project; if left out, where runs go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write them there; needs no key and no network")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Build the W&B workspace and report.

    Raises:
        BenchError: an unknown experiment or budget, or W&B does not take them.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.commands import panels

    panels.main(options.words, options.entity, options.project, options.json)
