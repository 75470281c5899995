"""Attacks on images within a ball around them, as pure functions: FGSM, PGD, SA-PGD and Square in the maximum norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Gradient = Callable[[Tensor, Tensor], Tensor]
"""Images `[N, C, H, W]` and labels `[N]` to the gradient of the loss by the images."""


class Slope(NamedTuple):
    """What an attack with a memory sees of a network.

    Attributes:
        gradient: of each image's loss by the image, `[N, C, H, W]`.
        loss: `[N]`.
        right: whether the image is still classified right, bool `[N]`.
    """

    gradient: Tensor
    loss: Tensor
    right: Tensor


def project(x: Tensor, around: Tensor, eps: float, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The nearest image within eps of `around`, pixel by pixel, and within [low, high]."""
    return torch.minimum(torch.maximum(x, around - eps), around + eps).clamp(low, high)


def start_in(x: Tensor, eps: float, draw: torch.Generator | None, low: float, high: float) -> Tensor:
    """Where an attack begins: a uniform draw from the ball by a generator on the CPU, or x itself without one."""
    start = x if draw is None else x + eps * (2 * torch.rand(x.shape, generator=draw).to(x) - 1)
    return project(start, x, eps, low, high)


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
    at = start_in(x, eps, draw, low, high)
    for _ in range(steps):
        at = project(at + step * gradient(at, y).sign(), x, eps, low, high)
    return at


KEPT, KEPT_SQUARES = 0.5, 0.8  # of the sums over gradients and over their squares, at each step
TINY = 1e-12


def sa_pgd(
    slope: Callable[[Tensor, Tensor], Slope],
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    draw: torch.Generator | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Stable adaptive PGD: steps whose size each pixel's gradients set, and which are cut at a size that halves.

    With g the gradient of an image and mean(.) over its pixels: m <- 0.5 m + g / mean(|g|),
    v <- 0.8 v + g^2 / mean(g^2), and the step is size * clip(m / sqrt(v), -1, 1). The size begins at eps and halves at
    the steps of `halvings`. The result is, of each image, the one of the highest loss among those that are classified
    wrong, or among all where none is: it takes steps + 1 passes.

    Source: Wang et al. 2025 (arXiv 2512.22522), its SA-PGD, by the authors' repository. That halves the size at fewer
    whole steps, which for some ten steps is nearly each; the checkpoints' shares of Auto-PGD are our reading, and so
    is the uniform start, which theirs stretches to the ball's border.

    Args:
        slope: the network, see `Slope`.
        x: `[N, C, H, W]`.
        y: `[N]`.
        eps: radius of the ball in the maximum norm, in the units of x.
        steps: how many.
        draw: a generator on the CPU for the random start in the ball; None starts at x.
        low: the smallest value of a pixel.
        high: the largest.
    """
    at = best = start_in(x, eps, draw, low, high)
    highest = torch.full((len(x),), -math.inf)
    fooled = torch.zeros(len(x), dtype=torch.bool)
    sums, squares = torch.zeros_like(x), torch.zeros_like(x)
    size, halve = eps, halvings(steps)
    for done in range(steps + 1):
        seen = slope(at, y)
        loss, wrong = seen.loss.cpu(), ~seen.right.cpu()
        better = (wrong & ~fooled) | ((wrong == fooled) & (loss > highest))
        best = torch.where(better.view(-1, 1, 1, 1).to(x.device), at, best)
        highest, fooled = torch.where(better, loss, highest), fooled | wrong
        if done == steps:
            break
        if done in halve:
            size /= 2
        scaled = of_mean_one(seen.gradient)
        sums = KEPT * sums + scaled
        squares = KEPT_SQUARES * squares + of_mean_one(scaled.square())
        move = (sums / (squares.sqrt() + TINY)).clamp(-1, 1)
        at = project(at + size * move, x, eps, low, high)
    return best


def of_mean_one(values: Tensor) -> Tensor:
    """Each image's values `[N, C, H, W]` over the mean of their sizes; 0 where all are."""
    mean = values.abs().mean((1, 2, 3), keepdim=True)
    return torch.where(mean > 0, values / mean, torch.zeros_like(values))


def halvings(steps: int) -> set[int]:
    """The steps before which the size is halved: Auto-PGD's checkpoints, at the shares 0.22, 0.41, 0.57, ... of all.

    A share p follows its predecessor by 0.03 less than that followed its own, and by 0.06 at least.

    Source: Croce & Hein 2020 (arXiv 2003.01690), section 4.
    """
    found, before, share = set(), 0.0, 0.22
    while share < 1:
        # Rounded: a share is a sum of such numbers, and 0.41 * 100 should be 41.
        found.add(math.ceil(round(share * steps, 9)))
        before, share = share, share + max(share - before - 0.03, 0.06)
    return found


SQUARE = 0.8  # share of the pixels in the first square
SHRINKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries, after which the share has halved


def square(
    margin: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    eps: float,
    queries: int,
    draw: torch.Generator,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Random search among images at the border of the ball: squares of one colour that are kept where they help.

    It begins with vertical stripes of x + eps and x - eps, and then, at each query, sets a square at a random place to
    one of the two, channel by channel; an image keeps it if its margin falls. It follows no gradient, so that masked
    ones cannot mislead it.

    Source: Andriushchenko et al. 2020 (arXiv 1912.00049), algorithms 1 and 2 and its schedule of sizes, scaled to the
    number of queries; 0.8 is AutoAttack's.

    Args:
        margin: of images `[N, C, H, W]` and labels `[N]`, by how much the right logit exceeds all others, `[N]`.
        x: `[N, C, H, W]`.
        y: `[N]`.
        eps: radius of the ball in the maximum norm, in the units of x.
        queries: how many images each image may be tried as.
        draw: a generator on the CPU.
        low: the smallest value of a pixel.
        high: the largest.
    """
    count, channels, height, width = x.shape
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    best = project(x + eps * _signs((count, channels, 1, width), draw).to(x), x, eps, low, high)
    least = margin(best, y)
    for query in range(1, queries):
        if bool((least < 0).all()):
            break
        side = square_side(query, queries, height, width)
        top = torch.randint(height - side + 1, (count, 1, 1, 1), generator=draw)
        left = torch.randint(width - side + 1, (count, 1, 1, 1), generator=draw)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        colour = project(x + eps * _signs((count, channels, 1, 1), draw).to(x), x, eps, low, high)
        tried = torch.where(inside.to(x.device), colour, best)
        found = margin(tried, y)
        better = found < least
        best = torch.where(better.view(-1, 1, 1, 1).to(x.device), tried, best)
        least = torch.where(better, found, least)
    return best


def square_side(query: int, queries: int, height: int, width: int) -> int:
    """The side of a query's square in pixels, of images of this size."""
    scaled = int(query / queries * 10_000)
    share = SQUARE / 2 ** sum(scaled > limit for limit in SHRINKS)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _signs(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, shape, generator=draw) - 1
