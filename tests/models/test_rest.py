"""Networks start from rest, whoever runs them; layers that a user brings are taken in, or refused in a line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from bench import ops
from bench.activity import RateMeter, activity_of
from bench.errors import BenchError
from bench.models.base import Spec, SpikingNetwork
from bench.neurons import NeuronConfig
from bench.ops import Backend, ConvNorm, fire_block
from bench.registry import MODELS
from bench.regularizers.dropout import Dropout

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": 4, "depth": 2},
    "sew": {"channels": 4, "depth": 2, "blocks": 1},
    "convmixer": {"width": 8, "depth": 1, "kernel": 3, "patch": 2},
    "mlp": {"hidden": [20]},
    "srm": {"hidden": 20},
    "diet": {"convs": [4, 0], "hidden": [8], "twin": "none"},
    "diehl_cook": {"present": 20.0, "pause": 10.0, "neurons": 6},
}


def small(name: str) -> SpikingNetwork:
    torch.manual_seed(0)
    kind = NeuronConfig("lif" if name == "diehl_cook" else "if")
    return MODELS.get(name)(Spec((1, 16, 16), 3, 4, kind), **SMALL[name])


@pytest.mark.parametrize("backend", [Backend.auto, Backend.reference])
@pytest.mark.parametrize("name", MODELS.names())
def test_the_same_images_get_the_same_answer(name: str, backend: Backend) -> None:
    net, x = small(name).eval(), torch.rand(8, 1, 16, 16)
    with ops.using(backend), torch.no_grad():
        first = net(x)
        net(torch.rand(8, 1, 16, 16))
        assert torch.equal(net(x), first)


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.get(name).learning == "gradient"])
def test_a_plain_training_loop_is_one_with_resets(name: str) -> None:
    """Without a word of resets: the second step already died of a graph that had been freed."""
    x, y = torch.rand(6, 1, 16, 16), torch.arange(6) % 3
    ends = []
    for forgets in (False, True):
        net = small(name)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(4):
            if forgets:
                net.forget()
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        ends.append(net.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def test_remembering_is_asked_for() -> None:
    """Two halves of a current that each stay below the threshold fire together; from rest neither does."""
    net = Plain(time_steps=1)
    x = torch.full((1, 1, 2, 2), 0.6)
    for _ in range(3):
        net(x)
        assert float(activity_of(net)["lif"].spikes.sum()) == 0
    net.forget()
    with net.remembering():
        net(x)
        net(x)
        assert float(activity_of(net)["lif"].spikes.sum()) == 4
    net(x)
    assert float(activity_of(net)["lif"].spikes.sum()) == 0


class Plain(SpikingNetwork):
    """A user's network around one SpikingJelly node."""

    def __init__(self, node: nn.Module | None = None, time_steps: int = 4) -> None:
        super().__init__(Spec((1, 2, 2), 2, time_steps))
        self.lif = neuron.IFNode(surrogate_function=surrogate.ATan(), step_mode="m") if node is None else node
        self.head = nn.Linear(4, 2)

    def features(self, x: Tensor) -> Tensor:
        return self.lif(x.flatten(1).unsqueeze(0).repeat(self.time_steps, 1, 1))


def test_a_spikingjelly_neuron_is_reset_counted_and_regularized() -> None:
    """0.6 a step for four steps: potentials .6 1.2 .6 1.2, so two spikes of four; as SpikingJelly itself has it."""
    net, x = Plain(), torch.full((3, 1, 2, 2), 0.6)
    for _ in range(2):
        net(x)
        meter = RateMeter()
        meter.update(activity_of(net))
        assert meter.rates() == {"lif": 0.5}
    node = neuron.IFNode(step_mode="m")
    theirs = node(x.flatten(1).unsqueeze(0).repeat(4, 1, 1))
    functional.reset_net(node)
    assert torch.equal(activity_of(net)["lif"].spikes, theirs)
    Dropout(1.0).attach(net)
    net(x)
    assert float(activity_of(net)["lif"].spikes.sum()) == 0, "the current is dropped in front of the neuron"


def test_what_else_keeps_a_state_is_reset_too() -> None:
    """SpikingJelly's dropout keeps its mask until it is reset."""
    net = Plain(nn.Sequential(layer.Dropout(0.5, step_mode="m"), neuron.IFNode(step_mode="m")))
    x = torch.ones(64, 1, 2, 2)
    masks = []
    for _ in range(2):
        net(x)
        masks.append(activity_of(net)["lif.1"].spikes[0].detach().clone())
    assert not torch.equal(*masks)


class Leaky(nn.Module):
    """Stands for another package's neuron."""


Leaky.__module__ = "snntorch._neurons.leaky"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (neuron.LIFNode(), r"^the layer 'lif' is a SpikingJelly LIFNode in single-step mode, .* step_mode='m'"),
        (nn.Sequential(nn.Identity(), Leaky()), r"^the layer 'lif\.1' is a Leaky of snntorch, which can be neither"),
    ],
)
def test_a_neuron_that_cannot_be_counted_is_one_line(node: nn.Module, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        Plain(node)(torch.ones(1, 1, 2, 2))


class Twice(SpikingNetwork):
    """One layer, used twice in a pass."""

    def __init__(self) -> None:
        super().__init__(Spec((2, 4, 4), 2, 3))
        self.conv, self.layer = ConvNorm(2, 2, 3), self.spiking()
        self.head = nn.Linear(32, 2)

    def features(self, x: Tensor) -> Tensor:
        x = fire_block(self.conv, self.layer, x, repeat=True)
        x = fire_block(self.conv, self.layer, x)
        return x.flatten(1).unflatten(0, (3, -1))


@pytest.mark.parametrize("backend", [Backend.auto, Backend.reference])
def test_a_layer_used_twice_starts_from_rest_twice_and_counts_twice(backend: Backend) -> None:
    torch.manual_seed(0)
    net = Twice()
    x = 3 * torch.randn(5, 2, 4, 4)
    with ops.using(backend):
        net(x)
        seen = {name: use.spikes.detach().clone() for name, use in activity_of(net).items()}
        assert list(seen) == ["layer", "layer#2"]
        # Each use by itself, from rest.
        net.forget()
        first = fire_block(net.conv.eval(), net.layer, x, repeat=True)
    assert seen["layer"].shape == (3, 5, 2, 4, 4)
    assert first.shape == (15, 2, 4, 4)


def test_two_uses_by_hand() -> None:
    """Half a threshold a step: each use fires at its second step; going on, the second would fire at its first."""
    net = Plain(time_steps=2)
    net.forget()
    half = torch.full((2, 1, 4), 0.5)
    outs = [net.lif(half), net.lif(half)]
    assert [out.detach()[:, 0, 0].tolist() for out in outs] == [[0.0, 1.0], [0.0, 1.0]]
    assert [float(use.spikes.sum()) for use in activity_of(net).values()] == [4.0, 4.0]
    half = torch.full((1, 1, 4), 0.5)
    net = Plain(time_steps=1)
    net.forget()
    assert [float(net.lif(half).sum()) for _ in range(2)] == [0.0, 0.0]
