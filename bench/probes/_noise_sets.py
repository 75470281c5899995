"""The two sets of noise images of antonov2024's table 1, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

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
    """`image` blurs each image by itself, `across` also along the axis of samples, `stretched` likewise and then
    stretches the contrast of the whole set, as the paper's code does."""

    image = "image"
    across = "across"
    stretched = "stretched"


DARK_MEAN = 1 / 32


def delta_noise(count: int, shape: tuple[int, int, int], mean: Sequence[float], draw: torch.Generator) -> Tensor:
    """Independent pixels, uniform on the widest interval within [0, 1] around a mean.

    That is U(0, 2 mean) for a mean up to 1/2, so that U(0, 1) / 16 is a mean of 1/32. (The notebooks have that divider,
    on images that they have divided by 4 before: a mean of 1/8, about the training set's. They cut the quotients to
    whole numbers, as `data.posterize=6` does: mean 7.5 of 63.)

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

    `stretched` then maps the darkest pixel of the set to 0 and scales what is above it, channel by channel, so that
    the mean stays. (The notebooks do so with the 16,500 images of which they test on 1,500.)

    Source: antonov2024, section 3, test set 2; across samples and stretched in its notebooks alone.

    Args:
        noise: `[M, C, H, W]`.
        sigma: standard deviation in pixels, and with `across` and `stretched` in samples.
        how: along which axes.

    Returns:
        float32 of the same shape.

    Raises:
        BenchError: sigma is 0 or below, or not finite; stretched noise so bright that it leaves the pixels' range.
    """
    SETTINGS.above(0, " pixels", sigma=sigma)
    along = (0.0 if how is Blur.image else sigma, 0.0, sigma, sigma)
    smooth = torch.from_numpy(gaussian_filter(noise.double().numpy(), along))
    if how is Blur.stretched:
        mean, above = smooth.mean((0, 2, 3), keepdim=True), smooth - smooth.amin((0, 2, 3), keepdim=True)
        half = above.mean((0, 2, 3), keepdim=True)
        smooth = torch.where(half > 0, above * mean / half, smooth)  # a set of one grey has no contrast
        if smooth.max() > 1:
            raise BenchError(
                f"noise.blur=stretched makes pixels of {float(smooth.max()):.3g} of noise whose mean is "
                f"{float(mean.max()):.3g}: at most 1 is white; noise.blur=across keeps its contrast"
            )
    return smooth.float()
