"""Subsets of classes: `data.classes` resolved against a data set, and the data set cut down to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    import torch

    from bench.data.cache import Dataset


def resolve(chosen: Sequence[int | str], names: Sequence[str], key: str = "data.classes", least: int = 2) -> list[int]:
    """Labels of the chosen classes, in the order given.

    Args:
        chosen: names, or labels from 0; what is both is the name, so that 7 is the digit.
        names: the data set's classes, by label.
        key: the setting's name, for messages.
        least: how many it takes.

    Raises:
        BenchError: too few, one that does not exist, or one twice.
    """
    if len(chosen) < least:
        raise BenchError(f"{key}={list(chosen)} has {len(chosen)} of at least {least} classes")
    labels = [_label(entry, names, key) for entry in chosen]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise BenchError(f"{key}={list(chosen)} has class '{names[label]}' twice")
    return labels


def _label(entry: int | str, names: Sequence[str], key: str) -> int:
    if str(entry) in names:
        return list(names).index(str(entry))
    if str(entry).isdecimal() and int(entry) < len(names):
        return int(entry)
    raise BenchError(f"{key}: there is no class '{entry}'. {nearest(str(entry), names)}")


def restrict(dataset: Dataset, chosen: Sequence[int | str] | None) -> Dataset:
    """The data set with the chosen classes alone, labelled 0, 1, ... in their order; all of it for None.

    Images keep their order. The checksum stays the whole data set's.

    Raises:
        BenchError: as `resolve`, or a class without training or test images.
    """
    if chosen is None:
        return dataset
    labels = resolve(chosen, dataset.classes)
    train, test = (
        cut(images, own, labels, dataset.classes, kind)
        for kind, images, own in (
            ("training", dataset.train_images, dataset.train_labels),
            ("test", dataset.test_images, dataset.test_labels),
        )
    )
    return replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in labels),
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
    )


def cut(
    images: torch.Tensor, labels: torch.Tensor, chosen: Sequence[int], names: Sequence[str], kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of some classes, with their labels renumbered to places among the chosen.

    Args:
        images: `[M, C, H, W]`.
        labels: int64 `[M]`.
        chosen: labels.
        names: of all classes, for messages.
        kind: of images, for messages.

    Raises:
        BenchError: a chosen class has no images.
    """
    place = labels.new_full((len(names),), -1)
    for new, old in enumerate(chosen):
        place[old] = new
        if not bool((labels == old).any()):
            raise BenchError(f"class '{names[old]}' has no {kind} images")
    renumbered = place[labels]
    kept = renumbered >= 0
    return images[kept], renumbered[kept]
