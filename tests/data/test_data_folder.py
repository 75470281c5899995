"""Image folders: what is read from them, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import DataConfig, open_dataset, prepare, status
from bench.errors import BenchError

Make = Callable[..., Path]


def config(folder: Path, size: int | None = None) -> DataConfig:
    return DataConfig(name="folder", root=str(folder.parent / "root"), path=str(folder), size=size)


def refused(folder: Path, message: str, size: int | None = None) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        open_dataset(config(folder, size))
    assert "\n" not in str(caught.value)
    assert caught.value.code == 2


def test_pixels_labels_and_classes(make_folder: Make) -> None:
    folder = make_folder(classes=("dog", "cat", "ant"), count=2)
    (folder / "train" / "dog" / "notes.txt").write_text("no image")
    (folder / ".complete").touch()
    dataset = open_dataset(config(folder))
    assert dataset.copy == "folder"
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    for index, (label, name) in enumerate((c, i) for c in dataset.classes for i in range(2)):
        with Image.open(folder / "test" / label / f"{name}.png") as image:
            assert np.array_equal(dataset.test_images[index].numpy(), np.asarray(image).transpose(2, 0, 1))
    assert [row["images"] for row in status(folder.parent / "root") if row["name"] == "folder"] == [12]


def test_grey_stays_grey_only_if_all_are(make_folder: Make) -> None:
    folder = make_folder(shape=(6, 6))
    grey = open_dataset(config(folder))
    assert grey.train_images.shape == (6, 1, 6, 6)
    Image.new("RGB", (6, 6), (10, 20, 30)).save(folder / "train" / "cat" / "0.png")
    colour = open_dataset(config(folder))
    assert colour.train_images.shape == (6, 3, 6, 6)
    assert colour.train_images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert np.array_equal(colour.train_images[1:, 2], grey.train_images[1:, 0])


def test_jpeg_palette_and_alpha(make_folder: Make) -> None:
    folder = make_folder(suffix=".JPG")
    Image.new("RGBA", (6, 6), (1, 2, 3, 0)).save(folder / "train" / "cat" / "a.png")
    Image.new("RGB", (6, 6), (9, 9, 9)).convert("P").save(folder / "train" / "cat" / "b.png")
    assert open_dataset(config(folder)).train_images.shape == (8, 3, 6, 6)


def test_a_changed_file_is_parsed_again(make_folder: Make) -> None:
    folder = make_folder()
    first = open_dataset(config(folder)).checksum
    assert open_dataset(config(folder)).checksum == first
    path = folder / "train" / "cat" / "0.png"
    os.utime(path, ns=(1, 1))
    assert open_dataset(config(folder)).checksum == first  # the time is not part of the content
    Image.new("RGB", (6, 6)).save(path)
    assert open_dataset(config(folder)).checksum != first


def test_size_pads_small_and_resizes_large(make_folder: Make) -> None:
    folder = make_folder()
    Image.new("RGB", (4, 2), (255, 255, 255)).save(folder / "train" / "cat" / "0.png")
    Image.new("RGB", (20, 10), (255, 255, 255)).save(folder / "train" / "cat" / "1.png")
    Image.new("RGB", (20, 4), (255, 255, 255)).save(folder / "train" / "cat" / "2.png")
    refused(folder, r"cat/1.png is 20 x 10 pixels, .*cat/0.png 4 x 2: set data.size=2 to pad or resize")
    images = open_dataset(config(folder, 8)).train_images
    assert images.shape == (6, 3, 8, 8)
    assert images[0, 0].bool().nonzero().aminmax(dim=0).min.tolist() == [3, 2]
    assert images[0, 0].bool().sum() == 8
    assert images[1:3].min() == 255  # larger in one direction only: resized too
    splits = prepare(config(folder, 8), seed=0, batch_size=4)
    assert splits.image_shape == (3, 8, 8)


def test_no_path_and_no_folder(make_folder: Make, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"data=folder needs data\.path=FOLDER"):
        open_dataset(DataConfig(name="folder", root=str(tmp_path)))
    folder = make_folder()
    refused(folder.with_name("pest"), r"data.path=.*pest is no folder. Did you mean .*/pets\?")
    refused(tmp_path / "nowhere" / "x", "is no folder$")


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_split(make_folder: Make, split: str) -> None:
    folder = make_folder()
    (folder / split).rename(folder / "other")
    refused(folder, f"pets has no folder {split}/: it must hold")


def test_one_class_and_none(make_folder: Make, tmp_path: Path) -> None:
    refused(make_folder(classes=("cat",)), "train has only the class folder cat: it takes two")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "test").mkdir()
    refused(tmp_path / "empty", "train has no class folders")


def test_test_without_classes(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "test").rename(folder / "old")
    (folder / "test").mkdir()
    refused(folder, "test has no class folders")


def test_a_class_that_is_only_in_test(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "test" / "dog").rename(folder / "test" / "dgo")
    refused(folder, "test/dgo is a class that train/ does not have. Did you mean 'dog'")


def test_a_class_without_images(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "eel" / "a.bmp").touch()
    refused(folder, r"train/eel has no images \(.png, .jpg, .jpeg\)")


@pytest.mark.parametrize("content", [b"", b"no image", "cut", "bitmap"])
def test_a_broken_image(make_folder: Make, content: bytes | str) -> None:
    folder = make_folder(shape=(60, 60, 3))
    path = folder / "train" / "dog" / "1.png"
    if content == "cut":
        content = path.read_bytes()[: path.stat().st_size // 2]
    elif content == "bitmap":  # a format that is not one of the two, under their name
        Image.new("RGB", (60, 60)).save(path, format="BMP")
        content = path.read_bytes()
    assert isinstance(content, bytes)
    path.write_bytes(content)
    refused(folder, "dog/1.png is no image that can be read")


def test_sixteen_bits(make_folder: Make) -> None:
    folder = make_folder(shape=(6, 6))
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(folder / "train" / "dog" / "1.png")
    refused(folder, "dog/1.png has more than 8 bits a channel")


def test_a_decompression_bomb(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    for limit in (30, 10):  # PIL warns above its limit and raises above twice the limit; images have 36 pixels
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused(folder, r"0.png is no image that can be read: .*decompression bomb")
