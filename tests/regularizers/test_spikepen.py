"""The spike penalty against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from bench.activity import LayerActivity
from bench.errors import BenchError
from bench.neurons import NeuronConfig, Spiking
from bench.regularizers.spikepen import Scale, SpikePenalty, spike_penalty

# T = 2, N = 1 image, K = 4 neurons: 3 spikes of 8.
SPIKES = torch.tensor([[[1.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]])
ALL = torch.ones(2, 1, 2)


def test_eq_3_1_by_hand() -> None:
    # 1 / (2 K N) sum S^2 = 3 / (2 * 4 * 2)
    assert spike_penalty(LayerActivity(SPIKES)).item() == 3 / 16
    assert spike_penalty(LayerActivity(SPIKES), order=1).item() == 3 / 16
    assert spike_penalty(LayerActivity(SPIKES), order=1, scale=Scale.matched).item() == 3 / 8
    # A second, silent image halves the average over the batch.
    assert spike_penalty(LayerActivity(torch.cat([SPIKES, 0 * SPIKES], 1))).item() == 3 / 32


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, 2.0 * (3 / 16 + 1 / 2)),
        ({"layer_weights": [4.0, 0.5]}, 2.0 * (4 * 3 / 16 + 0.5 * 1 / 2)),
        ({"increasing": True}, 2.0 * (0.5 * 3 / 16 + 1 / 2)),
        ({"increasing": True, "layer_weights": [4.0, 0.5]}, 2.0 * (0.5 * 4 * 3 / 16 + 0.5 * 1 / 2)),
    ],
)
def test_layers_are_summed_with_their_factors(kwargs: dict, expected: float) -> None:
    activity = {"first": LayerActivity(SPIKES), "second": LayerActivity(ALL)}
    assert SpikePenalty(weight=2.0, **kwargs).penalty(activity)["spikepen"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("order", "scale", "at_spike", "silent"),
    [
        (2, Scale.literal, 1.0, 0.0),  # d(S^2) / 2 = S dS: nothing where S = 0
        (1, Scale.literal, 0.5, 0.5),
        (1, Scale.matched, 1.0, 1.0),  # order 2's gradient at a spike
    ],
)
def test_gradient_through_the_surrogate(order: int, scale: Scale, at_spike: float, silent: float) -> None:
    current = torch.tensor([[1.5, 0.5, -3.0]], requires_grad=True)  # T = N = 1, threshold 1
    layer = Spiking(NeuronConfig(), time_steps=1)
    layer(current)
    spike_penalty(LayerActivity(layer.fired), order, scale).backward()

    def surrogate(v: float) -> float:  # ATan, alpha = 2: 1 / (1 + (pi (v - 1))^2)
        return 1 / (1 + (math.pi * (v - 1)) ** 2)

    expected = [at_spike * surrogate(1.5), silent * surrogate(0.5), silent * surrogate(-3.0)]
    torch.testing.assert_close(current.grad, torch.tensor([expected]) / 3)


@pytest.mark.parametrize(
    ("kwargs", "value", "slopes"),
    # The graph of eq. 3.1 at 3 of 8 spikes: S / (K N) or, of first order, 1 / (2 K N) everywhere, doubled if matched.
    [
        ({}, 2 * 3 / 16, (2 / 8, 0.0)),
        ({"order": 2, "scale": Scale.matched}, 2 * 3 / 16, (2 / 8, 0.0)),
        ({"order": 1}, 2 * 3 / 16, (2 / 16, 2 / 16)),
        ({"order": 1, "scale": Scale.matched}, 2 * 3 / 8, (2 / 8, 2 / 8)),
    ],
)
def test_both_orders_by_hand(kwargs: dict, value: float, slopes: tuple[float, float]) -> None:
    """With weight 2: what the penalty is, and its slope at a spike and at a silent neuron."""
    spikes = SPIKES.clone().requires_grad_()
    penalty = SpikePenalty(weight=2.0, **kwargs).penalty({"a": LayerActivity(spikes)})["spikepen"]
    penalty.backward()
    assert penalty.item() == pytest.approx(value)
    assert spikes.grad is not None
    torch.testing.assert_close(spikes.grad, torch.where(SPIKES == 1, *slopes))


@pytest.mark.parametrize("order", [-1, 0, 3])
def test_other_orders_are_refused(order: int) -> None:
    with pytest.raises(BenchError, match=rf"^reg\.spikepen\.order is {order}, it must be 1 or 2$"):
        SpikePenalty(order=order)


def test_bad_input() -> None:
    with pytest.raises(BenchError, match=r"^reg\.spikepen\.layer_weights is -1, "):
        SpikePenalty(layer_weights=[1.0, -1.0])
    with pytest.raises(BenchError, match="has 1 numbers, but the network has 2 spiking layers"):
        SpikePenalty(layer_weights=[1.0]).penalty({"a": LayerActivity(SPIKES), "b": LayerActivity(ALL)})
