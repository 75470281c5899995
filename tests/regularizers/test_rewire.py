"""Gradient rewiring against numbers worked out by hand: weights, gradients, the prior's step, and who is cut."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from bench.errors import BenchError
from bench.regularizers.dropconnect import DropConnect
from bench.regularizers.rewire import Connections, Rewire, centre, connected, prior_step
from bench.regularizers.uselose import UseItOrLoseIt
from bench.regularizers.weightnorm import WeightNorm


def hidden_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter for name, parameter in model.named_parameters() if name.endswith("weight.original")]


def cut_share(model: nn.Module) -> float:
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def test_a_weight_has_its_first_sign_or_is_cut() -> None:
    # theta = 0.3, -0.2, 0.4, -0.1 under the signs +, +, -, -.
    hidden = torch.tensor([0.3, -0.2, -0.4, 0.1], requires_grad=True)
    weight = connected(hidden, torch.tensor([1.0, 1.0, -1.0, -1.0]))
    assert weight.tolist() == hidden.detach().clone().mul_(torch.tensor([1, 0, 1, 0])).tolist()
    # The cut ones have the gradient that the weight would have.
    weight.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [1, 2, 3, 4]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), st.integers(0, 255))
def test_a_weight_is_sign_times_relu_of_theta(values: list[float], signs: int) -> None:
    hidden = torch.tensor(values)
    sign = torch.tensor([1.0 if signs >> place & 1 else -1.0 for place in range(len(values))])
    assert torch.equal(connected(hidden, sign), sign * torch.relu(sign * hidden))


def test_the_centre_puts_that_share_of_the_prior_below_0() -> None:
    # ln(2 * 0.05) / 0.1 = -23.03; half of the prior lies below its centre.
    assert centre(0.1, 0.95) == pytest.approx(-23.0259, abs=1e-4)
    assert centre(0.1, 0.5) == 0
    # Of a Laplace density the share above 0, for a centre below it, is exp(alpha c) / 2.
    for alpha, sparsity in ((1e-5, 0.6), (2.0, 0.9), (30.0, 0.99)):
        assert math.exp(alpha * centre(alpha, sparsity)) / 2 == pytest.approx(1 - sparsity)


def test_the_priors_step_by_hand() -> None:
    # alpha 2, s 0.75: c = ln(0.5) / 2 = -0.34657. theta 0.3, -0.2 and 0.1 lie above it and sink by 2 * 0.5 * 0.1,
    # -0.4 and -0.5 below it and rise.
    sign = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0])
    theta = torch.tensor([0.3, -0.2, 0.1, -0.4, -0.5])
    moved = prior_step(theta * sign, sign, 2.0, 0.75, torch.tensor(0.05))
    assert (moved * sign).tolist() == pytest.approx([0.2, -0.3, 0.0, -0.3, -0.4], abs=1e-6)
    # At the centre nothing draws.
    still = prior_step(torch.zeros(2), torch.tensor([1.0, -1.0]), 2.0, 0.5, torch.tensor(0.05))
    assert still.tolist() == [0, 0]


def test_a_step_is_the_optimizers_and_then_the_priors(net, bench) -> None:
    """Two steps of plain descent, repeated by hand on copies of the hidden weights."""
    reg = Rewire(alpha=0.02, sparsity=0.9)
    b = bench(net(), [reg])
    for group in b.optimizer.param_groups:
        group.update(momentum=0.0, lr=0.25)
    signs = [torch.where(w < 0, -1.0, 1.0) for w in map(torch.Tensor.detach, hidden_of(b.model))]
    for step in range(2):
        before = [w.detach().clone() for w in hidden_of(b.model)]
        b.step(step)
        for own, old, sign in zip(hidden_of(b.model), before, signs, strict=True):
            # c = ln(0.2) / 0.02 = -80: every theta sinks.
            torch.testing.assert_close(own.detach(), old - 0.25 * own.grad - 0.02 * 0.25 * sign)


def test_who_sinks_is_cut_and_more_are_with_a_larger_alpha(net, bench) -> None:
    shares = []
    for alpha in (1e-4, 0.05, 0.2, 1.0):
        b = bench(net(), [Rewire(alpha=alpha)]).train(30)
        shares.append(cut_share(b.model))
    # The first is what the loss alone cuts. 30 steps of alpha lr = 0.05 pass all of the start's weights, none of which
    # reaches 0.5: what is left then is held by the loss.
    assert shares == sorted(shares)
    assert shares[0] + 0.2 < shares[-1] < 1


def test_without_a_loss_all_sink_to_the_centre(net) -> None:
    """s 0.75 at alpha 10: c = -0.0693; steps of 10 * 0.0005 end within one of it, on both of its sides."""
    model, reg = net(), Rewire(alpha=10.0, sparsity=0.75)
    reg.attach(model)
    reg.learning_rate.fill_(0.0005)
    for _ in range(200):
        reg.after_step({})
    for _, module, own in reg.layers:
        theta = module.parametrizations["weight"].original * own.sign  # type: ignore[index]
        assert (theta - math.log(0.5) / 10).abs().max() <= 0.005 + 1e-5
    assert cut_share(model) == 1


def test_a_connection_that_is_cut_grows_again_and_never_changes_its_sign(net, bench) -> None:
    b = bench(net(), [Rewire(alpha=1e-4)], lr=0.5)
    signs = [w.detach().sign() for w in hidden_of(b.model)]
    was_cut = [torch.zeros_like(w, dtype=torch.bool) for w in signs]
    grown = 0
    for step in range(20):
        b.step(step)
        weights = [m.weight.detach() for m in b.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for weight, sign, cut in zip(weights, signs, was_cut, strict=True):
            assert ((weight == 0) | (weight.sign() == sign)).all()
            grown += int((cut & (weight != 0)).sum())
            cut |= weight == 0
    assert grown > 0


def test_signs_are_those_that_training_starts_from(net) -> None:
    """A source run's weights may come after `attach`."""
    model, reg = net(), Rewire()
    reg.attach(model)
    with torch.no_grad():
        for hidden in hidden_of(model):
            hidden.neg_()
    assert cut_share(model) == 1
    reg.initialize(model, torch.zeros(2, 2, 8, 8))
    assert cut_share(model) == 0


def test_zero_counts_as_positive() -> None:
    own = Connections(torch.tensor([0.0, -0.0, -1.0, 2.0]))
    assert own.sign.tolist() == [1, 1, -1, 1]


def test_it_knows_whether_it_did_anything(net, bench) -> None:
    assert Rewire(alpha=0.0).had_effect() is False
    quiet = Rewire(alpha=1e-12)
    bench(net(), [quiet], lr=1e-9).train(2)
    assert quiet.had_effect() is False
    moving = Rewire(alpha=0.1)
    bench(net(), [moving]).train(1)
    assert moving.had_effect() is True
    crossing = Rewire(alpha=1e-12)
    bench(net(), [crossing], lr=1.0).train(5)
    assert crossing.had_effect() is True


def test_baked_weights_are_the_cut_ones(net, bench) -> None:
    reg = Rewire(alpha=0.2)
    b = bench(net(), [reg]).train(10)
    before, share = b.evaluate(), cut_share(b.model)
    reg.bake(b.model)
    assert cut_share(b.model) == share > 0
    assert not any(parametrize.is_parametrized(module) for module in b.model.modules())
    assert torch.equal(b.evaluate(), before)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", [DropConnect, UseItOrLoseIt])
def test_it_goes_with_others_that_scale_weights(order: int, other: type, net, bench) -> None:
    b = bench(net(), [Rewire(alpha=0.2), other()][::order]).train(5)
    before = b.evaluate()
    assert cut_share(b.model) > 0
    for reg in b.regs:
        reg.bake(b.model)
    assert not any(parametrize.is_parametrized(module) for module in b.model.modules())
    torch.testing.assert_close(b.evaluate(), before)


def test_weights_that_are_made_of_others_are_refused(net, bench) -> None:
    with pytest.raises(BenchError, match=r"^reg=rewire: the weights of \S+ are made of others by another regularizer"):
        bench(net(), [WeightNorm(), Rewire()])
    b = bench(net(), [Rewire(), WeightNorm()], started=True)
    with pytest.raises(BenchError, match=r"^reg=rewire: the weights of \S+ are made of others by another regularizer"):
        b.step()


@pytest.mark.parametrize("sparsity", [0.49, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_one_line(sparsity: float) -> None:
    with pytest.raises(BenchError, match=r"^reg\.rewire\.sparsity is \S+, it must lie in \[0\.5, 1\)$"):
        Rewire(sparsity=sparsity)
