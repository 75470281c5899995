"""Attacks worked out by hand on a linear model, and what every attack promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bench.probes._attacks import Slope, fgsm, halvings, pgd, project, sa_pgd, square, square_side

WEIGHT = torch.tensor([[2.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])


def linear_gradient(x: Tensor, y: Tensor) -> Tensor:
    """Of the summed cross-entropy of logits W x, by autograd."""
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x.flatten(1) @ WEIGHT.T, y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def linear_slope(x: Tensor, y: Tensor) -> Slope:
    """The same, with each image's loss and answer."""
    logits = x.flatten(1) @ WEIGHT.T
    return Slope(linear_gradient(x, y), F.cross_entropy(logits, y, reduction="none"), logits.argmax(1) == y)


def linear_margin(x: Tensor, y: Tensor) -> Tensor:
    """Of two logits the right one less the wrong one."""
    own, other = x.flatten(1) @ WEIGHT[0], x.flatten(1) @ WEIGHT[1]
    return torch.where(y == 0, own - other, other - own)


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
    for found in (
        fgsm(linear_gradient, x, y, eps),
        pgd(linear_gradient, x, y, eps, steps, step * eps, draw),
        sa_pgd(linear_slope, x, y, eps, steps, draw),
        square(linear_margin, x, y, eps, 4 * steps, draw),
    ):
        assert (found - x).abs().max() <= eps + 1e-7
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


# -- SA-PGD --------------------------------------------------------------------------------------------


def test_the_step_halves_at_auto_pgds_checkpoints() -> None:
    # Shares 0.22, then 0.19, 0.16, 0.13, 0.10, 0.07 and from there 0.06 further each.
    assert sorted(halvings(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(halvings(20)) == [5, 9, 12, 14, 16, 18, 19, 20]
    assert sorted(halvings(1)) == [1]


def test_the_first_step_of_sapgd_is_fgsms() -> None:
    # Of g = (-3, 2, 0, 0) c: m = g / (1.25 c) = (-2.4, 1.6) and sqrt(v) = |g| / sqrt(3.25 c^2) = (1.66, 1.11), so that
    # m / sqrt(v) is 1.44 in size, which is cut to 1.
    x, y = image(0.5, 0.4, 0.3, 0.2), torch.tensor([0])
    torch.testing.assert_close(sa_pgd(linear_slope, x, y, 0.1, 1), fgsm(linear_gradient, x, y, 0.1))


def scripted(*seen: tuple[float, float, bool]) -> tuple[list[Tensor], object]:
    """A network that answers its passes with this gradient (in each pixel), loss and answer; and what it was shown."""
    shown: list[Tensor] = []

    def slope(x: Tensor, y: Tensor) -> Slope:
        gradient, loss, right = seen[len(shown)]
        shown.append(x)
        return Slope(torch.full_like(x, gradient), torch.tensor([loss]), torch.tensor([right]))

    return shown, slope


def test_the_steps_of_sapgd_by_hand() -> None:
    """Gradients (1, then -2, then -2) everywhere, of two and more steps."""
    # Step 1: m = 1, v = 1: eps. Step 2 of 2, of half the size: m = 0.5 - 1, v = 0.8 + 1: -0.5 / sqrt(1.8) = -0.37268.
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    shown, slope = scripted((1, 0.0, True), (-2, 1.0, True), (-2, 2.0, True))
    found = sa_pgd(slope, x, y, 0.1, 2)  # type: ignore[arg-type]
    assert len(shown) == 3
    torch.testing.assert_close(shown[1], torch.full_like(x, 0.6))
    torch.testing.assert_close(found, torch.full_like(x, 0.6 - 0.05 * 0.372678))
    # Step 3 of 20, before the first halving: m = -0.25 - 1, v = 1.44 + 1: -1.25 / sqrt(2.44) = -0.80023.
    shown, slope = scripted((1, 0, True), *[(-2, place, True) for place in range(20)])
    sa_pgd(slope, x, y, 0.1, 20)  # type: ignore[arg-type]
    torch.testing.assert_close(shown[3], torch.full_like(x, 0.6 - 0.0372678 - 0.0800235))


def test_sapgd_keeps_the_best_image_and_a_fooled_one_before_all() -> None:
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    for seen, best in (
        (((1, 5.0, True), (1, 9.0, True), (1, 3.0, True)), 1),  # the highest loss
        (((1, 5.0, True), (1, 9.0, True), (-1, 3.0, False)), 2),  # a wrong answer, whatever its loss
        (((1, 5.0, False), (1, 9.0, True), (1, 3.0, False)), 0),  # of two of them the higher loss
        (((1, 5.0, True), (1, float("nan"), True), (1, 3.0, True)), 0),
    ):
        shown, slope = scripted(*seen)
        assert torch.equal(sa_pgd(slope, x, y, 0.1, 2), shown[best])  # type: ignore[arg-type]


def test_sapgd_stays_where_there_is_no_gradient() -> None:
    x, y = image(0.5, 0.4, 0.3, 0.2), torch.tensor([0])
    _, slope = scripted(*[(0, place, True) for place in range(6)])
    assert torch.equal(sa_pgd(slope, x, y, 0.1, 5), x)  # type: ignore[arg-type]


# -- Square --------------------------------------------------------------------------------------------


def test_the_side_of_a_square_by_hand() -> None:
    # sqrt(0.8 * 784) = 25.04; at the 11th query of 10,000 sqrt(0.4 * 784) = 17.7; at the first of 100, which stands for
    # the 100th, sqrt(0.2 * 784) = 12.5; at the end 0.8 / 512 * 784 = 1.2 pixels.
    assert square_side(10, 10_000, 28, 28) == 25
    assert square_side(11, 10_000, 28, 28) == 18
    assert square_side(1, 100, 28, 28) == 13
    assert square_side(9_999, 10_000, 28, 28) == 1
    assert square_side(1, 10_000, 2, 30) == 2


def test_square_finds_the_worst_corner_without_a_gradient() -> None:
    # The margin is 3 a - 2 b and does not see the others.
    x = image(0.5, 0.45, 0.3, 0.97)
    found = square(linear_margin, x, torch.tensor([0]), 0.1, 200, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[..., 0, :], image(0.4, 0.55, 0.3, 0.97)[..., 0, :])
    # Every pixel is at the border of the ball, or of the pixels' range.
    sides = torch.stack([x - 0.1, (x + 0.1).clamp(max=1)])
    assert (sides - found).abs().amin(0).max() < 1e-6


def test_square_asks_no_more_than_it_may_and_stops_when_all_are_fooled() -> None:
    asked: list[Tensor] = []

    def margin(x: Tensor, y: Tensor) -> Tensor:
        asked.append(x)
        return torch.tensor([1.0, 5.0 - len(asked)])

    x = torch.full((2, 3, 4, 4), 0.5)
    found = square(margin, x, torch.tensor([0, 1]), 0.1, 30, torch.Generator().manual_seed(1))
    assert len(asked) == 30
    # The first keeps its stripes, which no query betters; the second takes every square.
    assert torch.equal(found[0], asked[0][0])
    assert torch.equal(found[1], asked[-1][1])
    stripes = asked[0] - x
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(x))
    asked.clear()
    square(lambda x, y: margin(x, y) - 3.5, x, torch.tensor([0, 1]), 0.1, 30, torch.Generator().manual_seed(1))
    assert len(asked) == 2
