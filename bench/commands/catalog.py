"""`bench list`: what is registered, as rows: for the terminal, the README's tables and other programs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import markdown
from bench.commands.parsing import Parser
from bench.commands.words import among
from bench.errors import BenchError, nearest
from bench.families import Family
from bench.registry import MODELS, PROBES, REGULARIZERS, Registry

BASELINE = "none"


def parser() -> Parser:
    """The command line."""
    parser = Parser("list")
    which = "models, regs, data, experiments or probes; all of them if left out"
    parser.add_argument("section", nargs="?", completes=[among(*SECTIONS)], help=which)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--markdown", action="store_true", help="as Markdown tables")
    parser.add_argument("--into", type=Path, metavar="FILE", help="renew the tables in a Markdown file")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print what is registered, or put it into a Markdown file.

    Raises:
        BenchError: there is no such section, or the file has no place for it.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.console import say, table

    if options.into is not None:
        say(f"{options.into} {'renewed' if write_into(options.into) else 'is as it should be'}")
        return
    sections = {name: section(name) for name in ([options.section] if options.section else SECTIONS)}
    if options.json:
        print(json.dumps({name: [vars(row) for row in rows] for name, rows in sections.items()}, indent=1))
        return
    for name, rows in sections.items():
        if options.markdown:
            print(f"## {name}\n\n{tabulated(rows)}\n")
        elif rows:
            if rows[0].group:
                say(name)
            for heading, members in grouped(rows):
                table(heading or name, ("name", "what it is", "source", "defaults"), [
                    (row.name, row.summary, row.source, row.settings) for row in members
                ])  # fmt: skip
        else:
            say(f"{name}: none")


@dataclass(frozen=True)
class Entry:
    """One row.

    Attributes:
        name: as the command line takes it.
        summary: one sentence.
        source: the paper and its equation, or a link.
        defaults: the settings it comes with.
        group: heading of the rows that it stands among; nothing where there is none.
    """

    name: str
    summary: str
    source: str
    defaults: dict[str, Any]
    group: str = ""

    @property
    def settings(self) -> str:
        """The defaults as one would write them: `weight=0.1 order=2`."""
        return " ".join(f"{key}={plain(value)}" for key, value in self.defaults.items())


def plain(value: Any) -> str:
    """A value in Hydra's grammar."""
    from bench.config.explain import shown

    if isinstance(value, list):
        return f"[{','.join(map(plain, value))}]"
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else shown(value)


def summary_of(text: str) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def source_of(text: str) -> str:
    """The first sentence of the paragraph that begins with "Source:"."""
    found = re.search(r"^Source:\s*(.+?)(?:\n\s*\n|\Z)", inspect.cleandoc(text), re.MULTILINE | re.DOTALL)
    if found is None:
        return ""
    # "et al. 2021", "eq. 3.1" and "A. Author" end no sentence.
    sentence = re.split(r"(?<!\bal)(?<!\beq)(?<!\b[A-Z])\.\s+(?=[A-Z])", " ".join(found[1].split()))[0]
    return sentence.rstrip(".")


def components(registry: Registry) -> list[Entry]:
    """Every registered network, regularizer or probe."""
    from omegaconf import OmegaConf

    from bench.config.component import schema

    rows = []
    for declaration in registry.declarations():
        name, text = declaration.name, declaration.doc
        defaults: Any = OmegaConf.to_container(OmegaConf.structured(schema(registry, name)), enum_to_str=True)
        del defaults["_target_"]
        rows.append(Entry(name, summary_of(text), source_of(text), defaults))
    return rows


def regularizers() -> list[Entry]:
    """Every registered regularizer, by family: the baseline first, those of no family last."""
    declarations = {declaration.name: declaration for declaration in REGULARIZERS.declarations()}
    families = {name: declaration.attribute("family") for name, declaration in declarations.items()}
    # Its source is evaluated, not imported: what it has is another module's member of the same name.
    order = {family.name: place for place, family in enumerate(Family)}

    def place(name: str) -> int:
        return -1 if name == BASELINE else len(order) if families[name] is None else order[families[name].name]

    rows = sorted(components(REGULARIZERS), key=lambda row: (place(row.name), row.name))
    return [replace(row, group=_heading(row.name, families[row.name])) for row in rows]


def _heading(name: str, family: Family | None) -> str:
    if name == BASELINE:
        return "baseline"
    return "of no family" if family is None else f"{family.name} ({family.value})"


def grouped(rows: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Rows by the heading that they stand under, in their order."""
    groups: dict[str, list[Entry]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.items())


def datasets() -> list[Entry]:
    """Every registered data set, with what its file under configs/data sets."""
    import yaml

    from bench.config.options import config_file
    from bench.data import DATASETS

    rows = []
    for name, cls in DATASETS.items():
        path = config_file("data", name)
        defaults = yaml.safe_load(path.read_text()) if path.exists() else {}
        defaults = {key: value for key, value in defaults.items() if key not in ("defaults", "name")}
        rows.append(Entry(name, summary_of(cls.__doc__ or ""), getattr(cls, "paper", ""), defaults))
    return rows


def experiments() -> list[Entry]:
    """Every table under configs/experiment, described by its first comment."""
    from bench.config.options import config_file, options

    rows = []
    for name in options("experiment"):
        path = config_file("experiment", name)
        comments = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
        rows.append(Entry(name, next((c for c in comments if not c.startswith("@package")), ""), "", {}))
    return rows


SECTIONS: dict[str, Callable[[], list[Entry]]] = {
    "models": lambda: components(MODELS),
    "regs": regularizers,
    "data": datasets,
    "experiments": experiments,
    "probes": lambda: components(PROBES),
}


def section(name: str) -> list[Entry]:
    """The rows of one section.

    Raises:
        BenchError: there is no such section.
    """
    if name not in SECTIONS:
        raise BenchError(f"nothing called '{name}' can be listed. {nearest(name, SECTIONS)}")
    return SECTIONS[name]()


def tabulated(rows: Sequence[Entry]) -> str:
    """A table for GitHub, or one for each group under its heading."""
    tables = []
    for heading, members in grouped(rows):
        table = markdown.table(
            ("name", "what it is", "source", "defaults"),
            [
                (f"`{row.name}`", row.summary, row.source, f"`{row.settings}`" if row.settings else "")
                for row in members
            ],
        )
        tables.append(f"**{heading[:1].upper()}{heading[1:]}**\n\n{table}" if heading else table)
    return "\n\n".join(tables)


def write_into(path: Path) -> bool:
    """Put the tables of a Markdown file between its marks, `<!-- bench list regs -->` and `<!-- end -->`.

    Returns:
        Whether the file changed.

    Raises:
        BenchError: it has no such mark.
    """
    return markdown.fill(path, "bench list", lambda name: tabulated(section(name)))
