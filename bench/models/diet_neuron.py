"""DIET-SNN's neurons: soft reset, a leak and a threshold that are trained, thresholds from input currents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.errors import BenchError
from bench.neurons import NeuronConfig, Read, Spiking
from bench.ops import Backend, asked

LOWEST_THRESHOLD = 1e-4


class _LinearSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, damping: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.damping = damping
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return grad * ctx.damping * (1 - z.abs()).clamp(min=0), None


def linear_spike(z: Tensor, damping: float = 0.3) -> Tensor:
    """1 where z > 0, else 0; its gradient is taken for damping * max(0, 1 - |z|).

    Source: Bellec et al. 2018 (arXiv 1803.09574); Rathi & Roy 2021 (DIET-SNN, arXiv 2008.03658).

    Args:
        z: the potential over its threshold, less 1.
        damping: the gradient's height at the threshold.
    """
    return _LinearSpike.apply(z, damping)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.range
        outward = ((x >= high) & (grad < 0)) | ((x <= low) & (grad > 0))
        return grad.masked_fill(outward, 0.0), None, None


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """x held in [low, high]; at a bound it keeps the gradient that leads back inside, which clamp would lose.

    Args:
        x: a parameter.
        low: smallest value used.
        high: largest value used.
    """
    return _Bounded.apply(x, low, high)


def diet_steps(
    x: Tensor,
    leak: Tensor,
    threshold: Tensor,
    spike: Callable[[Tensor], Tensor] = linear_spike,
    detach_reset: bool = True,
    last: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Leaky neurons with soft reset: u_t = leak u_{t-1} + x_t - threshold o_{t-1}, o = 1[u > threshold].

    The reset of a step is not leaked, unlike that of SpikingJelly's nodes, which reset before they leak.

    Source: gutekunst, eq. 4; Rathi & Roy 2021 (DIET-SNN, arXiv 2008.03658).

    Args:
        x: input current `[T, N, ...]`.
        leak: what is left of a potential after a step, scalar in [0, 1].
        threshold: scalar above 0.
        spike: 1 where u / threshold - 1 is above 0, with a surrogate gradient.
        detach_reset: whether the spike in the reset is left out of the gradient; the threshold in it never is.
        last: (u, o) `[N, ...]` of the step before; None starts from rest.

    Returns:
        Spikes o and potentials u before the reset, both `[T, N, ...]`.
    """
    u, o = last if last is not None else (torch.zeros_like(x[0]), torch.zeros_like(x[0]))
    spikes, potentials = [], []
    for current in x:
        u = leak * u + current - threshold * (o.detach() if detach_reset else o)
        o = spike(u / threshold - 1)
        spikes.append(o)
        potentials.append(u)
    return torch.stack(spikes), torch.stack(potentials)


class _DietLayer(torch.autograd.Function):
    """`diet_steps` with `linear_spike`, in a third of its passes over memory; keeps the potentials alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        leak: Tensor,
        threshold: Tensor,
        damping: float,
        detach_reset: bool,
        last_u: Tensor | None,
        last_o: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        potentials, spikes = torch.empty_like(x), torch.empty_like(x)
        u, o = last_u, last_o
        for t, current in enumerate(x):
            now = potentials[t]
            if u is None or o is None:
                now.copy_(current)
            else:
                torch.mul(u, leak, out=now)
                now.add_(current).addcmul_(o, threshold, value=-1)
            spikes[t] = now > threshold
            u, o = now, spikes[t]
        ctx.save_for_backward(leak, threshold, potentials, spikes, last_u, last_o)
        ctx.damping, ctx.detach_reset = damping, detach_reset
        ctx.set_materialize_grads(False)
        return spikes, potentials

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor | None, grad_u: Tensor | None) -> tuple[Tensor | None, ...]:
        leak, threshold, potentials, spikes, last_u, last_o = ctx.saved_tensors
        # By u of each step, the later ones' share in it included: what the current of that step gets.
        grad_x = torch.zeros_like(potentials) if grad_u is None else grad_u.clone()
        grad_threshold = torch.zeros_like(threshold)
        for t in reversed(range(len(grad_x))):
            by_o = None if grad_o is None else grad_o[t]
            if t + 1 < len(grad_x):
                grad_x[t].addcmul_(grad_x[t + 1], leak)
                if not ctx.detach_reset:
                    later = grad_x[t + 1] * threshold
                    by_o = -later if by_o is None else by_o - later
            if by_o is not None:
                # o depends on z = u / threshold - 1.
                z = potentials[t] / threshold - 1
                by_z = z.abs().neg_().add_(1).clamp_(min=0).mul_(by_o).mul_(ctx.damping / threshold)
                grad_x[t].add_(by_z)
                grad_threshold -= by_z.mul_(z.add_(1)).sum()
        grad_leak = (grad_x[1:] * potentials[:-1]).sum()
        grad_threshold -= (grad_x[1:] * spikes[:-1]).sum()
        grad_last_u = grad_last_o = None
        if last_u is not None and last_o is not None:
            grad_leak += (grad_x[0] * last_u).sum()
            grad_threshold -= (grad_x[0] * last_o).sum()
            grad_last_u = grad_x[0] * leak
            grad_last_o = None if ctx.detach_reset else grad_x[0] * -threshold
        return grad_x, grad_leak, grad_threshold, None, None, grad_last_u, grad_last_o


def diet_layer(
    x: Tensor,
    leak: Tensor,
    threshold: Tensor,
    damping: float = 0.3,
    detach_reset: bool = True,
    last: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """What `diet_steps` computes with `linear_spike` of this damping, faster; with `ops=reference` by that itself."""
    if asked() is Backend.reference:
        return diet_steps(x, leak, threshold, lambda z: linear_spike(z, damping), detach_reset, last)
    u, o = (None, None) if last is None else last
    return _DietLayer.apply(x, leak, threshold, damping, detach_reset, u, o)


def percentile(x: Tensor, q: float) -> Tensor:
    """The q-th percentile of all values by the nearest rank, scalar."""
    return x.flatten().kthvalue(1 + round(q / 100 * (x.numel() - 1))).values


def balanced_threshold(current: Tensor, q: float) -> float:
    """The threshold of a converted layer: of each step's input current the q-th percentile, then the largest step's.

    Source: Rathi & Roy 2021 (DIET-SNN, arXiv 2008.03658), as in their script.

    Args:
        current: `[T, N, ...]`.
        q: percentile, in (0, 100].
    """
    return max(float(percentile(step, q)) for step in current)


class DietNeuron(nn.Module):
    """The neurons of one layer, which share a leak and a threshold.

    What is not trained is a buffer: both are in checkpoints either way.

    Shapes: `[T, N, ...]` in and out.

    Args:
        leak: start value, in [0, 1], where it is also held.
        threshold: start value, above 0, where it is also held.
        train_leak: whether the optimizer sees the leak.
        train_threshold: whether it sees the threshold.
        damping: of the surrogate gradient, see `linear_spike`.
        detach_reset: see `diet_steps`.

    Attributes:
        surrogate: fires in place of `linear_spike`, with a gradient of its own; None leaves it.
        v: `[N, ...]` potential before the reset of the last step; None at rest.
        potential: `[T, N, ...]` potentials before the reset of the last forward pass; None at rest.
    """

    leak: Tensor
    threshold: Tensor
    surrogate: nn.Module | None
    v: Tensor | None
    fired: Tensor | None
    potential: Tensor | None

    def __init__(
        self, leak: float, threshold: float, train_leak: bool, train_threshold: bool, damping: float, detach_reset: bool
    ) -> None:
        super().__init__()
        for name, value, trained in (("leak", leak, train_leak), ("threshold", threshold, train_threshold)):
            start = torch.tensor(float(value))
            if trained:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)
        self.damping, self.detach_reset = damping, detach_reset
        self.register_module("surrogate", None)
        self.reset()

    def forward(self, x: Tensor) -> Tensor:
        leak = bounded(self.leak, 0.0, 1.0)
        threshold = bounded(self.threshold, LOWEST_THRESHOLD, math.inf)
        last = None if self.v is None or self.fired is None else (self.v, self.fired)
        if self.surrogate is None:
            spikes, potential = diet_layer(x, leak, threshold, self.damping, self.detach_reset, last)
        else:
            spikes, potential = diet_steps(x, leak, threshold, self.surrogate, self.detach_reset, last)
        self.v, self.fired, self.potential = potential[-1], spikes[-1], potential
        return spikes

    def reset(self) -> None:
        """Back to rest."""
        self.v = self.fired = self.potential = None

    def extra_repr(self) -> str:
        return f"leak={float(self.leak):.4g}, threshold={float(self.threshold):.4g}"


class DietSpiking(Spiking):
    """A spiking layer of `DietNeuron`; no fused kernel knows leaks and thresholds that are tensors.

    Args:
        config: `detach_reset` and the threshold at the start.
        time_steps: T.
        leak: at the start.
        train_leak: see `DietNeuron`.
        train_threshold: see `DietNeuron`.
        damping: see `DietNeuron`.
    """

    neuron: DietNeuron

    def __init__(
        self,
        config: NeuronConfig,
        time_steps: int,
        leak: float,
        train_leak: bool,
        train_threshold: bool,
        damping: float,
    ) -> None:
        super().__init__(config, time_steps)
        # By this name the kernels know that the layer is none of theirs.
        self.config = replace(config, name="diet")
        self.neuron = DietNeuron(leak, config.v_threshold, train_leak, train_threshold, damping, config.detach_reset)

    def _fire(self, x: Tensor) -> Tensor:
        # The potential is a sum over time: in bfloat16 it would lose small currents.
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        with torch.autocast(x.device.type, enabled=False):
            fired = self.neuron(exact)
        self.potential = self.neuron.potential if Read.potential in self.reads else None
        return fired.to(x.dtype)


def check_neuron(config: NeuronConfig) -> None:
    """Refuse settings that the neuron of this network, which is its own, would not heed.

    Raises:
        BenchError: names the first of them.
    """
    if config.name not in ("if", "relu"):
        raise BenchError(
            f"neuron={config.name} does not go with model=diet, whose neuron is its own (model.leak, model.train_leak, "
            "model.train_threshold); leave it at if, or take relu for the twin"
        )
    default = NeuronConfig()
    for key in ("tau", "decay_input", "alpha"):
        if getattr(config, key) != getattr(default, key):
            raise BenchError(f"neuron.{key} has no effect on model=diet, whose neuron is its own; leave it out")
    if config.v_reset not in (None, default.v_reset):
        raise BenchError(f"neuron.v_reset is {config.v_reset:g}, but the reset of model=diet is soft; leave it out")
