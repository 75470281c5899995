"""What mixup and CutMix share: a weight from a Beta distribution, partners within the batch, mixed labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.regularizers.base import Regularizer, nonnegative, probability
from bench.regularizers.targets import class_weights


def beta(alpha: float) -> float:
    """A number of the distribution Beta(alpha, alpha), from torch's global generator."""
    both = torch.full((), alpha, dtype=torch.float64)
    return float(torch.distributions.Beta(both, both).sample())


class Mixing(Regularizer, ABC):
    """Base of the methods that mix each image of a batch with another one.

    One weight is drawn for a batch, and a permutation that gives each image its partner.

    Args:
        alpha: of the weight's distribution Beta(alpha, alpha); 0 mixes nothing.
        prob: share of the batches that are mixed, in [0, 1].

    Attributes:
        name: that the class is registered under.

    Raises:
        BenchError: a negative alpha, or a share outside [0, 1].
    """

    family = Family.data
    strength = "alpha"
    replayable = True
    name: ClassVar[str]

    def __init__(self, alpha: float = 1.0, prob: float = 1.0) -> None:
        super().__init__()
        nonnegative(self.name, alpha=alpha)
        probability(self.name, prob=prob)
        self.alpha, self.prob = alpha, prob
        self.classes = 0

    def attach(self, model: SpikingNetwork) -> None:
        self.classes = model.spec.classes

    @abstractmethod
    def mix(self, x: Tensor, partners: Tensor, share: float) -> tuple[Tensor, float]:
        """Mix images.

        Args:
            x: images `[N, C, H, W]`.
            partners: place of each image's partner, `[N]`.
            share: of the image itself, in [0, 1].

        Returns:
            Mixed images, and the share of the image itself that came of it.
        """

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.off or float(torch.rand(())) >= self.prob:
            return x, y
        partners = torch.randperm(len(x)).to(x.device)
        x, share = self.mix(x, partners, beta(self.alpha))
        weights = class_weights(y, self.classes)
        return x, share * weights + (1 - share) * weights[partners]
