"""Lines: what counts as a baseline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.report.collect import StoredRun, collect
from bench.report.groups import groups
from bench.report.tables import Line


@pytest.mark.parametrize(
    ("regs", "strength", "plain"),
    [
        ({"none": {}}, None, True),
        ({"spikepen": {"weight": 0.0}}, 0.0, True),
        ({"spikepen": {"weight": 0.1}}, 0.1, False),
        ({"weightnorm": {"data_init": True}}, None, False),
    ],
)
def test_which_lines_nothing_regularizes(
    records: SimpleNamespace, regs: dict[str, Any], strength: float | None, plain: bool
) -> None:
    run = StoredRun(records.record(reg="+".join(regs), regs=regs, strength=strength), Path())
    assert Line("", "", strength, [run]).plain is plain


def test_strength_0_is_the_baseline_where_no_run_is_without_a_regularizer(
    records: SimpleNamespace, tmp_path: Path
) -> None:
    """Sorted by name, dropout comes first; the baseline is the penalty of weight 0."""
    for reg, argument, strength in (("dropout", "p", 0.5), ("spikepen", "weight", 0.0), ("spikepen", "weight", 0.1)):
        regs = {reg: {argument: strength}}
        records.put(tmp_path, records.record(run_id=f"{reg}-{strength}", reg=reg, regs=regs, strength=strength))
    (table,) = groups(collect([tmp_path]))
    against = {line.label: line.against and line.against.label for line in table.lines}
    assert against == {
        "dropout p=0.5": "spikepen weight=0", "spikepen weight=0": None, "spikepen weight=0.1": "spikepen weight=0"
    }  # fmt: skip
    assert not any("stands in as the baseline" in note for note in table.notes)
