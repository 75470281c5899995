"""Packages whose `__init__` is put off: what they are before and after, on one made up and on torchmetrics."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.lazy import defer


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """package(text): a new package whose `__init__` is the text, with the modules `part` and `heavy`; its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def make(text: str) -> str:
        name = f"putoff{len(made)}"
        made.append(name)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(text)
        (folder / "part.py").write_text("class Part: pass\n")
        (folder / "heavy.py").write_text("class Heavy: pass\n")
        importlib.invalidate_caches()
        return name

    yield make
    for key in [key for key in sys.modules if key.split(".")[0] in made]:
        del sys.modules[key]


INIT = "from {0}.heavy import Heavy\nfrom {0}.part import Part\nvalue = 7\nruns = globals().get('runs', 0) + 1\n"


def test_a_package_runs_when_a_name_needs_it_and_once(package: Callable[[str], str]) -> None:
    name = package(INIT.format("putoff0"))
    defer(name, {"Part": lambda: importlib.import_module(f"{name}.part").Part})
    module = importlib.import_module(name)
    assert module.__path__
    part = module.Part
    assert (part.__module__, part) == (f"{name}.part", importlib.import_module(f"{name}.part").Part)
    assert not hasattr(module, "__wrapped__")
    assert f"{name}.heavy" not in sys.modules
    assert (module.value, module.runs, module.Heavy.__name__) == (7, 1, "Heavy")
    assert (module.Part, module.runs, sys.modules[name]) == (part, 1, module)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_a_listing_has_all_names(package: Callable[[str], str]) -> None:
    name = package(INIT.format("putoff0"))
    defer(name, {})
    assert {"Heavy", "Part", "value"} <= set(dir(importlib.import_module(name)))


def test_a_package_that_cannot_be_imported_is_not_left_behind(package: Callable[[str], str]) -> None:
    name = package("raise ValueError('broken')\n")
    defer(name, {})
    with pytest.raises(ValueError, match="broken"):
        _ = importlib.import_module(name).value
    assert name not in sys.modules


def test_what_is_there_or_nowhere_is_left_as_it_is(package: Callable[[str], str]) -> None:
    name = package(INIT.format("putoff0"))
    before = importlib.import_module(name)
    defer(name, {})
    assert type(sys.modules[name]) is type(sys)
    assert sys.modules[name] is before
    defer("nowhere_at_all", {})
    assert "nowhere_at_all" not in sys.modules


def test_training_imports_neither_torchvision_nor_scipy() -> None:
    """And whoever asks for a metric has them all, of the same base."""
    code = """
import sys
import bench.training.setup, bench.training.fit
early = sorted({"torchvision", "scipy.signal", "scipy.stats", "sklearn"} & set(sys.modules))
import lightning, torchmetrics
from torchmetrics import Accuracy
metric = Accuracy(task="multiclass", num_classes=3)
import torch
print(early, isinstance(metric, torchmetrics.Metric), float(metric(torch.tensor([0, 1]), torch.tensor([0, 2]))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[] True 0.5\n", 0), done.stderr
