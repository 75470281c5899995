"""The dropouts: what they emit, which entries share a mask, and torch's own functions as the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bench.errors import BenchError
from bench.ops import masks
from bench.ops.reference import Dropped
from bench.registry import REGULARIZERS
from bench.regularizers.masking import At, Change, Mask, Scaling, StepDropout, drop, drop_alpha, drop_inverted

NAMES = ["dropout", "dropout2d", "feature_dropout", "alpha_dropout"]
T, N, C = 3, 4, 5
CPU = torch.device("cpu")


def kept(shape: tuple[int, ...], p: float, fixed: bool = False, channels: bool = False) -> Tensor:
    """What a mask of a key of its own keeps."""
    key = torch.empty((), dtype=torch.int64).random_()
    return masks.keep(shape, key, masks.lowest(p), fixed=fixed, channels=channels)


def by(keep: Tensor, change: Change, x: Tensor) -> Tensor:
    """What a dropout makes of x by a mask that is given."""
    return Dropped(torch.tensor(0), 1, False, False, *change).by(keep, x)


@settings(max_examples=30, deadline=None)
@given(p=st.floats(0, 1), fixed=st.booleans(), channels=st.booleans(), inner=st.sampled_from([(), (2, 3)]))
def test_masks_have_the_right_shape_and_extremes(p: float, fixed: bool, channels: bool, inner: tuple) -> None:
    keep = kept((T, N, C, *inner), p, fixed, channels)
    assert keep.shape == (1 if fixed else T, N, C, *([1] * len(inner) if channels else inner))
    assert keep.dtype == torch.bool
    if p in (0.0, 1.0):
        assert (keep == (p == 0)).all()


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("mask", list(Mask))
def test_which_entries_share_a_mask(channels: bool, mask: Mask) -> None:
    torch.manual_seed(0)
    out = StepDropout(drop, 0.5, T, mask, channels)(torch.ones(T * N, C, 6, 6)).unflatten(0, (T, N))
    steps_agree = (out == out[:1]).all()
    space_agrees = (out == out[..., :1, :1]).all()
    assert steps_agree == (mask is Mask.fixed)
    assert space_agrees == channels
    # Samples and channels never share one: torch's Dropout2d on [T, N, C] drops whole samples.
    assert not (out == out[:, :1]).all()
    assert not (out == out[:, :, :1]).all()


@pytest.mark.parametrize("channels", [False, True])
def test_share_of_dropped_entries(channels: bool) -> None:
    torch.manual_seed(0)
    keep = kept((4, 100, 100), 0.3, channels=channels)
    # 40,000 draws: standard error 0.0023.
    assert keep.float().mean().item() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("inner", [(), (5, 6)])
def test_eq_6s_factor_in_eval_mode_drops_nothing(inner: tuple[int, ...]) -> None:
    gate = StepDropout(drop, 0.25, T, Mask.per_step, eval_factor=0.75).eval()
    x = torch.ones(T * N, C, *inner)
    assert gate.acts
    assert gate.draw(CPU).lowest == 0
    assert torch.equal(gate(x), torch.full_like(x, 0.75))
    assert not StepDropout(drop, 0.25, T, Mask.per_step).eval().acts


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_key_moves_on_and_tells_all(p: float) -> None:
    """With a key of its own a gate draws nothing from torch, and no two of its masks are the same."""
    gates = [StepDropout(drop, p, T, Mask.per_step) for _ in range(2)]
    x = torch.ones(T * N, C, 6, 6)
    for gate in gates:
        gate.key = torch.tensor(2**63 - 1)
    before = torch.get_rng_state()
    first, second = ([gate(x) for _ in range(3)] for gate in gates)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first[0], first[1]) == (p != 0.3)


def test_what_becomes_of_entries_by_hand() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    keep = torch.tensor([[[True, False, True, False]]])
    assert by(keep, drop(0.5), x).tolist() == [[[1.0, 0.0, 3.0, 0.0]]]
    assert by(keep, drop_inverted(0.5), x).tolist() == [[[2.0, 0.0, 6.0, 0.0]]]
    # SELU's alpha' = -1.7581; p = 0.5: a = (0.5 (1 + 0.5 * 3.0909))^(-1/2) = 0.88642, b = -a p alpha' = 0.77920
    out = by(keep, drop_alpha(0.5), x)
    expected = [0.88642 + 0.77920, -0.77920, 3 * 0.88642 + 0.77920, -0.77920]
    torch.testing.assert_close(out, torch.tensor([[expected]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_is_torchs(p: float) -> None:
    x = torch.randn(T, N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.manual_seed(1)
    theirs = F.alpha_dropout(x, p, training=True)
    # Which entries torch dropped shows in a run on other values with the same random numbers.
    torch.manual_seed(1)
    keep = F.alpha_dropout(x + 1, p, training=True) != theirs
    torch.testing.assert_close(by(keep, drop_alpha(p), x), theirs)


def test_feature_alpha_dropout_is_torchs() -> None:
    x = torch.randn(N, C, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.manual_seed(1)
    theirs = F.feature_alpha_dropout(x, 0.4, training=True)
    torch.manual_seed(1)
    keep = F.feature_alpha_dropout(x + 1, 0.4, training=True) != theirs
    assert (keep == keep[..., :1, :1]).all()
    torch.testing.assert_close(by(keep, drop_alpha(0.4), x), theirs)


def test_alpha_dropout_preserves_mean_and_variance() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 400, 500)
    out = by(kept(x.shape, 0.4), drop_alpha(0.4), x)
    assert out.mean().item() == pytest.approx(0.0, abs=0.02)
    assert out.var().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_slots_and_spike_counts(name: str, net) -> None:
    for at in At:
        model = net()
        REGULARIZERS.get(name)(p=1.0, at=at).attach(model)
        model.forget()
        features = model.features(torch.ones(2, 2, 8, 8))
        for _, layer in model.spiking_layers():
            assert (len(layer.current), len(layer.spikes)) == ((0, 1) if at is At.spikes else (1, 0))
            # What is counted is what the neuron emitted, not what dropout made of it.
            assert set(layer.fired.unique().tolist()) <= {0.0, 1.0}
        # All is dropped: no current, no spikes; or spikes that go nowhere (alpha dropout gives 0 at p = 1).
        assert (features == 0).all()
        first = next(layer for _, layer in model.spiking_layers())
        assert bool(first.fired.any()) == (at is At.spikes)


@pytest.mark.parametrize("name", ["dropout", "dropout2d"])
@pytest.mark.parametrize("at", list(At))
def test_the_scaling_of_eq_6(name: str, at: At, net) -> None:
    x = torch.ones(T * N, C, 2, 2)

    def slot(scaling: Scaling):
        model = net(time_steps=T)
        reg = REGULARIZERS.get(name)(p=0.75, at=at, scaling=scaling)
        reg.attach(model)
        layer = model.spikings[0]
        return reg, (layer.spikes if at is At.spikes else layer.current)

    reg, inverted = slot(Scaling.inverted)
    assert reg.identity_in_eval
    assert set(inverted(x).unique().tolist()) == {0.0, 4.0}
    assert inverted.eval()(x) is x
    reg, test = slot(Scaling.test)
    assert not reg.identity_in_eval
    assert set(test(x).unique().tolist()) == {0.0, 1.0}
    assert test.eval()(x).unique().tolist() == [0.25]


def test_feature_dropout_with_zeros_does_not_rescale(net) -> None:
    model = net(time_steps=T)
    REGULARIZERS.get("feature_dropout")(p=0.75, fill="zero").attach(model)
    out = model.spikings[0].current(torch.ones(T * N, C, 2, 2))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert (out == out[..., :1, :1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_new_at_every_forward_pass_without_any_reset(name: str, net) -> None:
    # SpikingJelly's Dropout keeps its mask until reset().
    for mask in Mask:
        model = net(time_steps=T)
        REGULARIZERS.get(name)(p=0.5, mask=mask).attach(model)
        slot, x = model.spikings[0].current, torch.ones(T * N, C, 2, 2)
        assert not torch.equal(slot(x), slot(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [1.5, -0.1])
def test_p_outside_0_1(name: str, p: float) -> None:
    with pytest.raises(BenchError, match=rf"^reg\.{name}\.p is {p}, it must lie in \[0, 1\]$"):
        REGULARIZERS.get(name)(p=p)


def test_fully_connected_input_and_gradients_in_bfloat16() -> None:
    torch.manual_seed(0)
    for function in (drop, drop_inverted, drop_alpha):
        for p in (0.5, 1.0):
            x = torch.ones(T * N, C, dtype=torch.bfloat16, requires_grad=True)
            out = StepDropout(function, p, T, Mask.per_step, channels=True)(x)
            assert out.shape == x.shape
            assert out.dtype == torch.bfloat16
            out.sum().backward()
            assert torch.isfinite(x.grad).all()
            assert bool((x.grad != 0).any()) == (p < 1)
