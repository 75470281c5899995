"""`bench report`: records into reports, or a check of the reports there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.commands.parsing import Parser
from bench.commands.words import experiments, overrides
from bench.errors import BenchError
from bench.records.folder import runs_folder

EPILOG = """\
  python -m bench report                                    all records, all tables
  python -m bench report nandan2022/table3_1 budget=cpu     one table
  python -m bench report --runs none                        of what was submitted alone
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("report", EPILOG)
    parser.add_words("EXPERIMENT", "and settings it was run with; all if left out", experiments, overrides)
    parser.add_argument("--check", action="store_true", help="write nothing: do the files follow from OUT/records?")
    parser.add_argument("--into", type=Path, metavar="FILE", help="renew the short tables in a Markdown file")
    parser.add_argument("--runs", metavar="DIR", help="runs beside OUT/records, `none` for no others [runs]")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="where to [%(default)s]")
    parser.add_argument("--dirty", action="store_true", help="take in runs of a changed, uncommitted tree")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Turn records into reports, check those there are, or renew a file's short tables.

    Raises:
        BenchError: as `report` says; or the file has no place for the tables.
    """
    options = parser().parse_intermixed_args(arguments)
    if options.into is not None:
        from bench.console import say
        from bench.report.headline import write_into

        say(f"{options.into} {'renewed' if write_into(options.into, options.out) else 'is as it should be'}")
        return
    report(options.words, options.check, options.runs, options.out, options.dirty)


def report(words: Sequence[str], checks: bool, runs: str | None, out: Path, dirty: bool) -> None:
    """Write or check reports.

    Args:
        words: experiments, and overrides they were run with.
        checks: compare, write nothing.
        runs: folder of runs beside `OUT/records`; `none` for no other.
        out: the reports' folder.
        dirty: take in records of a dirty commit.

    Raises:
        BenchError: bad input, no records, or (`build.Stale`) reports that do not follow.
    """
    # Imported here: plotting takes a second, and a mistyped option should be told at once.
    from bench.console import say
    from bench.report import build

    if checks:
        if words or runs is not None or dirty:
            raise BenchError("--check takes no other arguments but --out: it reads the submitted records, all of them")
        build.check(out, say)
        return
    folders = [out / "records"]
    if runs != "none":
        where = runs_folder(runs or "")
        if runs is not None and not where.is_dir():
            raise BenchError(f"--runs {runs}: there is no such folder")
        folders.append(where)
    names = [word for word in words if "=" not in word]
    build.write(folders, out, names, [word for word in words if "=" in word], dirty, say)
