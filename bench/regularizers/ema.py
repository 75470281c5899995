"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.registry import REGULARIZERS
from bench.regularizers.averaging import Averaging
from bench.regularizers.base import nonnegative
from bench.space import Log


@REGULARIZERS.register("ema")
class EMA(Averaging):
    """Exponential moving average: the network is judged by m <- b m + (1 - b) w, b = 2^(-1 / half_life).

    Until 1 / (1 - b) steps are done m is the plain mean of all steps so far, so that the start has no more weight than
    any other step. Training goes on from w, of which m is no part.

    Source: Polyak & Juditsky 1992 (SIAM J. Control Optim. 30, 838-855), eq. 2 for the plain mean (the number is not
    verified); half-life as in Composer, whose default is 1000 batches. For spiking networks: recommended by the
    authors of Spike-driven Transformer.

    Args:
        half_life: in training steps; 0 leaves the weights as they are.

    Raises:
        BenchError: a negative half-life.
    """

    name = "ema"
    strength = "half_life"
    space = {"half_life": Log(10.0, 3000.0, authors=1000.0, source="Composer's default")}

    def __init__(self, half_life: float = 1000.0) -> None:
        super().__init__()
        nonnegative("ema", half_life=half_life)
        self.half_life = half_life

    def share(self) -> Tensor | float:
        self.count.add_(1)
        return torch.maximum(1 / self.count, torch.full_like(self.count, 1 - 2 ** (-1 / self.half_life)))
