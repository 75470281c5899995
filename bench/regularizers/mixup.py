"""Mixup: weighted means of two images and of their labels."""

from __future__ import annotations

from torch import Tensor

from bench.registry import REGULARIZERS
from bench.regularizers.mixing import Mixing
from bench.space import Linear, Log


def mixed(x: Tensor, partners: Tensor, share: float) -> Tensor:
    """share x + (1 - share) x', x' being each image's partner.

    Args:
        x: images `[N, C, H, W]`.
        partners: place of each image's partner, `[N]`.
        share: in [0, 1].
    """
    return share * x + (1 - share) * x[partners]


@REGULARIZERS.register("mixup")
class Mixup(Mixing):
    """Mixup: every image becomes a weighted mean of two, and so does its label.

    `data.mixup` does the same by timm's implementation, within the data.

    Source: Zhang et al. 2018 (arXiv 1710.09412), section 2, eq. 1 and below (the number is not verified). alpha of
    0.2 is the authors' for ImageNet and Composer's default; for CIFAR-10 they use 1.

    Args:
        alpha: of the weight's distribution Beta(alpha, alpha); 0 mixes nothing.
        prob: share of the batches that are mixed, in [0, 1].

    Raises:
        BenchError: a negative alpha, or a share outside [0, 1].
    """

    name = "mixup"
    space = {
        "alpha": Log(0.05, 2.0, authors=0.2, source="Zhang et al. 2018, section 3.1"),
        "prob": Linear(0.2, 1.0, authors=1.0, source="Zhang et al. 2018: every batch"),
    }

    def __init__(self, alpha: float = 0.2, prob: float = 1.0) -> None:
        super().__init__(alpha, prob)

    def mix(self, x: Tensor, partners: Tensor, share: float) -> tuple[Tensor, float]:
        return mixed(x, partners, share), share
