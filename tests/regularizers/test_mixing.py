"""Mixup and CutMix by hand."""

from __future__ import annotations

import pytest
import torch

from bench.errors import BenchError
from bench.regularizers.cutmix import CutMix, box, pasted
from bench.regularizers.mixup import Mixup, mixed

IMAGES = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]], [[[4.0, 8.0], [12.0, 16.0]]]])
OTHERS = torch.tensor([1, 0])


def test_mixup_by_hand() -> None:
    assert mixed(IMAGES, OTHERS, 0.75)[:, 0].tolist() == [[[1, 2], [3, 4]], [[3, 6], [9, 12]]]


def test_the_box_by_hand() -> None:
    # A quarter of the area goes: half of each side, 4 x 4 of 8 x 8, around the middle.
    assert box(8, 8, 0.75, 0.5, 0.5) == (2, 6, 2, 6)
    # At the upper edge and right of the middle it is cut.
    assert box(8, 8, 0.75, 0.0, 0.9) == (0, 2, 5, 8)
    assert box(8, 8, 1.0, 0.5, 0.5) == (4, 4, 4, 4)
    assert box(8, 8, 0.0, 0.5, 0.5) == (0, 8, 0, 8)


def test_the_box_is_pasted() -> None:
    assert pasted(IMAGES, OTHERS, 0, 1, 0, 2)[:, 0].tolist() == [[[4, 8], [0, 0]], [[0, 0], [12, 16]]]


@pytest.mark.parametrize("make", [Mixup, CutMix])
def test_labels_follow_the_images(make, net) -> None:
    """An image of zeros and one of ones: the mean of a mixed image is the share of the other one in its label."""
    reg = make(alpha=1.0, prob=1.0)
    reg.attach(net())
    x = torch.stack([torch.zeros(2, 8, 8), torch.ones(2, 8, 8)])
    torch.manual_seed(0)
    shares = []
    for _ in range(200):
        mixed_x, mixed_y = reg.batch(x, torch.tensor([0, 2]))
        assert mixed_y.sum(1).tolist() == pytest.approx([1, 1])
        assert mixed_y[:, 1].tolist() == [0, 0]
        assert mixed_x.mean((1, 2, 3)).tolist() == pytest.approx(mixed_y[:, 2].tolist(), abs=1e-6)
        shares.append(mixed_y[0, 0].item())
    # Beta(1, 1) is uniform; half of the permutations of two leave both where they are.
    assert 0.65 < sum(shares) / 200 < 0.85
    assert min(shares) < 0.2


def test_some_batches_stay(net) -> None:
    reg = Mixup(alpha=1.0, prob=0.3)
    reg.attach(net())
    torch.manual_seed(1)
    x, y = torch.rand(64, 2, 8, 8), torch.zeros(64, dtype=torch.int64)
    stayed = sum(reg.batch(x, y)[0] is x for _ in range(300))
    # 210 expected, with a standard deviation of 8.
    assert 185 < stayed < 235


def test_soft_labels_are_mixed_again(net) -> None:
    reg = Mixup(alpha=1.0)
    reg.attach(net())
    torch.manual_seed(3)
    y = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    _, found = reg.batch(torch.rand(2, 2, 8, 8), y)
    assert found.sum(1).tolist() == pytest.approx([1, 1])
    assert found[:, 0].tolist() == pytest.approx(found[:, 1].tolist())


def test_numbers_have_ranges() -> None:
    with pytest.raises(BenchError, match=r"reg\.mixup\.prob is 1\.5, it must lie in \[0, 1\]"):
        Mixup(prob=1.5)
    with pytest.raises(BenchError, match=r"reg\.cutmix\.alpha is -1, it must"):
        CutMix(alpha=-1)
