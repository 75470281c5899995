"""Probes in a report: the headline numbers of each line over seeds, and what sets them apart from the baseline's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from bench.published import papers
from bench.report.analysis import Analysis
from bench.report.collect import StoredRun
from bench.report.grids import Line
from bench.report.stats import Estimate, Paired, estimate, holm, paired

ALPHA = 0.05


@dataclass(frozen=True)
class Section:
    """The table of one probe, measured in one way.

    Attributes:
        name: of the probe.
        text: what the numbers are.
        columns: the table's head.
        rows: its cells.
    """

    name: str
    text: str
    columns: list[str]
    rows: list[list[str]]


def sections(found: Analysis) -> list[Section]:
    """One for each probe of the table's runs and each of the settings it was measured with; often none."""
    kinds = {(name, how(record, name) or "") for record in found.table.records for name in record.probes}
    return [section(found, name, settings) for name, settings in sorted(kinds)]


def how(record: StoredRun, name: str) -> str | None:
    """What the probe of a record was measured with, as a text that sorts; None where there is no such probe."""
    probe = record.probes.get(name)
    if probe is None:
        return None
    return json.dumps({**probe["settings"], "seed": probe["seed"], "bake": probe["baked"]}, sort_keys=True)


def values(line: Line, name: str, settings: str, key: str) -> dict[int, float]:
    """Seed -> headline number of the runs measured with these settings."""
    found = {}
    for record in line.records:
        if how(record, name) == settings and record.probes[name]["headline"].get(key) is not None:
            found[record.seed] = float(record.probes[name]["headline"][key])
    return found


def keys(records: Iterable[StoredRun], name: str, settings: str) -> list[str]:
    """The headline's names, in the probe's order."""
    found: dict[str, None] = {}
    for record in records:
        if how(record, name) == settings:
            found.update(dict.fromkeys(record.probes[name]["headline"]))
    return list(found)


def section(found: Analysis, name: str, settings: str) -> Section:
    """The table of one probe: for each line and number the mean and the difference to the baseline."""
    lines = [row.line for row in found.rows]
    columns = keys(found.table.records, name, settings)
    cells: dict[str, list[str]] = {}
    for column in columns:
        own = [values(line, name, settings, column) for line in lines]
        pairs = [
            None if line.against is None else paired(mine, values(line.against, name, settings, column))
            for line, mine in zip(lines, own, strict=True)
        ]
        adjusted = holm([None if pair is None else pair.p for pair in pairs])
        cells[column] = [
            cell(estimate(mine.values()), pair, p) for mine, pair, p in zip(own, pairs, adjusted, strict=True)
        ]
    body = []
    for place, line in enumerate(lines):
        seeds = sorted({seed for column in columns for seed in values(line, name, settings, column)})
        if seeds:
            body.append([line.label, str(len(seeds)), *(cells[column][place] for column in columns)])
    shown = ", ".join(f"{key}={said(value)}" for key, value in json.loads(settings).items())
    text = (
        "Mean over seeds with its 95 % interval; behind the semicolon the difference to the baseline, paired by seed, "
        f"bold where a paired t test at 5 %, corrected by Holm's method over the column, tells it from 0. "
        f"Measured with {shown}."
    )
    return Section(name, text, [found.table.axis, "seeds", *columns], body)


def counts(found: Analysis) -> Section | None:
    """The paper's table of spikes on test sets beside ours, where its file has one for the experiment and all runs were
    measured with the same settings."""
    table = found.table
    of = papers.of_experiment(table.name).get("counts")
    kinds = {kind for record in table.records if of and (kind := how(record, of["probe"])) is not None}
    if of is None or len(kinds) != 1:
        return None
    (settings,) = kinds

    def mean_of(line: Line, key: str) -> float | None:
        mean = estimate(values(line, of["probe"], settings, key).values())
        return None if mean is None else mean.mean

    by_label = {row.line.label: row.line for row in found.rows}
    lines = [by_label[label] for label in of["labels"] if label in by_label]
    sources = list(of["published"])
    body, ours_unit = [], [mean_of(line, of["unit"]) for line in lines]
    for row in of["rows"]:
        cells = [row["set"]]
        for source, labels in of["published"].items():
            cells += ["-" if value is None else f"{value:,}" for value in row.get(source, [None] * len(labels))]
        means = [mean_of(line, row["key"]) for line in lines]
        cells += ["-" if mean is None else f"{mean * of['times']:,.0f}" for mean in means]
        cells += [
            "-" if not mean or not unit else f"{mean / unit:.2f}" for mean, unit in zip(means, ours_unit, strict=True)
        ]
        body.append(cells)
    head = ["test set"]
    head += [f"{source}: {label}" for source in sources for label in of["published"][source]]
    head += [f"ours: {line.label}" for line in lines] + [f"ours / {of['unit_name']}: {line.label}" for line in lines]
    seeds = max((len(line.seeds) for line in lines), default=0)
    text = f"{of['says']} Ours: mean over {seeds} seed{'s' if seeds != 1 else ''}, " + (
        "at the papers' size." if not table.reduced else f"a reduced run, budget {table.budget}."
    )
    return Section(of["title"], text, head, body)


def said(value: object) -> str:
    """A setting as the command line has it."""
    return json.dumps(value).replace('"', "").replace(", ", ",")


def cell(mean: Estimate | None, pair: Paired | None, p: float | None) -> str:
    """`12.3 [11, 13.6]; -4.1`."""
    if mean is None:
        return "-"
    text = f"{mean.mean:.4g}"
    if mean.low is not None and mean.high is not None:
        text += f" [{mean.low:.4g}, {mean.high:.4g}]"
    if pair is None or pair.difference is None:
        return text
    # 0 added: what rounds to 0 from below has no sign.
    difference = f"{pair.difference.mean + 0.0:+.4g}"
    return f"{text}; " + (f"**{difference}**" if p is not None and p < ALPHA else difference)
