"""CIFAR-10 and CIFAR-100: torchvision's verified batches, or CIFAR-10 as a folder of images."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

from bench.data.images import read_folder, scan
from bench.data.source import DATASETS, Raw, Source, content_md5, stamp
from bench.errors import BenchError
from bench.files import whole

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}


@DATASETS.register("cifar100")
class CIFAR100(Source):
    """CIFAR-100: 50,000 + 10,000 small photographs, 32 x 32 colour, 100 classes."""

    name = "cifar100"
    paper = "https://www.cs.toronto.edu/~kriz/cifar.html"
    wanted = "cifar-100-python/"
    batches: ClassVar[str] = "cifar-100-python"
    files: ClassVar[tuple[str, ...]] = ("train", "test", "meta")

    def place(self, copy: str) -> str:
        return str(self.root / self.batches)

    def fingerprint(self, copy: str) -> str | None:
        files = [self.root / self.batches / name for name in self.files]
        return stamp(files, self.root) if all(file.is_file() for file in files) else None

    def download(self) -> None:
        from bench.data.download import download

        if not self._unpack():
            download(self, self._torchvision())

    def _unpack(self) -> bool:
        """Unpack the archive in the data root if it holds every file as published, however it was packed."""
        members = {}
        try:
            with tarfile.open(self.root / self._torchvision().filename) as archive:
                for name, md5 in self._known():
                    file = archive.extractfile(f"{self.batches}/{name}")
                    members[name] = file.read() if file else b""
                    if content_md5(members[name]) != md5:
                        return False
        except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error):
            return False
        for name, content in members.items():
            path = self.root / self.batches / name
            with whole(path) as part:
                path.parent.mkdir(exist_ok=True)
                part.write_bytes(content)
        return True

    def _known(self) -> list[tuple[str, str]]:
        """Each file's name and the MD5 of its content as published."""
        cls = self._torchvision()
        return [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]

    def parse(self, copy: str) -> Raw:
        import numpy as np

        cls = self._torchvision()
        # torchvision unpickles these files: not one that is not the published one, byte for byte.
        for name, md5 in self._known():
            path = self.root / self.batches / name
            digest = content_md5(path.read_bytes())
            if digest != md5:
                raise BenchError(
                    f"{path} is damaged: it has MD5 {digest} instead of {md5}; "
                    f"delete it, and the next run downloads {self.name} again"
                )
        train, test = cls(str(self.root), train=True), cls(str(self.root), train=False)
        arrays = [
            (
                np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)),
                np.asarray(split.targets, dtype=np.int64),
            )
            for split in (train, test)
        ]
        return Raw(*arrays[0], *arrays[1], tuple(train.classes))

    def _torchvision(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.name.upper())


@DATASETS.register("cifar10")
class CIFAR10(CIFAR100):
    """CIFAR-10: 50,000 + 10,000 small photographs, 32 x 32 colour, 10 classes.

    Read from torchvision's batches, else from `<root>/cifar10/{train,test}/<class>/*.{jpg,png}`. The original
    is preferred: JPEG costs accuracy.
    """

    name = "cifar10"
    copies = ("original", "jpeg", "folder")
    wanted = "cifar-10-batches-py/ or the images as cifar10/{train,test}/<class>/*.{png,jpg}"
    batches = "cifar-10-batches-py"
    files = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

    @property
    def folder(self) -> Path:
        """The folder of images."""
        return self.root / "cifar10"

    def place(self, copy: str) -> str:
        return super().place(copy) if copy == "original" else str(self.folder)

    def fingerprint(self, copy: str) -> str | None:
        if copy == "original":
            return super().fingerprint(copy)
        if not (self.folder / "train").is_dir() or copy != self._kind():
            return None
        # The folders' times only: asking 60,000 files takes ten times as long as all else that identifies a
        # run, and every image that comes or goes changes its folder.
        folders = [path for split in ("train", "test") for path in sorted((self.folder / split).glob("*"))]
        return stamp(folders, self.root)

    def _kind(self) -> str:
        """ "jpeg" if there are JPEG images, which lost something, else "folder", going by the airplanes."""
        try:
            with os.scandir(self.folder / "train" / CIFAR10_CLASSES[0]) as entries:
                return "jpeg" if any(os.path.splitext(entry.name)[1].lower() in JPEG for entry in entries) else "folder"
        except OSError:
            return "jpeg"

    def parse(self, copy: str) -> Raw:
        if copy == "original":
            return super().parse(copy)
        listing = scan(self.folder)
        refused = f"{self.folder} is not a whole copy of CIFAR-10:"
        if missing := set(CIFAR10_CLASSES) ^ set(listing.classes):
            raise BenchError(f"{refused} its classes differ in {', '.join(sorted(missing))}")
        for file, index in listing.train + listing.test:
            # The fingerprint, which knows the classes' own folders alone, would not see one that changes in there.
            if os.path.basename(os.path.dirname(file.path)) != listing.classes[index]:
                raise BenchError(f"{refused} {file.path} lies deeper than its class's folder")
        for split, files, count in (("train", listing.train, 5000), ("test", listing.test, 1000)):
            for index, label in enumerate(listing.classes):
                images = sum(i == index for _, i in files)
                if images != count:
                    raise BenchError(f"{refused} {split}/{label} has {images:,} images instead of {count:,}")
        raw = read_folder(self.folder, listing)
        if raw.train_images.shape[1:] != (3, 32, 32):
            raise BenchError(f"{refused} its images are {raw.train_images.shape[1:]} instead of (3, 32, 32)")
        return raw
