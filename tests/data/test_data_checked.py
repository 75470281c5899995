"""What a data set of one's own gives is checked before it is kept: each fault is a line that names the array."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.checked import check
from bench.data.source import Raw
from bench.errors import BenchError

PLUGIN = '''"""A data set in code."""
import numpy as np
from bench.data.source import DATASETS, Raw, Source

@DATASETS.register("stripes")
class Stripes(Source):
    """Stripes."""
    name = "stripes"
    paper = "https://example.org"
    copies = ("embedded",)
    def place(self, copy): return "here"
    def fingerprint(self, copy): return "1"
    def parse(self, copy):
        images = np.zeros((40, 1, 16, 16), np.uint8)
        labels = np.arange(40) % 2
        images[labels == 1, :, ::2] = 255
        images[labels == 0, :, :, ::2] = 255
        return Raw(images, labels, images[:10], labels[:10]LABELS, ("across", "down"))
'''


def whole() -> Raw:
    images, labels = np.zeros((4, 3, 5, 6), np.uint8), np.array([0, 1, 2, 2])
    return Raw(images, labels, images[:2], labels[:2], ("a", "b", "c"))


def test_a_data_set_is_given_back_as_it_is() -> None:
    raw = whole()
    assert check("mine", raw) is raw


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_images": np.zeros((4, 3, 5, 6))}, "train_images of float64, it must be an array of uint8"),
        ({"train_images": [[0]]}, "train_images as a list, it must be an array of uint8"),
        ({"test_images": np.zeros((2, 5, 6, 3), np.uint8)}, r"test_images of shape \[2, 5, 6, 3\], it must be \[M, C"),
        ({"test_images": np.zeros((2, 5, 6), np.uint8)}, r"test_images of shape \[2, 5, 6\]"),
        ({"test_images": np.zeros((0, 3, 5, 6), np.uint8)}, "there is nothing in it"),
        ({"test_images": np.zeros((2, 3, 6, 6), np.uint8)}, r"images of \[C, H, W\] = \[3, 5, 6\] and test images of"),
        ({"train_labels": np.array([0, 1, 2])}, r"train_labels of shape \[3\] for 4 images, it must be \[4\]"),
        ({"train_labels": np.array([0, 1, 2, 2], np.uint8)}, "train_labels of uint8, it must be an array of int64"),
        ({"train_labels": np.array([0, 1, 2, 3])}, "train_labels from 0 to 3, they must be 0 to 2"),
        ({"test_labels": np.array([-1, 1])}, "test_labels from -1 to 1"),
        ({"classes": ("a", "b", "a")}, "each another"),
        ({"classes": ("a",)}, "two names or more"),
        ({"classes": "abc"}, "a tuple of names"),
        ({"classes": (0, 1, 2)}, "a tuple of names"),
    ],
    ids=str,
)
def test_each_fault_is_a_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=f"data=mine: its `parse` gives.*{said}") as fault:
        check("mine", replace(whole(), **changes))
    assert "\n" not in str(fault.value)


def test_what_is_no_data_set() -> None:
    with pytest.raises(BenchError, match=r"gives a tuple, it must give a `bench.data.source.Raw`"):
        check("mine", (1, 2))


@pytest.mark.parametrize(("labels", "code"), [("", 0), (" + 5", 2)], ids=["right", "wrong"])
def test_a_plugin_s_data_set(
    labels: str,
    code: int,
    bench: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "stripes.py").write_text(PLUGIN.replace("LABELS", labels))
    monkeypatch.setenv("BENCH_PLUGINS", str(tmp_path / "stripes.py"))
    done = bench(
        "run", "data=stripes", f"data.root={tmp_path / 'data'}", "model=cnn", "model.depth=2", "budget=smoke",
        "logger=none", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    if code:
        assert "data=stripes: its `parse` gives test_labels from 5 to 6, they must be 0 to 1" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((tmp_path / "data").rglob("*.safetensors"))
