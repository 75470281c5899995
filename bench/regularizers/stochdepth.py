"""Stochastic depth: residual branches that are left out at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, probability
from bench.space import Linear


class DropBranch(nn.Module):
    """What a residual branch adds, left out for some images: `[T * N, ...]` in and out, time slowest.

    One draw an image holds for all time steps. Kept spikes stay as they are, since scaled ones would be none; in eval
    mode everything is multiplied by the chance of being kept.

    Args:
        p: chance of being left out, in [0, 1].
        time_steps: T.
    """

    def __init__(self, p: float, time_steps: int) -> None:
        super().__init__()
        self.p, self.time_steps = p, time_steps

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (1 - self.p)
        images = x.shape[0] // self.time_steps
        kept = torch.rand(images, device=x.device) >= self.p
        return x * kept.repeat(self.time_steps).view(-1, *[1] * (x.ndim - 1)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


@REGULARIZERS.register("stochdepth")
class StochasticDepth(Regularizer):
    """Stochastic depth: block l of L is left out with probability p l / L, one draw an image for all time steps.

    The branch's neurons still fire, and their spikes are counted; what they add to the block's input is left out. In
    eval mode it is multiplied by 1 - p l / L: to divide by that in training, as networks without spikes do, would make
    spikes fractional.

    Source: Huang et al. 2016 (arXiv 1603.09382), eq. 4 (linear decay) and eq. 5 (eval mode). On spiking residual
    networks: our reading.

    Args:
        p: chance of the last block to be left out, in [0, 1].

    Raises:
        BenchError: p outside [0, 1], or a network without residual branches that are added.
    """

    family = Family.masks
    strength = "p"
    replayable = True
    space = {"p": Linear(0.02, 0.6, authors=0.5, source="Huang et al. 2016, section 4")}

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        probability("stochdepth", p=p)
        self.p = p
        self.identity_in_eval = p == 0

    def attach(self, model: SpikingNetwork) -> None:
        branches = model.residual_layers()
        if not branches:
            name = type(model).__name__
            raise BenchError(f"reg=stochdepth leaves out residual branches, and {name} adds none: try sew or convmixer")
        for place, layer in enumerate(branches if self.p > 0 else (), 1):
            layer.spikes.append(DropBranch(self.p * place / len(branches), layer.time_steps))
