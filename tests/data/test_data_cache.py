"""The cache file: made once, mapped, verified; status and identity read its header only."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import DataConfig, Raw, Source, cache, identity, open_dataset, prepare_named, status
from bench.data.sets.digits import Digits
from bench.errors import BenchError, EnvironmentFault


def digits(root: Path) -> DataConfig:
    return DataConfig(name="digits", root=str(root))


def file_of(root: Path) -> Path:
    return root / "cache" / "digits-embedded.safetensors"


@pytest.fixture
def root(tmp_path: Path, digits_root: Path) -> Path:
    """A data root of its own with the digits in its cache."""
    open_dataset(digits(digits_root))
    shutil.copytree(digits_root / "cache", tmp_path / "cache")
    return tmp_path


@pytest.fixture
def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(self: Source, copy: str) -> Raw:
        raise AssertionError("parsed")

    monkeypatch.setattr(Digits, "parse", parse)


def test_digits(digits_root: Path) -> None:
    from sklearn.datasets import load_digits

    dataset = open_dataset(digits(digits_root))
    assert (dataset.name, dataset.copy, dataset.classes) == ("digits", "embedded", tuple("0123456789"))
    assert dataset.train_images.shape == (1437, 1, 32, 32)
    assert dataset.test_images.shape == (360, 1, 32, 32)
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.train_labels.dtype == torch.int64
    # Upsampling keeps the grey values' mean; 16 levels are stretched to 255.
    everything = torch.cat([dataset.train_images, dataset.test_images]).double().mean().item()
    assert everything == pytest.approx(load_digits().images.mean() * 255 / 16, rel=0.01)
    # Each class gives a fifth of its images, as near as whole numbers allow.
    ours = torch.bincount(dataset.test_labels).double()
    whole = ours + torch.bincount(dataset.train_labels)
    assert (ours - whole * 360 / 1797).abs().max() <= 1


def test_second_start_maps_and_does_not_parse(root: Path, no_parsing: None) -> None:
    dataset = open_dataset(digits(root))
    header = cache._read_header(file_of(root))
    assert header is not None
    assert dataset.checksum == header.checksum


def test_the_checksum_knows_the_content_only(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    assert open_dataset(digits(other)).checksum == open_dataset(digits(root)).checksum


def test_every_flipped_byte_is_found(root: Path) -> None:
    path = file_of(root)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in (header, header + 5000, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BenchError, match=r"digits-embedded.safetensors is damaged .*data prepare digits"):
            open_dataset(digits(root))
    assert path.exists()  # left for the user to delete


@pytest.mark.parametrize("size", [0, 4, 100, 2000, -1])
def test_a_truncated_cache_is_refused(root: Path, size: int) -> None:
    path = file_of(root)
    path.write_bytes(path.read_bytes()[:size])
    cache._identity.cache_clear()
    for function in (open_dataset, identity):
        with pytest.raises(BenchError, match="is damaged") as caught:
            function(digits(root))
        assert "\n" not in str(caught.value)
    note = next(row for row in status(root) if row["name"] == "digits")["note"]
    assert "is damaged" in note


def test_other_class_names_are_found(root: Path) -> None:
    path = file_of(root)
    path.write_bytes(path.read_bytes().replace(b'\\"0\\", \\"1\\"', b'\\"1\\", \\"0\\"'))
    with pytest.raises(BenchError, match="does not have the checksum"):
        open_dataset(digits(root))


def test_prepare_repairs_a_damaged_cache(root: Path) -> None:
    expected = open_dataset(digits(root)).checksum
    file_of(root).write_bytes(b"rubbish")
    assert prepare_named("digits", root).checksum == expected


def test_a_changed_source_is_parsed_again(root: Path, monkeypatch: pytest.MonkeyPatch, no_parsing: None) -> None:
    monkeypatch.setattr(Digits, "fingerprint", lambda self, copy: "another")
    with pytest.raises(AssertionError, match="parsed"):
        open_dataset(digits(root))
    row = next(row for row in status(root) if row["name"] == "digits")
    assert row["note"].startswith("changed since it was parsed")


def test_a_source_that_is_gone_leaves_its_cache_good(
    root: Path, monkeypatch: pytest.MonkeyPatch, no_parsing: None
) -> None:
    monkeypatch.setattr(Digits, "fingerprint", lambda self, copy: None)
    assert open_dataset(digits(root)).copy == "embedded"


def test_a_cache_of_another_schema_is_parsed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, no_parsing: None
) -> None:
    monkeypatch.setattr(cache, "SCHEMA", "another")
    with pytest.raises(AssertionError, match="parsed"):
        open_dataset(digits(root))


def test_identity_reads_the_header_only(root: Path) -> None:
    path = file_of(root)
    checksum = open_dataset(digits(root)).checksum
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1  # open_dataset would refuse it
    path.write_bytes(damaged)
    code = f"""
import sys, time
from bench.data import DataConfig, identity
start = time.perf_counter()
print(*identity(DataConfig(name="digits", root={str(root)!r})))
print(time.perf_counter() - start)
print({{"torch", "torchvision", "numpy", "sklearn"}} & set(sys.modules))
"""
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert lines[0] == f"{checksum} embedded"
    assert float(lines[1]) < 0.1
    assert lines[2] == "set()"


def test_identity_makes_a_missing_cache(tmp_path: Path) -> None:
    cfg = digits(tmp_path)
    assert identity(cfg) == (open_dataset(cfg).checksum, "embedded")


def test_two_processes_parse_once(tmp_path: Path) -> None:
    code = f"""
import sys, time
from bench.data import DataConfig, open_dataset
from bench.data.sets.digits import Digits
parse = Digits.parse
def slow(self, copy):
    print("parsed", flush=True)
    time.sleep(1)
    return parse(self, copy)
Digits.parse = slow
print(open_dataset(DataConfig(name="digits", root={str(tmp_path)!r})).checksum)
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for process in both for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in both] == [0, 0]
    assert lines.count("parsed") == 1
    assert len({line for line in lines if line != "parsed"}) == 1


@pytest.fixture
def read_only_root(root: Path) -> Any:
    """A data root nobody may write to; root's rights are laid down for the test."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield place
    finally:
        os.seteuid(user)
        place.chmod(0o755)
        shutil.rmtree(place)


def test_a_read_only_root_without_cache(read_only_root: Path) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"cache cannot be written to \(Permission denied\).*BENCH_DATA"
    ) as caught:
        open_dataset(digits(read_only_root))
    assert caught.value.code == 1


def test_a_read_only_root_with_cache_works(root: Path) -> None:
    place = Path(tempfile.mkdtemp())
    shutil.copytree(root / "cache", place / "cache")
    for path in (place / "cache" / "digits-embedded.lock", file_of(place)):
        path.chmod(0o444)
    (place / "cache").chmod(0o555)
    place.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert len(open_dataset(digits(place)).test_labels) == 360
    finally:
        os.seteuid(user)
        shutil.rmtree(place)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_file(arrays: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", save_file)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        open_dataset(digits(tmp_path))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_the_cache_follows_the_umask(tmp_path: Path) -> None:
    open_dataset(digits(tmp_path))
    (tmp_path / "plain").touch()
    assert file_of(tmp_path).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_status(root: Path) -> None:
    rows = {row["name"]: row for row in status(root)}
    assert set(rows) == {"digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "folder"}
    row = rows["digits"]
    assert (row["present"], row["copy"], row["images"], row["classes"]) == (True, "embedded", 1797, 10)
    assert row["bytes"] == file_of(root).stat().st_size
    assert row["checksum"] == open_dataset(digits(root)).checksum
    assert rows["cifar100"]["present"] is False
    assert rows["cifar100"]["note"] == "the first run downloads it"
    assert sorted(path.name for path in root.iterdir()) == ["cache"]  # nothing was made


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "here"))
    open_dataset(DataConfig(name="digits"))
    assert file_of(tmp_path / "here").exists()


def test_the_header_is_safetensors_own(root: Path) -> None:
    """`_read_header` reads the format by itself; the library must agree."""
    from safetensors import safe_open

    header = cache._read_header(file_of(root))
    assert header is not None
    with safe_open(file_of(root), framework="np") as file:
        meta = file.metadata()
        assert header.images == sum(file.get_slice(f"{split}_labels").get_shape()[0] for split in ("train", "test"))
    assert header.classes == len(json.loads(meta["classes"]))
    assert (header.checksum, header.copy) == (meta["checksum"], meta["copy"])


def test_verifying_is_quick(root: Path) -> None:
    start = time.perf_counter()
    open_dataset(digits(root))
    assert time.perf_counter() - start < 1
