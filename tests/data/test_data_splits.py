"""Limits, validation, padding, statistics, and what `prepare` refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.data import DataConfig, prepare
from bench.data.splits import balanced, first_of_each, fit, split_off, statistics
from bench.errors import BenchError

LABELS = st.lists(st.integers(0, 3), min_size=4, max_size=60).map(lambda tail: torch.tensor([0, 1, 2, 3, *tail]))


@given(LABELS, st.integers(0, 1000), st.data())
@settings(deadline=None)
def test_a_limit_is_balanced_or_a_class_runs_out(labels: torch.Tensor, seed: int, data: st.DataObject) -> None:
    limit = data.draw(st.integers(4, len(labels)))
    chosen = balanced(labels, limit, 4, seed, "data.limit")
    assert len(set(chosen.tolist())) == limit
    counts, sizes = torch.bincount(labels[chosen], minlength=4), torch.bincount(labels, minlength=4)
    left = counts[counts < sizes]  # classes that did not run out
    assert len(left) == 0 or (left.max() - left.min() <= 1 and counts.max() - left.min() <= 1)
    assert torch.equal(chosen, balanced(labels, limit, 4, seed, "data.limit"))
    if limit > 4:
        assert set(balanced(labels, limit - 1, 4, seed, "data.limit").tolist()) < set(chosen.tolist())


def test_a_limit_is_drawn_by_the_seed() -> None:
    labels = torch.arange(10).repeat(100)
    first, second = (balanced(labels, 105, 10, seed, "data.limit") for seed in (0, 1))
    assert not torch.equal(first, second)
    odd = [torch.bincount(labels[chosen]).tolist() for chosen in (first, second)]
    assert sorted(odd[0]) == [10] * 5 + [11] * 5
    assert odd[0] != odd[1]


def test_the_first_of_each_class_by_hand() -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 2])
    assert first_of_each(labels, 1).tolist() == [0, 1, 5]
    assert first_of_each(labels, 2).tolist() == [0, 1, 2, 4, 5]
    assert first_of_each(labels, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert first_of_each(torch.tensor([2, 2, 0]), 1).tolist() == [0, 2]  # a class without images


@given(LABELS.map(lambda y: y.repeat(5)), st.floats(0.2, 0.8), st.integers(0, 1000))
@settings(deadline=None)
def test_validation_is_disjoint_whole_and_stratified(labels: torch.Tensor, fraction: float, seed: int) -> None:
    train, val = split_off(labels, fraction, seed, "abcd")
    assert sorted(train.tolist() + val.tolist()) == list(range(len(labels)))
    for label in range(4):
        size = int((labels == label).sum())
        assert abs(int((labels[val] == label).sum()) - fraction * size) <= 0.5 + 1e-6


def test_fit_pads_and_resizes() -> None:
    image = torch.tensor([[[[7]]]], dtype=torch.uint8)
    assert fit(image, 4)[0, 0].tolist() == [[0, 0, 0, 0], [0, 7, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    halves = torch.tensor([[[[0, 0, 200, 200]] * 4]], dtype=torch.uint8).view(1, 1, 4, 4)
    small = fit(halves, 2)
    assert small.shape == (1, 1, 2, 2)
    assert small.dtype == torch.uint8
    assert small[0, 0, 0, 0] < 60 < 140 < small[0, 0, 0, 1]
    assert fit(halves, None) is halves


def test_statistics_against_numpy() -> None:
    images = torch.randint(0, 256, (2100, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = statistics(images)
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-9)
    assert statistics(torch.full((2, 1, 3, 3), 255, dtype=torch.uint8)) == ((1.0,), (1.0,))


def config(root: Path, **changes: Any) -> DataConfig:
    return DataConfig(**({"name": "digits", "root": str(root)} | changes))


def test_splits_of_digits(digits_root: Path) -> None:
    cfg = config(digits_root, val_fraction=0.1, limit=100, test_limit=50, crop=2, size=34)
    splits = prepare(cfg, seed=0, batch_size=30, eval_batch_size=40)
    assert splits.image_shape == (1, 34, 34)
    assert (splits.classes, splits.train_images, splits.test_images) == (10, 100, 50)
    assert len(splits.train) == 3
    assert len(splits.train_clean) == 3
    assert splits.train_clean.images == 100
    assert splits.val is not None
    assert splits.val.images == pytest.approx(144, abs=5)
    counts = torch.cat([y for _, y in splits.test]).bincount()
    assert counts.tolist() == [5] * 10
    x, y = next(iter(splits.train))
    assert x.shape == (30, 1, 34, 34)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    # Statistics are those of the whole training set before padding: not of the 100 images.
    np.testing.assert_allclose(splits.mean, statistics(splits.dataset.train_images)[0])


def test_per_class_takes_the_first_images_whatever_the_seed(digits_root: Path) -> None:
    cfg = config(digits_root, classes=[7, 4, 6], per_class=20, test_per_class=5, mean=[0.0], std=[1.0])
    # A budget's cap is for those who have not said how many.
    one, two = (prepare(cfg, seed=seed, batch_size=10, max_train_images=30) for seed in (0, 1))
    for kind, count in (("train", 20), ("test", 5)):
        images, labels = (getattr(one.dataset, f"{kind}_{part}") for part in ("images", "labels"))
        kept, left = [], {0: count, 1: count, 2: count}
        for image, label in zip(images, labels.tolist(), strict=True):
            if left[label]:
                left[label] -= 1
                kept.append((image / 255, label))
        for splits in (one, two):
            batches = list(splits.train_clean if kind == "train" else splits.test)
            assert torch.cat([y for _, y in batches]).tolist() == [label for _, label in kept]
            torch.testing.assert_close(torch.cat([x for x, _ in batches]), torch.stack([image for image, _ in kept]))
    orders = [torch.cat([y for _, y in splits.train]).tolist() for splits in (one, two)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [0] * 20 + [1] * 20 + [2] * 20


def test_per_class_is_of_what_validation_leaves(digits_root: Path) -> None:
    splits = prepare(config(digits_root, val_fraction=0.5, per_class=60), seed=0, batch_size=50)
    assert splits.val is not None
    train, val = (torch.cat([x for x, _ in part]) for part in (splits.train_clean, splits.val))
    assert len(train) == 600
    assert not {x.numpy().tobytes() for x in train} & {x.numpy().tobytes() for x in val}
    with pytest.raises(BenchError, match=r"data.per_class=80 is more than the \d\d training images of class"):
        prepare(config(digits_root, val_fraction=0.5, per_class=80), seed=0, batch_size=50)


def test_posterized_images_reach_the_network(digits_root: Path) -> None:
    splits = prepare(config(digits_root, posterize=2, mean=[0.0], std=[1.0]), seed=0, batch_size=50)
    for split in (splits.train, splits.train_clean, splits.test):
        x = torch.cat([x for x, _ in split])
        assert (255 * x).round().unique().tolist() == [0, 64, 128, 192]
    raw = splits.dataset.test_images
    torch.testing.assert_close(torch.cat([x for x, _ in splits.test]), (raw // 64 * 64) / 255)


def test_validation_and_training_share_no_image_and_depend_on_the_seed(digits_root: Path) -> None:
    def rows(seed: int) -> tuple[set[bytes], set[bytes]]:
        splits = prepare(config(digits_root, val_fraction=0.3), seed=seed, batch_size=50)
        assert splits.val is not None
        train, val = (torch.cat([x for x, _ in part]) for part in (splits.train_clean, splits.val))
        return {x.numpy().tobytes() for x in train}, {x.numpy().tobytes() for x in val}

    train, val = rows(0)
    assert not train & val
    assert rows(0)[1] == val
    assert rows(1)[1] != val


def test_without_validation(digits_root: Path) -> None:
    splits = prepare(config(digits_root, mean=[0.0], std=[1.0]), seed=0, batch_size=50)
    assert splits.val is None
    assert (splits.train_images, splits.test_images) == (1437, 360)
    x = torch.cat([x for x, _ in splits.train_clean])
    torch.testing.assert_close(x, splits.dataset.train_images / 255)


def test_rand_augment_and_mixup_through_the_settings(digits_root: Path) -> None:
    cfg = config(digits_root, limit=40, randaugment="rand-m9-n2-mstd0.5", mixup=0.2, crop=2)
    one, two = ([(x, y) for x, y in prepare(cfg, seed=0, batch_size=10).train] for _ in range(2))
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two, strict=True))
    assert one[0][1].shape == (10, 10)


def test_works_with_hydras_structured_config(digits_root: Path) -> None:
    cfg = OmegaConf.merge(OmegaConf.structured(DataConfig), {"name": "digits", "root": str(digits_root), "mean": [0.3]})
    assert prepare(cfg, seed=0, batch_size=50).mean == (0.3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 2000}, "data.limit=2000 is more than the 1437 images there are"),
        ({"limit": 9}, "data.limit=9 is too few: there are 10 classes"),
        ({"limit": 0}, "data.limit=0 is too few"),
        ({"limit": -5}, "data.limit=-5 is too few"),
        ({"test_limit": 361}, "data.test_limit=361 is more than the 360 images"),
        ({"per_class": 200}, r"data.per_class=200 is more than the 1\d\d training images of class '\d'"),
        ({"test_per_class": 50}, r"data.test_per_class=50 is more than the 3\d test images of class '\d'"),
        ({"per_class": 0}, "data.per_class=0 must be at least 1"),
        ({"test_per_class": -2}, "data.test_per_class=-2 must be at least 1"),
        ({"per_class": 5, "limit": 50}, "data.per_class=5 and data.limit=50 both say how many images: set one of them"),
        ({"test_per_class": 5, "test_limit": 50}, "data.test_per_class=5 and data.test_limit=50 both say how many"),
        ({"posterize": 0}, r"data.posterize=0 must lie in \[1, 8\]: a pixel has 8 bits"),
        ({"posterize": 9}, r"data.posterize=9 must lie in \[1, 8\]"),
        ({"val_fraction": 1.0}, r"data.val_fraction=1.0 must lie in \[0, 1\)"),
        ({"val_fraction": -0.1}, r"data.val_fraction=-0.1 must lie in \[0, 1\)"),
        ({"val_fraction": float("nan")}, "data.val_fraction=nan must lie"),
        ({"val_fraction": 0.001}, r"leaves class '0' \(\d+ images\) no validation image"),
        ({"val_fraction": 0.9999}, r"leaves class '0' \(\d+ images\) no training image"),
        ({"crop": -1}, "data.crop=-1 must be at least 0"),
        ({"size": 0}, "data.size=0 must be at least 1"),
        ({"mixup": -0.1}, "data.mixup=-0.1 must be at least 0"),
        ({"mixup": 0.2, "limit": 15}, "data.mixup pairs images: it needs an even batch size, not 15"),
        ({"randaugment": "random-m9"}, "data.randaugment=random-m9 is not timm's: write, say, rand-m9-n2"),
        ({"randaugment": "rand-q9"}, "is not timm's"),
        ({"mean": [0.1, 0.2]}, r"data.mean has 2 numbers: the images have 1 channel"),
        ({"std": [0.0]}, r"data.std=\[0.0\] must be above 0"),
        ({"name": "digts"}, "no data set is called 'digts'. Did you mean 'digits'"),
        ({"path": "x"}, "data.path=x is for data=folder"),
    ],
)
def test_bad_settings_get_one_line(digits_root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        prepare(config(digits_root, **changes), seed=0, batch_size=50)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 2


def test_bad_batch_size(digits_root: Path) -> None:
    with pytest.raises(BenchError, match="batch_size=0 must be at least 1"):
        prepare(config(digits_root), seed=0, batch_size=0)


def test_limited_evaluation_is_a_sample_of_all_classes(digits_root: Path) -> None:
    cfg = DataConfig(name="digits", root=str(digits_root))
    splits = prepare(cfg, seed=0, batch_size=8, eval_batch_size=32, eval_batches=2)
    for split in (splits.test, splits.train_clean):
        assert split.images == 64
        assert len(split) == 2
        assert len(torch.cat([y for _, y in split]).unique()) == 10
    assert splits.train.images == 1437
