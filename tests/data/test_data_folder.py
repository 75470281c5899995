"""Image folders: what is read from them, and what is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
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


def first(folder: Path) -> np.ndarray:
    """The first training image of the first class, [C, H, W]."""
    return open_dataset(config(folder)).train_images[0].numpy()


def put(folder: Path, image: Image.Image, name: str = "0.png", **options: object) -> Path:
    """Save an image in place of the first one of cat."""
    (folder / "train" / "cat" / "0.png").unlink()
    image.save(folder / "train" / "cat" / name, **options)
    return folder


def png(depth: int, colour: int, row: bytes, transparent: bytes) -> bytes:
    """A PNG of 6 x 6 pixels whose rows are the same, by the specification: no library writes 2 and 4 bits of grey."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 6, 6, depth, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * 6)
    chunks = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*pair) for pair in chunks)


def stroke(mode: str) -> Image.Image:
    """A black stroke in column 2 on a transparent ground that is black underneath; column 3 is half transparent."""
    alpha = np.zeros((6, 6), np.uint8)
    alpha[:, 2], alpha[:, 3] = 255, 102
    black = Image.new("RGB" if mode == "RGBA" else "L", (6, 6))
    black.putalpha(Image.fromarray(alpha))
    return black


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_transparent_parts_are_white(make_folder: Make, mode: str, suffix: str) -> None:
    shown = first(put(make_folder(), stroke(mode), f"0{suffix}"))
    assert (shown == np.array([255, 255, 0, 153, 255, 255])).all()  # 255 (1 - 102 / 255) = 153


def test_a_palette_with_a_transparent_colour(make_folder: Make) -> None:
    for suffix in (".png", ".gif"):
        image = Image.fromarray(np.tile(np.array([0, 0, 1, 2, 0, 0], np.uint8), (6, 1)))
        image.putpalette([0, 0, 0, 0, 0, 0, 7, 8, 9])
        folder = put(make_folder(suffix.strip(".")), image, f"0{suffix}", transparency=0)
        assert first(folder)[:, 4].tolist() == [[255, 255, 0, level, 255, 255] for level in (7, 8, 9)]


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (png(1, 0, b"\xd0", b"\0\0"), [255, 255, 255, 255, 255, 255]),  # black, the transparent level
        (png(1, 0, b"\xd0", b"\0\1"), [255, 255, 0, 255, 0, 0]),
        (png(2, 0, bytes([0b01100011, 0b01010000]), b"\0\1"), [255, 170, 0, 255, 255, 255]),
        (png(4, 0, b"\x1f\x10\x21", b"\0\1"), [255, 255, 255, 0, 34, 255]),
        (png(8, 0, b"\1\2\3\1\0\1", b"\0\1"), [255, 2, 3, 255, 0, 255]),
        (png(16, 0, struct.pack(">6H", 1, 0, 257, 514, 65535, 1), b"\0\1"), [255, 0, 1, 2, 255, 255]),
        (png(8, 2, b"\1\1\1" * 3 + b"\2\2\2" * 3, b"\0\1\0\1\0\1"), [255, 255, 255, 2, 2, 2]),
        (png(16, 2, b"\x12\x34" * 9 + b"\2\2" * 9, b"\x12\x34" * 3), [255, 255, 255, 2, 2, 2]),
    ],
)
def test_a_transparent_level(make_folder: Make, content: bytes, row: list[int]) -> None:
    folder = make_folder(shape=(6, 6) if content[25] == 0 else (6, 6, 3))
    (folder / "train" / "cat" / "0.png").write_bytes(content)
    assert (first(folder) == np.array(row)).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (5, 5)), (6, (0, 5)), (8, (5, 0))])
def test_exif_orientation(make_folder: Make, suffix: str, orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (6, 6))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: the first row is the right-hand side, the first column the top
    options = {} if suffix in (".png", ".tif") else {"quality": 100}
    shown = first(put(make_folder(), image, f"0{suffix}", exif=exif, **options)).astype(int).sum(0)
    assert np.unravel_index(shown.argmax(), shown.shape) == corner


def test_broken_exif_is_ignored(make_folder: Make) -> None:
    folder = put(make_folder(), Image.new("L", (6, 6), 7), "0.jpg", exif=b"Exif\0\0rubbish")
    assert (first(folder) == 7).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled(make_folder: Make, suffix: str) -> None:
    row = np.array([0, 128, 129, 256, 32767, 65535], np.uint16)
    folder = put(make_folder(shape=(6, 6)), Image.fromarray(np.tile(row, (6, 1))), f"0{suffix}")
    # value / 257, rounded
    assert (first(folder) == np.array([0, 0, 1, 1, 127, 255])).all()


def test_sixteen_bits_whose_zero_is_white(make_folder: Make) -> None:
    image = Image.fromarray(np.full((6, 6), 257, np.uint16))
    folder = put(make_folder(shape=(6, 6)), image, "0.tif", tiffinfo={262: 0})
    assert (first(folder) == 254).all()


def test_one_bit_and_cmyk(make_folder: Make) -> None:
    folder = put(make_folder("bits", shape=(6, 6)), Image.new("1", (6, 6), 1), "0.bmp")
    assert first(folder).tolist() == [[[255] * 6] * 6]
    folder = put(make_folder("ink"), Image.new("CMYK", (6, 6), (255, 0, 0, 0)), "0.tiff")
    assert first(folder)[:, 0, 0].tolist() == [0, 255, 255]
    folder = put(make_folder("print"), Image.new("CMYK", (6, 6), (255, 0, 0, 0)), "0.jpg", quality=100)
    assert np.abs(first(folder)[:, 0, 0].astype(int) - [0, 255, 255]).max() <= 2


def test_several_frames(make_folder: Make, capfd: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("L", (6, 6), level) for level in (10, 200)]
    folder = put(make_folder(), frames[0], "0.gif", save_all=True, append_images=frames[1:])
    assert (first(folder) == 10).all()
    line = f"{folder}: of several frames the first is read: 1 image(s) (train/cat/0.gif)\n"
    assert line in capfd.readouterr().err


@pytest.mark.parametrize(
    ("place", "group", "count"),
    [(".", "pets", 12), ("train", "pets/train", 6), ("test", "pets/test", 6), ("train/dog", "pets/train/dog", 3)],
)
def test_images_that_are_all_the_same(make_folder: Make, place: str, group: str, count: int) -> None:
    folder = make_folder()
    for path in (folder / place).rglob("*.png"):
        Image.new("RGB", (6, 6), (3, 3, 3)).save(path)
    refused(folder, f"^all {count} images of .*/{group} are the same: nothing can be learned")


def test_a_white_set_on_the_command_line(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    for path in folder.rglob("*.png"):
        Image.new("LA", (6, 6), (0, 0)).save(path)
    command = [sys.executable, "-m", "bench", "run", "data=folder", f"data.path={folder}", "model=mlp", "logger=none"]
    ran = subprocess.run(
        [*command, f"data.root={tmp_path}", f"runs={tmp_path / 'runs'}"], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        f"reading 12 images of {folder}",
        f"error: all 12 images of {folder} are the same: nothing can be learned from them "
        "(transparent parts show a white ground)",
    ]
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_one_image_a_class_is_not_the_same(make_folder: Make) -> None:
    assert len(open_dataset(config(make_folder(count=1))).train_labels) == 2


@pytest.mark.parametrize(
    "suffix", [".webp", ".bmp", ".JFIF", ".tif", ".TIFF", ".gif", ".ppm", ".jp2", ".tga", ".jpe", ".PNG"]
)
def test_every_format_of_pillow(make_folder: Make, suffix: str) -> None:
    folder = make_folder(count=2, suffix=suffix)
    dataset = open_dataset(config(folder))
    assert dataset.train_images.shape == (4, 3, 6, 6)
    with Image.open(folder / "train" / "dog" / f"1{suffix}") as image:
        assert np.array_equal(dataset.train_images[3].numpy(), np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_a_preview_is_no_frame(make_folder: Make, capfd: pytest.CaptureFixture[str]) -> None:
    images = [Image.new("RGB", (6, 6), (level,) * 3) for level in (10, 200)]
    folder = put(make_folder(), images[0], "0.mpo", save_all=True, append_images=images[1:])
    assert (first(folder) == 10).all()
    assert "several frames" not in capfd.readouterr().err


def test_folders_within_a_class(make_folder: Make, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_folder()
    flat = open_dataset(config(folder))
    for name in ("1.png", "2.png"):
        deep = folder / "train" / "cat" / "2" / "more"
        deep.mkdir(parents=True, exist_ok=True)
        (folder / "train" / "cat" / name).rename(deep / name)
    deeper = open_dataset(config(folder))
    assert deeper.train_images.equal(flat.train_images)
    assert deeper.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "left out:" not in capfd.readouterr().err


def test_hidden_files_and_resource_forks_are_passed_over(make_folder: Make, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_folder()
    plain = open_dataset(config(folder)).checksum
    for name in ("._0.png", ".DS_Store", ".hidden/a.png", "__MACOSX/._0.png"):
        for place in (folder, folder / "train", folder / "test" / "cat"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert open_dataset(config(folder)).checksum == plain
    assert "left out:" not in capfd.readouterr().err


def test_what_is_left_out_is_said_in_one_line(make_folder: Make) -> None:
    folder = make_folder()
    code = f"from bench.data import DataConfig, open_dataset; open_dataset({config(folder)!r})"

    def lines() -> list[str]:
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout == ""
        return [line for line in ran.stderr.splitlines() if "left out" in line]

    assert lines() == []
    (folder / "val" / "cat").mkdir(parents=True)
    Image.new("RGB", (6, 6)).save(folder / "train" / "stray.png")
    for name in ("a.txt", "b.heic", "c.pdf", "d"):
        (folder / "train" / "cat" / name).write_text("no image")
    (folder / "train" / "dog" / "link").symlink_to(folder / "train")
    assert lines() == [
        f"{folder}: left out: 5 that are no images Pillow reads "
        "(train/cat/a.txt, train/cat/b.heic, train/cat/c.pdf, ...) "
        "and 2 in no class's folder (train/stray.png, val)"
    ]
    assert lines() == []  # nothing changed: it comes from the cache


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


def test_classes_that_test_lacks(make_folder: Make) -> None:
    folder = make_folder(classes=("ant", "bee", "cat"))
    (folder / "test" / "bee").rename(folder / "bee")
    refused(folder, "/test lacks 1 of the 3 classes that train/ has: bee$")


def test_a_class_without_images(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "eel" / "a.txt").touch()
    refused(folder, r"train/eel has no images \(.png, .jpg, .tif or another format of Pillow's\)")


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


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_more_than_sixteen_bits(make_folder: Make, kind: type) -> None:
    folder = put(make_folder(shape=(6, 6)), Image.fromarray(np.zeros((6, 6), kind)), "0.tif")
    refused(folder, "cat/0.tif has more than 8 bits a channel")


def test_a_decompression_bomb(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    for limit in (30, 10):  # PIL warns above its limit and raises above twice the limit; images have 36 pixels
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused(folder, r"0.png is no image that can be read: .*decompression bomb")
