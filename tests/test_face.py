"""What `import bench` offers: quick, complete, documented by examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> str:
    """What a fresh process prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_brings_nothing_slow() -> None:
    code = "import sys, bench; print([n for n in ('torch', 'hydra', 'omegaconf', 'numpy', 'yaml') if n in sys.modules])"
    assert python(code) == "[]"
    assert (
        python("import sys, bench; bench.list_regularizers(); bench.records(); print('torch' in sys.modules)")
        == "False"
    )


def test_every_name_is_there() -> None:
    code = "import bench; print(sorted(bench.__all__) == dir(bench) and all(hasattr(bench, n) for n in bench.__all__))"
    assert python(code) == "True"
    assert (
        python("from bench import *; print(callable(attach), callable(activity), callable(records))")
        == "True True True"
    )
    with pytest.raises(AttributeError, match="has no attribute 'atach'"):
        bench.atach  # noqa: B018


@pytest.mark.parametrize(
    "first", ["bench.activity", "bench.records.folder", "bench.face.watch", "bench.training.run", "bench.face.table"]
)
def test_names_that_are_modules_too_are_both(first: str) -> None:
    """Whatever is imported first: `bench.activity(...)` and `bench.records()` can be called, their modules imported."""
    code = (
        f"import {first}, bench\n"
        "from bench.activity import RateMeter\n"
        "import bench.records.folder as folder\n"
        "network = bench.create_model('cnn', image_shape=(1, 8, 8), depth=1, channels=2)\n"
        "with bench.activity(network): pass\n"
        "print(len(bench.records('reports/records')) > 0, folder.RunFolder.__name__, "
        "bench.activity.RateMeter is RateMeter)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True RunFolder True", done.stderr


MODULES = (
    "bench.face.catalog", "bench.face.handles", "bench.face.networks", "bench.face.table", "bench.face.watch",
    "bench.models.base", "bench.models.predict", "bench.weights.store",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0


def test_the_pages_examples_run() -> None:
    """Those of docs/python.md that need no run, one after the other, as a reader would try them."""
    page = (ROOT / "docs" / "python.md").read_text()
    examples = re.findall(r"<!-- example of a .+? -->\n```python\n(.+?)```", page, re.DOTALL)
    assert len(examples) == 3
    space: dict[str, Any] = {}
    for example in examples:
        exec(example, space)
    assert space["told"].logits.shape == (8, 10)
    assert all(parameter.grad is not None for parameter in space["net"].parameters())
    for name in bench.__all__:
        assert name == "__version__" or f"bench.{name}(" in page, name


def test_every_name_has_an_example() -> None:
    for name in bench.__all__:
        if name == "__version__":
            continue
        module = importlib.import_module(f"bench.{bench._FACE[name]}")
        text = inspect.getdoc(getattr(module, name))
        assert text is not None
        assert ">>> " in text, name


def test_a_users_file_is_typed(tmp_path: Path) -> None:
    """mypy, strict, over a user's file: what `import bench` offers has types, and a wrong argument is one."""
    (tmp_path / "mine.py").write_text(
        "import torch\nimport bench\n\n"
        "network = bench.create_model('cnn', num_classes=3)\n"
        "handle = bench.attach(network, 'spikepen', weight=0.1)\n"
        "with bench.activity(network) as seen:\n    network(torch.zeros(1, 3, 32, 32))\n"
        "rate: float = seen.rate\nrows = bench.records().where(model='cnn')\n"
        "reveal_type(rows)\nreveal_type(handle.penalty())\nreveal_type(bench.load('x').predict([0]).labels)\n"
        "bench.create_model(3)\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "mine.py",
    ]
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("mine.py")]
    assert [line.partition(": ")[2] for line in lines if "note" in line] == [
        'note: Revealed type is "bench.face.table.Records"', 'note: Revealed type is "torch._tensor.Tensor"',
        'note: Revealed type is "tuple[str, ...]"',
    ], done.stdout  # fmt: skip
    errors = [line for line in lines if "error" in line]
    assert len(errors) == 1
    assert 'Argument 1 to "create_model" has incompatible type "int"' in errors[0]
