"""What can be read of a spiking layer after a forward pass: each under the name by which it is declared and read."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Read(StrEnum):
    """Of a layer's spikes S `[T, N, C, ...]`; C is the neuron where a layer is fully connected.

    A squared one has the value of the one without, as S is 0 or 1, and another gradient: d(S^2) = 2 S dS is 0 where a
    neuron was silent.

    Attributes:
        rate: mean of S over everything, a scalar.
        channel_rates: mean of S over T and the axes behind C, `[N, C]`.
        neuron_counts: sum of S over T, `[N, C, ...]`.
        squared_rate: as `rate`, of S^2.
        squared_channel_rates: as `channel_rates`, of S^2.
        squared_neuron_counts: as `neuron_counts`, of S^2.
        spikes: S itself.
        channel_outputs: mean over T and the axes behind C of what the layer passes on, `[N, C]`: of the spikes behind
            their dropout, a residual sum and a pooling. What a network does to them on its own is not seen.
        potential: membrane potential before the reset, `[T, N, C, ...]`.
    """

    rate = "rate"
    channel_rates = "channel_rates"
    neuron_counts = "neuron_counts"
    squared_rate = "squared_rate"
    squared_channel_rates = "squared_channel_rates"
    squared_neuron_counts = "squared_neuron_counts"
    channel_outputs = "channel_outputs"
    spikes = "spikes"
    potential = "potential"

    @property
    def squared(self) -> bool:
        """Whether it is of S^2."""
        return self.startswith("squared_")

    @property
    def linear(self) -> Read:
        """The one of S that has its value."""
        return Read(self.removeprefix("squared_"))


SUMS: tuple[Read, ...] = tuple(read for read in Read if read not in (Read.spikes, Read.potential))
"""Those that are sums over the spikes, or over what becomes of them, in their order."""

SPIKES = frozenset({Read.spikes})
"""What a layer keeps unless it is told otherwise."""


def summed(spikes: Tensor, read: Read) -> Tensor:
    """One of `SUMS`, by torch, float32 at least.

    Args:
        spikes: `[T, N, C, ...]`, or any values in their place.
        read: which.
    """
    import torch

    # Sums of ones in bfloat16 stop growing at 256.
    real = torch.promote_types(spikes.dtype, torch.float32)
    values = spikes.to(real).square() if read.squared else spikes
    if read.linear is Read.rate:
        return values.mean(dtype=real)
    if read.linear is Read.neuron_counts:
        return values.sum(0, dtype=real)
    return values.mean((0, *range(3, values.ndim)), dtype=real)


def tell_channel_means(out: Tensor, means: Tensor) -> None:
    """Have what a layer passes on know its `channel_means`, for whoever gets it next.

    Args:
        out: `[T * N, C, ...]`, time slowest.
        means: `[N, C]`, with their graph.
    """
    out.channel_means = means  # type: ignore[attr-defined]


def channel_means(x: Tensor, time_steps: int) -> Tensor:
    """Means of each image's channels over time and the axes behind C, `[N, C]`, float32 at least.

    They cost nothing where x comes right from a spiking layer that keeps `channel_outputs`.

    Args:
        x: `[T * N, C, ...]`, time slowest.
        time_steps: T.
    """
    told: Tensor | None = getattr(x, "channel_means", None)
    return summed(x.unflatten(0, (time_steps, -1)), Read.channel_outputs) if told is None else told
