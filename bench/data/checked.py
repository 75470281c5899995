"""Whether what a source has parsed is a data set: arrays of right shapes, labels that are classes, nothing empty."""

from __future__ import annotations

from typing import Any

from bench.data.source import Raw
from bench.errors import BenchError

CHANNELS = (1, 3)
"""How many an image may have: grey, or red, green and blue."""


def check(name: str, raw: Any) -> Raw:
    """A parsed data set, as it was given.

    Args:
        name: of the data set.
        raw: what its `parse` returned.

    Raises:
        BenchError: it is no data set; says which array is wrong, what it is and what it must be.
    """
    where = f"data={name}: its `parse` gives"
    if not isinstance(raw, Raw):
        raise BenchError(f"{where} a {type(raw).__name__}, it must give a `bench.data.source.Raw`")
    classes = raw.classes
    if isinstance(classes, str) or not all(isinstance(label, str) for label in classes):
        raise BenchError(f"{where} classes={classes!r}, they must be a tuple of names")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise BenchError(f"{where} classes={list(classes)!r}, they must be two names or more, each another")
    for split in ("train", "test"):
        _check_images(f"{where} {split}_images", getattr(raw, f"{split}_images"))
        _check_labels(f"{where} {split}_labels", raw, split)
    one, other = raw.train_images.shape[1:], raw.test_images.shape[1:]
    if one != other:
        raise BenchError(f"{where} training images of [C, H, W] = {list(one)} and test images of {list(other)}")
    return raw


def _check_images(what: str, images: Any) -> None:
    import numpy as np

    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise BenchError(f"{what} {_kind(images)}, it must be an array of uint8")
    if images.ndim != 4 or images.shape[1] not in CHANNELS:
        raise BenchError(f"{what} of shape {list(images.shape)}, it must be [M, C, H, W] with one channel or three")
    if 0 in images.shape:
        raise BenchError(f"{what} of shape {list(images.shape)}: there is nothing in it")


def _check_labels(what: str, raw: Raw, split: str) -> None:
    import numpy as np

    labels, images = getattr(raw, f"{split}_labels"), getattr(raw, f"{split}_images")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        raise BenchError(f"{what} {_kind(labels)}, it must be an array of int64")
    if labels.shape != images.shape[:1]:
        raise BenchError(f"{what} of shape {list(labels.shape)} for {len(images):,} images, it must be [{len(images)}]")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(raw.classes):
        raise BenchError(
            f"{what} from {low} to {high}, they must be 0 to {len(raw.classes) - 1}, places in its classes"
        )


def _kind(value: Any) -> str:
    """What a value is, in two words."""
    return f"of {value.dtype}" if hasattr(value, "dtype") else f"as a {type(value).__name__}"
