"""Attacks on images within a ball around them, as pure functions: FGSM and PGD in the maximum norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[Tensor, Tensor], Tensor]
"""Images `[N, C, H, W]` and labels `[N]` to the gradient of the loss by the images."""


def project(x: Tensor, around: Tensor, eps: float, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The nearest image within eps of `around`, pixel by pixel, and within [low, high]."""
    return torch.minimum(torch.maximum(x, around - eps), around + eps).clamp(low, high)


def fgsm(gradient: Gradient, x: Tensor, y: Tensor, eps: float, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One step of eps along the sign of the gradient.

    Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4.

    Args:
        gradient: of the loss by the images.
        x: `[N, C, H, W]`.
        y: `[N]`.
        eps: the size of the step, in the units of x.
        low: the smallest value of a pixel.
        high: the largest.
    """
    return project(x + eps * gradient(x, y).sign(), x, eps, low, high)


def pgd(
    gradient: Gradient,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    step: float,
    draw: torch.Generator | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Steps along the sign of the gradient, each brought back into the ball.

    Source: Madry et al. 2018 (arXiv 1706.06083), section 2.1.

    Args:
        gradient: of the loss by the images.
        x: `[N, C, H, W]`.
        y: `[N]`.
        eps: radius of the ball in the maximum norm, in the units of x.
        steps: how many.
        step: the size of each.
        draw: a generator on the CPU for the random start in the ball; None starts at x.
        low: the smallest value of a pixel.
        high: the largest.
    """
    start = x
    if draw is not None:
        start = x + eps * (2 * torch.rand(x.shape, generator=draw).to(x) - 1)
    at = project(start, x, eps, low, high)
    for _ in range(steps):
        at = project(at + step * gradient(at, y).sign(), x, eps, low, high)
    return at
