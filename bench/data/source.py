"""What a data set must provide to be parsed into the cache, and the registry of all of them."""

from __future__ import annotations

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.errors import BenchError
from bench.registry import Registry

if TYPE_CHECKING:
    import numpy as np

DATASETS = Registry("data set", "bench.data.sets")


@dataclass(frozen=True)
class Raw:
    """A parsed data set in memory.

    Attributes:
        train_images: uint8 [M, C, H, W].
        train_labels: int64 [M], indices into `classes`.
        test_images: uint8 [M', C, H, W].
        test_labels: int64 [M'].
        classes: the classes' names, by label.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]


class Source(ABC):
    """Where a data set's images come from: subclass it in one file under `bench/data/sets`.

    Args:
        root: the data root.
        path: for sources that the user points at (data.path).
        size: data.size, for sources whose images may differ in size.

    Attributes:
        name: its name under `data=`.
        paper: link to its paper or home.
        copies: what it may be parsed from, preferred first; records name the one that was used
            ("embedded", "original", "jpeg" or "folder").
        wanted: what to put into the data root by hand where there is no network.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    copies: ClassVar[tuple[str, ...]] = ("original",)
    wanted: ClassVar[str] = ""

    def __init__(self, root: Path, path: Path | None = None, size: int | None = None) -> None:
        if path is not None:
            raise BenchError(f"data.path={path} is for data=folder; data={self.name} lies in data.root={root}")
        self.root = root

    def key(self, copy: str) -> str:
        """The name of its cache file, without suffix."""
        return f"{self.name}-{copy}"

    @abstractmethod
    def place(self, copy: str) -> str:
        """Where this copy lies, for people."""

    @abstractmethod
    def fingerprint(self, copy: str) -> str | None:
        """Changes when the files of this copy change; None when they are not there. Cheap."""

    def download(self) -> None:
        """Bring the first of `copies` to the data root.

        Raises:
            BenchError: this data set cannot be downloaded.
        """
        raise BenchError(f"data={self.name} cannot be downloaded")

    @abstractmethod
    def parse(self, copy: str) -> Raw:
        """Read this copy, checking what can be checked.

        Raises:
            BenchError: a file is damaged or not what it should be.
        """


def stamp(paths: Iterable[os.DirEntry[str] | Path], base: Path) -> str:
    """SHA-256 over each file's path relative to `base`, its size and its time of change.

    A folder is stamped by its time alone: its size is the file system's affair.
    """
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        size = 0 if path.is_dir() else stat.st_size
        # os.path.relpath is slow, and there may be 100,000 of these.
        relative = os.fspath(path).removeprefix(str(base))
        digest.update(f"{relative}\0{size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def say(line: str) -> None:
    """One line of progress, kept off stdout."""
    print(line, file=sys.stderr, flush=True)


def content_md5(content: bytes) -> str:
    """The MD5 digest under which a file of a data set is published, in hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
