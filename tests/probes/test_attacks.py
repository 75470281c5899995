"""Attacks worked out by hand on a linear model, and what every attack promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bench.probes._attacks import fgsm, pgd, project

WEIGHT = torch.tensor([[2.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])


def linear_gradient(x: Tensor, y: Tensor) -> Tensor:
    """Of the summed cross-entropy of logits W x, by autograd."""
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x.flatten(1) @ WEIGHT.T, y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def image(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(1, 1, 2, 2)


def test_fgsm_on_a_linear_model_by_hand() -> None:
    # d CE / d x = (p - onehot) W = p_1 (w_1 - w_0) for label 0: signs of (-3, 2, 0, 0), whatever p is.
    x = image(0.5, 0.5, 0.5, 0.5)
    torch.testing.assert_close(fgsm(linear_gradient, x, torch.tensor([0]), 0.1), image(0.4, 0.6, 0.5, 0.5))
    torch.testing.assert_close(fgsm(linear_gradient, x, torch.tensor([1]), 0.1), image(0.6, 0.4, 0.5, 0.5))
    # At the edge of the range a pixel stays in it.
    edge = fgsm(linear_gradient, image(0.02, 0.97, 0.5, 0.5), torch.tensor([0]), 0.1)
    torch.testing.assert_close(edge, image(0.0, 1.0, 0.5, 0.5))


def test_pgd_walks_to_the_corner_that_fgsm_jumps_to() -> None:
    x, y = image(0.5, 0.4, 0.3, 0.2), torch.tensor([0])
    found = pgd(linear_gradient, x, y, eps=0.1, steps=4, step=0.03)
    torch.testing.assert_close(found, fgsm(linear_gradient, x, y, 0.1))
    short = pgd(linear_gradient, x, y, eps=0.1, steps=2, step=0.03)
    torch.testing.assert_close(short, image(0.44, 0.46, 0.3, 0.2))


@given(st.floats(0, 1), st.integers(1, 5), st.floats(0.01, 2), st.integers(0, 1000))
def test_no_attack_leaves_the_ball_or_the_pixels_range(eps: float, steps: int, step: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 1, 2, 2, generator=draw)
    y = torch.tensor([0, 1, 0])
    for found in (fgsm(linear_gradient, x, y, eps), pgd(linear_gradient, x, y, eps, steps, step * eps, draw)):
        assert (found - x).abs().max() <= eps + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
    if eps == 0:
        assert torch.equal(found, x)


def test_the_random_start_is_anywhere_in_the_ball() -> None:
    x, y = torch.full((2000, 1, 1, 1), 0.5), torch.zeros(2000, dtype=torch.long)
    found = pgd(lambda x, y: torch.zeros_like(x), x, y, 0.2, 1, 0.1, torch.Generator().manual_seed(0))
    assert found.min().item() == pytest.approx(0.3, abs=0.002)
    assert found.max().item() == pytest.approx(0.7, abs=0.002)
    assert found.mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(pgd(lambda x, y: torch.zeros_like(x), x, y, 0.2, 1, 0.1), x)


def test_projecting_is_to_the_ball_and_then_to_the_range() -> None:
    at = project(image(0.9, -0.5, 0.31, 0.2), image(0.5, 0.05, 0.3, 0.2), 0.1)
    torch.testing.assert_close(at, image(0.6, 0.0, 0.31, 0.2))
