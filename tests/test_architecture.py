"""Imports run down the floors, and the map in docs/architecture.md is the tree that is there."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` in a folder."""
    return subprocess.run([sys.executable, "-c", LINT, "--no-cache"], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code, to be broken."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("bench", "hydra_plugins"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_suite_keeps_to_its_floors(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        (
            "bench/models/cnn.py",
            "from bench.training import task",
            "bench.models is not allowed to import bench.training",
        ),
        (
            "bench/records/folder.py",
            "def late():\n    from bench.commands import submit",
            "bench.records is not allowed to import bench.commands",
        ),
        (
            "bench/ops/block.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench.models.base import Spec",
            "bench.ops is not allowed to import bench.models",
        ),
        ("bench/report/stats.py", "from bench.report import build", "No cycles are allowed in bench"),
        (
            "bench/experiments.py",
            "import hydra_plugins.bench_sweeper",
            "bench.experiments is not allowed to import hydra",
        ),
        ("bench/newcomer.py", '"""A module that no floor names."""', "bench.newcomer"),
    ],
)
def test_an_import_upwards_fails_wherever_it_stands(copy: Path, file: str, line: str, said: str) -> None:
    path = copy / file
    path.write_text((path.read_text() if path.exists() else "") + "\n" + line + "\n")
    done = lint(copy)
    assert done.returncode == 1
    assert said in " ".join(done.stdout.split())


def tree() -> Any:
    """`docs/tree.py`, imported."""
    spec = importlib.util.spec_from_file_location("tree", ROOT / "docs" / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_is_the_tree_that_is_there() -> None:
    """`python docs/tree.py` renews it."""
    drawn = tree()
    assert drawn.PAGE.read_text() == drawn.page()
    there = {path.stem for path in (ROOT / "bench").glob("*.py")} | {
        path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")
    }
    assert {name for floor in drawn.floors() for name in floor} == there - {"__init__"}
    for pointer in ("AGENTS.md", "CONTRIBUTING.md"):
        assert "docs/architecture.md" in (ROOT / pointer).read_text()


@pytest.mark.parametrize("package", ["bench", "hydra_plugins"])
def test_every_file_says_in_a_sentence_what_lives_in_it(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert text.split("\n\n")[0].endswith("."), path
