"""Corruptions of images in five severities, as pure functions on uint8 images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

SEVERITIES = 5

NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)  # standard deviation, of pixels in [0, 1]
SALT = (0.01, 0.03, 0.06, 0.10, 0.17)  # share of pixels
BLUR = (0.4, 0.6, 0.8, 1.2, 1.6)  # standard deviation in pixels of a 32-pixel image
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added, of pixels in [0, 1]
DARKNESS = (0.75, 0.6, 0.45, 0.3, 0.15)  # factor
CONTRAST = (0.75, 0.6, 0.45, 0.3, 0.15)  # what is left of it
ANGLE = (5.0, 10.0, 15.0, 22.5, 30.0)  # degrees
SHIFT = (0.03, 0.06, 0.09, 0.125, 0.1875)  # of the side, each axis
QUALITY = (75, 50, 30, 15, 7)  # JPEG


def bytes_of(x: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8, as a file would store them."""
    return (255 * x).round().clamp(0, 255).to(torch.uint8)


def gaussian_noise(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Independent normal noise on each value."""
    return bytes_of(image / 255 + NOISE[severity] * torch.randn(image.shape, generator=draw))


def salt_and_pepper(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Some pixels black, as many white, all channels alike."""
    lot = torch.rand(1, *image.shape[1:], generator=draw)
    out = torch.where(lot < SALT[severity] / 2, torch.zeros_like(image), image)
    return torch.where(lot > 1 - SALT[severity] / 2, torch.full_like(image, 255), out)


def gaussian_blur(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """A Gaussian filter whose width grows with the image."""
    sigma = BLUR[severity] * min(image.shape[1:]) / 32
    # Three deviations on each side; mirrored edges must be shorter than the image.
    reach = min(math.ceil(3 * sigma), min(image.shape[1:]) - 1)
    return tv.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)


def brightness(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Light everywhere, black places too."""
    return bytes_of(image / 255 + BRIGHTNESS[severity])


def darkness(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Less light."""
    return tv.adjust_brightness(image, DARKNESS[severity])


def contrast(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Drawn towards the image's own mean grey."""
    return tv.adjust_contrast(image, CONTRAST[severity])


def rotate(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Turned to one side or the other, black corners."""
    sign = 1 if torch.rand(1, generator=draw).item() < 0.5 else -1
    return tv.rotate(image, sign * ANGLE[severity], tv.InterpolationMode.BILINEAR)


def translate(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Shifted along both axes to one of four corners, black behind it; at least by a pixel."""
    signs = (torch.rand(2, generator=draw) < 0.5).tolist()
    height, width = image.shape[1:]
    by = [
        max(1, round(SHIFT[severity] * side)) * (1 if sign else -1)
        for side, sign in zip((width, height), signs, strict=True)
    ]
    return tv.affine(image, angle=0.0, translate=by, scale=1.0, shear=[0.0, 0.0])


def jpeg(image: Tensor, severity: int, draw: torch.Generator) -> Tensor:
    """Stored and read again."""
    return tv.jpeg(image, QUALITY[severity])


Corruption = Callable[[Tensor, int, torch.Generator], Tensor]

CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        gaussian_noise, salt_and_pepper, gaussian_blur, brightness, darkness, contrast, rotate, translate, jpeg,
    )
}  # fmt: skip
"""Name -> function of one uint8 image `[C, H, W]`, a severity from 0 to 4 and a generator; it gives another such
image. Severities are this suite's, in the manner of Hendrycks & Dietterich 2019 (arXiv 1903.12261)."""
