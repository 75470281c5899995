"""The parsed data sets: one memory-mapped file of uint8 each, verified by its checksum when opened."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from bench.data.checked import check
from bench.data.config import DataConfig
from bench.data.source import DATASETS, Source, say
from bench.errors import BenchError, EnvironmentFault
from bench.files import at_home, whole
from bench.ranges import Numbers

if TYPE_CHECKING:
    import torch

SCHEMA = "2"
"""Of the cache file: another value in a file means parse again."""

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Dataset:
    """A parsed data set, mapped from its cache file.

    Attributes:
        name: its registered name.
        copy: what it was parsed from: "embedded", "original", "jpeg" or "folder".
        checksum: SHA-256, in hex, over images, labels and class names; free of paths and times.
        classes: the classes' names, by label.
        train_images: uint8 [M, C, H, W].
        train_labels: int64 [M].
        test_images: uint8 [M', C, H, W].
        test_labels: int64 [M'].
    """

    name: str
    copy: str
    checksum: str
    classes: tuple[str, ...]
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


class DamagedError(BenchError):
    """A cache file that is not what was once written."""


@dataclass(frozen=True)
class Header:
    """What a cache file says of itself, read without its tensors.

    Attributes:
        copy: what it was parsed from.
        checksum: of its content.
        fingerprint: of the source's files.
        place: where the source lay.
        classes: how many.
        images: how many, training and test together.
    """

    copy: str
    checksum: str
    fingerprint: str
    place: str
    classes: int
    images: int


def open_dataset(cfg: DataConfig) -> Dataset:
    """Map the data set's cache, parsing (and first downloading) it if there is none or its files changed.

    Raises:
        BenchError: the cache or the source is damaged.
        EnvironmentFault: no network, or a data root that cannot be written to.
    """
    source = _source(cfg)
    copy, fingerprint = _choose(source)
    path = _path(source, copy)
    if not _current(_read_header(path), fingerprint):
        with _locked(path):
            # Another process may have parsed it while this one waited.
            if not _current(_read_header(path), fingerprint):
                _parse(source, copy)
    return _map(path)


def identity(cfg: DataConfig) -> tuple[str, str]:
    """(checksum, copy) of a data set, from the cache's header where it is current; else it is opened.

    Remembered for the life of the process: it is asked for every run of a grid.
    """
    return _identity(cfg.name, _root(cfg.root), cfg.path, cfg.size)


def prepare_named(name: str, root: Path | str) -> Dataset:
    """Bring a data set to disk and into the cache, and verify it; a damaged cache is parsed again."""
    cfg = DataConfig(name=name, root=str(root))
    try:
        return open_dataset(cfg)
    except DamagedError:
        source = _source(cfg)
        copy, _ = _choose(source)
        with _locked(_path(source, copy)):
            _parse(source, copy)
        return open_dataset(cfg)


def status(root: Path | str) -> list[dict[str, Any]]:
    """What is on disk of every registered data set; downloads, parses and hashes nothing.

    Returns:
        One row each, and one for each folder in the cache: name, present (can be used without a network),
        copy, images (training + test), classes, bytes (of the cache file), checksum, path, note. What is
        not known is None.
    """
    root = _folder(root)
    rows = []
    for name, cls in DATASETS.items():
        if name == "folder":
            folders = [(path, None, "", "") for path in sorted((root / "cache").glob("folder-*.safetensors"))]
            rows += [_row(name, *folder) for folder in folders]
            if not folders:
                rows.append(_row(name, None, None, "", "any folder of images: data=folder data.path=FOLDER"))
            continue
        source = cls(root)
        copy, fingerprint = _choose(source)
        place, path = source.place(copy), _path(source, copy)
        if path.exists():
            rows.append(_row(name, path, fingerprint, place, ""))
        elif fingerprint is not None:
            row = _row(name, None, None, place, "the first run parses it")
            rows.append(row | {"present": True, "copy": copy})
        else:
            rows.append(_row(name, None, None, place, "the first run downloads it"))
    return rows


def _row(name: str, path: Path | None, fingerprint: str | None, place: str, note: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "present": False, "path": place, "note": note}
    row |= dict.fromkeys(("copy", "images", "classes", "bytes", "checksum"))
    if path is None:
        return row
    row["bytes"] = path.stat().st_size
    try:
        header = _read_header(path)
    except BenchError as error:
        return row | {"note": str(error)}
    if header is None:
        return row | {"present": True, "note": "from another version: the next run parses it again"}
    changed = not _current(header, fingerprint)
    return row | {
        "present": True,
        "copy": header.copy,
        "images": header.images,
        "classes": header.classes,
        "checksum": header.checksum,
        "path": header.place,
        "note": "changed since it was parsed: the next run parses it again" if changed else "",
    }


def _root(root: str) -> str:
    """`data.root` with its interpolation resolved, for a DataConfig that no Hydra has seen."""
    return str(OmegaConf.create({"root": root}).root)


def _folder(root: str | Path) -> Path:
    """The data root; an empty one, as of an empty $BENCH_DATA, is `data`.

    Raises:
        BenchError: it is a file, or the home of that user is not known.
    """
    folder = at_home(Path(root or "data"), "the data root")
    if folder.exists() and not folder.is_dir():
        raise BenchError(f"the data root, {folder}, is no folder")
    return folder


def _source(cfg: DataConfig) -> Source:
    return _make_source(cfg.name, _root(cfg.root), cfg.path, cfg.size)


def _make_source(name: str, root: str, path: str | None, size: int | None) -> Source:
    Numbers("data.", "{key}={exact} must {wanted}").at_least(1, size=size)
    folder = at_home(Path(path), "data.path") if path else None
    source: Source = DATASETS.get(name)(_folder(root), folder, size)
    return source


@cache
def _identity(name: str, root: str, path: str | None, size: int | None) -> tuple[str, str]:
    source = _make_source(name, root, path, size)
    copy, fingerprint = _choose(source)
    header = _read_header(_path(source, copy))
    if header is not None and _current(header, fingerprint):
        return header.checksum, copy
    dataset = open_dataset(DataConfig(name=name, root=root, path=path, size=size))
    return dataset.checksum, dataset.copy


def _choose(source: Source) -> tuple[str, str | None]:
    """The copy to use and its fingerprint: the best on disk, else the best that a cache is left of."""
    for copy in source.copies:
        with _readable(source):
            fingerprint = source.fingerprint(copy)
        if fingerprint is not None:
            return copy, fingerprint
    for copy in source.copies:
        if _path(source, copy).exists():
            return copy, None
    return source.copies[0], None


def _path(source: Source, copy: str) -> Path:
    return source.root / "cache" / f"{source.key(copy)}.safetensors"


def _current(header: Header | None, fingerprint: str | None) -> bool:
    """A cache stays good when its source is gone (fingerprint None), not when it changed."""
    return header is not None and fingerprint in (None, header.fingerprint)


def _read_header(path: Path) -> Header | None:
    """The header of a cache file; None if there is no such file or another version wrote it.

    Reads the format (8 bytes of length, then JSON) itself, since this must be cheap and import nothing.

    Raises:
        DamagedError: it is no whole cache file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError("it is cut off")
            entries = json.loads(file.read(length))
        meta = entries["__metadata__"]
        if meta["schema"] != SCHEMA:
            return None
        end = max(entries[name]["data_offsets"][1] for name in TENSORS)
        if size != 8 + length + end:
            raise ValueError(f"it has {size:,} bytes instead of {8 + length + end:,}")
        return Header(
            **{key: meta[key] for key in ("copy", "checksum", "fingerprint", "place")},
            classes=len(json.loads(meta["classes"])),
            images=sum(entries[name]["shape"][0] for name in ("train_labels", "test_labels")),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, str(error)) from error


def _map(path: Path) -> Dataset:
    """Map a cache file and check that it is what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in TENSORS}
            meta = file.metadata()
        classes = json.loads(meta["classes"])
        checksum = _checksum({name: tensor.numpy() for name, tensor in tensors.items()}, classes)
    except (SafetensorError, ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    if checksum != meta["checksum"]:
        raise _damaged(path, "its content does not have the checksum it was written with")
    return Dataset(meta["name"], meta["copy"], checksum, tuple(classes), **tensors)


def _damaged(path: Path, why: str) -> DamagedError:
    name = path.stem.split("-")[0]
    remedy = f" or run `bench data prepare {name}`" if name != "folder" else ""
    return DamagedError(f"the cache {path} is damaged ({why}): delete it{remedy}, and it is made anew")


def _checksum(arrays: Mapping[str, Any], classes: list[str]) -> str:
    """SHA-256 over the class names, then each array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for name in TENSORS:
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {list(array.shape)}".encode())
        digest.update(memoryview(array).cast("B") if math.prod(array.shape) else b"")
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside a cache file, waiting for it if another process parses the same data set."""
    lock = path.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which makes {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _parse(source: Source, copy: str) -> None:
    """Parse a source, downloaded if need be, into its cache file; the caller holds the lock."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    fingerprint = source.fingerprint(copy)
    if fingerprint is None:
        source.download()
        fingerprint = source.fingerprint(copy)
    if fingerprint is None:
        raise EnvironmentFault(f"{source.name} was downloaded, but {source.place(copy)} is not there")
    with _readable(source):
        raw = check(source.name, source.parse(copy))
    arrays = {name: np.ascontiguousarray(getattr(raw, name)) for name in TENSORS}
    meta = {
        "schema": SCHEMA,
        "name": source.name,
        "copy": copy,
        "checksum": _checksum(arrays, list(raw.classes)),
        "classes": json.dumps(raw.classes),
        "fingerprint": fingerprint,
        "place": source.place(copy),
    }
    path = _path(source, copy)
    try:
        with whole(path) as temporary:
            save_file(arrays, temporary, metadata=meta)
            # safetensors writes it for its owner only; a shared data root follows the umask, as the lock does.
            temporary.chmod(path.with_suffix(".lock").stat().st_mode)
    except (EnvironmentFault, SafetensorError) as error:
        raise _unwritable(path, error.__cause__ or error) from error


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(f"{source.name}: {error.filename} cannot be read ({error.strerror})") from error


def _unwritable(path: Path, error: BaseException) -> EnvironmentFault:
    return EnvironmentFault(
        f"{path.parent} cannot be written to ({getattr(error, 'strerror', None) or error}): "
        "name another folder with BENCH_DATA or data.root"
    )
