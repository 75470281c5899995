"""A table's page, `README.md`: published beside ours, verdicts, costs, probes, findings, runs."""

from __future__ import annotations

from collections.abc import Sequence

from bench.published.papers import METRICS
from bench.records.schema import MEASURES
from bench.report import probes
from bench.report.analysis import Analysis
from bench.report.grids import Table
from bench.report.words import (
    ACCURACY,
    GAP,
    RATE,
    command,
    images,
    interval,
    label_of,
    numbers_table,
    p_value,
    ranked,
    said,
    shared,
    shared_short,
)

COSTS = [
    field for field in MEASURES.values() if field.key.startswith("test.spike_rate") or field.counted or field.derive
]
"""What accuracy is bought with, in the order of the record."""


def readme(analysis: Analysis, figures: Sequence[tuple[str, str]]) -> str:
    """The page of a table.

    Args:
        analysis: of `analyse`.
        figures: file name without ending, and caption.
    """
    table = analysis.table
    title = table.title + (f" (reduced run, budget {table.budget})" if table.reduced else "")
    parts = [f"<!-- {command(table, '`')}; do not edit. -->", f"# {title}", label_of(table)]
    parts += [f"{name.capitalize()}: {text.strip()}" for name, text in table.remarks.items() if text.strip()]
    if table.published is not None:
        parts += ["## Published beside ours", _beside(analysis)]
    parts += ["## Against the baseline", _against(analysis)]
    parts += ["## What it costs", _costs(analysis)]
    beside = probes.counts(analysis)
    if beside is not None:
        parts += [f"## {beside.name}\n\n{beside.text}\n\n{numbers_table(beside.columns, beside.rows)}"]
    measured = probes.sections(analysis)
    if measured:
        parts += [
            "## Probes",
            *(f"### {one.name}\n\n{one.text}\n\n{numbers_table(one.columns, one.rows)}" for one in measured),
        ]
    if analysis.findings:
        parts += [
            "## Does the paper's finding hold?" + (" (reduced run)" if table.reduced else ""),
            _findings(analysis),
        ]
    if analysis.standings:
        parts += ["## Regularizers ranked", _standings(analysis)]
    if table.candidates:
        parts += ["## What was picked from", _candidates(table)]
    parts += ["## Figures", *(f"![{caption}]({name}.svg)\n\n{caption}" for name, caption in figures)]
    parts += ["## Runs", _runs(table)]
    if table.notes:
        parts += ["Not in these numbers:", "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _beside(analysis: Analysis) -> str:
    columns = [
        column for column in METRICS if any((row.line.published or {}).get(column) is not None for row in analysis.rows)
    ]
    if not columns:
        return "The paper publishes no numbers of these rows."
    head = [analysis.table.axis]
    for column in columns:
        head += [f"{MEASURES[column].heading}: published", "ours", "difference"]
    lines = []
    for row in analysis.rows:
        cells = [row.line.label]
        for column in columns:
            theirs, field = (row.line.published or {}).get(column), MEASURES[column]
            cells += [
                field.text(None if theirs is None else float(theirs)),
                interval(field, row.means[column]),
                field.text(row.off(column), sign=True),
            ]
        lines.append(cells)
    assert analysis.table.published is not None
    what = f"{analysis.table.published.paper}, {analysis.table.published.item}: {analysis.table.published.title}."
    note = "Ours: mean over seeds with its 95 % interval; published: one run each."
    if analysis.table.reduced:
        note += f" **Ours are reduced runs (budget `{analysis.table.budget}`).**"
    return f"{what} {note}\n\n{numbers_table(head, lines)}"


def _against(analysis: Analysis) -> str:
    head = (
        analysis.table.axis, "seeds", "test accuracy", "difference", "p (Holm)", "verdict", "rank", "gap",
        "train accuracy, clean",
    )  # fmt: skip
    lines = []
    for row in analysis.rows:
        pair = row.pair
        seeds = str(len(row.line.seeds))
        seeds += f", {len(row.line.diverged)} diverged" if row.line.diverged else ""
        lines.append((
            row.line.label, seeds, interval(ACCURACY, row.means["test_acc"]),
            "-" if pair is None else interval(ACCURACY, pair.difference, sign=True),
            p_value(row.adjusted), said(row), ranked(row), GAP.text(row.mean("gap"), sign=True),
            MEASURES["train_acc_eval"].text(row.mean("train_acc_eval")),
        ))  # fmt: skip
    text = (
        "Accuracies are the last epoch's, in percent: mean over seeds with its 95 % interval (Student's t; bootstrap "
        "from 20 seeds on). Difference: to the baseline, paired by seed. The verdict is a paired t test at 5 %, "
        "corrected by Holm's method for all comparisons of this table. Rank: among all rows"
        f"{' of the panel' if len(analysis.table.panels) > 1 else ''}, with the 95 % interval that resampled seeds "
        "leave; runs that diverged rank last. Gap: clean train minus test accuracy. Intervals are over seeds, on one "
        "test set."
    )
    return f"{text}\n\n{numbers_table(head, lines)}"


def _costs(analysis: Analysis) -> str:
    head = [analysis.table.axis, *(field.heading for field in COSTS), "Pareto front"]
    lines = []
    for row in analysis.rows:
        fronts = [name for name, on in (("spike rate", row.cheap), ("SynOps", row.frugal)) if on]
        cells = [interval(RATE, row.means[RATE.column])]
        cells += [field.text(row.mean(field.column)) for field in COSTS if field is not RATE]
        lines.append([row.line.label, *cells, ", ".join(fronts) or "-"])
    text = (
        "Spike rate: spikes / (neurons x time steps x images). Energy: 0.9 pJ an accumulation, 4.6 pJ a "
        "multiplication, compute only, 45 nm. Pareto front: no other row has as much mean accuracy for as little."
    )
    return f"{text}\n\n{numbers_table(head, lines)}"


def _findings(analysis: Analysis) -> str:
    lines = [(finding.says, f"**{finding.outcome}**", finding.why) for finding in analysis.findings]
    text = "Each claim is tested on our runs, paired by seed, with Holm's correction; `open`: they cannot tell."
    return f"{text}\n\n{numbers_table(('the paper says', 'in our runs', 'numbers'), lines)}"


def _standings(analysis: Analysis) -> str:
    head = ["regularizer", "score", "rank", "first in", "area under the strength curve"]
    many = len(analysis.table.panels) > 1
    lines = []
    for standing in analysis.standings:
        rank = standing.rank
        place = "-" if rank is None else f"{rank.rank:g}"
        if rank is not None and rank.low is not None and rank.high is not None:
            place += f" [{rank.low:g}, {rank.high:g}]"
        first = "-" if rank is None or rank.first is None else f"{100 * rank.first:.0f} %"
        cells = [standing.series, interval(ACCURACY, standing.score), place, first, interval(ACCURACY, standing.area)]
        lines.append([standing.panel, *cells] if many else cells)
    text = (
        f"Score: {analysis.scored}. First in: share of resampled seeds in which it is the best. Area: test accuracy "
        "averaged over the decades of strength that were run."
    )
    return f"{text}\n\n{numbers_table(['group', *head] if many else head, lines)}"


def _candidates(table: Table) -> str:
    lines = []
    for line in table.candidates:
        seeds = str(len(line.seeds)) + (f", {len(line.diverged)} diverged" if line.diverged else "")
        lines.append((
            line.label, seeds, interval(ACCURACY, line.mean("val.acc")), "picked" if line in table.lines else "-",
        ))  # fmt: skip
    text = f"Rule `{table.rule.name}`: {table.rule.says}. The test set is not looked at."
    return f"{text}\n\n{numbers_table((table.axis, 'seeds', 'validation accuracy', ''), lines)}"


def _runs(table: Table) -> str:
    records = table.records
    seeds = ", ".join(map(str, sorted({record.seed for record in records})))
    diverged = sum(not record.finished for record in records)
    dirty = sum(bool(record.dirty) for record in records)
    facts = [
        ("budget", f"`{table.budget}`" + (" (reduced)" if table.reduced else "")),
        ("data", f"{shared(records, 'data')}, copy {shared(records, 'data_copy')}, checksum "
                 f"{shared_short(records, 'data_checksum')}"),
        ("images", images(records)),
        ("epochs, batch", f"{shared(records, 'epochs')}, {shared(records, 'batch_size')}"),
        ("network", f"{shared(records, 'model')}, {shared(records, 'neuron')} neurons, T = "
                    f"{shared(records, 'time_steps')}"),
        ("optimizer", f"{shared(records, 'optimizer')}, rate {shared(records, 'lr')}"),
        ("seeds", f"{seeds}; {len(records)} runs, {diverged} diverged"),
        ("selection", f"`{table.rule.name}`: {table.rule.says}"),
        ("hardware", shared(records, "hardware")),
        ("kernels, precision", f"{shared(records, 'ops')}, {shared(records, 'precision')}"),
        ("commit", shared_short(records, "commit") + (f"; {dirty} runs from a changed tree" if dirty else "")),
    ]  # fmt: skip
    return "\n".join(f"- {name}: {text}" for name, text in facts)
