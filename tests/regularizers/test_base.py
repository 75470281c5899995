"""The hooks that a regularizer leaves alone: what they do then, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from bench.errors import BenchError
from bench.regularizers.base import Regularizer, nonnegative, positive, probability
from bench.regularizers.spikepen import SpikePenalty
from bench.regularizers.weightnorm import WeightNorm


def test_hooks_left_alone_change_nothing(net) -> None:
    reg, model = Regularizer(), net()
    x, y = torch.randn(2, 2, 8, 8), torch.tensor([0, 1])
    mixed = reg.batch(x, y)
    assert mixed[0] is x
    assert mixed[1] is y
    assert reg.penalty({}) == {}
    assert reg.param_groups(model) == []
    assert (reg.strength, reg.reads, reg.identity_in_eval, reg.replayable) == (None, None, True, False)


def test_the_loss_is_of_the_mean_over_time() -> None:
    """Logits 2 and 0, then 0 and 0: their mean 1 and 0 costs ln(1 + 1/e) for class 0 and 1 more for class 1."""
    logits_t = torch.tensor([[[2.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    loss = Regularizer().loss(logits_t, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + 0.5)
    soft = Regularizer().loss(logits_t, torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert soft.item() == pytest.approx(loss.item())


def test_an_effect_is_denied_at_strength_0_alone() -> None:
    assert SpikePenalty(weight=0.0).had_effect() is False
    assert SpikePenalty(weight=0.1).had_effect() is None
    assert WeightNorm().had_effect() is None, "without a strength it cannot tell"


@pytest.mark.parametrize(
    ("check", "least", "refused"),
    [(nonnegative, 0.0, -1e-9), (positive, 1e-9, 0.0), (probability, 0.0, -1e-9), (probability, 1.0, 1 + 1e-9)],
)
def test_the_ends_of_ranges(check, least: float, refused: float) -> None:
    check("mine", p=least)
    for value in (refused, math.nan):
        with pytest.raises(BenchError, match=r"^reg\.mine\.p is "):
            check("mine", p=value)
