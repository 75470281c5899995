"""Subsets of classes: `data.classes` resolved against a data set, and the data set cut down to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    import torch

    from bench.data.cache import Dataset


def resolve(chosen: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """Labels of the chosen classes, in the order given.

    Args:
        chosen: names, or labels from 0; what is both is the name, so that 7 is the digit.
        names: the data set's classes, by label.

    Raises:
        BenchError: fewer than two, one that does not exist, or one twice.
    """
    if len(chosen) < 2:
        raise BenchError(f"data.classes={list(chosen)} has {len(chosen)}: it takes at least two classes")
    labels = [_label(entry, names) for entry in chosen]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise BenchError(f"data.classes={list(chosen)} has class '{names[label]}' twice")
    return labels


def _label(entry: int | str, names: Sequence[str]) -> int:
    if str(entry) in names:
        return list(names).index(str(entry))
    if isinstance(entry, int) and 0 <= entry < len(names):
        return entry
    raise BenchError(f"data.classes: there is no class '{entry}'. {nearest(str(entry), names)}")


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
        _cut(kind, images, own, labels, dataset.classes)
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


def _cut(
    kind: str, images: torch.Tensor, labels: torch.Tensor, chosen: Sequence[int], names: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One split's images and labels, cut down."""
    place = labels.new_full((len(names),), -1)
    for new, old in enumerate(chosen):
        place[old] = new
        if not bool((labels == old).any()):
            raise BenchError(f"data.classes: class '{names[old]}' has no {kind} images")
    renumbered = place[labels]
    kept = renumbered >= 0
    return images[kept], renumbered[kept]
