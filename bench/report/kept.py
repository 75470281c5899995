"""What takes long and follows from the suite's files and some input alone, kept on disk from one command to the next.

Nothing here can be out of date: what is kept lies under the hash of all that it follows from. These are its input, the
content of every file of the suite, of the settings and of the user's own settings, Python, the installed packages and
the machine. Plugins may do anything, so where there are any, nothing is kept or taken.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.config.options import config_dirs
from bench.data import DATASETS
from bench.declarations import LiveDeclaration
from bench.errors import EnvironmentFault
from bench.files import write_atomic
from bench.registry import MODELS, PROBES, REGULARIZERS

_DAYS = 30
"""What nobody took for so long is thrown away."""
_STARTED = time.time()
_SHORTLY = 60.0
"""Seconds: no process takes as long to import this."""


def folder() -> Path:
    """Where things are kept: `snn-bench/reports` in the user's cache directory."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "snn-bench" / "reports"


def place(what: str, given: bytes) -> Path | None:
    """Where the result of an input is kept; None where none may be.

    Args:
        what: the kind of result.
        given: all that it follows from beside the suite, its settings and the machine.
    """
    registries = (MODELS, REGULARIZERS, DATASETS, PROBES)
    if any(isinstance(one, LiveDeclaration) for registry in registries for one in registry.declarations()):
        return None
    parts = [what.encode(), _surroundings(tuple(config_dirs())), given]
    return folder() / f"{what}-{hashlib.sha256(b''.join(hashlib.sha256(part).digest() for part in parts)).hexdigest()}"


def take(path: Path | None) -> Any:
    """What is kept at a place, as JSON has it; None where nothing is, or it is damaged."""
    if path is None:
        return None
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        os.utime(path)
        return content
    return None


def keep(contents: Mapping[Path | None, Any]) -> None:
    """Keep what JSON can hold at places of `place`; where that cannot be, the next command takes longer.

    A place is named by the files that are there now: nothing is kept while the code that runs may be another.
    """
    if not contents or _changing():
        return
    with suppress(OSError, EnvironmentFault):
        for path, content in contents.items():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, json.dumps(content))
        _tidy(folder())


def _tidy(where: Path) -> None:
    for path in where.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _DAYS * 86400:
                path.unlink()


@functools.cache
def _surroundings(settings: tuple[Path, ...]) -> bytes:
    """Hash of the suite's files, the settings', the installed packages and the machine: once a process."""
    said = hashlib.sha256(repr([sys.version, *platform.uname(), _processor()]).encode())
    for path, named in _files(settings):
        content = path.read_bytes() if path.is_file() else str(path.stat().st_mtime_ns).encode()
        said.update(named.encode() + b"\0" + hashlib.sha256(content).digest())
    return said.digest()


def _files(settings: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """All that makes the suite what it is, and what it is called: files, and for each installed package a folder."""
    for root in (Path(__file__).resolve().parents[1], *settings):
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".yaml", ".html") and path.is_file():
                yield path, path.relative_to(root).as_posix()
    for entry in sys.path:
        for path in sorted(Path(entry).glob("*.dist-info")):
            yield path, path.name


def _changing() -> bool:
    """Whether a file may be another than the one that this process runs: it was touched since, or shortly before."""
    return any(path.stat().st_ctime > _STARTED - _SHORTLY for path, _ in _files(config_dirs()))


def _processor() -> str:
    """What it can do: kernels of NumPy's and others' choose by that."""
    with suppress(OSError, StopIteration):
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    return ""
