"""The two sets of noise: their mean and bounds, and the blur against an implementation of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional as F

from bench.errors import BenchError
from bench.probes._noise_sets import DARK_MEAN, Blur, blurred, delta_noise


def noise(mean: list[float], count: int = 400, size: int = 28, seed: int = 0) -> Tensor:
    return delta_noise(count, (len(mean), size, size), mean, torch.Generator().manual_seed(seed))


@given(st.floats(0, 1))
def test_the_mean_is_what_was_asked_for_and_pixels_are_pixels(mean: float) -> None:
    x = noise([mean], count=40)
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1
    # Six deviations of the mean of 31,360 uniform numbers on an interval no wider than 1.
    assert x.mean().item() == pytest.approx(mean, abs=6 * math.sqrt(1 / 12 / x.numel()))


def test_the_notebooks_noise_is_uniform_to_a_sixteenth() -> None:
    x = noise([DARK_MEAN])
    assert x.max().item() == pytest.approx(1 / 16, rel=1e-4)
    assert x.max().item() <= 1 / 16
    assert x.var().item() == pytest.approx((1 / 16) ** 2 / 12, rel=0.02)


def test_channels_have_means_of_their_own_and_pixels_nothing_in_common() -> None:
    x = noise([0.1, 0.5, 0.8])
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0.1, 0.5, 0.8], abs=0.005)
    y = (x - x.mean((0, 2, 3), keepdim=True))[:, 1]
    assert abs((y[:, :, 1:] * y[:, :, :-1]).mean().item()) < 1e-3 < y.square().mean().item()
    assert torch.equal(noise([0.3], seed=4), noise([0.3], seed=4))
    assert not torch.equal(noise([0.3], seed=4), noise([0.3], seed=5))


def by_convolution(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian cut at four deviations, along both axes, with the edge row itself mirrored."""
    reach = int(4 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (2, 3):
        mirrored = torch.cat([x.flip(axis), x, x.flip(axis)], axis)
        x = mirrored.narrow(axis, x.shape[axis] - reach, x.shape[axis] + 2 * reach)
        weight = kernel.view(1, 1, -1, 1) if axis == 2 else kernel.view(1, 1, 1, -1)
        x = F.conv2d(x, weight)
    return x


def test_the_blur_of_an_image_is_a_gaussian_of_two_pixels() -> None:
    x = noise([0.2], count=6)
    found = blurred(x, 2.0)
    torch.testing.assert_close(found, by_convolution(x.double(), 2.0).float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-6, rtol=0)


def test_only_the_published_blur_mixes_samples() -> None:
    x = noise([0.2], count=40)
    other = x.clone()
    other[0] = 1.0
    own = [blurred(images)[1:] for images in (x, other)]
    mixed = [blurred(images, how=Blur.across)[1:] for images in (x, other)]
    assert torch.equal(own[0], own[1])
    assert not torch.equal(mixed[0], mixed[1])
    # Averaging some seven samples leaves less to see.
    assert blurred(x, how=Blur.across).std() < 0.5 * blurred(x).std()


def test_the_notebooks_stretch_the_contrast_and_keep_the_mean() -> None:
    """Their own lines: blurred along all axes, less the least, over the most, over the quotient of the means."""
    x = noise([0.125], count=300)
    images = gaussian_filter(x[:, 0].double().numpy(), sigma=2)
    images -= images.min()
    images /= images.max()
    images /= images.mean() / x.mean().item()
    found = blurred(x, how=Blur.stretched)
    np.testing.assert_allclose(found[:, 0].numpy(), images, atol=1e-5)
    assert found.min() == 0
    assert found.mean().item() == pytest.approx(0.125, rel=0.01)
    assert found.std() > 4 * blurred(x, how=Blur.across).std()


def test_what_cannot_be_stretched() -> None:
    assert blurred(noise([0.0], count=2), how=Blur.stretched).unique().tolist() == [0]
    with pytest.raises(BenchError, match=r"noise\.blur=stretched makes pixels of 1\.\d+ of noise whose mean is 0\.8"):
        blurred(noise([0.8], count=10), how=Blur.stretched)


def test_what_no_noise_can_be_is_refused() -> None:
    with pytest.raises(BenchError, match=r"must lie in \[0, 1\]"):
        noise([1.5])
    with pytest.raises(BenchError, match=r"noise\.sigma is 0, it must be above 0"):
        blurred(noise([0.1], count=1), 0)
