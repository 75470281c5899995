"""From records to the files under reports/: written, or compared with what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError, EnvironmentFault
from bench.records.identity import UNCOUNTED
from bench.report import join, page
from bench.report.analysis import Analysis, analyse
from bench.report.collect import Collection, collect
from bench.report.exports import results_csv, results_json, table_csv
from bench.report.figures import figures, source_of
from bench.report.grids import Table, groups
from bench.report.latex import table_tex
from bench.report.overview import overview
from bench.report.readme import readme
from bench.report.words import MARK

Say = Callable[[str], None]

ASIDE = {
    "budget", "seed", "logger", "runs", "force", "hydra", "logger.mode", "logger.project", "logger.entity",
    "data.root", "data.path", "ops", *(f"trainer.{key}" for key in UNCOUNTED if key != "precision"),
}  # fmt: skip
"""Settings that do not make another table: the budget is in its name already, the others change no number."""


class Stale(BenchError):
    """Reports that do not follow from their records."""

    code = 1


@dataclass
class Reports:
    """All that follows from some records.

    Attributes:
        collection: the records.
        groups: every network, data set and budget: what the page shows.
        reports: the tables that get folders.
        said: what was left out.
    """

    collection: Collection
    groups: list[Analysis]
    reports: list[Analysis]
    said: list[str] = field(default_factory=list)

    def files(self, only: Sequence[Table] | None = None, png: bool = True) -> Iterator[tuple[str, bytes]]:
        """Path below `reports/` and content of every file.

        Args:
            only: draw the folders of these tables alone.
            png: draw them; else there is only their source in them.
        """
        for found in self.reports:
            if only is not None and found.table not in only:
                continue
            folder, drawn = found.table.folder, figures(found)
            yield f"{folder}/README.md", readme(found, [(of.name, of.caption) for of in drawn]).encode()
            yield f"{folder}/table.csv", table_csv(found).encode()
            yield f"{folder}/table.tex", table_tex(found).encode()
            for figure in drawn:
                for name, content in figure.files(png):
                    yield f"{folder}/{name}", content
        records = self.collection.records
        left_out = [f"{path.parent.name}: {reason}" for path, reason in self.collection.left_out]
        yield "README.md", overview(self.reports, records, [*left_out, *self.said]).encode()
        yield "results.csv", results_csv(records).encode()
        yield "results.json", results_json(records).encode()
        if page.available():
            yield "index.html", page.render(self.groups, self.reports, records).encode()


def derive(collection: Collection, variants: Sequence[tuple[str, Sequence[str]]] = ()) -> Reports:
    """Sort records into tables and work out their statistics.

    Args:
        collection: the records.
        variants: experiments that were run with further overrides, each with these.
    """
    said: list[str] = []
    found = join.tables(collection, join.names(), (), said)
    for name, arguments in variants:
        found += join.tables(collection, [name], arguments, said)
    every = [analyse(table) for table in groups(collection)]
    # A group whose runs one experiment has all of would say the same twice.
    covered = [{record.run_id for record in table.records} for table in found]
    loose = [of for of in every if not any({record.run_id for record in of.table.records} <= ids for ids in covered)]
    return Reports(collection, every, [*map(analyse, found), *loose], said)


def variants(out: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Experiments with further overrides that have a report already: its first line says how it was built."""
    found = []
    for path in generated(out):
        line = path.read_text(errors="replace").split("\n", 1)[0]
        arguments = line.removeprefix(MARK).split("`", 1)[0].split()
        if len(arguments) > 1:
            found.append((arguments[0], tuple(arguments[1:])))
    return found


def generated(out: Path) -> list[Path]:
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
        say: takes a line at a time.

    Returns:
        The folders of the tables asked for.

    Raises:
        BenchError: there are no records, or none of an experiment that was named.
        EnvironmentFault: a file cannot be written.
    """
    extra = [line for line in arguments if line.lstrip("+~").split("=", 1)[0].split("/")[0] not in ASIDE]
    loaded = [join.load(name) for name in names]
    collection = gather(folders, dirty, say)
    budget = next((line for line in arguments if line.startswith("budget=")), None)
    if arguments and not names:
        raise BenchError(f"{arguments[0]}: name the experiment too, as in nandan2022/table3_1 budget=cpu")
    # Those that were built with overrides before stay: the overview lists them.
    again = {(of.name, (budget or f"budget={of.budget}", *extra)) for of in loaded} if extra else set()
    made = derive(collection, sorted({*variants(out), *again}))
    wanted = [of.table for of in made.reports if not names or _asked(of.table, names, budget, extra)]
    for line in made.said:
        say(line)
    if names and not wanted:
        where = f" at {budget}" if budget else ""
        raise BenchError(f"fewer than two rows of {', '.join(names)}{where} have a run; `bench reproduce` runs them")
    try:
        _put(made, out, wanted if names else None)
    except OSError as error:
        raise EnvironmentFault(f"{error.filename} could not be written: {error.strerror}") from error
    for table in wanted:
        say(f"{out / table.folder}: {len(table.lines)} rows, {len(table.records)} runs" + _reduced(table))
    if not page.available():
        say("index.html needs more packages: pip install 'snn-bench[report]'")
    else:
        say(f"{out / 'index.html'}: {len(collection.records)} runs")
    for path in generated(out):
        if path.parent.relative_to(out).as_posix() not in {of.table.folder for of in made.reports}:
            say(f"{path.parent} follows from no record any more; remove it")
    return [out / table.folder for table in wanted]


def _asked(table: Table, names: Sequence[str], budget: str | None, extra: Sequence[str]) -> bool:
    given = [line for line in table.arguments[1:] if not line.startswith("budget=")]
    return table.name in names and (budget in (None, f"budget={table.budget}")) and given == list(extra)


def _reduced(table: Table) -> str:
    return f" (reduced: budget {table.budget})" if table.reduced else ""


def _put(made: Reports, out: Path, only: Sequence[Table] | None) -> None:
    written: dict[Path, set[str]] = {}
    for name, content in made.files(only):
        path = out / name
        written.setdefault(path.parent, set()).add(path.name)
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for folder, kept in written.items():
        # A figure whose numbers are gone must not stay behind.
        for path in folder.iterdir() if folder != out else ():
            if path.name not in kept and path.suffix in (".svg", ".png") and source_of(path.read_bytes()) is not None:
                path.unlink()


def gather(folders: Sequence[Path], dirty: bool, say: Say) -> Collection:
    """The records, after saying what was left out.

    Raises:
        BenchError: there is none.
    """
    collection = collect(folders, dirty)
    for line in collection.lines():
        say(line)
    if not collection.records:
        where = " or ".join(str(folder) for folder in folders)
        raise BenchError(f"no usable record in {where}; `python -m bench run` or `reproduce` makes some")
    return collection


def check(out: Path, say: Say = print) -> None:
    """Build everything anew from `reports/records` and compare.

    Texts must be equal byte by byte. A figure or the page may differ in its bytes where another version of the
    renderer drew it: then what it shows must be equal.

    Raises:
        BenchError: there are no records.
        Stale: names the files that do not follow from them.
    """
    made = derive(gather([out / "records"], False, say), variants(out))
    expected = dict(made.files(png=False))
    stale = [f"{name}: {reason}" for name, content in expected.items() if (reason := differs(out / name, content))]
    for path in generated(out):
        for file in sorted(path.parent.iterdir()):
            name = file.relative_to(out).as_posix()
            if file.is_file() and name not in expected:
                stale.append(f"{name}: follows from no record")
    if not page.available():
        say("index.html was not checked: pip install 'snn-bench[report]'")
    if stale:
        count = f"{len(stale)} file{'s do' if len(stale) > 1 else ' does'} not follow from {out / 'records'}"
        again = f"python -m bench report --runs none{'' if out == Path('reports') else f' --out {out}'}"
        raise Stale("\n".join([f"{count}; `{again}` writes them anew", *(f"  {line}" for line in stale)]))
    say(f"{len(expected)} files follow from {len(made.collection.records)} records")


def differs(path: Path, content: bytes) -> str:
    """Why a file is not what it should be; nothing if it is."""
    if not path.is_file():
        return "missing"
    there = path.read_bytes()
    if there == content:
        return ""
    found, wanted = source_of(there), source_of(content)
    if found is None or wanted is None:
        return "differs"
    if found[0] != wanted[0]:
        return "shows other numbers"
    # A PNG's bytes depend on the machine's libraries too, an SVG's and the page's on the renderer's version only.
    if path.suffix == ".png" or found[1] != wanted[1]:
        return ""
    return "differs, though its numbers are right"
