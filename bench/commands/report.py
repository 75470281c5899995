"""`bench report`: records into reports, or a check of the reports there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.commands.parsing import Parser
from bench.commands.words import experiments, overrides
from bench.errors import BenchError
from bench.records.folder import runs_folder

PUBLISHED = Path("reports")
"""Where what follows from submitted records is published."""

EPILOG = """\
  bench report                                    own runs beside those submitted, into runs/report
  bench report nandan2022/table3_1 budget=cpu     one table of them
  bench report --out reports                      of what was submitted alone, where it is published
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("report", EPILOG)
    parser.add_words("EXPERIMENT", "and settings it was run with; all if left out", experiments, overrides)
    parser.add_argument("--check", action="store_true", help="write nothing: do the files follow from OUT/records?")
    parser.add_argument("--into", type=Path, metavar="FILE", help="renew the results in a Markdown file or a folder")
    parser.add_argument("--runs", metavar="DIR", help="own runs, `none` for none [runs; with --out none]")
    add_out(parser)
    parser.add_argument("--dirty", action="store_true", help="take in runs of a changed, uncommitted tree")
    return parser


def add_out(parser: Parser) -> None:
    """The option that says where reports go."""
    says = "where to, beside the records in DIR/records [runs/report, beside those in reports/records]"
    parser.add_argument("--out", type=Path, metavar="DIR", help=says)


def main(arguments: Sequence[str]) -> None:
    """Turn records into reports, check those there are, or renew a file's short tables.

    Raises:
        BenchError: as `report` says; or the file has no place for the tables.
    """
    options = parser().parse_intermixed_args(arguments)
    if options.into is not None:
        from bench.console import say
        from bench.report.headline import write_into

        changed = write_into(options.into, options.out or PUBLISHED)
        say(f"{options.into} {'renewed' if changed else 'is as it should be'}")
        return
    report(options.words, options.check, options.runs, options.out, options.dirty)


def report(words: Sequence[str], checks: bool, runs: str | None, out: Path | None, dirty: bool) -> None:
    """Write or check reports.

    One's own runs change nothing that is published: reports with them go into a folder of their own, unless another
    is named.

    Args:
        words: experiments, and overrides they were run with.
        checks: compare, write nothing.
        runs: folder of runs beside the submitted ones; "" is `runs`, `none` for no other. None is `runs`, or no other
            where `out` is named.
        out: the reports' folder, which has the submitted records in `records`; None is `report` in the folder of runs.
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
        build.check(out or PUBLISHED, say)
        return
    own = runs_folder("" if runs == "none" else runs or "")
    folders = [(out or PUBLISHED) / "records"]
    if runs not in (None, "", "none") and not own.is_dir():
        raise BenchError(f"--runs {runs}: there is no such folder")
    if runs != "none" and (runs is not None or out is None):
        folders.append(own)
    out = out or own / "report"
    names = [word for word in words if "=" not in word]
    build.write(folders, out, names, [word for word in words if "=" in word], dirty, say)
