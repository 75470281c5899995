"""From the settings under `data=` to the splits of one run: validation, subsets, padding, statistics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.batches import Augment, Batches
from bench.data.cache import Dataset, open_dataset
from bench.data.classes import restrict
from bench.data.config import DataConfig
from bench.errors import BenchError
from bench.ranges import Numbers
from bench.seeds import generator

if TYPE_CHECKING:
    from timm.data.auto_augment import RandAugment

ASSIGNED = "{key}={exact} must {wanted}"
SETTINGS = Numbers("data.", ASSIGNED)
RANDAUGMENT = re.compile(r"rand(-(m\d+|n[1-9]\d*|p\d*\.?\d+|mstd\d*\.?\d+|mmax\d+|inc[01]|t(weights|3aw?)))*")
"""timm's sections; it passes over what it does not know."""


@dataclass(frozen=True)
class Splits:
    """The batches of one run.

    Attributes:
        dataset: what they come from, cut down to data.classes.
        train: shuffled and augmented.
        train_clean: the same images in order, neither shuffled nor augmented.
        val: split off the training set; None if data.val_fraction is 0.
        test: the test set.
        image_shape: (C, H, W) after padding.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
    """

    dataset: Dataset
    train: Batches
    train_clean: Batches
    val: Batches | None
    test: Batches
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.dataset.classes)

    @property
    def train_images(self) -> int:
        """Training images, after validation and data.limit or data.per_class."""
        return self.train.images

    @property
    def test_images(self) -> int:
        """Test images, after data.test_limit or data.test_per_class."""
        return self.test.images


def prepare(
    cfg: DataConfig,
    *,
    seed: int,
    batch_size: int,
    eval_batch_size: int = 500,
    max_train_images: int | None = None,
    eval_batches: int | None = None,
    device: torch.device | str = "cpu",
) -> Splits:
    """Open the data set and make its splits.

    Validation is split off first, then data.limit cuts the training set. Which images each takes depends on
    the seed and on nothing else; data.per_class, in place of a limit, takes the first ones whatever the seed. Where
    neither is set, `max_train_images` is the limit; unlike one that is set, it may exceed what there is.
    `eval_batches` cuts every evaluation split to as many batches of images drawn by the seed: the first ones of a set
    that is sorted by class would all be of one class.

    Raises:
        BenchError: a setting is out of its range or does not fit the data set.
    """
    _check(cfg, batch_size, eval_batch_size)
    dataset = restrict(open_dataset(cfg), cfg.classes)
    classes = len(dataset.classes)
    train, val = torch.arange(len(dataset.train_labels)), None
    if cfg.val_fraction:
        train, val = split_off(dataset.train_labels, cfg.val_fraction, seed, dataset.classes)
    train = train[_chosen_for_training(cfg, dataset.train_labels[train], dataset.classes, seed, max_train_images)]
    test = torch.arange(len(dataset.test_labels))
    if cfg.test_limit is not None:
        test = balanced(dataset.test_labels, cfg.test_limit, classes, seed, "data.test_limit")
    elif cfg.test_per_class is not None:
        test = _first(dataset.test_labels, cfg.test_per_class, dataset.classes, "test_per_class", "test")

    channels = dataset.train_images.shape[1]
    mean, std = (_per_channel(getattr(cfg, key), key, channels) for key in ("mean", "std"))
    if mean is None or std is None:
        own = statistics(dataset.train_images)
        mean, std = mean or own[0], std or own[1]
    SETTINGS.check("mean", list(mean), True, "be finite")
    SETTINGS.check("std", list(std), min(std) > 0, "be above 0")
    pixels: dict[str, Any] = {"mean": mean, "std": std, "posterize": cfg.posterize}

    def take(images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        if len(index) < len(images):
            images, labels = images[index], labels[index]
        return fit(images, cfg.size), labels

    def clean(images: Tensor, labels: Tensor) -> Batches:
        if eval_batches is not None and eval_batches * eval_batch_size < len(images):
            shuffled = torch.randperm(len(images), generator=generator("cpu", seed, "eval_batches"))
            index = shuffled[: eval_batches * eval_batch_size].sort().values
            images, labels = images[index.to(images.device)], labels[index]
        return Batches(images, labels, eval_batch_size, device=device, **pixels)

    images, labels = take(dataset.train_images, dataset.train_labels, train)
    augment = _augment(cfg, tuple(images.shape[1:]), mean, classes)
    batch = min(batch_size, len(images))
    if augment.mixup is not None and batch % 2:
        raise BenchError(f"data.mixup pairs images: it needs an even batch size, not {batch}")
    if augment.randaugment is None:
        images = images.to(device)  # once, for train and train_clean
    return Splits(
        dataset,
        train=Batches(images, labels, batch_size, device=device, augment=augment, seed=seed, **pixels),
        train_clean=clean(images, labels),
        val=None if val is None else clean(*take(dataset.train_images, dataset.train_labels, val)),
        test=clean(*take(dataset.test_images, dataset.test_labels, test)),
        image_shape=(channels, images.shape[2], images.shape[3]),
        mean=mean,
        std=std,
    )


def _check(cfg: DataConfig, batch_size: int, eval_batch_size: int) -> None:
    Numbers("", ASSIGNED).at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
    SETTINGS.at_least(0, crop=cfg.crop, mixup=cfg.mixup)
    SETTINGS.at_least(1, per_class=cfg.per_class, test_per_class=cfg.test_per_class)
    SETTINGS.within("[0, 1)", val_fraction=cfg.val_fraction)
    SETTINGS.within("[1, 8]", ": a pixel has 8 bits", posterize=cfg.posterize)
    pairs = (("data.", cfg.limit, cfg.per_class), ("data.test_", cfg.test_limit, cfg.test_per_class))
    for prefix, limit, per_class in pairs:
        if limit is not None and per_class is not None:
            raise BenchError(
                f"{prefix}per_class={per_class} and {prefix}limit={limit} both say how many images: set one of them"
            )
    if cfg.randaugment is not None and not RANDAUGMENT.fullmatch(cfg.randaugment):
        raise BenchError(f"data.randaugment={cfg.randaugment} is not timm's: write, say, rand-m9-n2 or rand-m9-mstd0.5")


def _chosen_for_training(
    cfg: DataConfig, labels: Tensor, names: Sequence[str], seed: int, max_train_images: int | None
) -> Tensor:
    """Indices of the training images, of those that validation has left: see `prepare`."""
    if cfg.per_class is not None:
        return _first(labels, cfg.per_class, names, "per_class", "training")
    limit, limited_by = cfg.limit, "data.limit"
    if limit is None and max_train_images is not None and max_train_images < len(labels):
        limit, limited_by = max_train_images, "trainer.max_train_images"
    if limit is None:
        return torch.arange(len(labels))
    return balanced(labels, limit, len(names), seed, "data.limit", limited_by)


def _per_channel(values: Sequence[float] | None, key: str, channels: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise BenchError(f"data.{key} has {len(values)} numbers: the images have {channels} channel(s)")
    return tuple(float(v) for v in values) * (channels // len(values))


def _augment(cfg: DataConfig, shape: tuple[int, ...], mean: Sequence[float], classes: int) -> Augment:
    mixup = None
    if cfg.mixup:
        from timm.data.mixup import Mixup

        mixup = Mixup(mixup_alpha=cfg.mixup, label_smoothing=0.0, num_classes=classes)
    return Augment(cfg.crop, cfg.flip, _rand_augment(cfg.randaugment, shape, mean), mixup)


def _rand_augment(text: str | None, shape: tuple[int, ...], mean: Sequence[float]) -> RandAugment | None:
    if text is None:
        return None
    from timm.data.auto_augment import rand_augment_transform

    # As timm's own create_transform: shifts of up to 45 % of the image, filled with the mean colour.
    fill = tuple(min(255, round(255 * value)) for value in mean)
    hparams = {"translate_const": int(min(shape[1:]) * 0.45), "img_mean": fill if len(fill) > 1 else fill[0]}
    return rand_augment_transform(text, hparams)


def _rank_in_class(labels: Tensor, classes: int, draw: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Each image's place, from 0, in an order of its class [M], a random one or, without `draw`, the data set's; and
    the classes' sizes [classes]."""
    ordered = torch.arange(len(labels)) if draw is None else torch.randperm(len(labels), generator=draw)
    by_class = ordered[torch.argsort(labels[ordered], stable=True)]
    sizes = torch.bincount(labels, minlength=classes)
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return rank, sizes


def balanced(labels: Tensor, limit: int, classes: int, seed: int, key: str, limited_by: str = "") -> Tensor:
    """Choose `limit` images, as many of each class as there are, within one, unless a class runs out.

    A smaller limit's choice is part of a larger one's.

    Args:
        labels: int64 [M].
        limit: how many to choose.
        classes: the number of classes.
        seed: the run's seed.
        key: the setting's name, for messages and so that two settings choose apart.
        limited_by: the name for messages, where another setting stands in for it.

    Returns:
        Their indices, int64 [limit], ascending.

    Raises:
        BenchError: more than there are, or fewer than one of each class.
    """
    setting = limited_by or key
    if limit > len(labels):
        raise BenchError(f"{setting}={limit} is more than the {len(labels)} images there are")
    if limit < classes:
        raise BenchError(f"{setting}={limit} is too few: there are {classes} classes, and each needs an image")
    draw = generator("cpu", seed, "limit", key)
    rank, _ = _rank_in_class(labels, classes, draw)
    # Which classes get the odd image is drawn too.
    turn = rank * classes + torch.randperm(classes, generator=draw)[labels]
    return turn.argsort()[:limit].sort().values


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Choose the first `count` images of each class, or all of a class that has no more.

    Args:
        labels: int64 [M].
        count: at most so many of each class.

    Returns:
        Their indices, int64, ascending.
    """
    rank, _ = _rank_in_class(labels, int(labels.max()) + 1)
    return (rank < count).nonzero().flatten()


def _first(labels: Tensor, count: int, classes: Sequence[str], setting: str, kind: str) -> Tensor:
    """As `first_of_each`; a BenchError where a class has fewer."""
    sizes = torch.bincount(labels, minlength=len(classes))
    fewest = int(sizes.argmin())
    if count > sizes[fewest]:
        raise BenchError(
            f"data.{setting}={count} is more than the {sizes[fewest]} {kind} images of class '{classes[fewest]}'"
        )
    return first_of_each(labels, count)


def split_off(labels: Tensor, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Split `fraction` of each class off for validation.

    Args:
        labels: int64 [M].
        fraction: in (0, 1); each class gives its share, rounded.
        seed: the run's seed.
        classes: the classes' names.

    Returns:
        Indices of what stays and of what is split off, both ascending.

    Raises:
        BenchError: a class would have no image on one of the two sides.
    """
    rank, sizes = _rank_in_class(labels, len(classes), generator("cpu", seed, "val"))
    quota = (sizes * fraction).round().long()
    for name, total, taken in zip(classes, sizes.tolist(), quota.tolist(), strict=True):
        if taken in (0, total):
            side = "validation" if taken == 0 else "training"
            raise BenchError(f"data.val_fraction={fraction} leaves class '{name}' ({total} images) no {side} image")
    chosen = rank < quota[labels]
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def fit(images: Tensor, size: int | None) -> Tensor:
    """Pad smaller images with zeros on all sides, or resize larger ones (bilinear, antialiased).

    Args:
        images: uint8 [M, C, H, W].
        size: the new height and width; None changes nothing.

    Returns:
        uint8 [M, C, size, size].
    """
    if size is None:
        return images
    if max(images.shape[2:]) > size:
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    high, wide = size - images.shape[2], size - images.shape[3]
    return F.pad(images, (wide // 2, wide - wide // 2, high // 2, high - high // 2)) if high or wide else images


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1].

    Counted in integers, so the same on every machine. A channel of one value has a deviation of 1.

    Args:
        images: uint8 [M, C, H, W].
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in images.split(1000):
        counts += torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)])
    levels = torch.arange(256)
    total = counts[0].sum()
    mean = (counts @ levels).double() / (255 * total)
    variance = (counts @ levels**2).double() / (255**2 * total) - mean**2
    std = torch.where(variance > 1e-12, variance.clamp(min=0).sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())
