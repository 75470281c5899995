"""A table for LaTeX, `table.tex`: published beside ours."""

from __future__ import annotations

import re

from bench.report.analysis import Analysis
from bench.report.words import ACCURACY, RATE, budget_note, generated_by, interval, verdict_text

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
    head = [table.axis, *(["published"] if known else []), ACCURACY.heading, "difference", "verdict", "spike rate"]
    lines = [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    for row, theirs in zip(analysis.rows, published, strict=True):
        difference = "-" if row.pair is None else interval(ACCURACY, row.pair.difference, sign=True)
        cells = [row.line.label, *([ACCURACY.text(theirs)] if known else []),
                 interval(ACCURACY, row.means[ACCURACY.column]), difference, verdict_text(row).strip("*"),
                 RATE.text(row.mean(RATE.column))]  # fmt: skip
        lines.append(" & ".join(map(_tex, cells)) + r" \\")
    note = budget_note(table).replace("*", "").replace("`", "")
    caption = f"{table.title}. {note} Mean and 95 % interval over seeds."
    return "\n".join([
        "% " + generated_by(table) + "; needs the package booktabs.",
        r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}",
        r"\end{table}", "",
    ])  # fmt: skip
