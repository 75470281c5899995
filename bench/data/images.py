"""Reading `{train,test}/<class>/*.{png,jpg}`: listing, checking and decoding in parallel."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.source import Raw, say
from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg")

Files = list[tuple["os.DirEntry[str]", int]]


@dataclass(frozen=True)
class Listing:
    """What lies in an image folder: classes by name, and each split's (file, label) by class and name."""

    classes: tuple[str, ...]
    train: Files
    test: Files


def scan(folder: Path) -> Listing:
    """List the images of `folder`, opening none.

    Raises:
        BenchError: train/ or test/ is missing or empty, there is one class only, a class has no images, or
            test/ has a class that train/ does not have.
    """
    names = {split: _classes(folder, split) for split in ("train", "test")}
    classes = names["train"]
    if len(classes) < 2:
        contents = f"only the class folder {classes[0]}" if classes else "no class folders"
        raise BenchError(f"{folder / 'train'} has {contents}: it takes two")
    for name in names["test"]:
        if name not in classes:
            raise BenchError(f"{folder / 'test' / name} is a class that train/ does not have. {nearest(name, classes)}")
    if not names["test"]:
        raise BenchError(f"{folder / 'test'} has no class folders")
    label = {name: index for index, name in enumerate(classes)}
    train, test = (
        [(file, label[name]) for name in names[split] for file in _images(folder / split / name)]
        for split in ("train", "test")
    )
    return Listing(tuple(classes), train, test)


def _classes(folder: Path, split: str) -> list[str]:
    try:
        with os.scandir(folder / split) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BenchError(
            f"{folder} has no folder {split}/: it must hold {{train,test}}/<class>/*.{{png,jpg}}"
        ) from error


def _images(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.name.lower().endswith(SUFFIXES)]
    if not files:
        raise BenchError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    return sorted(files, key=lambda entry: entry.name)


def read_folder(folder: Path, listing: Listing, size: int | None = None) -> Raw:
    """Decode all images of a listing; grey ones stay grey only if all of them are.

    Args:
        folder: what was listed, for messages.
        listing: the result of `scan`.
        size: pad smaller images with zeros, or resize larger ones, to size x size; None: all must have one size.

    Raises:
        BenchError: a broken image, or sizes that differ.
    """
    import numpy as np
    from PIL import Image

    files = listing.train + listing.test
    with (
        _progress(f"reading {len(files):,} images of {folder}", len(files)) as advance,
        warnings.catch_warnings(),
    ):
        # PIL only warns of a decompression bomb up to twice its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor() as pool:
            chunks = [files[i : i + 256] for i in range(0, len(files), 256)]
            images: list[np.ndarray] = []
            try:
                for part in pool.map(lambda chunk: [_decode(file.path, size) for file, _ in chunk], chunks):
                    images += part
                    advance(len(part))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    channels = max(len(image) for image in images)
    height, width = images[0].shape[1:]
    for (file, _), image in zip(files, images, strict=True):
        if image.shape[1:] != (height, width):
            raise BenchError(
                f"{file.path} is {image.shape[2]} x {image.shape[1]} pixels, "
                f"{files[0][0].path} {width} x {height}: "
                f"set data.size={min(height, width)} to pad or resize all of them"
            )
    train = len(listing.train)

    def stack(part: list[np.ndarray]) -> np.ndarray:
        out = np.empty((len(part), channels, height, width), np.uint8)
        for row, image in zip(out, part, strict=True):
            row[:] = image  # a grey image among colour ones is repeated over the channels
        return out

    labels = np.array([label for _, label in files], np.int64)
    return Raw(stack(images[:train]), labels[:train], stack(images[train:]), labels[train:], listing.classes)


def _decode(path: str, size: int | None) -> np.ndarray:
    """uint8 [C, H, W] of one image, C = 1 if the file is grey."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode.startswith(("I", "F")):
                raise BenchError(f"{path} has more than 8 bits a channel: save it with 8")
            picture = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise BenchError(f"{path} is no image that can be read: {error}") from error
    if size is not None:
        if max(picture.size) > size:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        left, top = (size - picture.width) // 2, (size - picture.height) // 2
        picture = ImageOps.expand(picture, (left, top, size - picture.width - left, size - picture.height - top))
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Any]:
    """A bar on a terminal, else one plain line; yields the function that advances it."""
    if not sys.stderr.isatty():
        say(title)
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
