"""The defaults that a bare `reg=<name>` trains with, each with its source: one that moves, moves every result."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from bench.published import papers
from bench.registry import REGULARIZERS
from bench.regularizers import (
    advtrain,
    labelsmooth,
    margin,
    membrane,
    orthogonal,
    ratebounds,
    selfdistill,
    synops,
    temporalbn,
)
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
    # The field's later methods. Deng et al. 2022, their repository.
    "tet": {"weight": 1e-3, "target": 1.0},
    # Ding et al. 2025: temperature 2; Yu et al. 2025: 3.
    "selfdistill": {"weight": 1.0, "form": selfdistill.Form.strong_to_weak, "temperature": 2.0},
    # Its authors' CIFAR-10 ResNet-19.
    "trt": {"weight": 1e-5, "decay": 0.25, "mse": 0.05},
    # Szegedy et al. 2016, section 7.
    "labelsmooth": {"weight": 0.1, "form": labelsmooth.Form.smooth, "per_step": False},
    # Zhang et al. 2018, ImageNet; Yun et al. 2019, CIFAR.
    "mixup": {"alpha": 0.2, "prob": 1.0},
    "cutmix": {"alpha": 1.0, "prob": 0.5},
    # Zenke & Vogels 2021: upper bound; the bounds themselves are this suite's.
    "ratebounds": {
        "weight": 0.1, "lower": 0.01, "upper": 0.1, "lower_weight": 1.0, "order": 2,
        "population": ratebounds.Population.layer,
    },
    # Sorbaro et al. 2020 as sinabs' users set it; half of the start's SynOps.
    "synops": {"weight": 1.0, "form": synops.Form.target, "share": 0.5, "synops": None, "order": 2},
    # Not verified.
    "membrane": {"weight": 0.1, "form": membrane.Form.rmp, "order": 2.0},
    # arXiv 2602.20548, WRN-16.
    "margin": {"weight": 0.4, "form": margin.Form.hinge, "margin": None},
    # Ding et al. 2022, their repository's function.
    "orthogonal": {"weight": 0.002, "form": orthogonal.Form.step},
    # This suite's: the authors' 0.5 of Wan et al. 2013 is for wide linear layers.
    "dropconnect": {"p": 0.1, "only_linear": False},
    # Composer's least; Huang et al. 2016 have 0.5 for 110 layers.
    "stochdepth": {"p": 0.1},
    # Not verified.
    "noisyneuron": {"sigma": 0.2},
    # Composer's.
    "ema": {"half_life": 1000.0},
    # Izmailov et al. 2018.
    "swa": {"last": 0.25},
    # Foret et al. 2021, section 3.1.
    "sam": {"rho": 0.05, "adaptive": False, "interval": None},
    # Wang et al. 2022, their code.
    "rdrop": {"weight": 0.5},
    # Liu et al. 2024, their code; the weight is this suite's.
    "inputgrad": {"weight": 0.01, "h": 0.01},
    # Chen et al. 2021, their repository: the optimizer's own alpha, and the README's sparsity.
    "rewire": {"alpha": 1e-5, "sparsity": 0.95},
    # arXiv 2511.12199.
    "advtrain": {"eps": 2 / 255, "steps": 2, "form": advtrain.Form.pgd, "beta": 5.0},
    # Duan et al. 2022; alpha: Zheng et al. 2021, where no currents are summed.
    "temporalbn": {"form": temporalbn.Form.tebn, "alpha": 1.0},
    # Batch norm's own start.
    "mpbn": {"gain": 1.0},
}  # fmt: skip

STRENGTHS = (
    dict.fromkeys(("dropout", "dropout2d", "alpha_dropout", "feature_dropout"), "p")
    | {
        "weight_decay": "weight",
        "spikepen": "weight",
        "uselose": "k_p",
        "mixup": "alpha",
        "cutmix": "alpha",
        "dropconnect": "p",
        "stochdepth": "p",
        "noisyneuron": "sigma",
        "ema": "half_life",
        "swa": "last",
        "sam": "rho",
        "advtrain": "eps",
        "rewire": "alpha",
    }
    | dict.fromkeys(
        (
            "selfdistill",
            "labelsmooth",
            "ratebounds",
            "synops",
            "membrane",
            "margin",
            "orthogonal",
            "rdrop",
            "inputgrad",
        ),
        "weight",
    )
)
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
