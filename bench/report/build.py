"""From records to the files under reports/: written, or compared with what is there."""

from __future__ import annotations

import functools
import hashlib
import itertools
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import experiments
from bench.config.compose import given
from bench.errors import BenchError, EnvironmentFault
from bench.records.identity import ASIDE, setting_of
from bench.report import boards, join, kept, page
from bench.report.analysis import Analysis, analyse
from bench.report.collect import Collection, Say, gather
from bench.report.exports import results_csv, results_json, table_csv
from bench.report.figures import Drawn, figures, fonts, source_of
from bench.report.groups import groups
from bench.report.latex import table_tex
from bench.report.leaderboard import Leaderboard, leaderboard, run_ids, study_folders
from bench.report.leaderboard import load as load_studies
from bench.report.overview import overview
from bench.report.parallel import Files, Job, side_by_side
from bench.report.readme import readme
from bench.report.tables import Table
from bench.report.words import MARK

# Settings that do not make another table: the budget is in its name already, the others change no number.
_ASIDE = {"budget", "seed", *ASIDE}


class Stale(BenchError):
    """Reports that do not follow from their records."""

    code = 1


@dataclass
class Reports:
    """All that follows from some records.

    Attributes:
        collection: the records.
        groups: of every network, data set and budget: what the page shows.
        reports: of the tables that get folders.
        left_out: a line for each table that could not be made.
        leaderboard: of the studies; None where there are none.
        studies_out: a line for each study that stands in no table of it.
    """

    collection: Collection
    groups: list[Analysis]
    reports: list[Analysis]
    left_out: list[str] = field(default_factory=list)
    leaderboard: Leaderboard | None = None
    studies_out: list[str] = field(default_factory=list)

    def files(
        self, only: Sequence[Table] | None = None, png: bool = True, out: Path | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Path below `reports/` and content of every file.

        Args:
            only: leave out the folders of all other tables.
            png: draw the PNG files; else their content is only what `source_of` would read off it.
            out: `reports` from before: PNG files that show the same are taken from there.
        """
        drawn = {
            analysis.table.folder: figures(analysis)
            for analysis in self.reports
            if only is None or analysis.table in only
        }
        # The page takes longest.
        jobs = [Job(self._page)] if page.available() else []
        for analysis in self.reports:
            jobs += _drawing(analysis.table, drawn.get(analysis.table.folder, ()), png, out)
        made = iter(side_by_side(jobs))
        if page.available():
            yield from next(made)
        for analysis in self.reports:
            folder = analysis.table.folder
            if folder not in drawn:
                continue
            captions = [(figure.name, figure.caption) for figure in drawn[folder]]
            yield f"{folder}/README.md", readme(analysis, captions).encode()
            yield f"{folder}/table.csv", table_csv(analysis).encode()
            yield f"{folder}/table.tex", table_tex(analysis).encode()
            for own in itertools.islice(made, len(captions)):
                for name, content in own:
                    yield f"{folder}/{name}", content
        records = self.collection.records
        left_out = [f"{path.parent.name}: {reason}" for path, reason in self.collection.left_out]
        yield "README.md", overview(self.reports, records, [*left_out, *self.left_out]).encode()
        yield "results.csv", results_csv(records).encode()
        yield "results.json", results_json(records).encode()
        if self.leaderboard is not None:
            yield from boards.files(self.leaderboard, self.studies_out)

    def _page(self) -> Files:
        text = page.render(self.groups, self.reports, self.collection.records, self.leaderboard)
        return [("index.html", text.encode())]


def _drawing(table: Table, drawn: Sequence[Drawn], png: bool, out: Path | None) -> Iterator[Job]:
    """The jobs that draw a table's figures.

    All that `Drawn.files` makes its files of is in the name of the place where they are kept.

    Args:
        table: what is drawn.
        drawn: figures of it.
        png: as `Reports.files` takes it.
        out: likewise.
    """
    there = None if out is None else out / table.folder
    shown = hashlib.sha256(pickle.dumps(table) + fonts()).digest() if drawn else b""
    for figure in drawn:
        given = [shown, figure.name.encode(), str(png).encode()]
        for path in () if there is None else (there / f"{figure.name}.svg", there / f"{figure.name}.png"):
            given.append(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"")
        yield Job(functools.partial(_files_of, figure, png, there), kept.place("figure", b"\0".join(given)))


def _files_of(figure: Drawn, png: bool, there: Path | None) -> Files:
    return list(figure.files(png, there))


def _derive(collection: Collection, variants: Sequence[tuple[str, Sequence[str]]], folders: Sequence[Path]) -> Reports:
    """Sort records into tables and work out their statistics.

    Args:
        collection: the records.
        variants: experiments that were run with further overrides, each with these.
        folders: where the records are: studies lie in them or beside them.
    """
    left_out: list[str] = []
    studies_out: list[str] = []
    found = load_studies(study_folders(folders), studies_out)
    names = experiments.names()
    sorted_out = join.Sorted(collection, run_ids(found))
    tables = sorted_out.tables(names, (), left_out)
    tables.sort(key=lambda table: names.index(table.name))
    for name, overrides in variants:
        tables += sorted_out.tables([name], overrides, left_out)
    rest = sorted_out.rest
    grouped = [analyse(table) for table in groups(rest) if not _twin(table)]
    # A group whose runs one experiment has all of would say the same twice.
    covered = [_ids(table) for table in tables]
    loose = [analysis for analysis in grouped if not any(_ids(analysis.table) <= ids for ids in covered)]
    ranked = leaderboard(found, collection, studies_out)
    left_out += studies_out
    return Reports(collection, grouped, [*map(analyse, tables), *loose], left_out, ranked, studies_out)


def _twin(table: Table) -> bool:
    """Whether it is a non-spiking twin alone, which others stand beside: it compares nothing."""
    return len(table.lines) == 1 and all(record.result["neuron"] == "relu" for record in table.records)


def _ids(table: Table) -> set[str]:
    return {record.run_id for record in table.records}


def _variants(out: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Experiments with further overrides that have a report already: its first line says how it was built."""
    built = []
    for path in _generated(out):
        first = path.read_text(errors="replace").split("\n", 1)[0]
        name, *overrides = first.removeprefix(MARK).split("`", 1)[0].split() or [""]
        if overrides:
            built.append((name, tuple(overrides)))
    return built


def _generated(out: Path) -> list[Path]:
    """The README of every generated folder."""
    paths = [path for depth in ("*/*", "*/*/*") for path in out.glob(f"{depth}/README.md")]
    return sorted(path for path in paths if path.read_text(errors="replace").startswith(MARK))


def write(
    folders: Sequence[Path],
    out: Path,
    names: Sequence[str] = (),
    arguments: Sequence[str] = (),
    dirty: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write the reports; what is as it should be is left alone.

    Args:
        folders: where the records are.
        out: `reports`.
        names: experiments; all that there are records of, and all groups of records, if left out.
        arguments: overrides that the experiments were run with; `budget=` picks one.
        dirty: take records of a dirty commit too.
        say: takes what the user is told.

    Returns:
        The folders of the tables asked for.

    Raises:
        BenchError: there are no records, or none of an experiment that was named.
        EnvironmentFault: a file cannot be written.
    """
    if arguments and not names:
        raise BenchError(f"{arguments[0]}: name the experiment too, as in nandan2022/table3_1 budget=cpu")
    extra = [override for override in arguments if setting_of(override) not in _ASIDE]
    loaded = [experiments.load(name) for name in names]
    budget = next((f"budget={value}" for value in given(arguments).get("budget", ())), None)
    collection = gather(folders, dirty, say)
    # Those that were built with overrides before stay: the overview lists them.
    new = [(experiment.name, (budget or f"budget={experiment.budget}", *extra)) for experiment in loaded if extra]
    made = _derive(collection, sorted({*_variants(out), *new}), folders)
    tables = [analysis.table for analysis in made.reports]
    wanted = [table for table in tables if not names or _asked(table, names, budget, extra)]
    for line in made.left_out:
        say(line)
    if names and not wanted:
        where = f" at {budget}" if budget else ""
        raise BenchError(f"fewer than two rows of {', '.join(names)}{where} have a run; `bench reproduce` runs them")
    try:
        _put(made, out, wanted if names else None)
    except OSError as error:
        raise EnvironmentFault(f"{error.filename} could not be written: {error.strerror}") from error
    if made.leaderboard is not None:
        entries = sum(len(board.entries) for board in made.leaderboard.boards)
        say(f"{out / boards.FOLDER}: {entries} entries on {len(made.leaderboard.boards)} workloads")
    for table in wanted:
        say(f"{out / table.folder}: {len(table.lines)} rows, {len(table.records)} runs" + _reduced(table))
    if not page.available():
        say("index.html was not written, for lack of a package: pip install altair vl-convert-python")
    else:
        say(f"{out / 'index.html'}: {len(collection.records)} runs")
    for path in _generated(out):
        if path.parent.relative_to(out).as_posix() not in {table.folder for table in tables}:
            say(f"{path.parent} follows from no record any more; remove it")
    return [out / table.folder for table in wanted]


def _asked(table: Table, names: Sequence[str], budget: str | None, extra: Sequence[str]) -> bool:
    own = [override for override in table.arguments[1:] if not override.startswith("budget=")]
    return table.name in names and (budget in (None, f"budget={table.budget}")) and own == list(extra)


def _reduced(table: Table) -> str:
    return f" (reduced: budget {table.budget})" if table.reduced else ""


def _put(made: Reports, out: Path, only: Sequence[Table] | None) -> None:
    written: dict[Path, set[str]] = {}
    for name, content in made.files(only, out=out):
        path = out / name
        written.setdefault(path.parent, set()).add(path.name)
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for folder, names in written.items():
        # A figure whose numbers are gone must not stay behind.
        for path in folder.iterdir() if folder != out else ():
            if path.name not in names and path.suffix in (".svg", ".png") and source_of(path.read_bytes()) is not None:
                path.unlink()


def check(out: Path, say: Say = print) -> None:
    """Build everything anew from `reports/records` and compare.

    Texts must be equal byte by byte. A figure or the page may differ in its bytes where another version of the
    renderer drew it: then what it shows must be equal.

    Args:
        out: `reports`.
        say: takes what the user is told.

    Raises:
        BenchError: there are no records.
        Stale: names the files that do not follow from them.
    """
    records = [out / "records"]
    made = _derive(gather(records, False, say), _variants(out), records)
    expected = dict(made.files(png=False))
    stale = [f"{name}: {reason}" for name, content in expected.items() if (reason := _differs(out / name, content))]
    for path in _generated(out):
        for file in sorted(path.parent.iterdir()):
            name = file.relative_to(out).as_posix()
            if file.is_file() and name not in expected:
                stale.append(f"{name}: follows from no record")
    if not page.available():
        say("index.html was not checked, for lack of a package: pip install altair vl-convert-python")
    if stale:
        count = f"{len(stale)} file{'s do' if len(stale) > 1 else ' does'} not follow from {out / 'records'}"
        again = f"bench report --out {out}"
        raise Stale("\n".join([f"{count}; `{again}` writes them anew", *(f"  {line}" for line in stale)]))
    say(f"{len(expected)} files follow from {len(made.collection.records)} records")


def _differs(path: Path, content: bytes) -> str:
    """Why a file is not what it should be; nothing if it is."""
    if not path.is_file():
        return "missing"
    there = path.read_bytes()
    if there == content:
        return ""
    old, new = source_of(there), source_of(content)
    if old is None or new is None:
        return "differs"
    (old_digest, old_renderer), (new_digest, new_renderer) = old, new
    if old_digest != new_digest:
        return "shows other numbers"
    # A PNG's bytes depend on the machine's libraries too, an SVG's and the page's on the renderer's version only.
    if path.suffix == ".png" or old_renderer != new_renderer:
        return ""
    return "differs, though its numbers are right"
