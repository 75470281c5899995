"""What a method needs of a network, and the line that says what is missing."""

from __future__ import annotations

from bench.errors import BenchError
from bench.models.base import SpikingNetwork


def several_steps(reg: str, model: SpikingNetwork) -> None:
    """Refuse a network of one time step, where a method compares time steps.

    Raises:
        BenchError: T is 1.
    """
    if model.time_steps < 2:
        raise BenchError(f"reg={reg} compares time steps, and time_steps is {model.time_steps}: it needs 2 or more")


def spiking(reg: str, model: SpikingNetwork, what: str) -> None:
    """Refuse the ReLU twin, where a method reads what only spiking neurons have.

    Args:
        reg: the method's name.
        model: the network.
        what: the method reads, `potentials`.

    Raises:
        BenchError: the network's neurons do not spike.
    """
    if model.spec.neuron.name == "relu":
        raise BenchError(f"reg={reg} reads {what}, and neuron=relu has none: choose if, lif or plif")
