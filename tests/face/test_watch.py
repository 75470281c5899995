"""Spikes and operations counted by `bench.activity` are those of the record, or worked out by hand."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import bench
from bench.errors import BenchError


class Steps(nn.Module):
    """Two linear layers of two neurons whose spikes are known: a current of 0.5 fires at every second step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)
        self.fire = neuron.IFNode(step_mode="m")
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.fire(self.first(x)))


def test_a_plain_network_by_hand() -> None:
    """Neuron 1 sees 0.5, 0.5, 0.5, 0.5: it reaches 1 at steps 2 and 4. Neuron 2 sees nothing."""
    made = Steps()
    x = torch.tensor([0.5, 1.0]).expand(4, 1, 2)
    with bench.activity(made) as seen:
        made(x)
        made(x)
    assert seen.images == 2
    assert seen.rates == {"fire": 2 / 8}
    assert seen.rate == 0.25
    assert seen.layers == [{"name": "fire", "neurons": 2, "spike_rate": 0.25, "dead": 0.5, "saturated": 0.0}]
    # 2 spikes into 3 outputs; before any spike, 2 inputs x 2 outputs at each of 4 steps are multiplications.
    assert seen.synops == 2 * 3
    assert seen.operations["macs_per_image"] == 4 * 2 * 2
    assert seen.energy_uj == pytest.approx((6 * 0.9 + 16 * 4.6) * 1e-6)
    made(x)
    assert seen.images == 2, "what follows is not watched"


def test_a_network_of_the_suite_by_hand() -> None:
    """One spike a neuron and step into the head: 4 steps x 16 features x 3 classes SynOps."""
    network = bench.create_model("cnn", image_shape=(1, 4, 4), num_classes=3, channels=4, depth=1).eval()
    with torch.no_grad():
        network.convs[0].conv.weight.zero_()
        network.convs[0].norm.bias.fill_(1.5)
    with bench.activity(network) as seen:
        network(torch.zeros(2, 1, 4, 4))
    assert seen.rates == {"spikings.0": 1.0}
    assert seen.layers[0]["saturated"] == 1.0
    assert seen.synops == 4 * (4 * 2 * 2) * 3
    # The stem is computed once an image: 10 x 10 pairs of a pixel and a tap inside, for each of 4 channels.
    assert seen.operations["macs_per_image"] == 100 * 4
    assert "features" not in network.__dict__


def test_what_is_read_by_handles_stays_readable() -> None:
    network = bench.create_model("cnn", image_shape=(1, 8, 8), channels=4, depth=2)
    handle = bench.attach(network, "membrane")
    x = torch.randn(2, 1, 8, 8)
    network(x)
    before = handle.penalty().item()
    with bench.activity(network) as seen:
        network(x)
        assert handle.penalty().item() == pytest.approx(before)
    assert 0 < seen.rate < 1
    network(x)
    assert handle.penalty().item() == pytest.approx(before)


def test_the_twin_without_spikes_has_multiplications_only() -> None:
    network = bench.create_model("cnn", image_shape=(1, 8, 8), channels=4, depth=2, neuron="relu")
    with bench.activity(network) as seen:
        network(torch.randn(2, 1, 8, 8))
    assert seen.synops is None
    assert seen.operations["macs_per_image"] > 0  # type: ignore[operator]
    with pytest.raises(BenchError, match="no spikes to count"):
        print(seen.rate)


def test_bad_use_is_a_line() -> None:
    network = bench.create_model("cnn", image_shape=(1, 8, 8), channels=4, depth=2)
    with bench.activity(network) as seen:
        pass
    for entry in ("rates", "synops"):
        with pytest.raises(BenchError, match="call the network in it"):
            getattr(seen, entry)
    with pytest.raises(BenchError, match="has no spiking layer"), bench.activity(nn.Linear(2, 3)):
        pass
