"""What is read from source is what an import would tell, for everything that is registered."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest

from bench.data import DATASETS
from bench.declarations import Declaration, Source, Unreadable, arguments_of, declared
from bench.errors import BenchError
from bench.registry import MODELS, PROBES, REGULARIZERS, Registry
from tests.conftest import ROOT

EVERYTHING = [(registry, name) for registry in (MODELS, REGULARIZERS, PROBES, DATASETS) for name in registry.names()]
SETTABLE = [(registry, name) for registry, name in EVERYTHING if registry is not DATASETS]


def plain(kind: Any) -> Any:
    """A type without the identity of its Enums, which are made anew where they are read from source."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind.__name__, [(member.name, member.value) for member in kind]
    parts = tuple(map(plain, get_args(kind)))
    return (str(getattr(kind, "__origin__", kind)), parts) if parts else kind


def value(default: Any) -> Any:
    if isinstance(default, list):
        return list(map(value, default))
    return (type(default).__name__, default.name) if isinstance(default, Enum) else default


@pytest.mark.parametrize(("registry", "name"), SETTABLE)
def test_settings_are_those_of_the_imported_class(registry: Registry, name: str) -> None:
    declaration, cls = registry.declaration(name), registry.get(name)
    assert type(declaration) is Declaration, "read from source, not from the class"
    read = list(Source.of(declaration.module).arguments(declaration.qualname))
    live = arguments_of(cls)
    assert [argument.name for argument in read] == [argument.name for argument in live]
    assert [plain(argument.kind) for argument in read] == [plain(argument.kind) for argument in live]
    assert [value(argument.default) for argument in read] == [value(argument.default) for argument in live]


@pytest.mark.parametrize(("registry", "name"), EVERYTHING)
def test_names_and_documentation_are_those_of_the_imported_class(registry: Registry, name: str) -> None:
    declaration, cls = registry.declaration(name), registry.get(name)
    assert declaration.target == f"{cls.__module__}.{cls.__qualname__}"
    assert declaration.doc == cls.__doc__


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """package(**files): a package of these modules on the path; its name."""

    def make(**files: str) -> str:
        folder = tmp_path / "parts"
        folder.mkdir()
        for name, text in {"__init__": "", **files}.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return "parts"

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts"]:
        del sys.modules[name]
    Source.of.cache_clear()


BASE = """
from bench.registry import REGULARIZERS as R
import torch_is_not_needed

class Base:
    def __init__(self, weight: float = LEAST) -> None: ...

LEAST = 0.5
"""


def test_an_inherited_constructor_and_a_constant(package: Any) -> None:
    own = '@R.register("own")\nclass Own(Base):\n    """Own."""\n'
    found = declared(package(own=BASE + own))
    assert (found["own"].module, found["own"].qualname, found["own"].doc) == ("parts.own", "Own", "Own.")
    (argument,) = found["own"].arguments
    assert (argument.name, argument.kind, argument.default) == ("weight", float, 0.5)
    assert "parts.own" not in sys.modules


@pytest.mark.parametrize(
    "constructor",
    [
        "def __init__(self, weight: float = compute()) -> None: ...",
        "def __init__(self, weight=1.0) -> None: ...",
        "def __init__(self, *args: float) -> None: ...",
        "__init__ = compute()",
    ],
)
def test_what_source_does_not_tell_is_asked_of_the_class(package: Any, constructor: str) -> None:
    """Such a file is imported: it is slower, not refused."""
    text = f"""
def compute():
    return 2.0 if __name__ else None

def named(cls):
    return cls

class R:
    register = staticmethod(lambda name: named)

@R.register("own")
class Own:
    {constructor}
"""
    if constructor.startswith("__init__"):
        text = text.replace("return 2.0 if __name__ else None", "return lambda self, weight: None")
    found = declared(package(own=text))["own"]
    with pytest.raises(Unreadable):
        tuple(Source.of("parts.own").arguments("Own"))
    names = [argument.name for argument in found.arguments]
    assert names == (["args"] if "*args" in constructor else ["weight"])
    assert "parts.own" in sys.modules


def test_a_name_belongs_to_the_file_that_declares_it() -> None:
    """Also before that file is imported: a plugin cannot take a name of the suite."""
    code = """
from bench.errors import BenchError
from bench.registry import MODELS

try:
    @MODELS.register("cnn")
    class CNN: ...
except BenchError as error:
    print(error)
import sys
print("bench.models.cnn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = "model 'cnn' is already registered by bench.models.cnn.CNN; give __main__.CNN another name in `register`"
    assert done.stdout.splitlines() == [line, "False"]


def test_two_files_of_a_package_with_one_name_are_refused(package: Any) -> None:
    """A changed copy beside the original: neither silently takes the other's place, imported or not."""
    own = '@R.register("own")\nclass Own(Base):\n    """Own."""\n'
    name = package(own=BASE + own, copied=BASE + own)
    line = "'own' is registered by parts.copied.Own and by parts.own.Own: give one of them another name in `register`"
    with pytest.raises(BenchError, match=f"^{re.escape(line)}$"):
        declared(name)
    assert not {"parts.own", "parts.copied"} & set(sys.modules)


# -- the code of a plugin: its file, and what it imports beside it -------------------------------------

MINE = """
IMPORTS
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("mine")
class Mine(Regularizer):
    def penalty(self, activity):
        LATER
        return {}
"""
TELL = """
import sys
from bench.registry import REGULARIZERS
mine = REGULARIZERS.declaration("mine")
print(mine.sha256, *(mine.named(file) for file, _ in mine.files))
print("late" in sys.modules)
"""


def told(folder: Path, plugin: str = "mine.py") -> tuple[str, list[str], bool]:
    """What a process that finds modules in a folder says of a plugin: its hash, its files, whether `late` is there."""
    path = os.pathsep.join((str(folder), str(ROOT)))
    named = str(folder / plugin) if plugin.endswith(".py") else plugin
    env = {**os.environ, "PYTHONPATH": path, "BENCH_PLUGINS": named, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, env=env, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    (sha256, *files), (late,) = (line.split() for line in done.stdout.splitlines())
    return sha256, files, late == "True"


def mine(folder: Path, imports: str = "", later: str = "pass") -> bytes:
    """A plugin's source, written to `mine.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    source = MINE.replace("IMPORTS", imports).replace("LATER", later)
    (folder / "mine.py").write_text(source)
    return source.encode()


def short(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:12]


def test_a_file_that_imports_nothing_beside_it_has_its_own_hash(tmp_path: Path) -> None:
    """Nor do a neighbour that it leaves alone, the suite and an environment's libraries below the folder count."""
    folder = tmp_path / "own"
    source = mine(folder, "import json, torch, bench.seeds")
    (folder / "other.py").write_text("")
    assert told(folder) == (short(source), ["mine.py"], False)


def test_what_a_plugin_imports_beside_it_is_part_of_its_code(tmp_path: Path) -> None:
    """At the top, inside a function without importing it now, through each other, and a package's modules."""
    folder = tmp_path / "own"
    source = mine(folder, "import helper\nfrom tools import scale", "from late import later")
    (folder / "helper.py").write_text("import mine_too\n")
    (folder / "mine_too.py").write_text("import helper\n")
    (folder / "late.py").write_text("def later(: this is no Python")
    (folder / "tools").mkdir()
    (folder / "tools" / "__init__.py").write_text("")
    (folder / "tools" / "scale.py").write_text("from . import base\n")
    (folder / "tools" / "base.py").write_text("BASE = 1\n")
    (folder / "tools" / "unused.py").write_text("")
    names = ["mine.py", "helper.py", "late.py", "mine_too.py", "tools/__init__.py", "tools/base.py", "tools/scale.py"]
    sha256, files, late = told(folder)
    assert (files, late) == (names, False)
    sums = "".join(f"{name} {short((folder / name).read_bytes())}\n" for name in names)
    assert sha256 == short(sums.encode()) != short(source)
    (folder / "tools" / "base.py").write_text("BASE = 2\n")
    assert told(folder)[0] != sha256


def test_a_module_of_a_package_counts_its_neighbours(tmp_path: Path) -> None:
    package = tmp_path / "path" / "kit" / "regs"
    mine(package, "from .helper import x\nfrom kit.regs.second import y\nfrom kit import above")
    (package / "helper.py").write_text("x = 1\n")
    (package / "second.py").write_text("y = 1\n")
    (package.parent / "above.py").write_text("")
    assert told(tmp_path / "path", "kit.regs.mine")[1] == ["mine.py", "helper.py", "second.py"]


def test_libraries_beside_a_plugin_are_not_its_code(tmp_path: Path) -> None:
    """Where everything is installed, and deeper in the folder."""
    installed = tmp_path / "site-packages"
    source = mine(installed, "import library")
    (installed / "library.py").write_text("")
    assert told(installed)[:2] == (short(source), ["mine.py"])
    folder = tmp_path / "own"
    source = mine(folder, f"import sys\nsys.path.append({str(folder / 'env' / 'lib')!r})\nimport library")
    (folder / "env" / "lib").mkdir(parents=True)
    (folder / "env" / "lib" / "library.py").write_text("")
    assert told(folder)[:2] == (short(source), ["mine.py"])
