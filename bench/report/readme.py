"""A table's page, `README.md`: published beside ours, verdicts, costs, probes, findings, runs."""

from __future__ import annotations

from collections.abc import Sequence

from bench import energy
from bench.published.papers import METRICS
from bench.records.schema import FIELD, MEASURES
from bench.report import probes
from bench.report.analysis import Analysis
from bench.report.contrasts import POINTS, SHARE
from bench.report.tables import Line, Table
from bench.report.words import (
    ACCURACY,
    GAP,
    RATE,
    SYNOPS,
    budget_note,
    contrast_text,
    generated_by,
    images,
    interval,
    numbers_table,
    p_value,
    rank_text,
    replicates_text,
    seeds_note,
    shared,
    shared_short,
    verdict_text,
)

# What accuracy is bought with, in the order of the record.
_COSTS = [
    field for field in MEASURES.values() if field.key.startswith("test.spike_rate") or field.counted or field.derive
]
_CLEAN = MEASURES["train_acc_eval"]
_CHANGES = {RATE.column: "change of the spike rate", SYNOPS.column: "change of SynOps"}


def readme(analysis: Analysis, figures: Sequence[tuple[str, str]]) -> str:
    """The page of a table.

    Args:
        analysis: all that it says.
        figures: of each figure the file name without ending, and the caption.
    """
    table = analysis.table
    title = table.title + (f" (reduced run, budget {table.budget})" if table.reduced else "")
    parts = [f"<!-- {generated_by(table, '`')}; do not edit. -->", f"# {title}", budget_note(table)]
    parts += [f"{name.capitalize()}: {text.strip()}" for name, text in table.remarks.items() if text.strip()]
    if table.published is not None:
        parts += ["## Published beside ours", _beside(analysis)]
    parts += ["## Against the baseline", _against(analysis)]
    parts += ["## What it costs", _costs(analysis)]
    counts = probes.counts(analysis)
    if counts is not None:
        parts += [f"## {_section(counts)}"]
    measured = probes.sections(analysis)
    if measured:
        parts += ["## Probes", *(f"### {_section(section)}" for section in measured)]
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


def _section(section: probes.Section) -> str:
    return f"{section.name}\n\n{section.text}\n\n{numbers_table(section.columns, section.rows)}"


def _beside(analysis: Analysis) -> str:
    columns = [
        column for column in METRICS if any((row.line.published or {}).get(column) is not None for row in analysis.rows)
    ]
    if not columns:
        return "The paper publishes no numbers of these rows."
    head = [analysis.table.axis]
    for column in columns:
        head += [f"{MEASURES[column].heading}: published", "ours", "difference"]
    body = []
    for row in analysis.rows:
        cells = [row.line.label]
        for column in columns:
            theirs, field = (row.line.published or {}).get(column), MEASURES[column]
            cells += [
                field.text(None if theirs is None else float(theirs)),
                interval(field, row.estimate(column)),
                field.text(row.off(column), sign=True),
            ]
        body.append(cells)
    assert analysis.table.published is not None
    what = f"{analysis.table.published.paper}, {analysis.table.published.item}: {analysis.table.published.title}."
    note = "Ours: mean over seeds with its 95 % interval; published: one run each."
    if analysis.table.reduced:
        note += f" **Ours are reduced runs (budget `{analysis.table.budget}`).**"
    return f"{what} {note}\n\n{numbers_table(head, body)}"


def _against(analysis: Analysis) -> str:
    ranked = any(row.rank is not None for row in analysis.rows)
    costs = [field for field in (RATE, SYNOPS) if any(row.contrasts[field.column] for row in analysis.rows)]
    head = [analysis.table.axis, "seeds", ACCURACY.heading, "difference", "p (Holm)", "verdict"]
    for field in costs:
        head += [_CHANGES[field.column], "verdict"]
    head += [*(["rank"] if ranked else []), GAP.heading, _CLEAN.heading]
    body = []
    for row in analysis.rows:
        contrast = row.contrasts[ACCURACY.column]
        cells = [row.line.label, _seeds(row.line), interval(ACCURACY, row.estimate(ACCURACY.column)),
                 contrast_text(ACCURACY, contrast), p_value(row.adjusted), verdict_text(row)]  # fmt: skip
        for field in costs:
            cells += [contrast_text(field, row.contrasts[field.column]), verdict_text(row, field)]
        cells += [rank_text(row.rank)] if ranked else []
        body.append([*cells, GAP.text(row.mean(GAP.column), sign=True), _CLEAN.text(row.mean(_CLEAN.column))])
    panel = "panel" if len(analysis.table.panels) > 1 else "table"
    text = (
        "Accuracies are the last epoch's, in percent: mean over seeds with a 95 % interval on the logit scale. Changes "
        "are to the baseline, accuracy's in points and those of spikes as ratios of geometric means, and fewer spikes "
        f"are better. A row's variance is moderated by those of its {panel} (Smyth 2004); its mean is compared with "
        f"all seeds of the baseline, or seed by seed where a {panel}'s seeds move all rows alike; "
        f"each column's comparisons are corrected for the {panel} by Holm's method at 5 %. The intervals of changes "
        "are simultaneous (an end at 0 leaves 0 out), and verdicts follow: **better** or "
        f"**worse**; alike, within {POINTS:g} points of accuracy or {100 * SHARE:g} % of the spikes; or too few seeds "
        "to say. A row more of whose runs diverged than of the baseline's is never better. "
        + ("Rank: with the 95 % interval that resampled seeds leave; runs that diverged rank last. " if ranked else "")
        + f"{analysis.unranked}{' ' if analysis.unranked else ''}Gap: clean train minus test accuracy. "
        + seeds_note(analysis.table.records)
    )
    return f"{text}\n\n{numbers_table(head, body)}"


def _costs(analysis: Analysis) -> str:
    head = [analysis.table.axis, *(field.heading for field in _COSTS), "Pareto front"]
    body = []
    for row in analysis.rows:
        fronts = [name for name, on in (("spike rate", row.cheap), ("SynOps", row.frugal)) if on]
        cells = [interval(RATE, row.estimate(RATE.column))]
        cells += [field.text(row.mean(field.column)) for field in _COSTS if field is not RATE]
        body.append([row.line.label, *cells, ", ".join(fronts) or "-"])
    text = (
        f"Spike rate: spikes / (neurons x time steps x images). Energy: {energy.RULE}.{_about_energy(analysis.table)} "
        "Pareto front: no other row has as much mean accuracy for as little."
    )
    return f"{text}\n\n{numbers_table(head, body)}"


def _about_energy(table: Table) -> str:
    """What the energies leave out: neuron updates, and runs of which they are not known."""
    runs = [record for record in table.records if record.finished and record.result["neuron"] != "relu"]
    unknown = sum(record.number("energy_uj") is None for record in runs)
    shares = [
        100 * energy.microjoules(record.number("neuron_updates_per_image") or 0.0, 0.0, 0.0) / known
        for record in runs
        if (known := record.number("energy_uj"))
    ]
    text = ""
    if shares:
        least, most = f"{min(shares):.1f}", f"{max(shares):.1f}"
        span = least if least == most else f"{least} to {most}"
        text += f" Neuron updates are left out; at an accumulation each they would add {span} %."
    if unknown:
        text += (
            f" It is not known of {unknown} run{'s' if unknown > 1 else ''}, whose records do not say how many inputs "
            "were no spikes."
        )
    return text


def _findings(analysis: Analysis) -> str:
    body = [(finding.says, f"**{finding.outcome}**", finding.why) for finding in analysis.findings]
    text = (
        "Each claim is tested on our runs, paired by seed, with Holm's correction; `open`: they cannot tell. "
        "Spike rates, counts and energies are compared by their ratio, on the log scale; all else by its difference."
    )
    return f"{text}\n\n{numbers_table(('the paper says', 'in our runs', 'numbers'), body)}"


def _standings(analysis: Analysis) -> str:
    head = ["regularizer", "picked", "score", "rank", "first in"]
    many = len(analysis.table.panels) > 1
    body = []
    for standing in analysis.standings:
        rank = standing.rank
        first = "-" if rank is None or rank.first is None else f"{100 * rank.first:.0f} %"
        cells = [standing.series, standing.picked, interval(ACCURACY, standing.score), rank_text(rank), first]
        body.append([standing.panel, *cells] if many else cells)
    text = (
        "Score: test accuracy at the strength of the best mean validation accuracy. First in: share of resampled seeds "
        "in which it is the best."
    )
    return f"{text}\n\n{numbers_table(['group', *head] if many else head, body)}"


def _candidates(table: Table) -> str:
    field = FIELD["val.acc"]
    body = []
    for line in table.candidates:
        picked = "picked" if line in table.lines else "-"
        body.append((line.label, _seeds(line), interval(field, line.mean(field.key)), picked))
    text = f"Rule `{table.rule.name}`: {table.rule.says}. The test set is not looked at."
    return f"{text}\n\n{numbers_table((table.axis, 'seeds', field.heading, ''), body)}"


def _seeds(line: Line) -> str:
    """How many runs of a line finished and, where some did not, how many diverged."""
    return str(len(line.seeds)) + (f", {len(line.diverged)} diverged" if line.diverged else "")


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
        ("numerics", shared_short(records, "numerics")),
        *([("replicates", replicates)] if (replicates := replicates_text(records)) else []),
        ("commit", shared_short(records, "commit") + (f"; {dirty} runs from a changed tree" if dirty else "")),
    ]  # fmt: skip
    return "\n".join(f"- {name}: {text}" for name, text in facts)
