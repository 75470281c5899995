"""What the four dropouts share: masks over time, what replaces a dropped value, the place in the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor, nn

from bench.models.base import SpikingNetwork

SELU_FLOOR = -1.7580993408473766
"""alpha' = -lambda alpha, the limit of SELU at minus infinity (lyu2023, eq. 8; Klambauer et al. 2017)."""

INT32, INT64 = torch.iinfo(torch.int32), torch.iinfo(torch.int64)


class Mask(StrEnum):
    """`per_step` draws a new mask at every time step, `fixed` one a forward pass for all steps."""

    per_step = "per_step"
    fixed = "fixed"


class At(StrEnum):
    """`current` drops what enters the neurons, `spikes` what they emit (after spikes are counted)."""

    current = "current"
    spikes = "spikes"


class Scaling(StrEnum):
    """`inverted` divides by 1 - p in training, `test` multiplies by 1 - p in eval mode."""

    inverted = "inverted"
    test = "test"


def keep_mask(x: Tensor, p: float, mask: Mask, channels: bool = False) -> Tensor:
    """Draw what is kept, each entry with probability 1 - p.

    Args:
        x: `[T, N, C, ...]`.
        p: probability of being dropped, in [0, 1].
        mask: whether the time steps share it.
        channels: keep or drop a sample's whole channel; on `[T, N, C]` an entry is a channel, on srm's `[T, N, C, K]`
            a unit with its K synapses.

    Returns:
        Booleans that broadcast against x: T is 1 for a fixed mask, the axes after C are 1 for channels. They lie in
        memory with C last, as the kernels' activations do, whatever x does: no kernel may change what is drawn.
    """
    steps = 1 if mask is Mask.fixed else x.shape[0]
    inner = [1] * (x.ndim - 3) if channels else list(x.shape[3:])
    shape = [steps, x.shape[1], *inner, x.shape[2]]
    # Drawing is what a mask costs: 64 random bits are the numbers of two entries.
    count = math.prod(shape)
    bits = torch.empty((count + 1) // 2, dtype=torch.int64, device=x.device).random_(INT64.min, None)
    numbers = bits.view(torch.int32)[:count].view(shape).movedim(-1, 2)
    # Of the 2^32 numbers the lowest are dropped: none for p = 0, all for p = 1.
    lowest = round(p * 2**32) + INT32.min
    return numbers >= lowest if lowest <= INT32.max else torch.zeros_like(numbers, dtype=torch.bool)


def drop(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """Zero where not kept, no rescaling (lyu2023, eq. 5)."""
    return x * keep


def drop_inverted(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """Zero where not kept, the rest over 1 - p, which preserves the mean (lyu2023, eq. 7)."""
    return x * keep / (1 - p) if p < 1 else x * keep


def drop_alpha(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """alpha' where not kept, then the affine map that preserves mean 0 and variance 1.

    a = ((1 - p)(1 + p alpha'^2))^(-1/2), b = -a p alpha' (Klambauer et al. 2017, arXiv 1706.02515). With
    p = 1 there is no such map, and the result is 0, as in `torch.nn.functional.alpha_dropout`.
    """
    if p == 1:
        return x * keep
    a = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5
    return torch.where(keep, x, SELU_FLOOR) * a - a * p * SELU_FLOOR


class StepDropout(nn.Module):
    """A dropout that knows the time axis; `[T * N, ...]` in and out, time slowest.

    Args:
        drop: replaces what the mask drops, see `drop`.
        p: probability of being dropped.
        time_steps: T.
        mask: whether the time steps share the mask.
        channels: drop whole channels.
        eval_factor: multiplies the input in eval mode.
    """

    def __init__(
        self,
        drop: Callable[[Tensor, Tensor, float], Tensor],
        p: float,
        time_steps: int,
        mask: Mask,
        channels: bool = False,
        eval_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.drop, self.p, self.time_steps, self.mask = drop, p, time_steps, mask
        self.channels, self.eval_factor = channels, eval_factor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x if self.eval_factor == 1 else x * self.eval_factor
        steps = x.unflatten(0, (self.time_steps, -1))
        keep = keep_mask(steps, self.p, self.mask, self.channels)
        return self.drop(steps, keep, self.p).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"{self.drop.__name__}, p={self.p:g}, mask={self.mask}, channels={self.channels}"


def insert(
    model: SpikingNetwork,
    at: At,
    drop: Callable[[Tensor, Tensor, float], Tensor],
    p: float,
    mask: Mask,
    channels: bool = False,
    eval_factor: float = 1.0,
) -> None:
    """Append a `StepDropout` to that slot of every spiking layer; with p = 0, nothing."""
    if p == 0:
        return
    for _, layer in model.spiking_layers():
        slot = layer.current if at is At.current else layer.spikes
        slot.append(StepDropout(drop, p, layer.time_steps, mask, channels, eval_factor))


def drop_scaled(scaling: Scaling, p: float) -> tuple[Callable[[Tensor, Tensor, float], Tensor], float]:
    """The function to drop with, and the factor of eval mode (lyu2023, eq. 6: 1 - p)."""
    return (drop_inverted, 1.0) if scaling is Scaling.inverted else (drop, 1 - p)
