"""The two sets of noise images of antonov2024's table 1, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]
from torch import Tensor

from bench.errors import BenchError
from bench.ranges import Numbers

SETTINGS = Numbers("noise.")


class Level(StrEnum):
    """Mean intensity of the noise: `training`, the training set's, or `dark`, 1/32, as U(0, 1) / 16 has it."""

    training = "training"
    dark = "dark"


class Blur(StrEnum):
    """`image` blurs each image by itself, `across` also blurs along the axis of samples, as the paper's code does."""

    image = "image"
    across = "across"


DARK_MEAN = 1 / 32


def delta_noise(count: int, shape: tuple[int, int, int], mean: Sequence[float], draw: torch.Generator) -> Tensor:
    """Independent pixels, uniform on the widest interval within [0, 1] around a mean.

    That is U(0, 2 mean) for a mean up to 1/2, so that U(0, 1) / 16 is a mean of 1/32. (The notebooks have that divider,
    on images that they have divided by 4 before: a mean of 1/8, about the training set's.)

    Source: antonov2024, section 3, test set 1; the distribution is the notebooks'.

    Args:
        count: M.
        shape: (C, H, W).
        mean: of each channel, in [0, 1].
        draw: a generator on the CPU.

    Returns:
        float32 `[M, C, H, W]` in [0, 1].

    Raises:
        BenchError: a mean outside [0, 1].
    """
    if not all(0 <= value <= 1 for value in mean):
        raise BenchError(f"noise of mean intensity {list(mean)} leaves the pixels' range: it must lie in [0, 1]")
    centre = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1)
    half = torch.minimum(centre, 1 - centre)
    uniform = torch.rand(count, *shape, generator=draw, dtype=torch.float64)
    return (centre + half * (2 * uniform - 1)).clamp(0, 1).float()


def blurred(noise: Tensor, sigma: float = 2.0, how: Blur = Blur.image) -> Tensor:
    """Noise of finite correlation: a Gaussian filter, mirrored at the edges, which keeps the mean.

    Source: antonov2024, section 3, test set 2.

    Args:
        noise: `[M, C, H, W]`.
        sigma: standard deviation in pixels, and with `across` in samples.
        how: along which axes.

    Returns:
        float32 of the same shape.

    Raises:
        BenchError: sigma is 0 or below, or not finite.
    """
    SETTINGS.above(0, " pixels", sigma=sigma)
    along = (sigma if how is Blur.across else 0.0, 0.0, sigma, sigma)
    return torch.from_numpy(gaussian_filter(noise.double().numpy(), along).astype(np.float32))
