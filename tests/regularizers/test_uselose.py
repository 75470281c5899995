"""Use it or lose it: clocks and decays worked out by hand, gradients, forms, and the paper's compounding."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.config.schema import OptimConfig, Optimizer
from bench.data import Splits, prepare
from bench.data.config import DataConfig
from bench.errors import BenchError
from bench.models.base import Spec, SpikingNetwork
from bench.models.mlp import MLP, Encoding
from bench.models.srm import SRM
from bench.neurons import NeuronConfig
from bench.neurons.reads import channel_means
from bench.registry import MODELS
from bench.regularizers.uselose import (
    Form,
    Role,
    Scope,
    Usage,
    UseItOrLoseIt,
    decay,
    input_usage,
    marks,
    pair_usage,
    roles_of,
    spread,
    standing,
    tick,
)
from bench.training.task import Task
from tests.regularizers.conftest import WIDTHS


def linear(reg: UseItOrLoseIt, inputs: int = 3, outputs: int = 2, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A linear layer with known weights under `reg`."""
    layer = nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 1 + inputs * outputs).view(outputs, inputs))
    reg.attach_layer(layer)
    return layer


# -- the pure functions -----------------------------------------------------------------------------


def test_usage_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # rates .75, 0, .25
    assert input_usage(x, -1, r0=0.5).tolist() == [1.0, 0.0, 0.5]
    # A channel's mean is over batch and space alike.
    image = x.T.reshape(1, 3, 2, 2)
    assert input_usage(image, 1, r0=0.5).tolist() == [1.0, 0.0, 0.5]
    # Analog: the share of nonzero values, negative ones too; no gradient.
    values = (-3.0 * x).requires_grad_()
    usage = input_usage(marks(values, None), -1, r0=1.0)
    assert usage.tolist() == [0.75, 0.0, 0.25]
    assert not usage.requires_grad


def test_marks_of_an_image_are_its_lit_pixels() -> None:
    dim = torch.tensor([[-0.5, 1.0, 0.0]])  # each input has a black of its own
    x = torch.tensor([[-0.51, 1.01, 0.0], [-0.49, 0.0, 0.5], [0.0, 1.0, -1.0]])
    assert marks(x, dim).tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_standing_by_hand() -> None:
    # Two images, two time steps, three channels of 1 x 2; time is slowest. Spikes of a channel in an image, of 4:
    # the first 4, 2, 3, of mean 3; the second 0, 0, 0.
    first = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]], [[1.0, 1.0]]], [[[1.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]]])
    x = torch.stack([first[0], torch.zeros(3, 1, 2), first[1], torch.zeros(3, 1, 2)])
    assert standing(channel_means(x, 2), r0=0.1).tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    # 2 of 3 is a third below the mean: half way down a ramp that ends two thirds below.
    ramp = standing(channel_means(x, 2), r0=2 / 3)
    torch.testing.assert_close(ramp, torch.tensor([[1.0, 0.5, 1.0], [0.0, 0.0, 0.0]]))
    # The share of images in which they keep up, over r0.
    assert input_usage(ramp, 1, r0=2 / 3).tolist() == pytest.approx([0.75, 0.375, 0.75])
    # For single neurons it is to spike; where all spike alike all keep up, whatever the rounding.
    spikes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert torch.equal(standing(spikes, r0=0.3), spikes)
    alike = torch.full((6, 7, 3, 3), 0.1)
    assert input_usage(standing(channel_means(alike, 1), r0=0.05), 1, r0=0.05).tolist() == [1.0] * 7


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5], ids=["silent", "saturated", "negative"])
@pytest.mark.parametrize("r0", [0.05, 1.0, 3.0])
def test_standing_is_finite_and_nobody_keeps_up_with_silence(value: float, r0: float) -> None:
    x = torch.full((4, 3, 2, 2), value, requires_grad=True)
    found = standing(channel_means(x, 2), r0)
    assert (found == float(value > 0)).all()
    found.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_usage_has_a_gradient_where_all_is_silent() -> None:
    x = torch.zeros(4, 1, requires_grad=True)
    input_usage(x, -1, r0=0.5).sum().backward()
    assert x.grad.flatten().tolist() == [0.5] * 4  # 1 / (4 r0)
    below = input_usage(torch.full((4, 1), -0.1), -1, r0=0.5)
    assert below.item() == 0.0


def test_usage_is_exact_in_bfloat16() -> None:
    x = torch.zeros(4096, 1, dtype=torch.bfloat16)
    x[:1001] = 1
    assert input_usage(x, -1, r0=1.0).item() == pytest.approx(1001 / 4096, rel=1e-6)


def test_clock_and_decay_by_hand() -> None:
    clock, usage = torch.zeros(3), torch.tensor([1.0, 0.5, 0.0])
    clock = tick(clock, usage)
    assert clock.tolist() == [0.0, 0.5, 1.0]
    clock = tick(clock, usage)
    assert clock.tolist() == [0.0, 0.75, 2.0]
    # eq. 5 with k_p = 2, tau = 4: exp(-2 (q / 4)^2)
    expected = [1.0, math.exp(-2 * 0.75**2 / 16), math.exp(-0.5)]
    torch.testing.assert_close(decay(clock, k_p=2.0, tau=4.0), torch.tensor(expected))


@pytest.mark.parametrize("k_p", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("tau", [1e-300, 1e-6, 1.0, 1e30])
def test_never_nan(k_p: float, tau: float) -> None:
    for dtype in (torch.float32, torch.float64):
        clock = torch.tensor([0.0, 1e-7, 1.0, 1e7], dtype=dtype, requires_grad=True)
        values = decay(clock, k_p, tau)
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert torch.isfinite(clock.grad).all()
        assert values[0] == 1
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolutions_weights_are_scaled_as_if_its_input_was(groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, groups=groups, dtype=torch.float64)
    x, values = torch.randn(2, 4, 5, 5, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    scaled = conv(x * values.view(1, 4, 1, 1))
    with torch.no_grad():
        conv.weight.mul_(spread(values, conv.weight, groups))
    torch.testing.assert_close(conv(x), scaled)


def test_pair_usage_by_hand() -> None:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0], [1.0, 1.0]]))
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    # Unit 0's current is 1, -1, -2, 0 and unit 1's 1, 2, 1, 0: excited in {0} and in {0, 1, 2}.
    usage = pair_usage(x, layer, r0=1.0)
    assert usage.tolist() == [[0.25, 0.0], [0.5, 0.5]]
    usage.sum().backward()
    # Each excited unit passes 1/4 to the inputs of its sample, spiking or not.
    assert x.grad.tolist() == [[0.5, 0.5], [0.25, 0.25], [0.25, 0.25], [0.0, 0.0]]
    assert layer.weight.grad is None


# -- one layer ----------------------------------------------------------------------------------------


def test_effective_form_by_hand() -> None:
    layer = linear(UseItOrLoseIt(k_p=1.0, tau=2.0, r0=1.0))
    x = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # usage 1, 0, .5: clocks 0, 1, .5
    out = layer(x)
    # W = [[1, 2, 3], [4, 5, 6]], D = [1, exp(-1/4), exp(-1/16)]
    d = math.exp(-1 / 16)
    torch.testing.assert_close(out, torch.tensor([[1 + 3 * d, 4 + 6 * d], [1.0, 4.0]]))
    torch.testing.assert_close(layer.weight[0], torch.tensor([1.0, 2 * math.exp(-1 / 4), 3 * d]))
    assert layer.use_clock.q.tolist() == [0.0, 1.0, 0.5]
    # Reversible: used again, the weights are what they were, bit for bit.
    layer(torch.ones(1, 3))
    assert torch.equal(layer.weight, layer.parametrizations.weight.original)


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("form", [Form.effective, Form.literal])
def test_silent_inputs_weights_end_at_0_and_used_ones_stay(form: Form, scope: Scope) -> None:
    reg = UseItOrLoseIt(k_p=1.0, tau=3.0, form=form, scope=scope)
    layer = linear(reg)
    before = layer.weight.detach().clone()
    for _ in range(60):
        layer(torch.tensor([[1.0, 0.0, 1.0]]))
    reg.bake(nn.Module())
    assert torch.equal(layer.weight[:, [0, 2]], before[:, [0, 2]])
    assert layer.weight[:, 1].tolist() == [0.0, 0.0]
    assert type(layer) is nn.Linear
    assert list(layer.state_dict()) == ["weight"]
    assert not layer._forward_pre_hooks
    assert not layer._forward_hooks


def test_a_silent_units_weights_decay_only_with_scope_synapse() -> None:
    for scope in Scope:
        reg = UseItOrLoseIt(tau=3.0, scope=scope)
        layer = linear(reg)
        with torch.no_grad():
            layer.parametrizations.weight.original[1] *= -1  # its current is never above 0
        for _ in range(60):
            layer(torch.ones(1, 3))
        assert layer.weight[0].tolist() == [1.0, 2.0, 3.0]
        assert layer.weight[1].tolist() == ([0.0, 0.0, 0.0] if scope is Scope.synapse else [-4.0, -5.0, -6.0])


def test_literal_form_compounds_gap_by_gap() -> None:
    layer = linear(UseItOrLoseIt(k_p=1.0, tau=4.0, form=Form.literal), inputs=1, outputs=1)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    exponent = 0.0
    for gap in (2, 0, 3, 1):
        for _ in range(gap):
            assert layer(zero).item() == 0.0
        exponent += gap**2 / 16
        # The spike that ends the gap already sees the decayed weight.
        assert layer(one).item() == pytest.approx(math.exp(-exponent), rel=1e-5)
        assert layer.use_clock.q.item() == 0.0


def test_literal_form_follows_the_paper_for_a_poisson_input() -> None:
    # Expected exponent over time S at rate r: r S gaps of E[k_p g^2 / tau^2] = 2 k_p / (r tau)^2 each,
    # 2 k_p S / (r tau^2) in all. In whole silent steps E[g^2] = (1 - r)(2 - r) / r^2.
    rate, steps, inputs, k_p, tau = 0.1, 2000, 400, 0.3, 20.0
    reg = UseItOrLoseIt(k_p=k_p, tau=tau, r0=1.0, form=Form.literal)
    layer = nn.Linear(inputs, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    reg.attach_layer(layer)
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(steps, 1, inputs, generator=generator) < rate).double()
    for x in spikes:
        layer(x)
    exponent = -layer.weight.detach().log().mean().item()
    continuous = 2 * k_p * steps / (rate * tau**2)
    assert exponent == pytest.approx(continuous * (1 - rate) * (1 - rate / 2), rel=0.02)
    assert exponent == pytest.approx(continuous, rel=1.6 * rate)


def test_penalty_by_hand() -> None:
    reg = UseItOrLoseIt(k_p=1.0, tau=1.0, r0=1.0, form=Form.penalty, weight=0.1)
    layer = linear(reg)
    out = layer(torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert out.tolist() == [[4.0, 10.0], [1.0, 4.0]]  # the weights in use are not touched
    penalty = reg.penalty({})["uselose"]
    # ||W_:1||^2 = 4 + 25 at clock 1, ||W_:2||^2 = 9 + 36 at clock 1/2
    expected = 0.1 / 2 * ((1 - math.exp(-1)) * 29 + (1 - math.exp(-1 / 4)) * 45)
    assert penalty.item() == pytest.approx(expected, rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(
        layer.weight.grad[0],
        0.1 * torch.tensor([0.0, 1 - math.exp(-1), 1 - math.exp(-1 / 4)]) * torch.tensor([1.0, 2.0, 3.0]),
    )


@pytest.mark.parametrize("detach", [None, True, False])
def test_penalty_rewards_firing_only_with_the_clock_attached(detach: bool | None) -> None:
    reg = UseItOrLoseIt(form=Form.penalty, detach_clock=detach, r0=1.0)
    layer = linear(reg)
    x = torch.full((2, 3), 0.5, requires_grad=True)
    layer(x)
    (gradient,) = torch.autograd.grad(reg.penalty({})["uselose"], x, allow_unused=True)
    if detach is False:
        assert (gradient < 0).all()
    else:
        assert gradient is None


# -- gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("clock", [0.0, 2.5])
def test_gradcheck_with_the_clock_attached(scope: Scope, clock: float) -> None:
    layer = linear(UseItOrLoseIt(k_p=0.7, tau=3.0, r0=1.5, scope=scope), dtype=torch.float64)
    weight = layer.parametrizations.weight.original
    x = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1

    def apply(spikes: Tensor, raw: Tensor) -> Tensor:
        layer.use_clock.q.fill_(clock)
        return torch.func.functional_call(layer, {"parametrizations.weight.original": raw}, (spikes,))

    assert torch.autograd.gradcheck(apply, (x.requires_grad_(), weight.detach().clone().requires_grad_()))


def test_gradcheck_of_a_grouped_convolution() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 3, groups=2, dtype=torch.float64)
    clock = UseItOrLoseIt(k_p=0.7, tau=3.0, r0=1.5).attach_layer(layer)

    def apply(spikes: Tensor) -> Tensor:
        clock.q.copy_(torch.arange(4.0))
        return layer(spikes)

    assert torch.autograd.gradcheck(apply, (torch.rand(2, 4, 4, 4, dtype=torch.float64, requires_grad=True),))


def test_gradcheck_of_a_relative_usage() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 3, dtype=torch.float64)
    clock = UseItOrLoseIt(k_p=0.7, tau=3.0, r0=0.8).attach_layer(layer, Role(rows=2))
    assert clock.relative
    x = torch.rand(4, 3, 4, 4, dtype=torch.float64) * torch.tensor([0.5, 0.6, 0.8]).view(3, 1, 1)
    assert (
        ((s := standing(channel_means(x, 2), 0.8)) > 0) & (s < 1)
    ).any()  # within the ramp, where the mean has a gradient

    def apply(spikes: Tensor) -> Tensor:
        clock.q.copy_(torch.arange(3.0))
        return layer(spikes)

    assert torch.autograd.gradcheck(apply, (x.requires_grad_(),))


def test_firing_more_all_over_the_layer_brings_nothing() -> None:
    """A relative usage has no gradient along the spikes themselves, which is where they all grow alike."""
    x = (torch.rand(4, 3, 2, 2, dtype=torch.float64) * torch.tensor([0.5, 0.7, 0.8]).view(3, 1, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(standing(channel_means(x, 2), 0.9)[:, 0].sum(), x)
    assert gradient.abs().max() > 0.01
    assert (gradient * x).sum().item() == pytest.approx(0.0, abs=1e-12)


def test_gradient_reaches_the_spikes_through_the_decay_by_hand() -> None:
    # One input, W = 1, r0 = 1, clock 1 before: q = 2 (1 - a), y = x exp(-k (q / tau)^2), a = x.
    # dy/dx = D + x D (-2 k q / tau^2)(-2)
    x0, k, tau = 0.25, 0.5, 2.0
    q = 2 * (1 - x0)
    d = math.exp(-k * (q / tau) ** 2)
    for detach, expected in ((False, d + x0 * d * 4 * k * q / tau**2), (True, d)):
        layer = linear(UseItOrLoseIt(k_p=k, tau=tau, r0=1.0, detach_clock=detach), 1, 1, torch.float64)
        layer.use_clock.q.fill_(1.0)
        x = torch.tensor([[x0]], dtype=torch.float64, requires_grad=True)
        layer(x).backward()
        assert x.grad.item() == pytest.approx(expected)


# -- a network ----------------------------------------------------------------------------------------


def analog(model: SpikingNetwork) -> dict[nn.Module, bool]:
    """The layers before any spike, and whether they see the image."""
    return {layer: role.dim is not None for layer, role in roles_of(model).items() if role.analog}


def test_analog_layers_are_those_before_any_spike(net) -> None:
    for arch, first in (("cnn", "convs.0.conv"), ("sew", "stem.conv"), ("convmixer", "stem.conv")):
        model = net(arch)
        assert analog(model) == {model.get_submodule(first): True}
        assert {role.rows for layer, role in roles_of(model).items() if isinstance(layer, nn.Conv2d)} == {1, 2}
        assert model.training
    twin = net(neuron="relu")
    # What is behind a ReLU is no image: there 0 is what nothing comes from.
    assert analog(twin) == {twin.convs[0].conv: True, twin.convs[1].conv: False, twin.head: False}


SPEC = Spec((2, 4, 4), 3, 3, mean=(0.1, 0.6), std=(0.3, 0.2))


def test_which_layer_sees_the_image_is_told_by_values() -> None:
    direct, trains = MLP(SPEC, [5]), MLP(SPEC, [5], Encoding.poisson)
    assert analog(direct) == {direct.linears[0]: True}
    assert analog(trains) == {trains.linears[0]: False}
    # Its ReLU twin sees the pixels themselves, each of them once for every synapse.
    relu = SRM(replace(SPEC, neuron=NeuronConfig("relu")), 5)
    assert analog(relu) == {relu.synapses: True, relu.head: False}


class Patches(SpikingNetwork):
    """Images in a frame of zeros, cut into patches, in front of a linear layer."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.embed, self.fire, self.head = nn.Linear(18, 4), self.spiking(), nn.Linear(16, spec.classes)

    def features(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(nn.functional.pad(x, (1, 1, 1, 1)), 3, stride=3).transpose(1, 2)
        current = self.embed(patches).flatten(1)
        return self.fire(current.repeat(self.time_steps, 1)).unflatten(0, (self.time_steps, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_black_is_unused_whatever_became_of_the_image(dtype: torch.dtype) -> None:
    """Channels with black values of their own, reshaped, framed by zeros, and rounded."""
    net = Patches(SPEC)
    UseItOrLoseIt().attach(net)
    pixels = torch.zeros(5, 2, 4, 4)
    pixels[:, 0, 1] = 1 / 255  # the darkest that is lit
    pixels[:, 1, :, 2] = 0.6  # 0 once it is normalized
    x = (pixels - torch.tensor(SPEC.mean).view(2, 1, 1)) / torch.tensor(SPEC.std).view(2, 1, 1)
    net.to(dtype)(x.to(dtype))
    # Of a channel, patch and place: row 1 of channel 0 is the patches' row 2 of 3, column 2 of channel 1 theirs 0.
    used = [6, 7, 8, 9, 12, 15]
    expected = torch.ones(18)
    expected[used] = 0.0
    assert torch.equal(net.embed.use_clock.q.float(), expected)


@pytest.fixture(scope="module")
def scans(shared_data: Path) -> Splits:
    """The digits as batches of 32, normalized, cropped out of a frame of black."""
    return prepare(DataConfig("digits", str(shared_data), crop=2), seed=0, batch_size=32, eval_batch_size=32)


def train(model: SpikingNetwork, reg: UseItOrLoseIt, scans: Splits, steps: int) -> Tensor:
    """Some steps on the digits; returns the images `[M, C, H, W]` that were seen, in pixels."""
    task = Task(model, {"uselose": reg}, OptimConfig(Optimizer.adamw, 1e-3), seed=0, epochs=1)
    optimizer, seen = torch.optim.AdamW(task.parameters(), lr=1e-3), []
    task.on_train_epoch_start()
    for _, (x, y) in zip(range(steps), scans.train, strict=False):
        task.step(x, y, optimizer)
        seen.append(model.spec.pixels(x))
    return torch.cat(seen)


def spec_of(scans: Splits) -> Spec:
    """What a network for these images is built for."""
    return Spec(scans.image_shape, scans.classes, 2, mean=scans.mean, std=scans.std)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_weights_behind_pixels_that_are_always_black_decay(encoding: Encoding, shared_data: Path) -> None:
    # Padded with black by 4 pixels, of which a crop may take 2: the outermost 2 never see anything.
    padded = DataConfig("digits", str(shared_data), crop=2, size=40)
    scans = prepare(padded, seed=0, batch_size=32, eval_batch_size=32)
    torch.manual_seed(0)
    model = MLP(spec_of(scans), [8], encoding)
    steps = 30
    lit = (train(model, UseItOrLoseIt(tau=5.0), scans, steps) > 0.5 / 255).float().mean(0).flatten()
    clock, weight = model.linears[0].use_clock.q, model.linears[0].weight
    black = lit == 0
    assert black.sum() >= 40**2 - 36**2
    assert scans.mean[0] > 0.1  # so that black is not 0
    assert (clock[black] == steps).all()
    # exp(-(30 / 5)^2)
    assert weight[:, black].abs().max() < 1e-15
    busy = lit > 0.9
    assert busy.sum() >= 3
    assert (clock[busy] == 0).all()
    assert torch.equal(weight[:, busy], model.linears[0].parametrizations.weight.original[:, busy])


@pytest.mark.parametrize(
    ("arch", "fires", "reads"),
    [
        ("cnn", "spikings.0", "convs.1.conv"),
        ("sew", "spiking_stem", "stages.0.0.conv1.conv"),
        ("convmixer", "spiking_stem", "blocks.0.depthwise.conv"),
    ],
)
def test_a_channel_that_never_keeps_up_decays_though_it_fires(
    arch: str, fires: str, reads: str, net, scans: Splits
) -> None:
    found = {}
    for usage in (None, *Usage):
        torch.manual_seed(0)
        model = MODELS.get(arch)(spec_of(scans), **{**WIDTHS[arch], "channels" if arch != "convmixer" else "width": 8})
        # Channel 0 gets half of the current that its neurons would have, all others more.
        scale, shift = torch.ones(8, 1, 1), torch.full((8, 1, 1), 0.8)
        scale[0], shift[0], shift[1] = 0.5, 0.3, 1.5
        rates: list[Tensor] = []
        model.get_submodule(fires).register_forward_pre_hook(
            lambda _, x, scale=scale, shift=shift: (x[0] * scale + shift,)
        )
        model.get_submodule(reads).register_forward_pre_hook(
            lambda m, x, rates=rates: rates.append(x[0].detach().mean((0, 2, 3))) if m.training else None
        )
        train(model, UseItOrLoseIt(tau=4.0, usage=usage), scans, 12)
        layer: Any = model.get_submodule(reads)
        assert min(rate[0] for rate in rates) > 0.05  # no step at which it was silent
        found[usage] = layer.use_clock.q.clone()
        kept = decay(layer.use_clock.q, 1.0, 4.0)
        raw = layer.parametrizations.weight.original
        torch.testing.assert_close(layer.weight, raw * spread(kept, raw, layer.groups))
        busy = layer.use_clock.q == 0
        assert busy[1]
        assert (kept[busy] == 1).all()
    assert torch.equal(found[None], found[Usage.relative])
    assert found[None][0] > 9
    assert decay(found[None], 1.0, 4.0)[0] < 0.01
    assert (found[Usage.absolute] == 0).all()


@pytest.mark.parametrize("arch", ["cnn", "sew", "convmixer"])
def test_every_layer_has_a_clock_that_eval_mode_leaves_alone(arch: str, net, bench) -> None:
    b = bench(net(arch), [UseItOrLoseIt(r0=0.9)]).train(3)
    layers = [m for m in b.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    clocks = [m.use_clock.q for m in layers]
    assert [len(q) for q in clocks] == [m.in_channels if isinstance(m, nn.Conv2d) else m.in_features for m in layers]
    assert any((q > 0).any() for q in clocks)
    before = [q.clone() for q in clocks]
    b.evaluate()
    assert all(torch.equal(q, p) for q, p in zip(clocks, before, strict=True))


def test_clocks_count_training_steps_of_a_dead_layer(net, bench) -> None:
    model = net()
    model.spikings[0].register_forward_pre_hook(lambda _, x: (x[0] - 1e3,))
    b = bench(model, [UseItOrLoseIt(tau=2.0)]).train(4)
    assert b.model.convs[0].conv.use_clock.q.tolist() == [0.0, 0.0]  # the image
    assert b.model.convs[1].conv.use_clock.q.tolist() == [4.0] * 4
    torch.testing.assert_close(
        b.model.convs[1].conv.weight, b.model.convs[1].conv.parametrizations.weight.original * math.exp(-4.0)
    )


@pytest.mark.parametrize("scope", list(Scope))
def test_bake_equals_the_frozen_effective_weights(scope: Scope, net, bench) -> None:
    reg = UseItOrLoseIt(r0=0.9, tau=2.0, scope=scope)
    b = bench(net("sew"), [reg]).train(4)
    frozen = {n: m.weight.detach().clone() for n, m in b.model.named_modules() if hasattr(m, "use_clock")}
    logits = b.evaluate()
    reg.bake(b.model)
    plain = net("sew")
    plain.load_state_dict(b.model.state_dict())  # strict: nothing of the method is left
    for name, weight in frozen.items():
        assert torch.equal(plain.get_submodule(name).weight, weight)
    assert torch.equal(bench(plain, []).evaluate(), logits)
    assert not any(parametrize.is_parametrized(m) for m in b.model.modules())


def test_decays_do_something_here_and_copies_are_independent(net, bench) -> None:
    b = bench(net(), [UseItOrLoseIt(r0=0.9, tau=2.0, usage=Usage.absolute)]).train(2)
    twin = copy.deepcopy(b.model)
    before = twin.convs[1].conv.use_clock.q.clone()
    weight = twin.convs[1].conv.weight.detach().clone()
    b.train(2, first=2)
    assert torch.equal(twin.convs[1].conv.use_clock.q, before)
    assert torch.equal(twin.convs[1].conv.weight, weight)
    assert not torch.equal(b.model.convs[1].conv.use_clock.q, before)
    assert not torch.equal(weight, twin.convs[1].conv.parametrizations.weight.original)
    twin(b.x)  # the copy's hooks drive the copy's clock
    assert not torch.equal(twin.convs[1].conv.use_clock.q, before)


def test_clocks_stay_float32_in_mixed_precision(net, bench) -> None:
    b = bench(net(), [UseItOrLoseIt(r0=0.9, scope=Scope.synapse)])
    with torch.autocast("cpu", torch.bfloat16):
        b.train(3)
    for module in b.model.modules():
        if hasattr(module, "use_clock"):
            assert module.use_clock.q.dtype == torch.float32
    assert all(p.grad is not None for p in b.model.parameters())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"k_p": -1.0}, r"^reg\.uselose\.k_p is -1, it must be"),
        ({"tau": 0.0}, r"^reg\.uselose\.tau is 0, it must be a finite number above 0$"),
        ({"tau": math.nan}, r"^reg\.uselose\.tau is nan, "),
        ({"r0": 0.0}, r"^reg\.uselose\.r0 is 0, "),
        ({"weight": -0.5}, r"^reg\.uselose\.weight is -0\.5, "),
        ({"form": Form.literal, "detach_clock": False}, r"^reg\.uselose\.detach_clock is false, but form=literal"),
    ],
)
def test_bad_input(kwargs: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        UseItOrLoseIt(**kwargs)
