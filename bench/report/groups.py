"""Tables of all records, whatever experiments they belong to: one for each network, data set and budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from bench.records.identity import UNCOUNTED
from bench.records.schema import Role, keys
from bench.report.collect import Collection, StoredRun
from bench.report.tables import Line, Table, canonical, line_up, names_of, setting_text, strength_arguments

# What must be the same for two lines of a table to be compared; the regularizer, its strength and the seed may differ.
_SAME = keys(Role.setting)
# What `config.yaml` knows beyond the record: thresholds, schedules, augmentation.
_CONFIG = ("data", "neuron", "optim", "trainer")
_IRRELEVANT = ("root", "path", *UNCOUNTED)


def groups(collection: Collection) -> list[Table]:
    """One table for each network, data set and budget among the records: regularizers and strengths compared.

    Records that differ in anything else are not put into one table: the tables' variants then end in a short hash
    and their notes say what differs.
    """
    split: dict[tuple[str, str], dict[str, list[StoredRun]]] = {}
    for record in collection.records:
        place = (f"{record.result['data']}-{record.result['model']}", str(record.result["budget"]))
        split.setdefault(place, {}).setdefault(canonical(_context(record)), []).append(record)
    tables = []
    for (name, budget), by_context in sorted(split.items()):
        contexts = {key: json.loads(key) for key in by_context}
        settings = sorted({setting for context in contexts.values() for setting in context})
        differ = [
            setting
            for setting in settings
            if len({canonical(context.get(setting)) for context in contexts.values()}) > 1
        ]
        for key, records in sorted(by_context.items()):
            variant, notes = budget, []
            if differ:
                variant += "-" + hashlib.sha256(key.encode()).hexdigest()[:6]
                own = ", ".join(f"{setting}={setting_text(contexts[key].get(setting))}" for setting in differ)
                notes.append(f"other {budget} runs of {name} are in tables of their own; these have {own}")
            title = f"Regularizers on {records[0].result['data']}, {records[0].result['model']}"
            lines = _lines(records)
            line_up(lines, notes)
            if not any(line.plain for line in lines):
                notes.append(f"no run without a regularizer: {lines[0].label} stands in as the baseline")
            tables.append(Table(name, variant, title, lines, notes=notes))
    return tables


def _context(record: StoredRun) -> dict[str, Any]:
    """Everything but regularizer, strength and seed, under dotted keys."""
    context = {key: record.result[key] for key in _SAME}
    for part in _CONFIG:
        section = record.config.get(part)
        for key, value in section.items() if isinstance(section, dict) else ():
            # A key that a later version added, at rest, must not part old records from new ones.
            if key not in _IRRELEVANT and value is not None and value != "auto":
                context.setdefault(f"{part}.{key}", value)
    # Seeds of one start are no sample of starts.
    if record.config.get("init_seed") is not None:
        context["init_seed"] = record.config["init_seed"]
    return context


def _lines(records: Sequence[StoredRun]) -> list[Line]:
    """A line for each setting of the regularizers, each against the baseline."""
    by_regs: dict[str, list[StoredRun]] = {}
    for record in records:
        by_regs.setdefault(canonical(record.result["regs"]), []).append(record)
    members = list(by_regs.values())
    lines = [
        Line(label, series, own[0].number("strength"), own)
        for own, (label, series) in zip(members, names_of(members, strength_arguments(records)), strict=True)
    ]
    # The baseline first, then by regularizer and rising strength.
    lines.sort(key=lambda line: (line.series != "none", line.series, line.strength or 0.0, line.label))
    base = next((line for line in lines if line.plain), lines[0])
    for line in lines:
        line.against = None if line is base else base
    return lines
