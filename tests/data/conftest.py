"""Real data for the data tests, linked into folders that may be written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDERS = {"mnist": "MNIST", "cifar10": "cifar10"}


@pytest.fixture(scope="session")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """real_root(name): a writable data root, one a session, that links to the copy of a real data set.

    Skips where the copy is missing, unless BENCH_REQUIRE_DATA=1, which makes that a failure.
    """
    root = tmp_path_factory.mktemp("real")
    data = Path(os.environ.get("BENCH_DATA", "data")).absolute()

    def link(name: str) -> Path:
        folder = FOLDERS[name]
        if not (data / folder).is_dir():
            message = f"no {folder} in {data}"
            if os.environ.get("BENCH_REQUIRE_DATA") == "1":
                pytest.fail(message)
            pytest.skip(message)
        if not (root / folder).exists():
            (root / folder).symlink_to(data / folder)
        return root

    return link


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose cache the tests that only read share."""
    return tmp_path_factory.mktemp("digits")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """make_folder(name, ...): an image folder of random PNGs, `count` for each class and split."""

    def make(
        name: str = "pets",
        classes: tuple[str, ...] = ("cat", "dog"),
        count: int = 3,
        shape: tuple[int, ...] = (6, 6, 3),
        suffix: str = ".png",
    ) -> Path:
        draw = np.random.default_rng(0)
        for split in ("train", "test"):
            for label in classes:
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for i in range(count):
                    Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}{suffix}")
        return tmp_path / name

    return make
