"""Any data set that lies on disk as a folder of images."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from bench.data.images import read_folder, scan
from bench.data.source import DATASETS, Raw, Source, stamp
from bench.errors import BenchError


@DATASETS.register("folder")
class Folder(Source):
    """Your own images: data.path=FOLDER with {train,test}/<class>/*.{png,jpg}.

    Every format that Pillow reads will do, and so will folders within a class's. Images are read as a viewer shows
    them on a white ground, which transparent parts let through: see `bench.data.images.read_folder`.
    """

    name = "folder"
    paper = ""
    copies = ("folder",)

    def __init__(self, root: Path, path: Path | None = None, size: int | None = None) -> None:
        super().__init__(root)
        if path is None:
            raise BenchError("data=folder needs data.path=FOLDER, a folder with {train,test}/<class>/*.{png,jpg}")
        self.path = path
        self.size = size

    def key(self, copy: str) -> str:
        where = hashlib.sha256(str(self.path.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
        return f"folder-{self.path.resolve().name}-{where}" + (f"-{self.size}" if self.size else "")

    def place(self, copy: str) -> str:
        return str(self.path)

    def fingerprint(self, copy: str) -> str:
        if not self.path.is_dir():
            parent = self.path.absolute().parent
            siblings = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
            close = difflib.get_close_matches(self.path.name, siblings, n=1)
            hint = f". Did you mean {parent / close[0]}?" if close else ""
            raise BenchError(f"data.path={self.path} is no folder{hint}")
        listing = scan(self.path)
        images = stamp([file for file, _ in listing.train + listing.test], self.path)
        # What is left out is said when the images are parsed: parse again when there is something new to say.
        names = "\0".join((images, *listing.no_images, *listing.outside))
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()

    def parse(self, copy: str) -> Raw:
        return read_folder(self.path, scan(self.path), self.size)
