"""Which commit ran, and what of the code that ran is not in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PLUGIN = """
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("mine")
class Mine(Regularizer):
    scale = 1.0
"""

ASK = """
from bench.config.compose import compose
from bench.records import identity, provenance
cfg = compose(["reg=REG"])
plugins = [plugin for _, plugin in identity.plugins_of(cfg)]
facts = identity.science(cfg, ("0" * 64, "x"), auto="fp32")
print(provenance.commit(plugins)[1], provenance.uncommitted(plugins), facts["plugins"])
"""


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=anna", "-c", "user.email=anna@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A checkout of the suite as it is now, all of it in one commit."""
    folder = tmp_path / "suite"
    folder.mkdir()
    for name in ("bench", "configs", "hydra_plugins"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(folder / name)], check=True)
    (folder / ".gitignore").write_text("__pycache__/\nscratch*\n")
    (folder / "reports").mkdir()
    (folder / "reports" / "README.md").write_text("one")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def ask(suite: Path, plugin: Path | None = None) -> str:
    """Whether a run in that checkout were dirty, what is in no commit, and what its identity says of plugins."""
    env = {**os.environ, "PYTHONPATH": str(suite), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {} if plugin is None else {"BENCH_PLUGINS": str(plugin)}
    code = ASK.replace("REG", "none" if plugin is None else "mine")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=suite.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_plain_run_is_of_its_commit_alone(suite: Path) -> None:
    assert ask(suite) == "False [] None"
    (suite / "notes.py").write_text("")
    (suite / "bench" / "notes.md").write_text("")
    (suite / "reports" / "README.md").write_text("two")
    assert ask(suite) == "False [] None"
    config = suite / "configs" / "config.yaml"
    config.write_text(config.read_text() + "# two\n")
    assert ask(suite) == "True [] None"


@pytest.mark.parametrize(
    "name", ["bench/regularizers/mine.py", "bench/ops/csrc/mine.h", "hydra_plugins/scratch.py", "configs/mine.cpp"]
)
def test_untracked_code_of_the_suite_is_in_no_commit(name: str, suite: Path) -> None:
    """Ignored or not."""
    (suite / name).write_text("")
    assert ask(suite) == f"True ['{name}'] None"


def test_a_plugin_counts_as_it_was_imported(suite: Path, tmp_path: Path) -> None:
    outside = tmp_path / "mine.py"
    outside.write_text(PLUGIN)
    sha = hashlib.sha256(PLUGIN.encode()).hexdigest()[:12]
    assert ask(suite, outside) == f"True ['mine.py'] {{'reg': {{'mine': '{sha}'}}}}"
    inside = suite / "extras" / "mine.py"
    inside.parent.mkdir()
    inside.write_text(PLUGIN)
    assert ask(suite, inside) == f"True ['mine.py'] {{'reg': {{'mine': '{sha}'}}}}"
    git(suite, "add", ".")
    git(suite, "commit", "-q", "-m", "mine")
    assert ask(suite, inside) == f"False [] {{'reg': {{'mine': '{sha}'}}}}"
    changed = PLUGIN.replace("1.0", "9.0")
    inside.write_text(changed)
    other = hashlib.sha256(changed.encode()).hexdigest()[:12]
    assert ask(suite, inside) == f"True ['mine.py'] {{'reg': {{'mine': '{other}'}}}}"


def test_a_plugins_helper_counts_as_it_was_imported(suite: Path) -> None:
    """Both files in the commit, or that which is not."""
    inside = suite / "extras" / "mine.py"
    inside.parent.mkdir()
    inside.write_text(f"import sys\nsys.path.insert(0, {str(inside.parent)!r})\nimport helper\n{PLUGIN}")
    helper = inside.with_name("helper.py")
    helper.write_text("x = 1\n")
    assert ask(suite, inside).startswith("True ['mine.py', 'helper.py'] {'reg': {'mine': '")
    git(suite, "add", ".")
    git(suite, "commit", "-q", "-m", "mine")
    committed = ask(suite, inside)
    assert committed.startswith("False [] {'reg': {'mine': '")
    helper.write_text("x = 2\n")
    changed = ask(suite, inside)
    assert changed.startswith("True ['helper.py'] {'reg': {'mine': '")
    assert changed[-16:] != committed[-16:]
