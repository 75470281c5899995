"""Neurons that a user's network brings, taken in as spiking layers of the suite, or refused in a line."""

from __future__ import annotations

from spikingjelly.activation_based import base, neuron
from torch import Tensor, nn

from bench.errors import BenchError
from bench.neurons.config import NeuronConfig
from bench.neurons.layer import Spiking
from bench.neurons.reads import Read

STRANGERS = ("snntorch.", "norse.")
"""Packages whose neurons keep their state in another way."""


class Adopted(Spiking):
    """A SpikingJelly node in multi-step mode as a spiking layer: it is reset, counted and has both slots.

    Shapes: `[T, N, ...]` in and out, as the node has them.

    Args:
        node: the node.
        time_steps: T; None takes it from each pass.
    """

    _steps: int | None

    def __init__(self, node: neuron.BaseNode, time_steps: int | None) -> None:
        # By this name the kernels know that the layer is none of theirs.
        super().__init__(NeuronConfig(name=type(node).__name__), time_steps, node)
        self.follows = time_steps is None

    @property
    def time_steps(self) -> int:
        """T.

        Raises:
            BenchError: it is to be taken from a pass, and there has been none.
        """
        if self._steps is None:
            raise BenchError("T is not known before the network's first pass: give time_steps=T")
        return self._steps

    @time_steps.setter
    def time_steps(self, steps: int | None) -> None:
        self._steps = steps

    def forward(self, x: Tensor) -> Tensor:
        if self.follows:
            self.time_steps = x.shape[0]
        if x.shape[0] != self.time_steps:
            raise BenchError(
                f"a {self.config.name} got {x.shape[0]} time steps, the network has {self.time_steps}; "
                "its input must be [T, N, ...]"
            )
        return self.fire(self.current(x.flatten(0, 1))).unflatten(0, (self.time_steps, -1))

    def _fire(self, x: Tensor) -> Tensor:
        known = isinstance(self.neuron, neuron.IFNode | neuron.LIFNode | neuron.ParametricLIFNode)
        if Read.potential in self.reads and not known:
            raise BenchError(
                f"a regularizer reads membrane potentials, and those of a {self.config.name} before it fires are not "
                "known; take IFNode, LIFNode or ParametricLIFNode"
            )
        return super()._fire(x)


def adopt(network: nn.Module, time_steps: int | None) -> list[base.MemoryModule]:
    """Put every SpikingJelly node that is in no spiking layer into one, in place.

    Args:
        network: whose modules are looked through.
        time_steps: T; None takes it from each pass.

    Returns:
        Other modules of SpikingJelly's that keep something from step to step, such as its dropout: to be reset.

    Raises:
        BenchError: a layer keeps a state that the suite could neither reset nor count: names it.
    """
    inside = {id(part) for module in network.modules() if isinstance(module, Spiking) for part in module.modules()}
    others = []
    for path, module in list(network.named_modules()):
        if id(module) in inside:
            continue
        kind = type(module)
        if isinstance(module, neuron.BaseNode):
            if module.step_mode != "m":
                raise BenchError(
                    f"the layer '{path}' is a SpikingJelly {kind.__name__} in single-step mode, which can be neither "
                    "counted nor regularized: build it with step_mode='m' and give it [T, N, ...]"
                )
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, Adopted(module, time_steps))
        elif isinstance(module, base.MemoryModule):
            others.append(module)
        elif any(parent.__module__.startswith(STRANGERS) for parent in kind.__mro__):
            raise BenchError(
                f"the layer '{path}' is a {kind.__name__} of {kind.__module__.partition('.')[0]}, which can be neither "
                "reset nor counted here: build it with `self.spiking()`, or with SpikingJelly's neurons"
            )
    return others
