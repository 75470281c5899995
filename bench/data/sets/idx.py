"""MNIST and the sets in its format: four idx files, downloaded by torchvision."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.source import DATASETS, Raw, Source, content_md5, stamp
from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np

# Samples by split, as the files are called; every set of the family has 28 x 28 grey images of 10 classes.
SPLITS = {"train": 60_000, "t10k": 10_000}


class Idx(Source):
    """A data set of four idx files in `<root>/<folder>/raw`, each there as it is, as .gz, or both.

    Attributes:
        folder: torchvision's class of that name, which is also the folder's name.
        md5: of the unpacked idx files, where known: whichever of a file and its .gz has that content is read. Else
            the .gz is read if torchvision knows its MD5; a .gz packed anew must agree with the file beside it.
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
        files = []
        for name in (kind(split) for split in SPLITS for kind in (images_file, labels_file)):
            either = [path for path in (self.raw / name, self.raw / f"{name}.gz") if path.is_file()]
            if not either:
                return None
            files += either
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

        path, content = self._content(name)
        # http://yann.lecun.com/exdb/mnist: two zero bytes, type 8 (uint8), the number of axes, their lengths.
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        size = len(header) + int(np.prod(shape))
        if len(content) != size:
            raise self._damaged(path, f"has {len(content):,} bytes instead of {size:,}")
        if not content.startswith(header):
            raise self._damaged(path, f"does not start as an idx file of shape {shape}")
        return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)

    def _content(self, name: str) -> tuple[Path, bytes]:
        """The bytes of an idx file, and the path of what they were read from."""
        plain, packed = self.raw / name, self.raw / f"{name}.gz"
        expected = self.md5.get(name)
        contents: dict[Path, bytes] = {}
        refusals: list[BenchError] = []
        for path in (plain, packed):
            if not path.is_file():
                continue
            content = path.read_bytes()
            published = expected is None and content_md5(content) == dict(self._torchvision().resources).get(path.name)
            if path == packed:
                try:
                    content = gzip.decompress(content)
                except (OSError, EOFError, zlib.error) as error:
                    refusals.append(self._damaged(packed, f"cannot be unpacked ({error})"))
                    continue
            digest = content_md5(content)
            if published or digest == expected:
                return path, content
            if expected is not None:
                unpacked = ", unpacked," if path == packed else ""
                refusals.append(self._damaged(path, f"has{unpacked} MD5 {digest} instead of {expected}"))
                continue
            contents[path] = content
        if not contents:
            raise refusals[0]
        if len(set(contents.values())) > 1:
            raise BenchError(f"{plain} and {packed.name} beside it have different contents: delete the wrong one")
        return next(iter(contents.items()))

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
    md5: ClassVar = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }


@DATASETS.register("kmnist")
class KMNIST(Idx):
    """Kuzushiji-MNIST: 60,000 + 10,000 cursive Japanese characters, 28 x 28 grey, 10 classes."""

    name = "kmnist"
    paper = "https://arxiv.org/abs/1812.01718"
    folder = "KMNIST"
    wanted = "the four idx files (KMNIST/raw/train-images-idx3-ubyte ...)"
