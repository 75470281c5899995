"""Spiking layers: IF, LIF and PLIF neurons of SpikingJelly with pinned defaults, and their ReLU twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    from spikingjelly.activation_based import neuron as sj


@dataclass
class NeuronConfig:
    """The neuron of every spiking layer; defaults are those of nandan2022's author's script.

    Attributes:
        name: `if`, `lif`, `plif`, or `relu` (the non-spiking twin: one pass, no time).
        v_threshold: firing threshold.
        v_reset: potential after a spike (hard reset); null subtracts the threshold (soft reset).
        tau: membrane time constant in time steps, above 1 (`lif`; the start value of `plif`).
        decay_input: whether the leak also divides the input by tau (`lif`, `plif`).
        detach_reset: whether the reset is left out of the gradient.
        alpha: steepness of the ATan surrogate gradient (Fang et al. 2021, arXiv 2007.05785, eq. 10).
    """

    name: str = "if"
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    tau: float = 2.0
    decay_input: bool = True
    detach_reset: bool = True
    alpha: float = 2.0


NEURONS = ("if", "lif", "plif", "relu")


def make_neuron(config: NeuronConfig) -> sj.BaseNode:
    """A SpikingJelly node in multi-step mode; it takes and returns `[T, N, ...]`.

    Raises:
        BenchError: unknown name, a threshold or alpha of 0 or below, or a tau of 1 or below.
    """
    # Imported here: SpikingJelly costs a second, and the ReLU twin does not need it.
    from spikingjelly.activation_based import neuron, surrogate

    if config.name not in NEURONS or config.name == "relu":
        raise BenchError(f"no spiking neuron is called '{config.name}'. {nearest(config.name, NEURONS)}")
    if config.v_threshold <= 0:
        raise BenchError(f"neuron.v_threshold is {config.v_threshold:g}, it must be above 0")
    if config.v_reset is not None and config.v_reset >= config.v_threshold:
        raise BenchError(f"neuron.v_reset is {config.v_reset:g}, it must be below the threshold {config.v_threshold:g}")
    if config.alpha <= 0:
        raise BenchError(f"neuron.alpha is {config.alpha:g}, it must be above 0")
    if config.name != "if" and config.tau <= 1:
        raise BenchError(f"neuron.tau is {config.tau:g}, it must be above 1 time step")
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


def charge(node: sj.BaseNode, x: Tensor, v: Tensor) -> Tensor:
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


class Spiking(nn.Module):
    """One spiking layer with slots where regularizers plug in.

    The input current passes `current`, the neuron, and `spikes`; both slots are empty until a
    regularizer appends to them. What the neuron emitted, before the second slot, is kept in `fired`
    for penalties and counts: dropout on spikes may emit values that are no spikes.

    Shapes: `[T * N, ...]` in and out, time slowest. With the ReLU twin T is 1.

    Attributes:
        fired: `[T, N, ...]` output of the neuron in the last forward pass, with its graph; None when `lean`.
        count: how many spikes that were, a scalar on the device; None if nobody has counted them.
        shape: of `fired`, also when that is not kept.
        potential: `[T, N, ...]` membrane potential before the reset, when `keep_potential` is set.
        lean: keep no spikes, only their count. The next forward pass must then come after `forget`.
        unfused: why the last pass through `ops.fire_block` went without its kernels; None if it did not.
    """

    neuron: Any
    fired: Tensor | None
    count: Tensor | None
    shape: torch.Size | None
    potential: Tensor | None
    unfused: str | None

    def __init__(self, config: NeuronConfig, time_steps: int) -> None:
        super().__init__()
        self.config = config
        self.time_steps = time_steps
        self.is_spiking = config.name != "relu"
        self.current = nn.Sequential()
        self.neuron = make_neuron(config) if self.is_spiking else nn.ReLU()
        self.spikes = nn.Sequential()
        self.keep_potential = False
        self.lean = False
        self.unfused = None
        self._last_current: Callable[[], Tensor] | None = None
        self.forget()

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.current(x))

    def fire(self, x: Tensor) -> Tensor:
        """Neuron and `spikes` slot, behind the `current` slot; `[T * N, ...]` in and out."""
        steps = x.unflatten(0, (self.time_steps, -1))
        fired = self._fire(steps) if self.is_spiking else self.neuron(steps)
        self.shape = fired.shape
        self.fired = None if self.lean else fired
        self.count = fired.detach().count_nonzero() if self.lean else None
        return self.spikes(fired.flatten(0, 1))

    def record(self, spikes: Tensor | None, count: Tensor, shape: torch.Size, current: Callable[[], Tensor]) -> None:
        """Note what a kernel did in place of the neuron.

        Args:
            spikes: `[T * N, ...]` with their graph, if they are there.
            count: how many.
            shape: `[T, N, ...]`.
            current: gives the neuron's input `[T * N, ...]` again, for a pass that goes on from here.
        """
        self.shape, self.count = shape, count
        self.fired = None if self.lean or spikes is None else spikes.unflatten(0, (self.time_steps, -1))
        self._last_current = _gone if self.lean else current

    @property
    def goes_on(self) -> bool:
        """Whether the next forward pass starts from the potential of the last one: nobody called `forget`."""
        return self._last_current is not None or isinstance(getattr(self.neuron, "v", None), Tensor)

    def _fire(self, x: Tensor) -> Tensor:
        node = self.neuron
        if self._last_current is not None:
            current, self._last_current = self._last_current, None
            with torch.no_grad():
                node(current().unflatten(0, (self.time_steps, -1)))
        node.store_v_seq = self.keep_potential
        # The potential is a sum over time: in bfloat16 it would lose small currents. A node's
        # own state decides nothing here, the task resets it before every forward pass.
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        with torch.autocast(x.device.type, enabled=False):
            fired = node(exact)
            if self.keep_potential:
                rest = 0.0 if node.v_reset is None else node.v_reset
                before = torch.cat([torch.full_like(exact[:1], rest), node.v_seq[:-1]])
                self.potential = charge(node, exact, before)
        return fired.to(x.dtype)

    def forget(self) -> None:
        """Reset the membrane potential and let go of the last pass' tensors."""
        if self.is_spiking:
            self.neuron.reset()
            self.neuron.v_seq = None
        self.fired = self.count = self.shape = self.potential = self._last_current = None


def _gone() -> Tensor:
    raise RuntimeError("a lean spiking layer went on without forget(): its potential was not kept")
