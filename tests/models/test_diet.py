"""DIET-SNN: its neuron by hand and by other means, its conversion, the run that trains its twin first."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench import ops
from bench.activity import activity_of
from bench.config.compose import compose
from bench.config.schema import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.experiments import expand, identified, load
from bench.models.base import Spec
from bench.models.diet import Diet
from bench.models.diet_neuron import (
    LOWEST_THRESHOLD,
    DietNeuron,
    DietSpiking,
    balanced_threshold,
    bounded,
    diet_layer,
    diet_steps,
    linear_spike,
    percentile,
)
from bench.neurons import SPIKES, NeuronConfig, Read
from bench.ops import Backend, ConvNorm, explain
from bench.records.identity import run_id, science
from bench.registry import REGULARIZERS
from bench.regularizers.spikepen import SpikePenalty
from bench.regularizers.weight_decay import WeightDecay
from bench.training.source import twin_of
from bench.training.task import Task

SPEC = Spec((2, 8, 8), 3, 3, NeuronConfig(v_threshold=0.3))  # at 1 a network this small would be nearly silent
SMALL: dict[str, Any] = {"convs": [4, 0, 6, 0], "hidden": [8]}
Command = Callable[..., subprocess.CompletedProcess[str]]


def network(spec: Spec = SPEC, **knobs: Any) -> Diet:
    torch.manual_seed(0)
    return Diet(spec, **{**SMALL, **knobs})


def steps(x: Tensor, leak: float, threshold: float, **options: Any) -> tuple[Tensor, Tensor]:
    """`diet_steps` with plain numbers."""
    as_x = {"dtype": x.dtype}
    return diet_steps(x, torch.tensor(leak, **as_x), torch.tensor(threshold, **as_x), **options)  # type: ignore[arg-type]


# -- the neuron -----------------------------------------------------------------------------------


def test_soft_reset_and_leak_by_hand_over_four_steps() -> None:
    """Leak 0.5, threshold 1, currents 0.8, 0.8, 0.8, 0.1.

    u = 0.8; 0.4 + 0.8 = 1.2 spikes; 0.6 + 0.8 - 1 = 0.4: the whole threshold is taken, not leaked;
    0.2 + 0.1 = 0.3.
    """
    x = torch.tensor([0.8, 0.8, 0.8, 0.1], dtype=torch.float64).view(4, 1)
    spikes, u = steps(x, 0.5, 1.0)
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    assert u.flatten().tolist() == pytest.approx([0.8, 1.2, 0.4, 0.3])
    # Without a leak 0.25 remains over the threshold: 1.25; 1.25 + 1.25 - 1 = 1.5; 1.5 + 0 - 1 = 0.5; 0.5.
    spikes, u = steps(torch.tensor([[1.25], [1.25], [0.0], [0.0]]), 1.0, 1.0)
    assert spikes.flatten().tolist() == [1, 1, 0, 0]
    assert u.flatten().tolist() == [1.25, 1.5, 0.5, 0.5]


def at_the_threshold() -> tuple[Tensor, Tensor]:
    return steps(torch.tensor([[1.0], [0.5]]), 1.0, 1.0)


def test_a_potential_at_the_threshold_does_not_spike() -> None:
    """Rathi & Roy: a spike where u / v - 1 > 0."""
    assert at_the_threshold()[0].flatten().tolist() == [0, 1]


def loop(x: NDArray[np.float64], leak: float, threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eq. 4, neuron by neuron and step by step."""
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    for n in range(x.shape[1]):
        u = o = 0.0
        for t in range(x.shape[0]):
            u = leak * u + x[t, n] - threshold * o
            o = 1.0 if u > threshold else 0.0
            spikes[t, n], potentials[t, n] = o, u
    return spikes, potentials


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0.05, 3), st.integers(1, 8))
def test_the_neuron_is_eq_4(seed: int, leak: float, threshold: float, length: int) -> None:
    x = np.random.default_rng(seed).normal(0.5, 1.0, (length, 20))
    spikes, potentials = loop(x, leak, threshold)
    found, u = steps(torch.from_numpy(x), leak, threshold)
    # Potentials a rounding away from the threshold may fall on either side.
    if np.abs(potentials - threshold).min() > 1e-9:
        assert np.array_equal(found.numpy(), spikes)
        np.testing.assert_allclose(u.numpy(), potentials, atol=1e-12)


def test_without_leak_it_is_spikingjellys_if_with_soft_reset() -> None:
    from spikingjelly.activation_based import neuron

    torch.manual_seed(0)
    x = torch.randn(12, 200, dtype=torch.float64) + 0.4
    node = neuron.IFNode(v_threshold=0.7, v_reset=None, step_mode="m")
    found, _ = steps(x, 1.0, 0.7)
    assert torch.equal(found, node(x))
    assert 0.2 < found.mean() < 0.8


def test_below_the_threshold_it_leaks_as_spikingjellys_plif() -> None:
    """PLIF, 1 / tau = 1 - leak, no decay of the input; up to the first spike, since its reset comes before the leak."""
    from spikingjelly.activation_based import neuron

    torch.manual_seed(0)
    x = 0.5 * torch.rand(10, 200, dtype=torch.float64)
    node = neuron.ParametricLIFNode(1 / (1 - 0.8), decay_input=False, v_reset=None, v_threshold=1.0, step_mode="m")
    node.double()
    node.store_v_seq = True
    theirs = node(x)
    found, u = steps(x, 0.8, 1.0)
    silent, before = found.cumsum(0) == 0, found.cumsum(0) - found == 0
    assert 0.2 < silent.double().mean() < 0.8
    torch.testing.assert_close(u[silent], node.v_seq[silent], atol=1e-6, rtol=0)
    assert torch.equal(found[before], theirs[before])


def test_gradients_of_leak_and_threshold_by_finite_differences() -> None:
    """With a smooth spike and the reset attached the neuron is a smooth function of both, and of the current."""
    torch.manual_seed(0)
    x = (torch.randn(4, 6, dtype=torch.float64) + 0.5).requires_grad_()
    leak = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)

    def smooth(x: Tensor, leak: Tensor, threshold: Tensor) -> Tensor:
        spikes, _ = diet_steps(x, leak, threshold, lambda z: torch.sigmoid(4 * z), detach_reset=False)
        return spikes

    assert torch.autograd.gradcheck(smooth, (x, leak, threshold))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    leak=st.floats(0, 1),
    threshold=st.floats(0.1, 2),
    length=st.integers(1, 6),
    detach=st.booleans(),
    goes_on=st.booleans(),
    reads=st.sampled_from(["spikes", "potentials", "both"]),
)
def test_the_fast_layer_is_the_plain_one_in_values_and_gradients(
    seed: int, leak: float, threshold: float, length: int, detach: bool, goes_on: bool, reads: str
) -> None:
    draw = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw).requires_grad_()

    x, u, o = leaf(length, 4, 5), leaf(4, 5), leaf(4, 5)
    by_spikes, by_potentials = leaf(length, 4, 5).detach(), leaf(length, 4, 5).detach()
    scalars = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (leak, threshold)]
    inputs = [x, *scalars, *([u, o] if goes_on else [])]
    last = (u, o) if goes_on else None
    plain = diet_steps(x, *scalars, lambda z: linear_spike(z, 0.4), detach, last)
    fast = diet_layer(x, *scalars, 0.4, detach, last)
    if (plain[1] / threshold - 1).abs().min() < 1e-9:
        return
    grads = []
    for spikes, potentials in (plain, fast):
        loss = torch.zeros((), dtype=torch.float64)
        loss = loss + ((spikes * by_spikes).sum() if reads != "potentials" else 0)
        loss = loss + ((potentials * by_potentials).sum() if reads != "spikes" else 0)
        grads.append(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))
    assert torch.equal(plain[0], fast[0])
    torch.testing.assert_close(plain[1], fast[1])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_the_reference_is_the_plain_one() -> None:
    """Currents 0.8, 0.8, 0.8, 0.1 as above, and a graph of torch's own operations, which has a second derivative."""
    x = torch.tensor([0.8, 0.8, 0.8, 0.1], dtype=torch.float64).view(4, 1).requires_grad_()
    scalars = torch.tensor(0.5, dtype=torch.float64, requires_grad=True), torch.tensor(1.0, dtype=torch.float64)
    with ops.using(Backend.reference):
        spikes, u = diet_layer(x, *scalars)
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    assert u.flatten().tolist() == pytest.approx([0.8, 1.2, 0.4, 0.3])
    # With a leak l it is u_2 = 0.8 l + 0.8, u_3 = l u_2 + 0.8 - 1 and u_4 = l u_3 + 0.1, together
    # 0.8 l^3 + 0.8 l^2 - 0.2 l + 0.1, whose derivatives at 0.5 are 1.2 and 4.
    (first,) = torch.autograd.grad(u[3].sum(), scalars[0], create_graph=True)
    assert first.item() == pytest.approx(1.2)
    (second,) = torch.autograd.grad(first, scalars[0])
    assert second.item() == pytest.approx(4.0)


def test_the_threshold_in_the_reset_has_a_gradient_when_the_spike_in_it_has_none() -> None:
    """One spike, then u_2 = 1.5 + 0.2 - v: du_2/dv = -1 however the reset is treated."""
    threshold = torch.tensor(1.0, requires_grad=True)
    for detach in (True, False):
        _, u = diet_steps(torch.tensor([[1.5], [0.2]]), torch.tensor(1.0), threshold, detach_reset=detach)
        (grad,) = torch.autograd.grad(u[1].sum(), threshold)
        # Attached: do_1/dv = -0.3 (1 - |z|) u / v^2 with z = 0.5, times -v.
        assert grad.item() == pytest.approx(-1.0 if detach else -1.0 + 0.3 * 0.5 * 1.5)


def test_the_surrogate_is_a_triangle() -> None:
    from spikingjelly.activation_based import surrogate

    z = torch.tensor([-1.5, -1.0, -0.5, -0.1, 0.25, 1.0, 3.0], requires_grad=True)
    spikes = linear_spike(z, 0.3)
    assert spikes.tolist() == [0, 0, 0, 0, 1, 1, 1]
    (grad,) = torch.autograd.grad(spikes.sum(), z)
    assert grad.tolist() == pytest.approx([0, 0, 0.15, 0.27, 0.225, 0, 0])
    (theirs,) = torch.autograd.grad(surrogate.PiecewiseQuadratic(alpha=1.0)(z).sum(), z)
    assert grad.tolist() == pytest.approx((0.3 * theirs).tolist())


@pytest.mark.parametrize(
    ("start", "pull", "values"),
    [
        (1.0, 1.0, [1.0] * 6),  # pushed out of the range: stays at the bound
        (1.0, -1.0, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),  # led back inside: follows
        (0.2, -1.0, [0.2, 0.1, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_leak_and_threshold_stay_in_their_range(start: float, pull: float, values: list[float]) -> None:
    leak = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([leak], lr=0.1)
    seen = []
    for _ in values:
        used = bounded(leak, 0.0, 1.0)
        seen.append(used.item())
        optimizer.zero_grad()
        (-pull * used).backward()
        optimizer.step()
    assert seen == pytest.approx(values, abs=1e-6)


def test_a_layer_uses_nothing_outside_the_range() -> None:
    neuron = DietNeuron(0.9, 1.0, True, True, 0.3, True)
    with torch.no_grad():
        neuron.leak.fill_(1.4)
        neuron.threshold.fill_(-2.0)
    x = torch.tensor([[0.5 * LOWEST_THRESHOLD], [0.25 * LOWEST_THRESHOLD]])
    assert neuron(x).flatten().tolist() == [0, 0]
    assert neuron.v is not None
    assert neuron.v.item() == pytest.approx(0.75 * LOWEST_THRESHOLD, rel=1e-4)


# -- conversion -----------------------------------------------------------------------------------


def test_a_threshold_is_the_percentile_of_the_largest_step() -> None:
    """0 to 100: by the nearest rank the 90th percentile is 90, the 99.7th 100 (rank 99.7 of 100, from 0)."""
    values = torch.arange(101.0)[torch.randperm(101)]
    assert percentile(values, 90).item() == 90
    assert percentile(values, 99.7).item() == 100
    assert percentile(values, 99.4).item() == 99
    current = torch.stack([values, 2 * values, -values]).view(3, 101, 1)
    assert balanced_threshold(current, 90) == 180
    assert balanced_threshold(current, 100) == 200


def one_line(**knobs: Any) -> Diet:
    """Two convolutions of one channel on images of 1 x 3 pixels, which pass on 2 x and 3 x, and one class of sum."""
    net = Diet(Spec((1, 1, 3), 1, time_steps=4), convs=[1, 1], hidden=[], **knobs)
    with torch.no_grad():
        for block, weight in zip(net.convs, (2.0, 3.0), strict=True):
            assert isinstance(block, ConvNorm)
            block.conv.weight.zero_()
            block.conv.weight[0, 0, 1, 1] = weight
        net.head.weight.fill_(0.5)
    return net


def test_thresholds_are_found_layer_by_layer_and_scaled_afterwards() -> None:
    """Pixels 0.5, 1, 2 make currents 1, 2, 4: the largest, 4, is the first threshold.

    The third pixel meets it without passing it at step 1, fires from step 2 on: the second layer's current is 3.
    """
    net = one_line(percentile=100.0, threshold_scale=0.25, calibration_steps=4, leak=0.9)
    net.start_from({key: value for key, value in net.state_dict().items() if ".neuron." not in key})
    net.initialize(torch.tensor([0.5, 1.0, 2.0]).view(1, 1, 1, 3))
    neurons = [layer.neuron for _, layer in net.spiking_layers()]
    assert [neuron.threshold.item() for neuron in neurons] == pytest.approx([1.0, 0.75])
    assert [neuron.leak.item() for neuron in neurons] == pytest.approx([0.9, 0.9])
    assert all(neuron.v is None for neuron in neurons), "it leaves no potential behind"


def test_the_output_sums_its_inputs_over_time() -> None:
    """Thresholds 1 and 2, pixels 0.5, 1, 2: currents 1, 2, 4.

    Layer 1: pixel 1 at its threshold spikes from step 2 on (3 spikes), the others at every step (4).
    Layer 2 gets 3 for a spike, and its threshold is 2: it passes every spike on. The output sums half of 11 spikes.
    """
    net = one_line()
    for (_, layer), threshold in zip(net.spiking_layers(), (1.0, 2.0), strict=True):
        layer.neuron.threshold.data.fill_(threshold)
    x = torch.tensor([0.5, 1.0, 2.0]).view(1, 1, 1, 3)
    features = net.features(x)
    assert features.sum((0, 1)).tolist() == [3, 4, 4]
    assert net.logits(features).item() == pytest.approx(5.5)
    assert net.read(net.head(features)).item() == pytest.approx(5.5)
    net.forget()
    assert net(x).item() == pytest.approx(5.5)


def test_the_converted_network_has_the_twins_weights() -> None:
    twin = network(Spec((2, 8, 8), 3, 1, NeuronConfig("relu")))
    net = network(train_leak=False)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    net.start_from({key: value.clone() for key, value in twin.state_dict().items()})
    net.initialize(torch.randn(40, 2, 8, 8))
    own = net.state_dict()
    for key, value in twin.state_dict().items():
        assert torch.equal(own[key], value), key
    assert len(own) == len(twin.state_dict()) + 2 * 3, "and a leak and a threshold a layer"


def test_the_twin_is_the_plain_network() -> None:
    """Convolutions without bias, ReLU, average pooling, linear layers: with torch's functions alone."""
    twin = network(Spec((2, 8, 8), 3, 5, NeuronConfig("relu")))
    weights = list(twin.parameters())
    x = torch.randn(4, 2, 8, 8)
    y = F.avg_pool2d(F.conv2d(x, weights[0], padding=1).relu(), 2)
    y = F.avg_pool2d(F.conv2d(y, weights[1], padding=1).relu(), 2)
    y = F.linear(y.flatten(1), weights[2]).relu() @ weights[3].T
    torch.testing.assert_close(twin(x), y)


def test_a_converted_network_predicts_what_its_twin_does() -> None:
    """Over many steps the spike rates approach the activations, up to a factor a layer."""
    torch.manual_seed(0)
    twin = network(Spec((2, 8, 8), 3, 1, NeuronConfig("relu")))
    net = network(Spec((2, 8, 8), 3, 200), threshold_scale=1.0, percentile=100.0)
    x = torch.randn(60, 2, 8, 8)
    net.start_from(dict(twin.state_dict()))
    net.initialize(x)
    net.eval()
    with torch.no_grad():
        wanted, found = twin(x), net(x)
    similar = F.cosine_similarity(wanted.flatten(), found.flatten(), dim=0)
    assert similar > 0.98
    assert (wanted.argmax(1) == found.argmax(1)).float().mean() > 0.9


def test_a_silent_twin_is_refused() -> None:
    net = network()
    net.start_from({k: torch.zeros_like(v) for k, v in net.state_dict().items() if ".neuron." not in k})
    with pytest.raises(
        BenchError, match=r"spiking layer 0 of 3 an input current of 0 at percentile 99\.7, .*model\.twin_lr"
    ):
        net.initialize(torch.randn(4, 2, 8, 8))


# -- in the suite ---------------------------------------------------------------------------------


@pytest.mark.parametrize("train_leak", [True, False])
@pytest.mark.parametrize("train_threshold", [True, False])
def test_what_is_not_trained_is_stored_but_no_parameter(train_leak: bool, train_threshold: bool) -> None:
    net = network(train_leak=train_leak, train_threshold=train_threshold)
    scalars = {name.rpartition(".")[2] for name, p in net.named_parameters() if p.ndim == 0}
    assert scalars == {n for n, on in (("leak", train_leak), ("threshold", train_threshold)) if on}
    assert sum(v.ndim == 0 for v in net.state_dict().values()) == 6
    net(torch.randn(4, 2, 8, 8)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.ndim == 0 or parameter.grad.abs().sum() > 0, name


def test_weight_decay_leaves_leaks_and_thresholds_alone() -> None:
    net = network()
    (group,) = WeightDecay(0.1).param_groups(net)
    assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters() if p.ndim > 1}
    task = Task(net, {"weight_decay": WeightDecay(0.1)}, OptimConfig(Optimizer.adamw, 0.01), seed=0, epochs=1)
    plain = [g for g in task.parameter_groups() if "weight_decay" not in g]
    assert len(plain) == 1
    assert len(plain[0]["params"]) == 6


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_every_regularizer_works_on_it(name: str) -> None:
    torch.manual_seed(1)
    net = network()
    reg = REGULARIZERS.get(name)()
    try:
        task = Task(net, {name: reg}, OptimConfig(Optimizer.adamw, 0.01), seed=0, epochs=1)
    except BenchError as error:
        if not str(error).startswith(f"reg={name} "):
            raise
        return  # it needs what this network does not have, and says so
    x, y = torch.randn(12, 2, 8, 8), torch.randint(3, (12,))
    reg.initialize(net, x)
    optimizer = torch.optim.AdamW(task.parameter_groups(), lr=0.01, weight_decay=0.0)
    before = [p.detach().clone() for p in net.parameters()]
    for _ in range(3):
        features, activity = task.forward_t(x, task.reads)
        _, loss = task.logits_and_loss(features, y)
        loss = loss + sum(reg.penalty(activity).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reg.after_step(activity)
    for p, old in zip(net.parameters(), before, strict=True):
        assert torch.isfinite(p).all()
        assert p.grad is not None
        assert p.ndim < 2 or not torch.equal(p, old)
    reg.bake(net)


def test_the_spike_penalty_has_a_gradient_in_leaks_and_thresholds() -> None:
    """Fewer spikes need a higher threshold: descent must raise it."""
    net = network()
    net(torch.randn(12, 2, 8, 8))
    SpikePenalty(1.0).penalty(activity_of(net))["spikepen"].backward()
    for _, layer in net.spiking_layers():
        assert layer.neuron.threshold.grad < 0


def test_the_kernels_leave_it_to_the_reference_and_say_why() -> None:
    net = network()
    net(torch.randn(4, 2, 8, 8).contiguous(memory_format=torch.channels_last))
    assert explain(net) in (None, "2 of 3 layers use the reference: neuron diet")
    # A fused kernel would have reset hard and never leaked: the pass must be eq. 4.
    layer = net.spikings[0]
    assert isinstance(layer, DietSpiking)
    layer.neuron.leak.data.fill_(0.5)
    net.forget()
    x = torch.randn(4, 2, 8, 8)
    net.features(x)
    current = net.current(0, x).detach().flatten().double().numpy()
    spikes, potentials = loop(np.stack([current] * 3), 0.5, 0.3)
    clear = np.abs(potentials - 0.3).min(0) > 1e-5
    assert layer.fired is not None
    assert np.array_equal(layer.fired.detach().flatten(1).double().numpy()[:, clear], spikes[:, clear])


def test_the_kept_potential_is_the_one_before_the_reset() -> None:
    layer = DietSpiking(NeuronConfig(), 6, 0.8, True, True, 0.3)
    layer.reads = SPIKES | {Read.potential}
    torch.manual_seed(0)
    spikes = layer(torch.randn(6 * 50) + 0.5).view(6, 50)
    assert layer.potential is not None
    assert torch.equal(spikes, (layer.potential > 1.0).float())
    assert 0.05 < spikes.mean() < 0.95


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"convs": [0, 8]}, r"model.convs is \[0,8\], it must begin with a width"),
        ({"convs": []}, r"model.convs is \[\]"),
        ({"convs": [8, -1]}, r"model.convs is \[8,-1\]"),
        ({"convs": [8, 0, 0, 0, 0]}, r"model.convs=\[8,0,0,0,0\] halves the image 4 times, but 8x8 can be halved 3"),
        ({"hidden": [0]}, r"model.hidden is 0"),
        ({"leak": 1.5}, r"model.leak is 1.5, it must lie in \[0, 1\]"),
        ({"leak": float("nan")}, r"model.leak is nan"),
        ({"percentile": 0.0}, r"model.percentile is 0, it must lie in \(0, 100\]"),
        ({"threshold_scale": 0.0}, r"model.threshold_scale is 0, it must be above 0"),
        ({"damping": -1.0}, r"model.damping is -1"),
        ({"calibration_steps": 0}, r"model.calibration_steps is 0"),
        ({"twin_lr": 0.0}, r"model.twin_lr is 0"),
        ({"twin_epochs": 0}, r"model.twin_epochs is 0"),
    ],
)
def test_knobs_out_of_range_get_one_line(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        network(**knobs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NeuronConfig("lif"), "neuron=lif does not go with model=diet"),
        (NeuronConfig(alpha=3.0), "neuron.alpha has no effect on model=diet"),
        (NeuronConfig(tau=3.0), "neuron.tau has no effect"),
        (NeuronConfig(v_reset=-0.5), "neuron.v_reset is -0.5, but the reset of model=diet is soft"),
    ],
)
def test_a_neuron_that_it_has_not_is_refused(config: NeuronConfig, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        network(Spec((2, 8, 8), 3, 3, config))


# -- the run --------------------------------------------------------------------------------------

TINY = (
    "model=diet", "model.convs=[4,0,4,0]", "model.hidden=[8]", "model.calibration_steps=6", "data.limit=40",
    "data.test_limit=30", "trainer.batch_size=8", "trainer.epochs=2", "time_steps=2", "logger=none",
)  # fmt: skip


def runs() -> Path:
    return Path(os.environ["BENCH_RUNS"])


def records() -> dict[str, dict[str, Any]]:
    """Neuron -> record; of several of one neuron the last by name."""
    found = [json.loads(path.read_text()) for path in sorted(runs().glob("*/result.json"))]
    return {result["neuron"]: result for result in found}


def go(shared_data: Path, *overrides: str) -> dict[str, Any]:
    from bench.training.run import run

    return run(compose([*TINY, f"data.root={shared_data}", *overrides]))


def state(result: dict[str, Any]) -> dict[str, Tensor]:
    path = runs() / result["run_id"] / "checkpoints" / "last.ckpt"
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


def test_one_command_trains_the_twin_and_starts_from_it(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = go(shared_data, "optim.lr=1e-30", "model.threshold_scale=0.5")
    twin = records()["relu"]
    assert (twin["status"], twin["lr"], twin["time_steps"]) == ("finished", 0.001, 1)
    assert twin["test"]["acc"] is not None
    assert twin["test"]["spike_rate"] is None
    assert result["test"]["spike_rate"] > 0
    # A rate of nothing: the spiking network's weights are still the twin's.
    own, start = state(result), state(twin)
    for key, value in start.items():
        assert torch.equal(own[key], value), key
    assert f"this run starts from its non-spiking twin, {twin['run_id']}" in capsys.readouterr().out
    finished = twin["finished"], (runs() / twin["run_id"] / "result.json").stat().st_mtime_ns
    # What concerns spikes only shares the twin, a run forced again too.
    other = go(shared_data, "model.train_leak=false", "model.damping=0.5", "time_steps=3", "neuron.detach_reset=false")
    again = go(shared_data, "optim.lr=1e-30", "model.threshold_scale=0.5", "force=true")
    assert other["run_id"] != result["run_id"] == again["run_id"]
    assert again["test"] == result["test"]
    assert len(list(runs().iterdir())) == 3
    assert finished == (twin["finished"], (runs() / twin["run_id"] / "result.json").stat().st_mtime_ns)
    # Another network, another regularizer or another seed does not.
    go(shared_data, "model.hidden=[6]")
    assert len(list(runs().iterdir())) == 5


def test_a_twin_by_name_and_by_folder_and_none(shared_data: Path, tmp_path: Path) -> None:
    twin = go(shared_data, "neuron=relu", "model.twin=none", "seed=5")
    first = go(shared_data, f"model.twin={twin['run_id']}", "optim.lr=1e-30")
    assert torch.equal(state(first)["model.head.weight"], state(twin)["model.head.weight"])
    moved = tmp_path / "elsewhere" / "mine"
    moved.parent.mkdir()
    os.rename(runs() / twin["run_id"], moved)
    second = go(shared_data, f"model.twin={moved}", "optim.lr=1e-30")
    assert second["test"] == first["test"]
    go(shared_data, "model.twin=none")
    assert len(list(runs().iterdir())) == 3, "none trains no twin"


def test_a_twin_that_is_missing_or_foreign_is_one_line(shared_data: Path) -> None:
    twin = go(shared_data, "neuron=relu", "model.twin=none")
    name = twin["run_id"]
    before = set(runs().iterdir())
    for overrides, message in (
        (("model.twin=digits-diet-none-s9",), f"no run of that name has finished in .* '{name}'"),
        ((f"model.twin={name}", "model.hidden=[6]"), r"is no twin of this run: its hidden is \[8\], not \[6\]"),
        ((f"model.twin={name}", "reg=weightnorm"), "the twin is another network: .* does not fit"),
    ):
        with pytest.raises(BenchError, match=message) as caught:
            go(shared_data, *overrides)
        assert caught.value.code == 2
        assert "\n" not in str(caught.value)
    (runs() / name / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(BenchError, match=r"last\.ckpt is damaged"):
        go(shared_data, f"model.twin={name}")
    (runs() / name / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(BenchError, match="has a record but no weights"):
        go(shared_data, f"model.twin={name}")
    assert set(runs().iterdir()) == before, "nothing half-written"


def test_a_spiking_run_is_no_twin_on_the_command_line(bench: Command, shared_data: Path) -> None:
    name = go(shared_data, "model.twin=none")["run_id"]
    missing = bench("run", *TINY, "model.twin=digits-diet-none-s7")
    assert missing.returncode == 2
    assert missing.stderr.endswith("There is none; auto trains one.\n"), "a spiking run is not proposed"
    done = bench("run", *TINY, f"model.twin={name}")
    assert done.returncode == 2
    assert done.stderr == f"error: model.twin={name} is no twin of this run: its neuron is if, not relu\n"


def test_resuming_needs_no_twin(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record of a run that was killed before it is the same, though its twin is gone."""
    result = go(shared_data)
    shutil.rmtree(runs() / records()["relu"]["run_id"])
    (runs() / result["run_id"] / "result.json").unlink()
    capsys.readouterr()
    again = go(shared_data)
    assert "goes on after epoch 2 of 2" in capsys.readouterr().out
    assert len(list(runs().iterdir())) == 1
    assert again["test"] == result["test"]
    assert again["layers"] == result["layers"]


def test_it_waits_for_a_twin_that_another_process_trains(bench: Command, shared_data: Path) -> None:
    """A grid's runs start together: the second finds the twin's folder locked."""
    cfg = compose([*TINY, f"data.root={shared_data}"])
    folder = runs() / run_id(science(twin_of(cfg)))
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "bench", "run", *TINY]
        env = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(Path(__file__).parents[2])}
        log = runs() / "log"
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env) as process:
            deadline = time.monotonic() + 120
            while "waiting for the twin" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(timeout=120) == 0, log.read_text()
    assert set(records()) == {"relu", "if"}


def test_the_experiments_twin_row_is_the_run_that_its_rows_start_from() -> None:
    experiment = load("gutekunst/diet_snn")
    assert experiment.groups == ("2", "5", "10")
    for budget in ("quick", "cpu", "paper"):
        jobs = identified(expand(experiment, [f"budget={budget}", "seed=0"]), {"mnist": ("0" * 64, "jpeg")})
        rows = {(job.row.group, job.row.label): (job, name, facts) for job, name, facts in jobs}
        assert len(rows) == 18
        (twin,) = {name for (_, label), (_, name, _) in rows.items() if label == "twin"}
        for (group, label), (job, _, facts) in rows.items():
            if label in ("twin", "from scratch"):
                continue
            cfg = compose([*job.overrides])
            assert run_id(science(twin_of(cfg), ("0" * 64, "jpeg"))) == twin
            assert facts["time_steps"] == int(group)
            assert facts["model"]["train_leak"] is (label in ("leak", "both"))
            assert facts["model"]["train_threshold"] is (label in ("threshold", "both"))
