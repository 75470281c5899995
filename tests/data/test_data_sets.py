"""The data sets that are downloaded, on the real copies where they are and on small forgeries."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import DATASETS, DataConfig, Source, identity, open_dataset, prepare, status
from bench.data.sets import cifar, idx
from bench.errors import BenchError, EnvironmentFault

Real = Callable[[str], Path]


def config(name: str, root: Path) -> DataConfig:
    return DataConfig(name=name, root=str(root))


def test_each_data_set_says_what_it_is() -> None:
    for name, cls in DATASETS.items():
        assert issubclass(cls, Source)
        assert cls.name == name
        assert cls.__doc__.splitlines()[0].endswith(".")
        assert cls.paper.startswith("https://") or name == "folder"
        configured = Path("configs/data", f"{name}.yaml").read_text()
        assert configured.startswith("# ")
        assert f"name: {name}\n" in configured


# MNIST


def test_real_mnist(real_root: Real) -> None:
    root = real_root("mnist")
    splits = prepare(config("mnist", root), seed=0, batch_size=50)
    dataset = splits.dataset
    assert dataset.copy == "original"
    assert dataset.train_images.shape == (60_000, 1, 28, 28)
    assert dataset.test_images.shape == (10_000, 1, 28, 28)
    # The published first labels and the statistics that every tutorial gives.
    assert dataset.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert splits.mean == pytest.approx((0.1307,), abs=1e-4)
    assert splits.std == pytest.approx((0.3081,), abs=1e-4)
    from torchvision.datasets import MNIST

    assert torch.equal(MNIST(str(root), train=False).data, dataset.test_images[:, 0])


def test_a_tampered_mnist_file_is_refused(real_root: Real, tmp_path: Path) -> None:
    shutil.copytree(real_root("mnist") / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"t10k-labels-idx1-ubyte is damaged: it has MD5 .* instead of 27ae3e4e"):
        open_dataset(config("mnist", tmp_path))


# The idx format, on forgeries of a few images


@pytest.fixture
def small_idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a KMNIST of 12 + 4 images: no MD5 of its unpacked files is known."""
    monkeypatch.setattr(idx, "SPLITS", {"train": 12, "t10k": 4})
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for split, n in idx.SPLITS.items():
        images = draw.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        (raw / idx.images_file(split)).write_bytes(
            b"\0\0\x08\x03" + b"".join(k.to_bytes(4, "big") for k in (n, 28, 28)) + images.tobytes()
        )
        labels = bytes(i % 10 for i in range(n))
        (raw / idx.labels_file(split)).write_bytes(b"\0\0\x08\x01" + n.to_bytes(4, "big") + labels)
    return raw


def test_idx_like_torchvision(small_idx: Path, tmp_path: Path) -> None:
    from torchvision.datasets import KMNIST

    ours, theirs = open_dataset(config("kmnist", tmp_path)), KMNIST(str(tmp_path))
    assert torch.equal(ours.train_images[:, 0], theirs.data)
    assert torch.equal(ours.train_labels, theirs.targets)
    assert ours.classes[0] == "o"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "has 9,423 bytes instead of 9,424"),
        (lambda content: content + b"x", "has 9,425 bytes instead of 9,424"),
        (lambda content: b"\0\0\x08\x01" + content[4:], "does not start as an idx file"),
        (lambda content: b"", "has 0 bytes"),
    ],
)
def test_damaged_idx_files(small_idx: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = small_idx / idx.images_file("train")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BenchError, match=f"train-images-idx3-ubyte is damaged: it {message}.*; delete it"):
        open_dataset(config("kmnist", tmp_path))


def test_a_label_out_of_range(small_idx: Path, tmp_path: Path) -> None:
    path = small_idx / idx.labels_file("t10k")
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(BenchError, match="t10k-labels-idx1-ubyte is damaged: it has the label 11"):
        open_dataset(config("kmnist", tmp_path))


def test_the_download_is_read_where_it_is_left(
    small_idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import KMNIST

    name = idx.images_file("train")
    packed = gzip.compress((small_idx / name).read_bytes())
    (small_idx / f"{name}.gz").write_bytes(packed)
    monkeypatch.setattr(KMNIST, "resources", [(f"{name}.gz", hashlib.md5(packed).hexdigest())])
    expected = np.frombuffer((small_idx / name).read_bytes()[16:], np.uint8)
    (small_idx / name).write_bytes(b"tampered")
    assert np.array_equal(open_dataset(config("kmnist", tmp_path)).train_images.numpy().ravel(), expected)


def pack(raw: Path, *, keep: bool) -> None:
    """Compress the idx files anew, as no published archive is."""
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1, mtime=1))
        if not keep:
            path.unlink()


@pytest.mark.parametrize("keep", [True, False])
def test_files_packed_anew(small_idx: Path, tmp_path: Path, keep: bool) -> None:
    expected = open_dataset(config("kmnist", tmp_path)).checksum
    pack(small_idx, keep=keep)
    assert open_dataset(config("kmnist", tmp_path)).checksum == expected
    packed = small_idx / f"{idx.labels_file('train')}.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    if keep:  # as if it were not there
        assert open_dataset(config("kmnist", tmp_path)).checksum == expected
    else:
        with pytest.raises(BenchError, match=r"train-labels-idx1-ubyte.gz is damaged: it cannot be unpacked"):
            open_dataset(config("kmnist", tmp_path))


def test_two_contents_of_one_file(small_idx: Path, tmp_path: Path) -> None:
    pack(small_idx, keep=True)
    path = small_idx / idx.labels_file("train")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BenchError, match=r"train-labels-idx1-ubyte and .*ubyte.gz beside it have different contents"):
        open_dataset(config("kmnist", tmp_path))


@pytest.fixture
def known_idx(small_idx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Fashion-MNIST of 12 + 4 images, whose unpacked files are known by their MD5."""
    raw = small_idx.parent.with_name("FashionMNIST") / "raw"
    shutil.copytree(small_idx, raw)
    known = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in raw.iterdir()}
    assert set(known) == set(idx.FashionMNIST.md5)
    monkeypatch.setattr(idx.FashionMNIST, "md5", known)
    return raw


def test_the_content_counts_not_the_packing(known_idx: Path, tmp_path: Path) -> None:
    cfg = config("fashion_mnist", tmp_path)
    expected = open_dataset(cfg).checksum
    plain, packed = (known_idx / f"{idx.images_file('train')}{suffix}" for suffix in ("", ".gz"))
    packed.write_bytes(b"no archive")
    assert open_dataset(cfg).checksum == expected
    pack(known_idx, keep=True)
    assert open_dataset(cfg).checksum == expected
    plain.write_bytes(b"tampered")
    assert open_dataset(cfg).checksum == expected
    plain.unlink()
    assert open_dataset(cfg).checksum == expected
    content = gzip.decompress(packed.read_bytes())
    packed.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    with pytest.raises(BenchError, match=r"images-idx3-ubyte.gz is damaged: it has, unpacked, MD5 .*; delete it"):
        open_dataset(cfg)
    packed.unlink()
    assert idx.FashionMNIST(tmp_path).fingerprint("original") is None


def test_real_fashion_mnist_packed_anew(tmp_path: Path) -> None:
    raw = Path(os.environ.get("BENCH_DATA", "data")) / "FashionMNIST" / "raw"
    if not all((raw / name).is_file() for name in idx.FashionMNIST.md5):
        pytest.skip("no unpacked FashionMNIST")
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    for name in idx.FashionMNIST.md5:
        packed = tmp_path / "FashionMNIST" / "raw" / f"{name}.gz"
        packed.write_bytes(gzip.compress((raw / name).read_bytes(), 1))
    dataset = open_dataset(config("fashion_mnist", tmp_path))
    # The published first labels: an ankle boot, a T-shirt, a T-shirt.
    assert dataset.train_labels[:3].tolist() == [9, 0, 0]
    assert torch.bincount(dataset.train_labels).tolist() == [6000] * 10
    assert torch.bincount(dataset.test_labels).tolist() == [1000] * 10


# No network


@pytest.fixture
def silent_server() -> Any:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100"])
def test_a_server_that_never_answers(
    name: str, silent_server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{silent_server}/"
    cls = DATASETS.get(name)(tmp_path)._torchvision()
    monkeypatch.setattr(cls, *(("mirrors", [url]) if hasattr(cls, "mirrors") else ("url", url + cls.filename)))
    monkeypatch.setattr("bench.data.download.TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    start = time.perf_counter()
    message = (
        rf"{name} is not in {tmp_path} and could not be downloaded \(.*timed out.*\): put .* there, or set data.root"
    )
    with pytest.raises(EnvironmentFault, match=message) as caught:
        open_dataset(config(name, tmp_path))
    assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None


# CIFAR


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's batches with two images each, whose MD5s torchvision is made to expect."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    draw = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name: str) -> list[str]:
        return write(name, {"data": draw.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [3, 9]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    name, md5 = write("batches.meta", {"label_names": list(cifar.CIFAR10_CLASSES)})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return folder


def test_the_original_batches(small_cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar10" / "train").mkdir(parents=True)  # the original is preferred
    dataset = open_dataset(config("cifar10", tmp_path))
    assert (dataset.copy, dataset.classes) == ("original", cifar.CIFAR10_CLASSES)
    assert dataset.train_images.shape == (10, 3, 32, 32)
    assert dataset.train_labels.tolist() == [3, 9] * 5
    # A row is 1,024 red values, then green, then blue, each row by row.
    row = pickle.loads((small_cifar / "data_batch_1").read_bytes())["data"][1]
    assert np.array_equal(dataset.train_images[1].numpy().ravel(), row)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_tampered_batch_is_never_unpickled(
    small_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", load)
    (small_cifar / name).write_bytes((small_cifar / name).read_bytes() + b" ")
    with pytest.raises(BenchError, match=f"{name} is damaged: it has MD5 .*; delete it, and the next run downloads"):
        open_dataset(config("cifar10", tmp_path))


def archive(small_cifar: Path) -> Path:
    """The batches packed anew, which is not the published archive."""
    path = small_cifar.with_name("cifar-10-python.tar.gz")
    with tarfile.open(path, "w:gz") as file:
        file.add(small_cifar, small_cifar.name)
    return path


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Source, dataset: object) -> None:
        raise EnvironmentFault("downloaded")

    monkeypatch.setattr("bench.data.download.download", refuse)


def test_an_archive_packed_anew(small_cifar: Path, tmp_path: Path, no_download: None) -> None:
    row = pickle.loads((small_cifar / "data_batch_1").read_bytes())["data"][1]
    archive(small_cifar)
    shutil.rmtree(small_cifar)
    dataset = open_dataset(config("cifar10", tmp_path))
    assert np.array_equal(dataset.train_images[1].numpy().ravel(), row)
    assert (dataset.copy, dataset.train_labels.tolist()) == ("original", [3, 9] * 5)


def test_batches_beside_a_damaged_archive(small_cifar: Path, tmp_path: Path, no_download: None) -> None:
    small_cifar.with_name("cifar-10-python.tar.gz").write_bytes(b"no archive")
    assert len(open_dataset(config("cifar10", tmp_path)).train_labels) == 10


@pytest.mark.parametrize("damage", ["other", "missing", "cut", "rubbish"])
def test_an_archive_of_other_content_is_downloaded_again(
    small_cifar: Path, tmp_path: Path, no_download: None, damage: str
) -> None:
    if damage == "other":
        (small_cifar / "test_batch").write_bytes(b"other")
    elif damage == "missing":
        (small_cifar / "test_batch").unlink()
    path = archive(small_cifar)
    if damage in ("cut", "rubbish"):
        path.write_bytes(path.read_bytes()[:5000] if damage == "cut" else b"rubbish")
    shutil.rmtree(small_cifar)
    with pytest.raises(EnvironmentFault, match="downloaded"):
        open_dataset(config("cifar10", tmp_path))
    assert not small_cifar.exists()  # nothing half unpacked


def write_cifar_folder(root: Path, suffix: str) -> Path:
    for split in ("train", "test"):
        for label in cifar.CIFAR10_CLASSES:
            folder = root / "cifar10" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / f"0{suffix}")
    return root / "cifar10"


def test_half_a_copy_is_refused(tmp_path: Path) -> None:
    folder = write_cifar_folder(tmp_path, ".jpg")
    with pytest.raises(
        BenchError, match="cifar10 is not a whole copy of CIFAR-10: train/airplane has 1 images instead of 5,000"
    ):
        open_dataset(config("cifar10", tmp_path))
    (folder / "train" / "cat").rename(folder / "train" / "kitten")
    (folder / "test" / "cat").rename(folder / "test" / "kitten")
    with pytest.raises(BenchError, match="its classes differ in cat, kitten"):
        open_dataset(config("cifar10", tmp_path))
    shutil.rmtree(folder / "test")
    with pytest.raises(BenchError, match="cifar10 has no folder test/"):
        open_dataset(config("cifar10", tmp_path))


@pytest.mark.parametrize(
    ("suffix", "copy"), [(".jpg", "jpeg"), (".JFIF", "jpeg"), (".png", "folder"), (".bmp", "folder")]
)
def test_records_can_say_which_copy(tmp_path: Path, suffix: str, copy: str) -> None:
    write_cifar_folder(tmp_path, suffix)
    row = next(row for row in status(tmp_path) if row["name"] == "cifar10")
    assert (row["present"], row["copy"], row["note"]) == (True, copy, "the first run parses it")


def test_images_deeper_than_their_class_are_refused(tmp_path: Path) -> None:
    folder = write_cifar_folder(tmp_path, ".png")
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "more" / "0.png")
    with pytest.raises(BenchError, match=r"train/cat/more/0.png lies deeper than its class's folder"):
        open_dataset(config("cifar10", tmp_path))


@pytest.mark.slow
def test_real_cifar10(real_root: Real) -> None:
    """60,000 real JPEGs: parsed in bounded time, mapped and verified within a second, identified at once."""
    root = real_root("cifar10")
    cfg = config("cifar10", root)
    if not (root / "cifar-10-batches-py").exists():
        start = time.perf_counter()
        open_dataset(cfg)
        assert time.perf_counter() - start < 60
    times = []
    for _ in range(3):
        start = time.perf_counter()
        dataset = open_dataset(cfg)
        times.append(time.perf_counter() - start)
    assert min(times) < 1
    assert dataset.copy == "jpeg"
    assert dataset.classes == cifar.CIFAR10_CLASSES
    assert torch.bincount(dataset.train_labels).tolist() == [5000] * 10
    assert torch.bincount(dataset.test_labels).tolist() == [1000] * 10
    file = root / "cifar10" / "test" / "ship" / "0007.jpg"
    with Image.open(file) as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(dataset.test_images[8007].numpy(), expected)
    splits = prepare(cfg, seed=0, batch_size=50)
    assert splits.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    start = time.perf_counter()
    assert identity(cfg) == (dataset.checksum, "jpeg")
    assert time.perf_counter() - start < 0.1
