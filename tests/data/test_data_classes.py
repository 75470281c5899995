"""Subsets of classes: order, renumbering, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.config.compose import compose
from bench.data import DataConfig, Dataset, open_dataset, prepare
from bench.data.classes import resolve, restrict
from bench.errors import BenchError
from bench.records.identity import run_id, science

NAMES = ("cat", "dog", "7", "3")


def small() -> Dataset:
    """Eight training and four test images whose pixel is their original label."""
    train, test = torch.tensor([3, 0, 1, 2, 3, 2, 1, 0]), torch.tensor([2, 3, 0, 1])
    images = [labels.to(torch.uint8).view(-1, 1, 1, 1) for labels in (train, test)]
    return Dataset("pets", "folder", "ab" * 32, NAMES, images[0], train, images[1], test)


@given(st.permutations([0, 1, 2, 3]), st.integers(2, 4))
def test_labels_are_places_in_the_given_order(order: list[int], count: int) -> None:
    chosen = [NAMES[label] for label in order[:count]]
    few = restrict(small(), chosen)
    assert few.classes == tuple(chosen)
    for images, labels in ((few.train_images, few.train_labels), (few.test_images, few.test_labels)):
        # A pixel still says which class the image was of.
        assert [order[label] for label in labels.tolist()] == images.flatten().tolist()
    assert len(few.train_labels) == 2 * count
    assert len(few.test_labels) == count


def test_a_name_wins_over_a_label_and_labels_work() -> None:
    assert resolve([7, 3], NAMES) == [2, 3]
    assert resolve([0, "dog"], NAMES) == [0, 1]
    assert restrict(small(), None).classes == NAMES


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "of at least 2 classes"),
        (["cat"], r"data.classes=\['cat'\] has 1 of at least 2 classes"),
        (["cat", "dgo"], "there is no class 'dgo'. Did you mean 'dog'"),
        (["cat", 4], "there is no class '4'"),
        (["cat", -1], "there is no class '-1'"),
        (["cat", 0], "has class 'cat' twice"),
    ],
)
def test_bad_classes_get_one_line(chosen: list[Any], message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        restrict(small(), chosen)
    assert "\n" not in str(caught.value)


def test_a_class_without_images_is_refused() -> None:
    data = small()
    with pytest.raises(BenchError, match="class 'dog' has no test images"):
        restrict(replace(data, test_labels=torch.tensor([2, 3, 0, 0])), ["cat", "dog"])
    with pytest.raises(BenchError, match="class '7' has no training images"):
        restrict(replace(data, train_labels=torch.zeros(8, dtype=torch.long)), ["cat", 7])


def test_a_run_sees_the_chosen_digits_alone(tmp_path: Path) -> None:
    cfg = DataConfig(name="digits", root=str(tmp_path), classes=[7, 4, 6])
    splits = prepare(cfg, seed=0, batch_size=50)
    whole = open_dataset(DataConfig(name="digits", root=str(tmp_path)))
    assert splits.classes == 3
    assert splits.test_images == int(torch.isin(whole.test_labels, torch.tensor([7, 4, 6])).sum())
    assert torch.cat([y for _, y in splits.test]).bincount().tolist() == [
        int((whole.test_labels == label).sum()) for label in (7, 4, 6)
    ]


def test_only_asking_for_classes_changes_a_runs_name(tmp_path: Path) -> None:
    known = ("ab" * 32, "embedded")
    plain, chosen = (science(compose(line), known, "fp32") for line in ([], ["data.classes=[7,4,6]"]))
    assert plain["data"].pop("classes") is None
    without = run_id(plain)
    assert run_id({**plain, "data": {**plain["data"], "classes": None}}) == without
    assert chosen["data"]["classes"] == [7, 4, 6]
    assert run_id(chosen) != without
