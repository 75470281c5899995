"""The defaults that a bare `reg=<name>` trains with, each with its source: one that moves, moves every result."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from bench.published import papers
from bench.registry import REGULARIZERS
from bench.regularizers.feature_dropout import Fill
from bench.regularizers.masking import At, Mask, Scaling
from bench.regularizers.spikepen import Scale
from bench.regularizers.uselose import Form, Scope

# lyu2023 states no rate: 0.1 is the least of those we sweep (0.1 to 0.5). Its algorithm drops the current of each time
# step anew; dividing by 1 - p is eq. 7, and eq. 6's other scaling has to be asked for.
DROPOUT = {"p": 0.1, "mask": Mask.per_step, "at": At.current}

DEFAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    # nandan2022, table 2.1: the least coefficient; its author's script decays all parameters.
    "weight_decay": {"weight": 1e-4, "only_weights": False},
    # nandan2022, table 3.1 and eq. 3.1: S^2 with the factor as printed, layers of one weight.
    "spikepen": {"weight": 0.1, "order": 2, "scale": Scale.literal, "layer_weights": None, "increasing": False},
    # nandan2022, table 4.1, the row "WN"; data-dependent start is table 4.2's other row.
    "weightnorm": {"mean_only_bn": False, "data_init": False},
    # antonov2024: k_p = 1, and tau = 7.5 s, 15 presentations of 350 + 150 ms; an input neuron's use alone. The width r0
    # of a use, the form with a gradient and the weight of the penalty are this suite's.
    "uselose": {
        "k_p": 1.0, "tau": 7.5 / 0.5, "r0": 0.05, "form": Form.effective, "scope": Scope.pre, "detach_clock": False,
        "weight": 1e-3, "usage": None,
    },
    "dropout": {**DROPOUT, "scaling": Scaling.inverted},
    "dropout2d": {**DROPOUT, "scaling": Scaling.inverted},
    "alpha_dropout": DROPOUT,
    # lyu2023, section II.D, in our reading: feature dropout collapses as alpha dropout does, so it fills with alpha'.
    "feature_dropout": {**DROPOUT, "fill": Fill.alpha},
}  # fmt: skip

STRENGTHS = dict.fromkeys(("dropout", "dropout2d", "alpha_dropout", "feature_dropout"), "p") | {
    "weight_decay": "weight",
    "spikepen": "weight",
    "uselose": "k_p",
}
"""What 0 switches off, and the reports' curves run over."""


def test_every_regularizer_of_the_suite_is_in_the_table() -> None:
    own = {name for name in REGULARIZERS.names() if REGULARIZERS.get(name).__module__.startswith("bench.")}
    assert own == DEFAULTS.keys()


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    cls = REGULARIZERS.get(name)
    assert [*inspect.signature(cls).parameters] == [*DEFAULTS[name]]
    reg = cls()
    assert {argument: getattr(reg, argument) for argument in DEFAULTS[name]} == DEFAULTS[name]
    assert cls.strength == STRENGTHS.get(name)


@pytest.mark.parametrize(("name", "table", "column"), [
    ("weight_decay", "2.1", "weight_decay"), ("spikepen", "3.1", "penalty"),
])  # fmt: skip
def test_default_strengths_are_among_the_papers(name: str, table: str, column: str) -> None:
    published = papers.load(f"nandan2022/{table}")
    values = {row[published.columns.index(column)] for row in published.rows}
    assert DEFAULTS[name]["weight"] in values
