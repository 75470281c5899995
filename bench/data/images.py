"""Reading the pictures of `{train,test}/<class>/`: listing, checking and decoding in parallel."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.source import Raw, say
from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageFile

NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow opens, but hands to other programs or cannot decode."""

Files = list[tuple["os.DirEntry[str]", int]]


@cache
def formats() -> dict[str, str]:
    """Pillow's name of the format of each file suffix that is read; suffixes have their dot and are in lower case."""
    from PIL import Image

    registered = Image.registered_extensions() | {".mpo": "JPEG"}  # Pillow's reader of JPEG opens both
    return {suffix: name for suffix, name in registered.items() if name in Image.OPEN and name not in NO_PICTURES}


@dataclass(frozen=True)
class Listing:
    """What lies in an image folder.

    Attributes:
        classes: by name.
        train: the training images with their labels, by class and path.
        test: the test images, likewise.
        no_images: paths, from the folder, of what lies among a class's images and is none.
        outside: paths, from the folder, of what lies in no class's folder.
    """

    classes: tuple[str, ...]
    train: Files
    test: Files
    no_images: tuple[str, ...]
    outside: tuple[str, ...]


def scan(folder: Path) -> Listing:
    """List the images of `folder`, opening none.

    A class's images may lie in folders within its own; links to folders in there are not followed. Hidden files and
    folders and what macOS packs beside its files (`._*`, `__MACOSX`) are passed over.

    Raises:
        BenchError: train/ or test/ is missing or empty, there is one class only, a class has no images, or
            one of train/ and test/ has a class that the other does not have.
    """
    outside: list[str] = []
    names = {split: _classes(folder, split, outside) for split in ("train", "test")}
    classes = names["train"]
    if len(classes) < 2:
        contents = f"only the class folder {classes[0]}" if classes else "no class folders"
        raise BenchError(f"{folder / 'train'} has {contents}: it takes two")
    for name in names["test"]:
        if name not in classes:
            raise BenchError(f"{folder / 'test' / name} is a class that train/ does not have. {nearest(name, classes)}")
    if not names["test"]:
        raise BenchError(f"{folder / 'test'} has no class folders")
    with os.scandir(folder) as entries:
        outside += [entry.name for entry in entries if entry.name not in names and not _hidden(entry)]
    label = {name: index for index, name in enumerate(classes)}
    no_images: list[str] = []
    train, test = (
        [(file, label[name]) for name in names[split] for file in _images(folder, f"{split}/{name}", no_images)]
        for split in ("train", "test")
    )
    if missing := sorted(set(classes) - set(names["test"])):
        raise BenchError(
            f"{folder / 'test'} lacks {len(missing)} of the {len(classes)} classes that train/ has: {_some(missing)}"
        )
    return Listing(tuple(classes), train, test, tuple(sorted(no_images)), tuple(sorted(outside)))


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def _some(names: Sequence[str]) -> str:
    """The first three of some names."""
    return ", ".join([*names[:3], "..."] if len(names) > 3 else names)


def _classes(folder: Path, split: str, outside: list[str]) -> list[str]:
    """The class folders of a split; what lies beside them is added to `outside`."""
    try:
        with os.scandir(folder / split) as entries:
            shown = [entry for entry in entries if not _hidden(entry)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BenchError(
            f"{folder} has no folder {split}/: it must hold {{train,test}}/<class>/*.{{png,jpg}}"
        ) from error
    outside += [f"{split}/{entry.name}" for entry in shown if not entry.is_dir()]
    return sorted(entry.name for entry in shown if entry.is_dir())


def _images(folder: Path, class_folder: str, no_images: list[str]) -> list[os.DirEntry[str]]:
    """The images of a class, by path; the paths of other files are added to `no_images`."""
    files, pending = [], [class_folder]
    while pending:
        place = pending.pop()
        with os.scandir(folder / place) as entries:
            for entry in entries:
                if _hidden(entry):
                    continue
                path = f"{place}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif os.path.splitext(entry.name)[1].lower() in formats() and not entry.is_dir():
                    files.append(entry)
                else:
                    no_images.append(path)
    if not files:
        raise BenchError(f"{folder / class_folder} has no images (.png, .jpg, .tif or another format of Pillow's)")
    return sorted(files, key=lambda entry: entry.path)


def _say_left_out(folder: Path, listing: Listing) -> None:
    parts = []
    if paths := listing.no_images:
        parts.append(f"{len(paths):,} that are no images Pillow reads ({_some(paths)})")
    if paths := listing.outside:
        parts.append(f"{len(paths):,} in no class's folder ({_some(paths)})")
    if parts:
        say(f"{folder}: left out: {' and '.join(parts)}")


def read_folder(folder: Path, listing: Listing, size: int | None = None) -> Raw:
    """Decode all images of a listing as a viewer shows them; grey ones stay grey only if all of them are.

    Transparent parts show a white ground, EXIF orientation is applied, 16 bits of grey are scaled to 8. Of several
    frames or pages the first is taken. Colour profiles are not applied. What was left out is said on stderr.

    Args:
        folder: what was listed, for messages.
        listing: the result of `scan`.
        size: pad smaller images with zeros, or resize larger ones, to size x size; None: all must have one size.

    Raises:
        BenchError: a broken image, sizes that differ, or all images of the set, a split or a class of it
            are the same.
    """
    import numpy as np
    from PIL import Image

    _say_left_out(folder, listing)
    files = listing.train + listing.test
    with (
        _progress(f"reading {len(files):,} images of {folder}", len(files)) as advance,
        warnings.catch_warnings(),
    ):
        # PIL only warns of a decompression bomb up to twice its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor() as pool:
            chunks = [files[i : i + 256] for i in range(0, len(files), 256)]
            decoded: list[tuple[np.ndarray, bool]] = []
            try:
                for part in pool.map(lambda chunk: [_decode(file.path, size) for file, _ in chunk], chunks):
                    decoded += part
                    advance(len(part))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    images = [image for image, _ in decoded]
    if several := [
        os.path.relpath(file.path, folder) for (file, _), (_, more) in zip(files, decoded, strict=True) if more
    ]:
        say(f"{folder}: of several frames the first is read: {len(several):,} image(s) ({_some(several)})")
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
    raw = Raw(stack(images[:train]), labels[:train], stack(images[train:]), labels[train:], listing.classes)
    _refuse_sameness(folder, raw)
    return raw


def pictures(place: Path) -> list[Path]:
    """The images that a path stands for: itself, or all those in a folder and the folders in it, by name.

    Raises:
        BenchError: there is nothing, or the folder holds no image.
    """
    if place.is_dir():
        found = [
            path
            for path in sorted(place.rglob("*"))
            if path.suffix.lower() in formats() and path.is_file() and not path.name.startswith(".")
        ]
        if not found:
            raise BenchError(f"{place} has no images (.png, .jpg, .tif or another format of Pillow's)")
        return found
    if not place.is_file():
        raise BenchError(f"there is no image and no folder {place}")
    if place.suffix.lower() not in formats():
        raise BenchError(f"{place} is no image by its name: {place.suffix or 'no suffix'} is no format of Pillow's")
    return [place]


def picture(path: Path) -> np.ndarray:
    """One image as a viewer shows it, as those of an image folder are: uint8 [C, H, W], C = 1 if the file is grey.

    Args:
        path: of `pictures`.

    Raises:
        BenchError: it cannot be read.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow itself only warns of a decompression bomb up to twice its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pixels, several = _decode(str(path), None)
    if several:
        say(f"{path}: of several frames the first is read")
    return pixels


def resized(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """An image in another size, bilinear and antialiased, and in grey or colour.

    Args:
        pixels: uint8 [C, H, W], of one channel or three.
        shape: (C', H', W').

    Raises:
        BenchError: C' is neither 1 nor 3.
    """
    import numpy as np
    from PIL import Image

    channels, height, width = shape
    if channels not in (1, 3):
        raise BenchError(f"the network takes images of {channels} channels, which no file of a picture has")
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image = image.convert("L" if channels == 1 else "RGB")
    made = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return made[None] if made.ndim == 2 else made.transpose(2, 0, 1)


def _refuse_sameness(folder: Path, raw: Raw) -> None:
    """Raise if nothing tells the images of the whole set, of a split or of a class of a split from each other."""
    splits = {"train": (raw.train_images, raw.train_labels), "test": (raw.test_images, raw.test_labels)}
    groups = [(folder, [*raw.train_images, *raw.test_images])]
    groups += [(folder / split, list(images)) for split, (images, _) in splits.items()]
    groups += [
        (folder / split / name, [images[place] for place in (labels == label).nonzero()[0]])
        for split, (images, labels) in splits.items()
        for label, name in enumerate(raw.classes)
    ]
    for place, group in groups:
        if len(group) > 1 and all((image == group[0]).all() for image in group[1:]):
            raise BenchError(
                f"all {len(group):,} images of {place} are the same: nothing can be learned from them "
                "(transparent parts show a white ground)"
            )


def _decode(path: str, size: int | None) -> tuple[np.ndarray, bool]:
    """uint8 [C, H, W] of one image, C = 1 if the file is grey; and whether the file has more frames than this."""
    import numpy as np
    from PIL import Image, ImageOps

    # PNG and JPEG are often mistaken for each other in names.
    readers = {"PNG", "JPEG", formats()[os.path.splitext(path)[1].lower()]}
    try:
        with Image.open(path, formats=sorted(readers)) as image:
            # The further frames of these two are previews and layers.
            several = getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD")
            picture = _shown(image, path)
    except BenchError:
        raise
    except Exception as error:  # each of Pillow's readers has its own for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BenchError(f"{path} is no image that can be read: {reason}") from error
    if size is not None:
        if max(picture.size) > size:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        left, top = (size - picture.width) // 2, (size - picture.height) // 2
        picture = ImageOps.expand(picture, (left, top, size - picture.width - left, size - picture.height - top))
    pixels = np.asarray(picture)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), several


def _shown(image: ImageFile.ImageFile, path: str) -> Image.Image:
    """What a viewer shows of an opened image on a white ground: grey (L) if its file is, else RGB."""
    from PIL import Image, ImageOps

    # Pillow brings the levels of these to 8 bits, but not the level that is transparent.
    rawmode = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
    image.load()
    transparent = image.info.get("transparency")
    if transparent is not None and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)
    elif transparent is not None and rawmode == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in transparent)
    try:
        image.getexif()
    except Exception:  # viewers show an image whose EXIF is broken as it is stored
        pass
    else:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _eight_bits(image)
    if image.mode.startswith(("I", "F")):
        raise BenchError(f"{path} has more than 8 bits a channel: save it with 8")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB").convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits of grey scaled to 8, its transparent level white."""
    import numpy as np
    from PIL import Image, TiffImagePlugin

    levels = np.asarray(image).astype(np.int64)
    grey = ((levels + 128) // 257).astype(np.uint8)
    if (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    ):
        grey = 255 - grey  # 0 is white, which Pillow heeds in files of 8 bits alone
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey)


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
