"""Stochastic weight averaging."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.registry import REGULARIZERS
from bench.regularizers.averaging import Averaging
from bench.regularizers.base import probability
from bench.space import Linear


@REGULARIZERS.register("swa")
class SWA(Averaging):
    """Stochastic weight averaging: the network is judged by the plain mean of its weights over the last epochs.

    Every step of them counts, where the authors take one set of weights an epoch; the learning rate keeps its own
    schedule. Before they begin the network is judged by the weights it has.

    Source: Izmailov et al. 2018 (arXiv 1803.05407), algorithm 1 and eq. 1 (the number is not verified).

    Args:
        last: share of the epochs at the end that is averaged, in [0, 1]; 0 averages nothing.

    Raises:
        BenchError: a share outside [0, 1].
    """

    name = "swa"
    strength = "last"
    space = {"last": Linear(0.05, 0.75, authors=0.25, source="Izmailov et al. 2018, section 4.1")}

    def __init__(self, last: float = 0.25) -> None:
        super().__init__()
        probability("swa", last=last)
        self.last = last

    def share(self) -> Tensor | float:
        # Rounded up: of the last quarter of 10 epochs the last three count, from a progress of .7 on.
        begun = (self.progress >= 1 - self.last - 1e-6).to(self.count.dtype)
        self.count.add_(begun)
        return torch.where(begun > 0, 1 / self.count.clamp(min=1), torch.zeros_like(self.count))
