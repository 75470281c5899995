"""What every registered network promises, and the numbers of the papers' networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bench.activity import activity_of
from bench.errors import BenchError
from bench.models.base import Spec
from bench.neurons import SPIKES, NeuronConfig, Read, Spiking
from bench.registry import MODELS

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": 8},
    "sew": {"channels": 8},
    "convmixer": {"width": 8, "depth": 2, "kernel": 3, "patch": 2},
    "mlp": {"hidden": [16, 8]},
    "diet": {"convs": [8, 0, 8, 0, 8, 0], "hidden": [16]},
    # Three steps are soon over: what fires late in them does not reach the output.
    "srm": {"tau": 1.0, "delays": [0]},
}


def make(name: str, neuron: str = "if", time_steps: int = 3, shape: tuple[int, int, int] = (1, 32, 32)) -> Any:
    torch.manual_seed(0)
    return MODELS.get(name)(Spec(shape, 7, time_steps, NeuronConfig(neuron)), **SMALL.get(name, {}))


# A network with a task of its own learns by other means than gradients through `features`.
@pytest.fixture(params=[name for name, cls in MODELS.items() if cls.learning == "gradient"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("time_steps", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_have_time_first(name: str, time_steps: int, channels: int) -> None:
    net = make(name, time_steps=time_steps, shape=(channels, 32, 32))
    features = net.features(torch.randn(2, channels, 32, 32))
    assert features.shape == (time_steps, 2, net.head.in_features)
    net.forget()
    assert net(torch.randn(2, channels, 32, 32)).shape == (2, 7)


def test_forgetting_is_all_it_takes_to_start_anew(name: str) -> None:
    net = make(name).eval()
    x = torch.randn(2, 1, 32, 32)
    with net.remembering():
        first = net(x)
        leaked = net(x)
        net.forget()
        assert torch.equal(net(x), first)
    assert not torch.equal(leaked, first), "going on, the potential of the last batch must show"


def test_every_spiking_layer_is_in_the_activity_and_binary(name: str) -> None:
    net = make(name)
    net(torch.randn(2, 1, 32, 32))
    activity = activity_of(net)
    assert len(activity) == sum(isinstance(m, Spiking) for m in net.modules()) > 0
    for layer in activity.values():
        assert layer.spikes.shape[:2] == (3, 2)
        assert ((layer.spikes == 0) | (layer.spikes == 1)).all()
        assert layer.spikes.requires_grad
    net.forget()
    assert activity_of(net) == {}


def test_every_parameter_learns(name: str) -> None:
    net = make(name)
    net(torch.randn(4, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_stem_sees_each_image_once(name: str) -> None:
    net = make(name)
    if net.spiking_input:
        pytest.skip("spikes that arrive at every step have no static stem")
    batches: list[int] = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not net.head:
            module.register_forward_pre_hook(lambda m, args: batches.append(len(args[0])))
    net(torch.randn(2, 1, 32, 32))
    assert batches[0] == 2
    assert set(batches[1:]) == {3 * 2}


def test_relu_twin_has_the_same_shape_and_no_time(name: str) -> None:
    spiking, twin = make(name), make(name, "relu")
    # Scalars are the neurons' own: leaks and thresholds that are trained.
    assert [p.shape for p in spiking.parameters() if p.ndim] == [p.shape for p in twin.parameters()]
    assert twin.features(torch.randn(2, 1, 32, 32)).shape[0] == 1
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(twin(x), twin(x))


def test_bf16_keeps_the_potential_in_float32(name: str) -> None:
    net = make(name)
    seen = []
    for _, layer in net.spiking_layers():
        layer.neuron.register_forward_pre_hook(lambda m, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(2, 1, 32, 32)).float().sum().backward()
    assert set(seen) == {torch.float32}


def test_neurons_of_the_thesis_cnn() -> None:
    """nandan2022: 174,080 neurons, 131,072 of them in the first layer."""
    net = MODELS.get("cnn")(Spec((3, 32, 32), 10, 1))
    net(torch.randn(1, 3, 32, 32))
    sizes = [layer.spikes[0, 0].numel() for layer in activity_of(net).values()]
    assert sizes == [131072, 32768, 8192, 2048]


def test_layers_of_the_thesis_sew_resnet() -> None:
    """Ten blocks of two convolutions after the stem; 32 pixels halved five times leave one."""
    net = MODELS.get("sew")(Spec((3, 32, 32), 10), channels=32)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 21
    assert net.head.in_features == 32


def test_parameters_of_the_thesis_convmixer() -> None:
    """256/8, patch 1, kernel 9, every convolution with bias and batch norm, counted by hand."""
    net = MODELS.get("convmixer")(Spec((3, 32, 32), 10))
    stem = 3 * 256 + 256 + 512
    block = (81 * 256 + 256 + 512) + (256 * 256 + 256 + 512)
    assert sum(p.numel() for p in net.parameters()) == stem + 8 * block + 2570


@pytest.mark.parametrize(
    ("model", "knobs", "message"),
    [
        ("cnn", {"depth": 6}, r"model.depth=6 .* 32x32 can be halved 5 times"),
        ("cnn", {"channels": 0}, r"model.channels is 0"),
        ("sew", {"depth": 6}, r"model.depth=6"),
        ("sew", {"blocks": -1}, r"model.blocks is -1"),
        ("convmixer", {"patch": 3}, r"model.patch=3 does not divide .* 1, 2, 4, 8, 16, 32"),
        ("convmixer", {"kernel": 4}, r"model.kernel is 4, it must be odd: 3 or 5"),
    ],
)
def test_knobs_that_do_not_fit(model: str, knobs: dict[str, int], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        MODELS.get(model)(Spec((3, 32, 32), 10), **knobs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NeuronConfig("iff"), "no spiking neuron is called 'iff'. Did you mean 'if'"),
        (NeuronConfig("lif", tau=1.0), "neuron.tau is 1"),
        (NeuronConfig("if", v_threshold=0.0), "neuron.v_threshold is 0"),
        (NeuronConfig("if", v_reset=1.0), "neuron.v_reset is 1"),
        (NeuronConfig("if", alpha=-1.0), "neuron.alpha is -1"),
    ],
)
def test_neurons_that_make_no_sense(config: NeuronConfig, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Spiking(config, 4)


def test_zero_time_steps() -> None:
    with pytest.raises(BenchError, match="time_steps is 0"):
        MODELS.get("cnn")(Spec((3, 32, 32), 10, 0))


def test_if_neuron_by_hand() -> None:
    """Currents 0.6 each step: potential 0.6, 1.2 (spike, reset to 0), 0.6, 1.2 (spike)."""
    hard = Spiking(NeuronConfig("if"), 4)
    assert hard(torch.full((4, 1), 0.6)).flatten().tolist() == [0, 1, 0, 1]
    # Soft reset keeps the 0.2 above the threshold: 0.6, 1.2 -> 0.2, 0.8, 1.4.
    soft = Spiking(NeuronConfig("if", v_reset=None), 4)
    assert soft(torch.full((4, 1), 0.6)).flatten().tolist() == [0, 1, 0, 1]
    assert soft.neuron.v.item() == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("reset", [0.0, None])
@pytest.mark.parametrize("decay_input", [True, False])
def test_kept_potential_is_the_one_that_was_compared_with_the_threshold(
    kind: str, reset: float | None, decay_input: bool
) -> None:
    torch.manual_seed(1)
    layer = Spiking(NeuronConfig(kind, v_reset=reset, decay_input=decay_input, tau=3.0), 6)
    layer.reads = SPIKES | {Read.potential}
    x = torch.randn(6 * 50) + 0.5
    spikes = layer(x).view(6, 50)
    assert torch.equal(spikes, (layer.potential >= 1.0).float())
    assert 0.05 < spikes.mean() < 0.95
