"""Surrogate gradients whose sharpness follows each neuron's potential, for as long as an attack lasts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench import ops
from bench.neurons import Spiking

FLOOR = 1e-4  # of what omega is divided by
PLACES = ("surrogate_function", "surrogate")
"""Attributes of a neuron that may hold its surrogate: SpikingJelly's name, and that of the suite's own neurons."""


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return (x >= 0).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, alpha = ctx.saved_tensors
        return grad * (alpha / 2) / (1 + (math.pi / 2 * alpha * x).square()), None


def spike(x: Tensor, alpha: Tensor) -> Tensor:
    """1 where x is 0 or above, else 0, with the ATan surrogate: its gradient is taken for
    (alpha / 2) / (1 + (pi / 2 alpha x)^2).

    Args:
        x: potential less threshold.
        alpha: sharpness of each entry, of the shape of x.
    """
    return _Spike.apply(x, alpha)


class AdaptiveATan(nn.Module):
    """The ATan surrogate with a sharpness of its own for each neuron, time step and image: alpha = omega / E|x|.

    x is the potential less the threshold. E|x| is a mean over the passes of an attack in which the last pass has the
    weight 1 - memory, to which `relax` times the mean deviation of |x| from it is added, likewise over passes: so a
    neuron whose potential varies gets a wider surrogate. The mean begins at that of all neurons in the first pass.

    With that alpha the surrogate's slope at a typical potential is in proportion to 1 / E|x|, so that no neuron is so
    far from its threshold that its gradient vanishes.

    Source: Wang et al. 2025 (arXiv 2512.22522), its ASSG; memory and relax by the authors' repository, where the mean
    begins at 1 for all neurons, and ours is our reading.

    Args:
        omega: the sharpness that a neuron gets whose E|x| is 1.
        relax: weight of the deviation.
        memory: what is left of the means at each pass, in [0, 1).
    """

    def __init__(self, omega: float, relax: float, memory: float) -> None:
        super().__init__()
        self.omega, self.relax, self.memory = omega, relax, memory
        self.means: list[Tensor] = []
        self.deviations: list[Tensor] = []
        self.call = 0

    def begin(self) -> None:
        """Begin a forward pass: what follows is the first call again."""
        self.call = 0

    def forward(self, x: Tensor) -> Tensor:
        return spike(x, self.sharpness(x.detach()))

    @torch.no_grad()
    def sharpness(self, x: Tensor) -> Tensor:
        """Take in a call's x and give alpha, of its shape; the n-th calls of all passes belong together."""
        if self.call == len(self.means):
            self.means.append(x.abs().mean().expand_as(x).clone())
            self.deviations.append(torch.zeros_like(x))
        mean, deviation = self.means[self.call], self.deviations[self.call]
        self.call += 1
        mean.lerp_(x.abs(), 1 - self.memory)
        deviation.lerp_((x.abs() - mean).abs(), 1 - self.memory)
        return self.omega / (mean + self.relax * deviation + FLOOR)


class Sharpened:
    """A network whose surrogates are adaptive; `begin` says that a forward pass begins."""

    def __init__(self, surrogates: list[AdaptiveATan]) -> None:
        self.surrogates = surrogates

    def begin(self) -> None:
        """Begin a forward pass."""
        for surrogate in self.surrogates:
            surrogate.begin()


@contextmanager
def sharpened(model: nn.Module, omega: float, relax: float, memory: float) -> Iterator[Sharpened]:
    """While this context is open, every spiking layer has an `AdaptiveATan` as its surrogate, whatever it had before.

    The fused kernels have one sharpness for all neurons: meanwhile the plain modules compute (`ops=reference`). Spikes
    are the same but for those at the threshold, which the order of summation decides. A layer without a surrogate, as
    those of the ReLU twin, stays as it is.

    Args:
        model: the network; all is put back at the end, also after an error.
        omega: see `AdaptiveATan`.
        relax: likewise.
        memory: likewise.
    """
    changed: list[tuple[nn.Module, str, Any]] = []
    surrogates: list[AdaptiveATan] = []
    try:
        for layer in [module for module in model.modules() if isinstance(module, Spiking) and module.is_spiking]:
            place = next((name for name in PLACES if hasattr(layer.neuron, name)), None)
            if place is not None:
                own = AdaptiveATan(omega, relax, memory)
                changed.append((layer.neuron, place, getattr(layer.neuron, place)))
                setattr(layer.neuron, place, own)
                surrogates.append(own)
        with ops.using(ops.Backend.reference):
            yield Sharpened(surrogates)
    finally:
        for neuron, place, before in reversed(changed):
            setattr(neuron, place, before)
