"""What the four dropouts share: masks over time, what replaces a dropped value, the place in the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ops import Backend, asked, resolve
from bench.ops.masks import lowest
from bench.ops.reference import Dropped, Gate
from bench.regularizers.base import Regularizer, probability

SELU_FLOOR = -1.7580993408473766
"""alpha' = -lambda alpha, the limit of SELU at minus infinity (lyu2023, eq. 8; Klambauer et al. 2017)."""


class Mask(StrEnum):
    """`per_step` draws a new mask at every time step, `fixed` one a forward pass for all steps.

    An entry is dropped with probability p to the nearest 2^-16. Which ones are follows from (seed, epoch, step, layer)
    and their place alone, by `bench.ops.masks`, whatever kernels and devices compute it.
    """

    per_step = "per_step"
    fixed = "fixed"


class At(StrEnum):
    """`current` drops what enters the neurons, `spikes` what they emit (after spikes are counted).

    `weighted` drops the weighted sum of the inputs, which is the current but on srm, whose `current` lies in front of
    the weights.
    """

    current = "current"
    weighted = "weighted"
    spikes = "spikes"


class Scaling(StrEnum):
    """`inverted` divides by 1 - p in training, `test` multiplies by 1 - p in eval mode."""

    inverted = "inverted"
    test = "test"


class Change(NamedTuple):
    """What becomes of a value x: x gain + offset where it is kept, `fill` where it is dropped."""

    gain: float
    offset: float
    fill: float


def drop(p: float) -> Change:
    """Zero where not kept, no rescaling (lyu2023, eq. 5)."""
    return Change(1.0, 0.0, 0.0)


def drop_inverted(p: float) -> Change:
    """Zero where not kept, the rest over 1 - p, which preserves the mean (lyu2023, eq. 7)."""
    return Change(1 / (1 - p) if p < 1 else 0.0, 0.0, 0.0)


def drop_alpha(p: float) -> Change:
    """alpha' where not kept, then the affine map that preserves mean 0 and variance 1.

    a = ((1 - p)(1 + p alpha'^2))^(-1/2), b = -a p alpha' (Klambauer et al. 2017, arXiv 1706.02515). With
    p = 1 there is no such map, and the result is 0, as in `torch.nn.functional.alpha_dropout`.
    """
    if p == 1:
        return Change(0.0, 0.0, 0.0)
    a = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5
    b = -a * p * SELU_FLOOR
    return Change(a, b, SELU_FLOOR * a + b)


class StepDropout(Gate):
    """A dropout that knows the time axis; `[T * N, ...]` in and out, time slowest.

    Args:
        drop: what becomes of kept and of dropped values, by p, see `drop`.
        p: probability of being dropped.
        time_steps: T.
        mask: whether the time steps share the mask.
        channels: drop whole channels.
        eval_factor: multiplies the input in eval mode.
    """

    def __init__(
        self,
        drop: Callable[[float], Change],
        p: float,
        time_steps: int,
        mask: Mask,
        channels: bool = False,
        eval_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.drop, self.p, self.time_steps, self.mask = drop, p, time_steps, mask
        self.channels, self.eval_factor = channels, eval_factor

    @property
    def acts(self) -> bool:
        return self.training or self.eval_factor != 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts:
            return x
        kernel = resolve(asked(), x.device)[0] is Backend.compiled
        return self.draw(x.device)(x.unflatten(0, (self.time_steps, -1)), kernel).flatten(0, 1)

    def draw(self, device: torch.device) -> Dropped:
        how = self.mask is Mask.fixed, self.channels
        if self.training:
            return Dropped(self.next_key(device), lowest(self.p), *how, *self.drop(self.p))
        return Dropped(torch.zeros((), dtype=torch.int64, device=device), 0, *how, self.eval_factor, 0.0, 0.0)

    def extra_repr(self) -> str:
        return f"{self.drop.__name__}, p={self.p:g}, mask={self.mask}, channels={self.channels}"


class Masked(Regularizer, ABC):
    """Base of the dropouts: a mask over single elements or whole channels, on the current or on the spikes.

    Args:
        p: probability of being dropped, in [0, 1] (our choice for lyu2023: 0.5).
        mask: a new mask at each time step (lyu2023's algorithm), or one for all steps.
        at: on the input current (lyu2023's algorithm: behind the weighted sum, in front of the threshold), or on the
            spikes (its eq. 5: f(W x) m, f being the activation function); `weighted`: see `At`.

    Attributes:
        name: that the class is registered under.
        channels: whether whole channels are dropped.

    Raises:
        BenchError: p outside [0, 1].
    """

    family = Family.masks
    strength = "p"
    replayable = True
    name: ClassVar[str]
    channels: ClassVar[bool] = False

    def __init__(self, p: float = 0.1, mask: Mask = Mask.per_step, at: At = At.current) -> None:
        super().__init__()
        probability(self.name, p=p)
        self.p, self.mask, self.at = p, Mask(mask), At(at)

    @property
    @abstractmethod
    def drop(self) -> Callable[[float], Change]:
        """What becomes of kept and of dropped values, by p."""

    @property
    def eval_factor(self) -> float:
        """What everything is multiplied by in eval mode."""
        return 1.0

    def attach(self, model: SpikingNetwork) -> None:
        """Append a `StepDropout` to a slot of every spiking layer; with p = 0, nothing."""
        if self.p == 0:
            return
        for _, layer in model.spiking_layers():
            # Only a layer whose current lies in front of its weights has a slot behind them.
            slot = getattr(layer, self.at, layer.current)
            slot.append(StepDropout(self.drop, self.p, layer.time_steps, self.mask, self.channels, self.eval_factor))


class Scaled(Masked):
    """Base of the dropouts to zero, which keep the mean in one of two ways.

    Under a threshold these differ: dividing by 1 - p in training lets kept currents fire that would not fire in eval
    mode.

    Args:
        p: see `Masked`.
        mask: see `Masked`.
        at: see `Masked`.
        scaling: `inverted` divides by 1 - p in training, `test` multiplies by 1 - p in eval mode (lyu2023, eq. 6).
    """

    def __init__(
        self,
        p: float = 0.1,
        mask: Mask = Mask.per_step,
        at: At = At.current,
        scaling: Scaling = Scaling.inverted,
    ) -> None:
        super().__init__(p, mask, at)
        self.scaling = Scaling(scaling)
        self.identity_in_eval = self.scaling is Scaling.inverted or p == 0

    @property
    def drop(self) -> Callable[[float], Change]:
        return drop_inverted if self.scaling is Scaling.inverted else drop

    @property
    def eval_factor(self) -> float:
        return 1.0 if self.scaling is Scaling.inverted else 1 - self.p
