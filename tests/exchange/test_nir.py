"""NIR's files say what the network computes: read by SpikingJelly, Norse and snnTorch, and by its own definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based.nir_exchange.from_nir import import_from_nir
from torch import Tensor, nn
from torch.nn import functional as F

import bench
from bench.errors import BenchError
from bench.exchange.graph import follow
from bench.exchange.to_nir import DT, dense, nir_graph, write_nir
from bench.models.base import SpikingNetwork
from bench.neurons import Read

nir = pytest.importorskip("nir")

MARGIN = 2e-6  # a potential nearer to the threshold may fire by one reader's rounding and not by another's
SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"depth": 2, "channels": 4, "pool": "avg"},
    "sew": {"depth": 2, "channels": 4, "blocks": 2, "pool": "avg"},
    "convmixer": {"width": 4, "depth": 1, "kernel": 3, "patch": 2},
    "mlp": {"hidden": [12, 8]},
}


def lively(name: str, images: Tensor, neuron: str = "if", **arguments: Any) -> SpikingNetwork:
    """A network of which every layer fires and whose norms do something, and no potential is at the threshold."""
    for seed in range(200):
        torch.manual_seed(seed)
        own = {**SMALL[name], **arguments}
        constants = {key: own.pop(key) for key in ("v_reset", "v_threshold", "tau", "decay_input") if key in own}
        network = bench.create_model(name, image_shape=(1, 8, 8), neuron={"name": neuron, **constants}, **own)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 1.0, 3.0), (module.bias, 0.2, 1.0), (module.running_mean, -0.3, 0.3),
                    (module.running_var, 0.3, 1.5),
                ):  # fmt: skip
                    nn.init.uniform_(tensor, low, high)
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -0.3, 0.6)
        network.eval()
        for _, layer in network.spiking_layers():
            layer.reads = frozenset({Read.spikes, Read.potential})
        with torch.no_grad():
            network(images)
        layers = [layer for _, layer in network.spiking_layers()]
        gaps = [(layer.potential - layer.config.v_threshold).abs().min().item() for layer in layers]
        if min(gaps) > MARGIN and all(0 < layer.fired.mean() < 1 for layer in layers):
            return network
    raise AssertionError("no seed gives such a network")


def seen(network: SpikingNetwork, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Spike counts of each layer `[N]`, and logits of every step `[T, N, classes]`."""
    with torch.no_grad():
        logits = network.by_step(images)
    return {name: layer.fired.sum((0, *range(2, layer.fired.ndim))) for name, layer in network.spiking_layers()}, logits


@pytest.fixture
def images() -> Tensor:
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def written(network: SpikingNetwork, tmp_path: Path) -> Any:
    write_nir(tmp_path / "net.nir", follow(network))
    return nir.read(tmp_path / "net.nir")


def driven(module: nn.Module, graph: Any, x: Tensor, steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """T steps of a reader's module `(x, state) -> (y, state)`: sums of each neuron node's spikes, and the outputs."""
    names = {
        name.replace(".", "_"): node.metadata["layer"]
        for name, node in graph.nodes.items()
        if isinstance(node, nir.IF | nir.LIF)
    }
    counts = dict.fromkeys(names.values(), torch.zeros(()))

    def count(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            spikes = out[0] if isinstance(out, tuple) else out
            counts[name] = counts[name] + (spikes.flatten(1).sum(1) if x.ndim == 4 else spikes.sum())

        return hook

    handles = [module.get_submodule(name).register_forward_hook(count(layer)) for name, layer in names.items()]
    state, outputs = None, []
    with torch.no_grad():
        for _ in range(steps):
            out, state = module(x, state)
            outputs.append(out)
    for handle in handles:
        handle.remove()
    return counts, torch.stack(outputs)


def same(got: tuple[dict[str, Tensor], Tensor], expected: tuple[dict[str, Tensor], Tensor]) -> None:
    assert got[0].keys() == expected[0].keys()
    for name, counts in expected[0].items():
        assert torch.equal(got[0][name], counts), name
    assert torch.allclose(got[1], expected[1], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "neuron", "arguments"),
    [
        ("cnn", "if", {}),
        ("cnn", "if", {"v_threshold": 0.8, "v_reset": -0.2}),
        ("cnn", "lif", {"tau": 1.7}),
        ("cnn", "lif", {"tau": 3.0, "decay_input": False, "v_reset": -0.25}),
        ("cnn", "plif", {}),
        ("sew", "if", {}),
        ("convmixer", "if", {}),
        ("mlp", "lif", {}),
    ],
)
def test_spikingjelly_counts_the_same_spikes(
    name: str, neuron: str, arguments: dict[str, Any], images: Tensor, tmp_path: Path
) -> None:
    network = lively(name, images, neuron, **arguments)
    graph = written(network, tmp_path)
    same(driven(import_from_nir(graph), graph, images, network.time_steps), seen(network, images))


def one_by_one(
    module: Any, graph: Any, images: Tensor, steps: int, reset: Callable[[Any], Any] = id
) -> tuple[dict[str, Tensor], Tensor]:
    """For readers that take the file's axes as they are, without a batch."""
    each = []
    for image in images:
        reset(module)  # of neurons that keep their state themselves
        each.append(driven(module, graph, image, steps))
    counts = {name: torch.stack([counts[name] for counts, _ in each]) for name in each[0][0]}
    return counts, torch.stack([outputs.view(steps, -1) for _, outputs in each], 1)


@pytest.mark.parametrize("name", ["cnn", "sew"])
def test_norse_counts_the_same_spikes(name: str, images: Tensor, tmp_path: Path) -> None:
    """Norse's own loader knows no mean pooling, so NIRTorch, which does, builds the graph around Norse's neurons."""
    nirtorch = pytest.importorskip("nirtorch")
    build = pytest.importorskip("norse.torch.utils.import_nir")._import_norse_module
    network = lively(name, images)
    graph = written(network, tmp_path)
    kinds = (nir.IF, nir.LIF, nir.Affine)
    module = nirtorch.nir_to_torch(graph, dict.fromkeys(kinds, lambda node: build(node, ignore_warnings=True, dt=DT)))
    same(one_by_one(module, graph, images, network.time_steps), seen(network, images))


@pytest.mark.parametrize("name", ["cnn", "sew"])
def test_snntorch_counts_the_same_spikes(
    name: str, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LIF: its reader takes IF neurons for leaky ones."""
    reader = pytest.importorskip("snntorch.import_nir")
    network = lively(name, images, "lif")
    graph = written(network, tmp_path)
    module, reset = reader.import_from_nir(graph), pytest.importorskip("snntorch.utils").reset
    same(one_by_one(module, graph, images, network.time_steps, reset), seen(network, images))


class Definitions:
    """NIR's primitives by their definitions, one Euler step each; the reset is what the metadata says."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.dt = graph, float(graph.metadata["dt"])
        self.soft = graph.metadata["reset"] == "soft"
        self.v: dict[str, Tensor] = {}

    def step(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        values: dict[str, Tensor] = {}
        left = dict(self.graph.nodes)
        while left:
            for name, node in list(left.items()):
                before = [source for source, target in self.graph.edges if target == name]
                if all(source in values for source in before):
                    values[name] = self.value(name, node, sum(values[source] for source in before) if before else x)
                    del left[name]
        spikes = {
            node.metadata["layer"]: values[name]
            for name, node in self.graph.nodes.items()
            if isinstance(node, nir.IF | nir.LIF)
        }
        return spikes, values["output"]

    def value(self, name: str, node: Any, x: Any) -> Tensor:
        match node:
            case nir.Conv2d():
                weight, bias = torch.from_numpy(node.weight).double(), torch.from_numpy(node.bias).double()
                assert node.groups == 1
                return F.conv2d(x, weight, bias, tuple(node.stride), tuple(node.padding), tuple(node.dilation))
            case nir.Affine():
                return x @ torch.from_numpy(node.weight).double().T + torch.from_numpy(node.bias).double()
            case nir.AvgPool2d():
                return F.avg_pool2d(x, tuple(node.kernel_size), tuple(node.stride), tuple(node.padding))
            case nir.Flatten():
                return x.reshape(len(x), -1)
            case nir.IF() | nir.LIF():
                return self.fire(name, node, x)
        return x

    def fire(self, name: str, node: Any, x: Tensor) -> Tensor:
        v_reset, threshold, r = (
            torch.from_numpy(values).double() for values in (node.v_reset, node.v_threshold, node.r)
        )
        v = self.v.get(name, v_reset.expand_as(x))
        if isinstance(node, nir.LIF):
            tau, leak = torch.from_numpy(node.tau).double(), torch.from_numpy(node.v_leak).double()
            v = v + self.dt / tau * ((leak - v) + r * x)
        else:
            v = v + self.dt * r * x
        fired = (v >= threshold).double()
        self.v[name] = v - fired * threshold if self.soft else torch.where(fired == 1, v_reset, v)
        return fired


@pytest.mark.parametrize(
    ("name", "neuron", "arguments"),
    [
        ("cnn", "if", {"v_reset": None}),
        ("sew", "lif", {"v_reset": None, "tau": 1.5}),
        ("convmixer", "if", {}),
        ("mlp", "if", {"encoding": "poisson", "rate": 0.8}),
    ],
)
def test_by_its_definitions(name: str, neuron: str, arguments: dict[str, Any], images: Tensor, tmp_path: Path) -> None:
    images = images.abs().clamp(max=1)
    network = lively(name, images, neuron, **arguments)
    graph = written(network, tmp_path)
    reader = Definitions(graph)
    poisson = arguments.get("encoding") == "poisson"
    given = network.encode(images) if poisson else images.expand(network.time_steps, *images.shape)  # type: ignore[operator]
    steps = [reader.step(x.double()) for x in given]
    counts = {layer: sum(spikes[layer].flatten(1).sum(1) for spikes, _ in steps).float() for layer in steps[0][0]}
    outputs = torch.stack([out for _, out in steps]).float()
    same((counts, outputs), seen(network, images))
    said = graph.metadata
    assert said["reset"] == ("soft" if arguments.get("v_reset", 0) is None else "hard")
    assert (said["read"], said["time_steps"], said["dt"]) == ("mean", network.time_steps, DT)
    assert said["input"].startswith("spikes" if poisson else "the normalized image")
    assert "R = 1 / dt" in said["convention"]


def test_a_neuron_by_hand() -> None:
    network = bench.create_model(
        "mlp",
        image_shape=(1, 2, 2),
        hidden=[3],
        neuron={"name": "lif", "tau": 4.0, "decay_input": False, "v_reset": 0.5},
    )
    node = nir_graph(follow(network)).nodes["spikings_0"]
    assert isinstance(node, nir.LIF)
    for values, expected in ((node.tau, 4e-4), (node.r, 4.0), (node.v_leak, 0.5), (node.v_reset, 0.5)):
        assert values.shape == (3,)
        assert np.allclose(values, expected)


def test_groups_by_hand() -> None:
    """Two groups of two channels, 1x1: the block matrix of both."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]).view(4, 2, 1, 1)
    expected = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]])
    assert torch.equal(dense(weight, 2).view(4, 4), expected)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("cnn", {"pool": None}, "train with model.pool=avg"),
        ("cnn", {"pool": "max"}, "train with model.pool=avg"),
        ("sew", {"cnf": "IAND"}, "train with model.cnf=ADD"),
        ("sew", {"cnf": "AND"}, "train with model.cnf=ADD"),
    ],
)
def test_what_nir_cannot_say(name: str, arguments: dict[str, Any], said: str, tmp_path: Path) -> None:
    network = bench.create_model(name, image_shape=(1, 8, 8), **{**SMALL[name], **arguments})
    with pytest.raises(BenchError, match=said) as fault:
        write_nir(tmp_path / "net.nir", follow(network))
    assert "\n" not in str(fault.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reg", "arguments", "said"),
    [
        # Scales and statistics of each time step, which one step of a graph has no place for.
        ("temporalbn", {"form": "tebn"}, "time step|changes with"),
        ("temporalbn", {"form": "bntt"}, "time step|changes with"),
        ("mpbn", {}, "not at a common threshold"),
    ],
)
def test_what_regularizers_leave_that_no_format_can_say(
    reg: str, arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    network = bench.create_model("cnn", image_shape=(1, 8, 8), **SMALL["cnn"])
    bench.attach(network, reg, **arguments)
    network.train()
    for seed in range(3):
        torch.manual_seed(seed)
        network(torch.rand(4, 1, 8, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    with pytest.raises(BenchError, match=said) as fault:
        write_nir(tmp_path / "net.nir", follow(network.eval()))
    assert "\n" not in str(fault.value)
    assert list(tmp_path.iterdir()) == []


def test_a_hook_is_in_no_format(tmp_path: Path) -> None:
    network = bench.create_model("cnn", image_shape=(1, 8, 8), **SMALL["cnn"]).eval()
    network.convs[0].conv.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(BenchError, match=r"a hook changes what '.*conv' computes"):
        write_nir(tmp_path / "net.nir", follow(network))
    assert list(tmp_path.iterdir()) == []
