"""Spike rates, dead and saturated neurons by hand; SynOps against loops and against NeuroBench."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.activity import LayerActivity, OpCounter, RateMeter, activity_of, fan_out, mean_of
from bench.errors import BenchError
from bench.models.base import Spec
from bench.models.cnn import CNN
from bench.models.sew import SEWResNet
from bench.neurons import NeuronConfig, Read


def test_rates_by_hand() -> None:
    """Layer a: 2 steps, 1 image, 4 neurons, 3 spikes. Layer b: 2 steps, 1 image, 1 neuron, 2 spikes."""
    a = torch.tensor([[[1.0, 0, 0, 0]], [[1, 1, 0, 0]]])
    b = torch.tensor([[[1.0]], [[1.0]]])
    meter = RateMeter(per_neuron=True)
    meter.update({"a": LayerActivity(a), "b": LayerActivity(b)})
    assert meter.rates() == {"a": 3 / 8, "b": 1.0}
    assert meter.global_rate() == 5 / 10
    assert meter.layer_mean() == (3 / 8 + 1) / 2
    assert meter.layers() == [
        {"name": "a", "neurons": 4, "spike_rate": 3 / 8, "dead": 0.5, "saturated": 0.25},
        {"name": "b", "neurons": 1, "spike_rate": 1.0, "dead": 0.0, "saturated": 1.0},
    ]
    # A second batch in which every neuron of a fires once, and b never.
    meter.update({"a": LayerActivity(torch.eye(4)[:, None]), "b": LayerActivity(torch.zeros(2, 1, 1))})
    assert [layer["dead"] for layer in meter.layers()] == [0.0, 0.0]
    assert [layer["saturated"] for layer in meter.layers()] == [0.0, 0.0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dead_and_saturated_neurons_over_steps_and_images(layout: torch.memory_format) -> None:
    """2 steps, 3 images, 2 x 2 x 3 neurons: three never fire, one always does, and eight do now and then.

    Every step of every image has a silent neuron and a firing one, so that neither extreme is to be had along another
    axis than those of time and images.
    """
    spikes = torch.zeros(2, 3, 2, 2, 3)
    spikes[0, :, 0, 0] = 1.0  # at the first step of every image
    spikes[1, 2, 0, 1] = 1.0  # once, at the last step of the last image
    spikes[:, :2, 1, 0, 1:] = 1.0  # at every step of two images of three
    spikes[:, :, 1, 1, 2] = 1.0  # always
    spikes = spikes.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, (2, 3))
    meter = RateMeter(per_neuron=True)
    meter.update({"a": LayerActivity(spikes)})
    ever = [[[1, 1, 1], [1, 1, 1]], [[0, 1, 1], [0, 0, 1]]]
    always = [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]]
    assert meter.ever["a"].int().tolist() == ever
    assert meter.always["a"].int().tolist() == always
    # 3 x 3 + 3 + 2 x 2 x 2 + 6 spikes of 2 x 3 x 12.
    assert meter.layers() == [
        {"name": "a", "neurons": 12, "spike_rate": 26 / 72, "dead": pytest.approx(3 / 12), "saturated": 1 / 12}
    ]


def test_several_batches_of_several_images() -> None:
    """Two neurons over 2 steps: 3 of 12 spikes in a batch of three images, 1 of 4 in one of one; nobody fires twice."""
    meter = RateMeter(per_neuron=True)
    batch = torch.zeros(2, 3, 2)
    batch[0, :, 0] = 1.0
    meter.update({"a": LayerActivity(batch)})
    assert (meter.images, meter.rates(), meter.global_rate()) == (3, {"a": 3 / 12}, 3 / 12)
    meter.update({"a": LayerActivity(torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))})
    assert (meter.images, meter.rates(), meter.global_rate()) == (4, {"a": 4 / 16}, 4 / 16)
    (row,) = meter.layers()
    assert (row["neurons"], row["dead"], row["saturated"]) == (2, 0.0, 0.0)
    # Nothing is kept of single neurons unless it was asked for.
    plain = RateMeter()
    plain.update({"a": LayerActivity(batch)})
    assert plain.layers() == [{"name": "a", "neurons": 2, "spike_rate": 3 / 12, "dead": None, "saturated": None}]


def test_rates_count_on_past_what_bfloat16_can() -> None:
    meter = RateMeter()
    meter.update({"a": LayerActivity(torch.ones(2, 300, 1001, dtype=torch.bfloat16))})
    assert meter.rates()["a"] == 1.0


# T = 2, N = 2 images, C = 2 channels of 2 neurons: 5 spikes of 16.
SEEN = torch.tensor(
    [[[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]], [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]]
)


def test_what_follows_from_spikes_by_hand() -> None:
    layer = LayerActivity(SEEN)
    assert layer.size == (2, 2, 2, 2)
    assert layer.rate.item() == layer.squared_rate.item() == 5 / 16
    for rates in (layer.channel_rates, layer.squared_channel_rates):
        assert rates.tolist() == [[2 / 4, 1 / 4], [2 / 4, 0.0]]
    for counts in (layer.neuron_counts, layer.squared_neuron_counts):
        assert counts.tolist() == [[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]
    assert layer.spikes is SEEN


def test_a_square_has_no_gradient_where_a_neuron_is_silent() -> None:
    for read, at_spike, silent in (("rate", 1 / 16, 1 / 16), ("squared_rate", 2 / 16, 0.0)):
        spikes = SEEN.clone().requires_grad_()
        (slope,) = torch.autograd.grad(getattr(LayerActivity(spikes), read), spikes)
        assert torch.equal(slope, torch.where(SEEN == 1, at_spike, silent))


def test_what_was_not_kept_is_a_line_that_says_where_to_ask_for_it() -> None:
    layer = LayerActivity(sums={Read.rate: torch.tensor(0.25)}, shape=torch.Size((4, 2, 8)))
    assert layer.rate == 0.25
    assert layer.size == (4, 2, 8)
    for read in set(Read) - {Read.rate}:
        with pytest.raises(BenchError) as caught:
            getattr(layer, read)
        assert str(caught.value) == f"layer.{read} was not kept in this pass: have it in the spiking layers' `reads`"


@pytest.mark.parametrize("shape", [(2, 3, 5, 31, 33), (4, 3, 5, 70, 33), (3, 70_001), (2, 90_000, 1), (7,)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_mean_by_pieces_is_the_mean(shape: tuple[int, ...], channels_last: bool) -> None:
    """Of a function with a kink, whose slope follows from each value; beyond one piece, and with one left over."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    if channels_last and len(shape) == 5:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    leaf = x.requires_grad_()
    value = mean_of(lambda u: (1 - (u - 0.5).abs()).relu().square(), leaf)
    (3 * value).backward()
    near = (1 - (x.detach() - 0.5).abs()).clamp(min=0)
    assert value.item() == pytest.approx(near.square().mean().item(), rel=1e-12)
    torch.testing.assert_close(leaf.grad, 3 * -2 * near * (x.detach() - 0.5).sign() / x.numel())


def test_a_mean_by_pieces_keeps_one_slope_a_value() -> None:
    """Where torch would keep each step of f, so that potentials do not cost several times their memory."""
    x = torch.zeros(2, 200_000, requires_grad=True)
    mean = mean_of(lambda u: (u * 2).exp().square().sigmoid(), x)
    assert mean.grad_fn is not None
    assert [kept.shape for kept in mean.grad_fn.saved_tensors] == [x.shape]  # type: ignore[attr-defined]


def test_a_mean_without_a_graph_or_of_values_apart_in_memory() -> None:
    x = torch.arange(400_000.0).view(2, -1)
    assert mean_of(torch.square, x).requires_grad is False
    every_other = x.double().requires_grad_()
    mean_of(torch.square, every_other[:, ::2]).backward()
    assert every_other.grad is not None
    assert every_other.grad[0, :4].tolist() == pytest.approx([0.0, 0.0, 2 * 2 / 200_000, 0.0])


def test_a_regularizer_sees_what_it_declares_alone() -> None:
    """Though another one has asked for more, so that it works by itself as it does beside others."""
    whole = LayerActivity(SEEN, SEEN - 0.5)
    layer = whole.shown_to("mine", frozenset({Read.channel_rates, Read.potential}))
    assert layer.channel_rates.shape == (2, 2)
    assert torch.equal(layer.potential, SEEN - 0.5)
    for read in set(Read) - {Read.channel_rates, Read.potential}:
        with pytest.raises(BenchError) as caught:
            getattr(layer, read)
        said = (
            f"regularizer 'mine': a hook reads layer.{read}, which it does not declare; add \"{read}\" to its `reads`"
        )
        assert str(caught.value) == said
    assert whole.spikes is SEEN


def test_counts_by_neuron_tell_all_that_the_meter_wants() -> None:
    spikes = (torch.rand(3, 5, 4, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    spikes[:, :, 0], spikes[:, :, 1] = 0.0, 1.0
    by_spikes, by_counts = RateMeter(per_neuron=True), RateMeter(per_neuron=True)
    assert by_counts.reads == {Read.neuron_counts}
    assert RateMeter().reads == set()
    by_spikes.update({"a": LayerActivity(spikes)})
    by_counts.update({"a": LayerActivity(sums={Read.neuron_counts: spikes.sum(0)}, shape=spikes.shape)})
    (row,) = by_spikes.layers()
    assert by_counts.layers() == [row]
    assert (row["dead"], row["saturated"]) == (0.25, 0.25)


def paths_by_loops(layer: nn.Conv2d, height: int, width: int) -> Tensor:
    """How many (output position, output channel) pairs each input position reaches, one by one."""
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel_size, layer.stride, layer.padding
    out_h, out_w = (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1
    paths = torch.zeros(height, width)
    for oy, ox, ky, kx in itertools.product(range(out_h), range(out_w), range(kh), range(kw)):
        y, x = oy * sh + ky - ph, ox * sw + kx - pw
        if 0 <= y < height and 0 <= x < width:
            paths[y, x] += layer.out_channels // layer.groups
    return paths


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2, 4]),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
)
def test_fan_out_of_a_convolution(kernel: int, stride: int, padding: int, groups: int, size: tuple[int, int]) -> None:
    conv = nn.Conv2d(4, 8, kernel, stride=stride, padding=padding, groups=groups)
    fan = fan_out(conv, torch.Size([5, 4, *size]))
    assert torch.equal(fan, paths_by_loops(conv, *size).double().expand(4, -1, -1))


class Counted(CNN):
    """A CNN whose layer inputs are kept, to count them by other means."""

    def __init__(self, spec: Spec, **knobs: int) -> None:
        super().__init__(spec, **knobs)
        self.inputs: dict[str, Tensor] = {}
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(lambda m, args, name=name: self.inputs.update({name: args[0]}))


def lively(net: CNN | SEWResNet) -> CNN | SEWResNet:
    """With the default weights an untrained network in eval mode is silent after the first layers."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
            nn.init.constant_(module.bias, 0.7)
    return net


def count(net: CNN | SEWResNet, x: Tensor) -> tuple[OpCounter, Tensor]:
    counter = OpCounter(net)
    net.forget()
    with torch.no_grad(), counter.attached():
        features = net.features(x)
    counter.batch(features)
    return counter, features


def test_synops_of_a_cnn_by_loops() -> None:
    torch.manual_seed(0)
    net = Counted(Spec((1, 8, 8), 10, 3), channels=4, depth=2).eval()
    nn.init.constant_(net.convs[1].norm.bias, 0.5)
    counter, features = count(net, torch.randn(2, 1, 8, 8))
    conv = net.convs[1].conv
    spikes = net.inputs["convs.1.conv"]
    by_hand = (spikes.sum((0, 1)) * paths_by_loops(conv, 4, 4)).sum() + 10 * features.sum()
    found = counter.per_image()
    assert found["synops_per_image"] == by_hand.item() / 2 > 0
    # The stem, once: 9 taps inside, 6 on an edge, 4 in a corner, for each of 4 output channels.
    assert found["macs_per_image"] == 4 * (36 * 9 + 24 * 6 + 4 * 4)
    assert found["synops_nonbinary_per_image"] == 0
    expected = by_hand.item() / 2 * 0.9e-6 + found["macs_per_image"] * 4.6e-6
    assert found["energy_uj"] == pytest.approx(expected)


def test_added_spikes_are_events_and_reported_apart() -> None:
    torch.manual_seed(0)
    net = lively(SEWResNet(Spec((1, 8, 8), 10, 2), channels=4, depth=1).eval())
    inputs: list[tuple[nn.Module, Tensor]] = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module is not net.stem.conv:
            module.register_forward_pre_hook(lambda m, args: inputs.append((m, args[0])))
    counter, features = count(net, 3 * torch.randn(3, 1, 8, 8))
    events = sum(((x != 0).sum((0, 1)) * paths_by_loops(m, 8, 8)).sum().item() for m, x in inputs)
    graded = sum(((x > 1).sum((0, 1)) * paths_by_loops(m, 8, 8)).sum().item() for m, x in inputs)
    head_events = 10 * (features != 0).sum().item()
    head_graded = 10 * (features > 1).sum().item()
    found = counter.per_image()
    assert found["synops_per_image"] == (events + head_events) / 3
    assert found["synops_nonbinary_per_image"] == (graded + head_graded) / 3 > 0
    # A spike is an accumulation, a sum of spikes a multiplication, like the stem's pixels.
    spikes, sums = events + head_events - graded - head_graded, graded + head_graded
    assert found["energy_uj"] == pytest.approx((0.9 * spikes / 3 + 4.6 * (sums / 3 + found["macs_per_image"])) * 1e-6)


def test_relu_twin_has_macs_only() -> None:
    net = CNN(Spec((1, 8, 8), 10, 4, NeuronConfig("relu")), channels=4, depth=2).eval()
    counter, _ = count(net, torch.randn(2, 1, 8, 8))
    found = counter.per_image()
    conv2 = 4 * 4 * (4 * 9 + 8 * 6 + 4 * 4)
    assert found["macs_per_image"] == 4 * (36 * 9 + 24 * 6 + 4 * 4) + conv2 + 10 * 16
    assert found["synops_per_image"] is None
    assert count(net, torch.randn(2, 1, 8, 8))[0].synops == 0


def test_synops_agree_with_neurobench() -> None:
    """With T = 1 the head is fed spikes as well, so NeuroBench sees every layer as we do."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    net = CNN(Spec((3, 16, 16), 10, 1), channels=6, depth=3).eval()
    lively(net)
    x = torch.rand(4, 3, 16, 16) + 0.1
    counter, _ = count(net, x)
    assert activity_of(net)["spikings.2"].spikes.sum() > 0

    class Fresh(nn.Module):
        """NeuroBench knows nothing of resets."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Tensor) -> Tensor:
            self.net.forget()
            return self.net(images)

    loader = DataLoader(TensorDataset(x, torch.zeros(4, dtype=torch.long)), batch_size=4)
    benchmark = Benchmark(TorchModel(Fresh()), loader, [], [], [[], [SynapticOperations]])
    theirs = benchmark.run(quiet=True)["SynapticOperations"]
    ours = counter.per_image()
    assert ours["synops_per_image"] == pytest.approx(theirs["Effective_ACs"], rel=1e-6)
    assert ours["macs_per_image"] == pytest.approx(theirs["Effective_MACs"], rel=1e-6)
