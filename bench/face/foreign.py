"""A plain SpikingJelly network as one of the suite's: reset, counted and regularized."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.neurons import NeuronConfig, Spiking, adopt

UNKNOWN = "a network that is not the suite's does not say {what}: build it as a bench.models.base.SpikingNetwork"


class Plain:
    """What is known of a plain network, in place of a `Spec`; what is not, is a line.

    Args:
        layers: its spiking layers.
    """

    def __init__(self, layers: list[Spiking]) -> None:
        self.layers = layers

    @property
    def neuron(self) -> NeuronConfig:
        """Threshold and reset of all its neurons."""
        nodes = [layer.neuron for layer in self.layers]
        kinds = {(float(node.v_threshold), node.v_reset) for node in nodes}
        if len(kinds) != 1:
            raise BenchError("the method needs one threshold and reset of all layers, and the network's have several")
        ((threshold, reset),) = kinds
        return NeuronConfig(v_threshold=threshold, v_reset=reset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise BenchError(UNKNOWN.format(what=f"its {name.replace('_', ' ')}"))


class Foreign(SpikingNetwork):
    """A plain network of SpikingJelly's neurons in multi-step mode, seen as one of the suite's.

    Its nodes are put into spiking layers in place (`Adopted`), and each of its passes starts from rest.

    Args:
        network: the user's.
        time_steps: T, where something needs it before the first pass.

    Raises:
        BenchError: it has no spiking layers, or one that the suite can neither reset nor count.
    """

    def __init__(self, network: nn.Module, time_steps: int | None) -> None:
        nn.Module.__init__(self)
        self._remembers = False
        self._steps = time_steps
        self.network = network
        self._others = adopt(network, time_steps)
        layers = [layer for _, layer in self.spiking_layers()]
        if not layers:
            raise BenchError(
                f"a {type(network).__name__} has no spiking layer: take SpikingJelly's neurons with step_mode='m', or "
                "bench.create_model"
            )
        self.spec: Any = Plain(layers)
        network.register_forward_pre_hook(lambda *_: self.forget())

    def __getattr__(self, name: str) -> Any:
        if name == "time_steps":
            if self._steps is None:
                raise BenchError("T is not known before the network's first pass: give time_steps=T to bench.attach")
            return self._steps
        if name == "head":
            raise BenchError(UNKNOWN.format(what="which layer is its head"))
        return super().__getattr__(name)

    def features(self, x: Tensor) -> Tensor:
        """What the network makes of its own input."""
        return self.network(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def spiking_layers(self) -> Iterator[tuple[str, Spiking]]:
        for name, module in self.network.named_modules():
            if isinstance(module, Spiking):
                yield name, module
