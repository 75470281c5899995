"""What the command lines of several commands share: their parser, the option `--runs`, the runs that words name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.commands import COMMANDS
from bench.commands.words import Words
from bench.errors import BenchError
from bench.records.folder import runs_folder


class Parser(argparse.ArgumentParser):
    """The parser of a command: a complaint is one line, and of each argument it is known what completes it.

    Args:
        command: its name.
        epilog: examples and settings, which help ends with as they are.

    Attributes:
        completed: what offers words for the value of each argument; nothing does so for a file, whose name the shell
            itself completes.
    """

    def __init__(self, command: str, epilog: str | None = None) -> None:
        self.completed: dict[argparse.Action, Sequence[Words]] = {}
        super().__init__(
            f"bench {command}",
            description=COMMANDS[command].summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter if epilog else argparse.HelpFormatter,
        )

    def add_argument(self, *names: str, completes: Sequence[Words] = (), **settings: Any) -> argparse.Action:
        """As argparse has it.

        Args:
            names: of the argument.
            completes: what offers words for its value.
            settings: argparse's own.
        """
        action = super().add_argument(*names, **settings)
        self.completed[action] = completes
        return action

    def add_words(self, metavar: str, says: str, *completes: Words) -> None:
        """Any number of words without an option, as `words`.

        Args:
            metavar: what help calls one.
            says: what help says of them.
            completes: what offers them.
        """
        self.add_argument("words", nargs="*", metavar=metavar, completes=completes, help=says)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            BenchError: always.
        """
        raise BenchError(f"{message}; `{self.prog} --help` says more")


def add_runs(parser: Parser) -> None:
    """The option that says where runs lie."""
    says = "where they lie [%(default)s]"
    parser.add_argument("--runs", type=runs_folder, default=runs_folder(), metavar="DIR", help=says)


def folders(named: Sequence[str], everything: bool, runs: Path) -> list[Path]:
    """The run folders that a command line names.

    Args:
        named: run ids, or paths of run folders.
        everything: instead, all finished ones.
        runs: the folder of the records.

    Raises:
        BenchError: none is named, both are, or one is not there.
    """
    if everything == bool(named):
        raise BenchError("name the runs, or all of them with --all" if not named else "--all leaves no run to name")
    if everything:
        paths = sorted(path.parent for path in runs.glob("*/result.json"))
        if not paths:
            raise BenchError(f"{runs} holds no finished run")
        return paths
    paths = []
    for name in named:
        path = next((path for path in (runs / name, runs / "studies" / name, Path(name)) if path.is_dir()), None)
        if path is None:
            raise BenchError(f"no run '{name}' in {runs}, and no such folder")
        paths.append(path.resolve())
    return list(dict.fromkeys(paths))
