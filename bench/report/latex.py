"""A table for LaTeX, `table.tex`: published beside ours."""

from __future__ import annotations

import re

from bench.report.analysis import Analysis
from bench.report.words import ACCURACY, RATE, SYNOPS, budget_note, contrast_text, generated_by, interval, verdict_text

_ESCAPES = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "µ": r"$\mu$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def _tex(text: str) -> str:
    """A text with LaTeX's own letters escaped, and the signs of numbers as minus."""
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in text)
    return re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", escaped)


def table_tex(analysis: Analysis) -> str:
    """`table.tex`: published beside ours, for the package booktabs."""
    table = analysis.table
    published = [(row.line.published or {}).get(ACCURACY.column) for row in analysis.rows]
    known = any(theirs is not None for theirs in published)
    head = [table.axis, *(["published"] if known else []), ACCURACY.heading, "difference", "verdict", "spike rate",
            "change", "verdict", "SynOps", "change", "verdict"]  # fmt: skip
    lines = [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    for row, theirs in zip(analysis.rows, published, strict=True):
        cells = [row.line.label, *([ACCURACY.text(theirs)] if known else []),
                 interval(ACCURACY, row.estimate(ACCURACY.column))]  # fmt: skip
        for field in (ACCURACY, RATE, SYNOPS):
            cells += [] if field is ACCURACY else [field.text(row.mean(field.column))]
            cells += [contrast_text(field, row.contrasts[field.column]), verdict_text(row, field).strip("*")]
        lines.append(" & ".join(map(_tex, cells)) + r" \\")
    note = budget_note(table).replace("*", "").replace("`", "")
    caption = (
        f"{table.title}. {note} Mean and 95 % interval over seeds; differences with simultaneous intervals, fewer "
        "spikes being better."
    )
    return "\n".join([
        "% " + generated_by(table) + "; needs the package booktabs.",
        r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}",
        r"\end{table}", "",
    ])  # fmt: skip
