"""Corruptions by hand on known images, and that an image's corruption is its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.probes._corrupt import ANGLE, BRIGHTNESS, CORRUPTIONS, NOISE, SALT, SEVERITIES
from bench.probes.corruptions import corrupted

DETERMINED = ["gaussian_blur", "brightness", "darkness", "contrast", "jpeg"]


def images(channels: int = 1, size: int = 8, count: int = 3) -> Tensor:
    """Bright bars on black with some texture, uint8."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 60, (count, channels, size, size), generator=draw, dtype=torch.uint8)
    x[..., size // 4 : size // 2, 1:-1] = 180
    x[0, ..., 0] = 0
    return x


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_every_corruption_works_at_every_size_and_gets_worse(name: str, channels: int, size: int) -> None:
    x = images(channels, size, count=8)
    harder = [corrupted(x, name, severity, seed=0) for severity in range(SEVERITIES)]
    assert all(images.shape == x.shape and images.dtype == torch.uint8 for images in harder)
    change = [(images.float() - x.float()).abs().mean().item() for images in harder]
    assert change[0] >= 0
    assert change[-1] > 0
    # Shifts and turns of a picture change it no more from some point on: its content has left its place.
    if name not in ("translate", "rotate"):
        assert change == sorted(change)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_meets_the_same_corruption_in_every_subset(name: str) -> None:
    x = images(3, 16, count=6)
    whole, alone = corrupted(x, name, 2, seed=0), corrupted(x[4:5].contiguous(), name, 2, seed=0)
    assert torch.equal(whole[4:5], alone)
    assert torch.equal(whole, corrupted(x, name, 2, seed=0))
    again = corrupted(x, name, 2, seed=1)
    assert torch.equal(whole, again) == (name in DETERMINED)


def test_noise_has_the_deviation_it_says() -> None:
    grey = torch.full((1, 300, 300), 128, dtype=torch.uint8)
    for severity in (0, 4):
        off = (CORRUPTIONS["gaussian_noise"](grey, severity, draw()).float() - 128) / 255
        assert off.std().item() == pytest.approx(NOISE[severity], rel=0.05)
        assert off.mean().item() == pytest.approx(0, abs=0.02)
        hit = CORRUPTIONS["salt_and_pepper"](grey, severity, draw())
        assert (hit == 0).float().mean().item() == pytest.approx(SALT[severity] / 2, rel=0.2)
        assert (hit == 255).float().mean().item() == pytest.approx(SALT[severity] / 2, rel=0.2)
        assert int(((hit != 0) & (hit != 255) & (hit != 128)).sum()) == 0


def test_light_by_hand() -> None:
    x = torch.tensor([[[0, 100], [200, 240]]], dtype=torch.uint8)
    assert BRIGHTNESS[1] == 0.2  # 51 levels
    assert CORRUPTIONS["brightness"](x, 1, draw()).flatten().tolist() == [51, 151, 251, 255]
    assert CORRUPTIONS["darkness"](x, 0, draw()).flatten().tolist() == [0, 75, 150, 180]
    # Around the mean, 135, three quarters of the contrast are left.
    pixels = CORRUPTIONS["contrast"](x, 0, draw()).flatten().tolist()
    assert pixels == pytest.approx([135 - 0.75 * 135, 135 - 0.75 * 35, 135 + 0.75 * 65, 135 + 0.75 * 105], abs=1)


def test_a_shift_moves_a_dot_by_whole_pixels() -> None:
    x = torch.zeros(1, 8, 8, dtype=torch.uint8)
    x[0, 4, 4] = 255
    for severity, by in ((0, 1), (4, 2)):  # 0.03 of 8 pixels is at least one; 0.1875 of 8 is 1.5, rounded to 2
        moved = CORRUPTIONS["translate"](x, severity, draw())
        ((row, column),) = moved[0].nonzero().tolist()
        assert (abs(row - 4), abs(column - 4)) == (by, by)


def test_a_turn_is_by_its_angle() -> None:
    size = 65
    x = torch.zeros(1, size, size, dtype=torch.uint8)
    x[0, 31:34, 48:53] = 255  # right of the centre, 18 pixels away
    turned = CORRUPTIONS["rotate"](x, 4, draw())[0].float()
    place = torch.arange(size) - size // 2
    row = (turned.sum(1) * place).sum() / turned.sum()
    column = (turned.sum(0) * place).sum() / turned.sum()
    assert abs(torch.atan2(row, column).rad2deg().item()) == pytest.approx(ANGLE[4], abs=1)


def test_a_blur_is_as_wide_on_a_small_image_as_on_a_large_one() -> None:
    """The standard deviation of a blurred dot, in shares of the image."""
    for size in (16, 64):
        x = torch.zeros(1, size + 1, size + 1, dtype=torch.uint8)
        x[0, size // 2, size // 2] = 255
        spread = CORRUPTIONS["gaussian_blur"](x, 4, draw())[0].float()
        place = torch.arange(size + 1) - size // 2
        width = ((spread.sum(0) * place.square()).sum() / spread.sum()).sqrt().item()
        assert width / (size + 1) == pytest.approx(1.6 / 32, rel=0.15)
