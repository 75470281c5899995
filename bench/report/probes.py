"""What a report says of probes: each line's headline numbers over seeds, and a paper's counts beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from bench.published import papers
from bench.records import probe
from bench.report.analysis import Analysis
from bench.report.collect import StoredRun
from bench.report.stats import ALPHA, Estimate, Paired, estimate, holm, paired
from bench.report.tables import Line

DOUBT = (
    "Unreliable: runs under which an attack that follows no gradient fools more images than all that follow one, or "
    "accuracy does not fall as eps grows; what attacks leave there is an upper bound, and no sign of robustness."
)


@dataclass(frozen=True)
class Section:
    """A table under a heading: of one probe, measured in one way, or of a paper's counts.

    Attributes:
        name: the heading: the probe's name, or what the paper's file has as title.
        text: what the numbers are.
        columns: the table's head.
        rows: the table's cells.
    """

    name: str
    text: str
    columns: list[str]
    rows: list[list[str]]


def sections(analysis: Analysis) -> list[Section]:
    """One for each probe of the table's runs and each of the settings it was measured with; often none."""
    records = analysis.table.records
    kinds = {(name, _settings(record, name) or "") for record in records for name in record.probes}
    return [_section(analysis, name, settings) for name, settings in sorted(kinds)]


def _settings(record: StoredRun, name: str) -> str | None:
    """What the probe of a record was measured with, as a text that sorts; None where there is no such probe."""
    found = record.probes.get(name)
    if found is None:
        return None
    return json.dumps({**found["settings"], "seed": found["seed"], "bake": found["baked"]}, sort_keys=True)


def _values(line: Line, name: str, settings: str, key: str) -> dict[int, float]:
    """Seed -> headline number of the runs measured with these settings."""
    values = {}
    for record in line.records:
        if _settings(record, name) == settings and record.probes[name]["headline"].get(key) is not None:
            values[record.seed] = float(record.probes[name]["headline"][key])
    return values


def _keys(records: Iterable[StoredRun], name: str, settings: str) -> list[str]:
    """The headline's names, in the probe's order."""
    keys: dict[str, None] = {}
    for record in records:
        if _settings(record, name) == settings:
            keys.update(dict.fromkeys(record.probes[name]["headline"]))
    return list(keys)


def _unreliable(line: Line, name: str, settings: str) -> str:
    """`1 of 3`: runs measured with these settings whose probe doubts its numbers, of those that looked into it."""
    found = [
        bool(record.probes[name][probe.UNRELIABLE])
        for record in line.records
        if _settings(record, name) == settings and probe.UNRELIABLE in record.probes[name]
    ]
    return f"{sum(found)} of {len(found)}" if found else "-"


def _section(analysis: Analysis, name: str, settings: str) -> Section:
    """The table of one probe: for each line and number the mean and the difference to the baseline."""
    lines = [row.line for row in analysis.rows]
    columns = _keys(analysis.table.records, name, settings)
    cells: dict[str, list[str]] = {}
    for column in columns:
        own = [_values(line, name, settings, column) for line in lines]
        pairs = [
            None if line.against is None else paired(mine, _values(line.against, name, settings, column))
            for line, mine in zip(lines, own, strict=True)
        ]
        adjusted = holm([None if pair is None else pair.p for pair in pairs])
        cells[column] = [
            _cell(estimate(mine.values()), pair, p) for mine, pair, p in zip(own, pairs, adjusted, strict=True)
        ]
    doubted = [_unreliable(line, name, settings) for line in lines]
    looked = any(cell != "-" for cell in doubted)
    body = []
    for place, line in enumerate(lines):
        seeds = sorted({seed for column in columns for seed in _values(line, name, settings, column)})
        if seeds:
            flag = [doubted[place]] if looked else []
            body.append([line.label, str(len(seeds)), *(cells[column][place] for column in columns), *flag])
    shown = ", ".join(f"{key}={_setting_text(value)}" for key, value in json.loads(settings).items())
    text = (
        "Mean over seeds with its 95 % interval; behind the semicolon the difference to the baseline, paired by seed, "
        f"bold where a paired t test at 5 %, corrected by Holm's method over the column, tells it from 0. "
        f"Measured with {shown}."
    )
    if looked:
        text += f" {DOUBT}"
    return Section(name, text, [analysis.table.axis, "seeds", *columns, *([probe.UNRELIABLE] if looked else [])], body)


def counts(analysis: Analysis) -> Section | None:
    """The paper's table of spikes on test sets beside ours, where its file has one for the experiment and all runs were
    measured with the same settings."""
    table = analysis.table
    published = papers.of_experiment(table.name).get("counts")
    if not published:
        return None
    name = published["probe"]
    kinds = {kind for record in table.records if (kind := _settings(record, name)) is not None}
    if len(kinds) != 1:
        return None
    (settings,) = kinds
    by_label = {row.line.label: row.line for row in analysis.rows}
    lines = [by_label[label] for label in published["labels"] if label in by_label]

    def means(key: str) -> list[float | None]:
        estimates = [estimate(_values(line, name, settings, key).values()) for line in lines]
        return [None if mean is None else mean.mean for mean in estimates]

    sources, units = published["published"], means(published["unit"])
    body = []
    for row in published["rows"]:
        theirs = [value for source in sources for value in row.get(source, [None] * len(sources[source]))]
        ours = means(row["key"])
        body.append([
            row["set"],
            *("-" if value is None else f"{value:,}" for value in theirs),
            *("-" if mean is None else f"{mean * published['times']:,.0f}" for mean in ours),
            *("-" if not mean or not unit else f"{mean / unit:.2f}" for mean, unit in zip(ours, units, strict=True)),
        ])  # fmt: skip
    head = [
        "test set",
        *(f"{source}: {label}" for source in sources for label in sources[source]),
        *(f"ours: {line.label}" for line in lines),
        *(f"ours / {published['unit_name']}: {line.label}" for line in lines),
    ]
    seeds = max((len(line.seeds) for line in lines), default=0)
    text = f"{published['says']} Ours: mean over {seeds} seed{'s' if seeds != 1 else ''}, " + (
        "at the papers' size." if not table.reduced else f"a reduced run, budget {table.budget}."
    )
    return Section(published["title"], text, head, body)


def _setting_text(value: object) -> str:
    """A setting as the command line has it."""
    return json.dumps(value).replace('"', "").replace(", ", ",")


def _cell(mean: Estimate | None, pair: Paired | None, p: float | None) -> str:
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
    return f"{text}; " + (f"**{difference}**" if p is not None and p <= ALPHA else difference)
