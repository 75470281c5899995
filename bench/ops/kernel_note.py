"""What the kernels note at a spiking layer: why a pass went without them, and what its neuron has not seen yet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.neurons import Read, Spiking
from bench.ops.reference import Fired


class KernelNote:
    """The kernels' note at one spiking layer, in the layer's slot `kernel_note`.

    A kernel leaves the neuron that it stands in for at rest. So that a pass may go on from here, without `forget`, the
    neuron can still be fed what the kernel was.

    Attributes:
        obstacle: why the last pass through `fire_block` went without the kernels though there are some, in a few words;
            None if it did not. It outlives `forget`, since it is asked for after a step's reset.
    """

    def __init__(self) -> None:
        self.obstacle: str | None = None
        self._current: Callable[[], Tensor] | None = None

    def kernel_fired(self, layer: Spiking, fired: Fired, shape: torch.Size, current: Callable[[], Tensor]) -> None:
        """Write down at the layer what a kernel did in its neuron's place.

        Args:
            layer: whose note this is.
            fired: what the kernel gave.
            shape: of the spikes, `[T, N, ...]`.
            current: gives the neuron's input `[T * N, ...]` again.
        """
        layer.shape, layer.count, layer.sums = shape, fired.spike_count, fired.sums
        kept = Read.spikes in layer.reads
        spikes = fired.spikes if kept else None
        layer.fired, layer.potential = (
            None if entry is None else entry.unflatten(0, (layer.time_steps, -1)) for entry in (spikes, fired.potential)
        )
        self._current = current if kept else _lost

    def goes_on(self, neuron: nn.Module) -> bool:
        """Whether the next pass starts from the potential of the last one, because nobody has called `forget`."""
        return self._current is not None or isinstance(getattr(neuron, "v", None), Tensor)

    def catch_up(self, neuron: nn.Module, time_steps: int) -> None:
        """Bring the neuron to where the kernel's pass ended, if it has not seen that pass.

        Raises:
            RuntimeError: the layer's spikes were not read, so that the pass cannot be had again.
        """
        if self._current is None:
            return
        current, self._current = self._current, None
        with torch.no_grad():
            neuron(current().unflatten(0, (time_steps, -1)))

    def forget(self) -> None:
        """Let go of the last pass' tensors: the neuron starts from rest."""
        self._current = None


def note_at(layer: Spiking) -> KernelNote:
    """The note at a spiking layer, begun at its first pass through `fire_block`."""
    if layer.kernel_note is None:
        layer.kernel_note = KernelNote()
    note: KernelNote = layer.kernel_note
    return note


def _lost() -> Tensor:
    raise RuntimeError("a spiking layer whose spikes nobody reads went on without forget(): no potential was kept")
