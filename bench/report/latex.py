"""A table for LaTeX, `table.tex`: published beside ours."""

from __future__ import annotations

import re

from bench.report.analysis import Analysis
from bench.report.words import ACCURACY, RATE, command, interval, label_of, said

TEX = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "µ": r"$\mu$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def tex(text: str) -> str:
    """Text for LaTeX."""
    escaped = "".join(TEX.get(letter, letter) for letter in text)
    return re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", escaped)


def table_tex(analysis: Analysis) -> str:
    """`table.tex`: published beside ours, for the package booktabs."""
    table = analysis.table
    known = any((row.line.published or {}).get("test_acc") is not None for row in analysis.rows)
    head = [table.axis, *(["published"] if known else []), "test accuracy", "difference", "verdict", "spike rate"]
    lines = [" & ".join(map(tex, head)) + r" \\", r"\midrule"]
    for row in analysis.rows:
        theirs = (row.line.published or {}).get("test_acc")
        difference = "-" if row.pair is None else interval(ACCURACY, row.pair.difference, sign=True)
        cells = [row.line.label, *([ACCURACY.text(theirs)] if known else []),
                 interval(ACCURACY, row.means["test_acc"]), difference, said(row).strip("*"),
                 RATE.text(row.mean("test_spike_rate"))]  # fmt: skip
        lines.append(" & ".join(map(tex, cells)) + r" \\")
    caption = f"{table.title}. {label_of(table).replace('*', '').replace('`', '')} Mean and 95 % interval over seeds."
    return "\n".join([
        "% " + command(table) + "; needs the package booktabs.",
        r"\begin{table}", r"\centering", rf"\caption{{{tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}",
        r"\end{table}", "",
    ])  # fmt: skip
