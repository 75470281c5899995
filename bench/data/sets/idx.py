"""MNIST and the sets in its format: four idx files, downloaded by torchvision."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.source import DATASETS, Raw, Source, stamp
from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np

# Samples by split, as the files are called; every set of the family has 28 x 28 grey images of 10 classes.
SPLITS = {"train": 60_000, "t10k": 10_000}


class Idx(Source):
    """A data set of four idx files in `<root>/<folder>/raw`.

    Attributes:
        folder: torchvision's class of that name, which is also the folder's name.
        md5: of the idx files, where known; else they are read from the .gz of the download, if it is
            still there, whose MD5 torchvision knows.
    """

    folder: ClassVar[str]
    md5: ClassVar[dict[str, str]] = {}

    @property
    def raw(self) -> Path:
        """The folder that holds the idx files."""
        return self.root / self.folder / "raw"

    def place(self, copy: str) -> str:
        return str(self.raw)

    def fingerprint(self, copy: str) -> str | None:
        files = [self.raw / name for split in SPLITS for name in (images_file(split), labels_file(split))]
        if not all(file.is_file() for file in files):
            return None
        return stamp(files, self.root)

    def download(self) -> None:
        from bench.data.download import download

        download(self, self._torchvision())

    def parse(self, copy: str) -> Raw:
        train, test = (self._split(split, count) for split, count in SPLITS.items())
        return Raw(*train, *test, tuple(self._torchvision().classes))

    def _split(self, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        images = self._read(images_file(split), (count, 28, 28))
        labels = self._read(labels_file(split), (count,))
        if labels.max() > 9:
            raise self._damaged(self.raw / labels_file(split), f"has the label {labels.max()}")
        return images[:, None], labels.astype("int64")

    def _torchvision(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.folder)

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        path = self.raw / name
        packed = path.with_name(name + ".gz")
        if name in self.md5 or not packed.is_file():
            content = path.read_bytes()
            self._check_md5(path, content, self.md5.get(name))
        else:
            content = packed.read_bytes()
            self._check_md5(packed, content, dict(self._torchvision().resources)[packed.name])
            try:
                content = gzip.decompress(content)
            except (OSError, EOFError, zlib.error) as error:
                raise self._damaged(packed, f"cannot be unpacked ({error})") from error
            path = packed
        # http://yann.lecun.com/exdb/mnist: two zero bytes, type 8 (uint8), the number of axes, their lengths.
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        size = len(header) + int(np.prod(shape))
        if len(content) != size:
            raise self._damaged(path, f"has {len(content):,} bytes instead of {size:,}")
        if not content.startswith(header):
            raise self._damaged(path, f"does not start as an idx file of shape {shape}")
        return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)

    def _check_md5(self, path: Path, content: bytes, expected: str | None) -> None:
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if expected is not None and digest != expected:
            raise self._damaged(path, f"has MD5 {digest} instead of {expected}")

    def _damaged(self, path: Path, how: str) -> BenchError:
        return BenchError(f"{path} is damaged: it {how}; delete it, and the next run downloads {self.name} again")


def images_file(split: str) -> str:
    """The name of the idx file with the images of split "train" or "t10k"."""
    return f"{split}-images-idx3-ubyte"


def labels_file(split: str) -> str:
    """The name of the idx file with the labels of split "train" or "t10k"."""
    return f"{split}-labels-idx1-ubyte"


@DATASETS.register("mnist")
class MNIST(Idx):
    """MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 grey, 10 classes."""

    name = "mnist"
    paper = "https://doi.org/10.1109/5.726791"
    folder = "MNIST"
    wanted = "the four idx files (MNIST/raw/train-images-idx3-ubyte ...)"
    md5: ClassVar = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }


@DATASETS.register("fashion_mnist")
class FashionMNIST(Idx):
    """Fashion-MNIST: 60,000 + 10,000 photographs of clothes, 28 x 28 grey, 10 classes."""

    name = "fashion_mnist"
    paper = "https://arxiv.org/abs/1708.07747"
    folder = "FashionMNIST"
    wanted = "the four idx files (FashionMNIST/raw/train-images-idx3-ubyte ...)"


@DATASETS.register("kmnist")
class KMNIST(Idx):
    """Kuzushiji-MNIST: 60,000 + 10,000 cursive Japanese characters, 28 x 28 grey, 10 classes."""

    name = "kmnist"
    paper = "https://arxiv.org/abs/1812.01718"
    folder = "KMNIST"
    wanted = "the four idx files (KMNIST/raw/train-images-idx3-ubyte ...)"
