"""Spiking layers: IF, LIF and PLIF neurons of SpikingJelly with pinned defaults, and their ReLU twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from bench.errors import BenchError, nearest
from bench.neurons.config import NEURONS, NeuronConfig
from bench.neurons.reads import SPIKES, SUMS, Read, summed
from bench.ranges import Numbers


def make_neuron(config: NeuronConfig) -> neuron.BaseNode:
    """A SpikingJelly node in multi-step mode; it takes and returns `[T, N, ...]`.

    Raises:
        BenchError: unknown name, a threshold or alpha of 0 or below, a tau of 1 or below, or a number that is not
            finite.
    """
    if config.name not in NEURONS or config.name == "relu":
        raise BenchError(f"no spiking neuron is called '{config.name}'. {nearest(config.name, NEURONS)}")
    settings, threshold = Numbers("neuron."), config.v_threshold
    settings.above(0, v_threshold=threshold)
    below = config.v_reset is None or config.v_reset < threshold
    settings.check("v_reset", config.v_reset, below, f"be below the threshold {threshold:g}")
    settings.above(0, alpha=config.alpha)
    if config.name != "if":
        settings.above(1, " time step", tau=config.tau)
    shared = {
        "v_threshold": config.v_threshold,
        "v_reset": config.v_reset,
        "detach_reset": config.detach_reset,
        # SpikingJelly's own default is the sigmoid.
        "surrogate_function": surrogate.ATan(alpha=config.alpha),
        "step_mode": "m",
    }
    if config.name == "if":
        return neuron.IFNode(**shared)
    if config.name == "lif":
        return neuron.LIFNode(tau=config.tau, decay_input=config.decay_input, **shared)
    return neuron.ParametricLIFNode(init_tau=config.tau, decay_input=config.decay_input, **shared)


def charge(node: neuron.BaseNode, x: Tensor, v: Tensor) -> Tensor:
    """The membrane potential right before firing, from the one that the last step left.

    Args:
        node: an IF, LIF or PLIF node.
        x: input current of the step, any shape.
        v: potential after the last step's reset, same shape.
    """
    if not hasattr(node, "decay_input"):
        return v + x
    # PLIF holds 1 / tau as the sigmoid of its parameter w.
    rate = node.w.sigmoid() if hasattr(node, "w") else 1.0 / node.tau
    rest = 0.0 if node.v_reset is None else node.v_reset
    leak = (v - rest) * rate
    return v - leak + (x * rate if node.decay_input else x)


def potential_of(node: neuron.BaseNode, x: Tensor, start: Any) -> Tensor:
    """Membrane potentials before firing, `[T, N, ...]`, of a pass in which the node stored those after the reset.

    Args:
        node: as for `charge`, with `v_seq`.
        x: the pass' input current, `[T, N, ...]`.
        start: the potential that it began with, a number or `[N, ...]`.
    """
    first = start.unsqueeze(0) if isinstance(start, Tensor) else torch.full_like(x[:1], start)
    return charge(node, x, torch.cat([first, node.v_seq[:-1]]))


def in_time(steps: Sequence[Tensor]) -> Tensor:
    """Steps `[N, ...]` as one `[T, N, ...]`, in the layout of each: torch would put channels that are last second."""
    if steps[0].ndim == 4 and steps[0].is_contiguous(memory_format=torch.channels_last):
        return torch.stack([step.permute(0, 2, 3, 1) for step in steps]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(steps))


def fire_by(node: neuron.BaseNode, trigger: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Spikes `[T, N, ...]`, and the potentials before firing of each step, of neurons whose threshold is a module.

    The reset is of the potential itself, and by the neuron's own threshold where it is soft.

    Args:
        node: as for `charge`; it is left with the potential behind the last step.
        trigger: see `Spiking`.
        x: input current `[T, N, ...]`.
    """
    v = node.v if isinstance(node.v, Tensor) else torch.full_like(x[0], node.v)
    spikes, potentials = [], []
    for step, current in enumerate(x):
        potentials.append(charge(node, current, v))
        spikes.append(node.surrogate_function(trigger(potentials[-1], step)))
        fired = spikes[-1].detach() if node.detach_reset else spikes[-1]
        if node.v_reset is None:
            v = potentials[-1] - node.v_threshold * fired
        else:
            v = (1 - fired) * potentials[-1] + node.v_reset * fired
    node.v = v
    return in_time(spikes), potentials


@dataclass(frozen=True)
class Use:
    """What a spiking layer did in one of several uses in a forward pass; see `Spiking` for the entries."""

    fired: Tensor | None
    potential: Tensor | None
    count: Tensor | None
    shape: torch.Size
    sums: Mapping[Read, Tensor]


class Spiking(nn.Module):
    """One spiking layer with slots where regularizers plug in.

    The input current passes `current`, the neuron, and `spikes`; both slots are empty until a
    regularizer appends to them. Penalties and counts are of what the neuron emitted, before the second slot: dropout on
    spikes may emit values that are no spikes. Of that `reads` says what is kept, with its graph, and no more is.

    Each use starts from rest, also where a network uses one layer several times in a forward pass: all of them are kept
    then, and `forget` begins the next pass.

    Shapes: `[T * N, ...]` in and out, time slowest. With the ReLU twin T is 1.

    Args:
        config: kind and constants of the neuron.
        time_steps: T.
        neuron: in multi-step mode, in place of the one that `config` describes.

    Attributes:
        reads: what is read of the layer, see `Read`. Where that is not its spikes it cannot go on.
        fired: `[T, N, ...]` output of the neuron in the last forward pass; None where `reads` lacks `spikes`.
        count: how many spikes that were, a scalar on the device; None if nobody has counted them.
        shape: of `fired`, also when that is not kept.
        potential: `[T, N, ...]` membrane potential before the reset; None where `reads` lacks it.
        sums: the sums over spikes that are among `reads`.
        earlier: the uses in this pass before the last one.
        remembers: go on from the potentials that the last use has left.
        trigger: what stands in place of a common threshold V, or None: from the potentials of one step before firing,
            `[N, ...]`, and the step's number it makes what fires from 0 on, which is u - V else. Of `if`, `lif` and
            `plif` neurons only; no kernel has it.
        kernel_note: what the kernels of `bench.ops` keep at this layer; None if it has not met them.
    """

    neuron: Any
    fired: Tensor | None
    count: Tensor | None
    shape: torch.Size | None
    potential: Tensor | None
    sums: Mapping[Read, Tensor]
    earlier: list[Use]
    kernel_note: Any | None
    trigger: nn.Module | None

    def __init__(self, config: NeuronConfig, time_steps: int | None, neuron: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.time_steps: Any = time_steps
        self.is_spiking = config.name != "relu"
        self.current = nn.Sequential()
        self.neuron = neuron or (make_neuron(config) if self.is_spiking else nn.ReLU())
        self.spikes = nn.Sequential()
        self.reads: frozenset[Read] = SPIKES
        self.remembers = False
        self.kernel_note = None
        self.register_module("trigger", None)
        self.forget()

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.current(x))

    def begin(self) -> None:
        """Begin a use: from rest, unless the layer `remembers`. Again, before it has fired, it does nothing."""
        if self.shape is not None and not self.remembers:
            self.earlier.append(self.use())
            self._rest()

    def use(self) -> Use:
        """What the last use did; there must have been one."""
        assert self.shape is not None
        return Use(self.fired, self.potential, self.count, self.shape, self.sums)

    def fire(self, x: Tensor) -> Tensor:
        """Neuron and `spikes` slot, behind the `current` slot; `[T * N, ...]` in and out."""
        self.begin()
        steps = x.unflatten(0, (self.time_steps, -1))
        fired = self._fire(steps) if self.is_spiking else self.neuron(steps)
        self.shape = fired.shape
        self.fired = fired if Read.spikes in self.reads else None
        self.count = fired.detach().count_nonzero() if self.fired is None else None
        self.sums = {read: summed(fired, read) for read in SUMS if read in self.reads}
        return self.spikes(fired.flatten(0, 1))

    def _fire(self, x: Tensor) -> Tensor:
        node = self.neuron
        if self.kernel_note is not None:
            self.kernel_note.catch_up(node, self.time_steps)
        wanted = Read.potential in self.reads
        node.store_v_seq, start = wanted, getattr(node, "v", None)
        # The potential is a sum over time: in bfloat16 it would lose small currents.
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        with torch.autocast(x.device.type, enabled=False):
            if self.trigger is not None:
                fired, potentials = fire_by(node, self.trigger, exact)
                self.potential = in_time(potentials) if wanted else None
                return fired.to(x.dtype)
            fired = node(exact)
            if wanted:
                self.potential = potential_of(node, exact, start)
        return fired.to(x.dtype)

    def forget(self) -> None:
        """Reset the membrane potential and let go of the last pass' tensors."""
        self.earlier = []
        self._rest()

    def _rest(self) -> None:
        if self.is_spiking:
            self.neuron.reset()
            self.neuron.v_seq = None
        if self.kernel_note is not None:
            self.kernel_note.forget()
        self.fired = self.count = self.shape = self.potential = None
        self.sums = {}
