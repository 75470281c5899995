"""The settings under `data=`, a dataclass that Hydra checks types against; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class DataConfig:
    """Which images, how many of them, and what happens to them on the way to the network.

    Attributes:
        name: a registered data set.
        root: the folder that holds the data sets and their cache.
        path: for data=folder, the folder that holds train/ and test/.
        classes: train and test on these alone, names or labels, renumbered 0, 1, ... in this order; null takes all.
        limit: training images, a class-balanced subset drawn by the run's seed once validation is split
            off; null takes all.
        test_limit: the same for the test set.
        per_class: the first so many training images of each class, in the data set's order, once validation is split
            off: the same for every seed. In place of a limit; null takes all.
        test_per_class: the same for the test set.
        val_fraction: share of the training images split off for validation, class by class, in [0, 1).
        crop: pixels of zeros around the image before a random crop to its size; 0 is off.
        flip: mirror left and right with probability 1/2.
        randaugment: timm's string, say rand-m9-n2. Runs on the CPU, image by image.
        mixup: alpha of timm's Mixup; targets turn into [N, classes] floats; 0 is off.
        mean: per channel, of pixels in [0, 1]; null takes it from the full training set (of
            the chosen classes), before padding.
        std: likewise.
        size: pad smaller images with zeros, or resize larger ones, to size x size.
        posterize: leading bits of each pixel that the network sees, the others being 0, as Pillow and torchvision
            posterize: 6 leaves 64 levels and makes 255 a 252; null keeps all 8.
    """

    name: str = MISSING
    root: str = "${oc.env:BENCH_DATA,data}"
    path: str | None = None
    classes: list[int | str] | None = None
    limit: int | None = None
    test_limit: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    val_fraction: float = 0.0
    crop: int = 0
    flip: bool = False
    randaugment: str | None = None
    mixup: float = 0.0
    mean: list[float] | None = None
    std: list[float] | None = None
    size: int | None = None
    posterize: int | None = None
