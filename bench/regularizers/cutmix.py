"""CutMix: a box of one image is pasted into another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.registry import REGULARIZERS
from bench.regularizers.mixing import Mixing
from bench.space import Linear, Log


def box(height: int, width: int, share: float, y: float, x: float) -> tuple[int, int, int, int]:
    """A box of the image's shape that leaves a share of its area, cut at the image's edges.

    Args:
        height: of the image.
        width: of the image.
        share: of the area that stays, where no edge cuts the box.
        y: its middle, as a share of the height.
        x: its middle, as a share of the width.

    Returns:
        First row, row after the last, first column, column after the last.
    """
    side = math.sqrt(1 - share)
    tall, wide = round(height * side), round(width * side)
    top, left = int(y * height) - tall // 2, int(x * width) - wide // 2
    rows = (max(top, 0), min(top + tall, height))
    columns = (max(left, 0), min(left + wide, width))
    return *rows, *columns


def pasted(x: Tensor, partners: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Images with a box of their partners'.

    Args:
        x: images `[N, C, H, W]`.
        partners: place of each image's partner, `[N]`.
        top: first row of the box.
        bottom: row after its last.
        left: first column.
        right: column after its last.
    """
    out = x.clone()
    out[..., top:bottom, left:right] = x[partners][..., top:bottom, left:right]
    return out


@REGULARIZERS.register("cutmix")
class CutMix(Mixing):
    """CutMix: a box of every image is replaced by that of another, and its label by as much of the other's.

    Source: Yun et al. 2019 (arXiv 1905.04899), eq. 1 (images and labels) and eq. 2 (the box).

    Args:
        alpha: of the distribution Beta(alpha, alpha) of the share that stays; 0 mixes nothing.
        prob: share of the batches that are mixed, in [0, 1] (the authors: 0.5 for CIFAR, 1 for ImageNet).

    Raises:
        BenchError: a negative alpha, or a share outside [0, 1].
    """

    name = "cutmix"
    space = {
        "alpha": Log(0.1, 2.0, authors=1.0, source="Yun et al. 2019, section 3.1"),
        "prob": Linear(0.1, 1.0, authors=0.5, source="Yun et al. 2019, CIFAR"),
    }

    def __init__(self, alpha: float = 1.0, prob: float = 0.5) -> None:
        super().__init__(alpha, prob)

    def mix(self, x: Tensor, partners: Tensor, share: float) -> tuple[Tensor, float]:
        height, width = x.shape[2:]
        top, bottom, left, right = box(height, width, share, *torch.rand(2).tolist())
        # What the edges cut off stays, so that the labels follow the box that was pasted.
        return pasted(x, partners, top, bottom, left, right), 1 - (bottom - top) * (right - left) / (height * width)
