"""Builds the C++ kernels of `csrc/` on first use, keeps them in the user's cache, and loads them with ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

COMPILERS = ("g++", "c++", "clang++")
# No trapping maths: a comparison may then become a mask. NaN and infinity keep their meaning.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
BUILD_SECONDS = 120
SOURCES = Path(__file__).with_name("csrc")
# What `lanes.h` calls the entries of a tensor.
ELEMENTS = {torch.float32: "float", torch.bfloat16: "Bf16", torch.float16: "Fp16"}

_reasons: dict[str, str] = {}


def load(name: str, *flags: str, folder: Path = SOURCES) -> ctypes.CDLL | None:
    """The library built from `<folder>/<name>.cpp`; the first call may compile it, which takes seconds.

    A kernel takes addresses of tensors and the number of threads to use. Safe in parallel processes: each
    builds into a file of its own and renames it.

    Args:
        name: of the source, without its ending.
        flags: compiler flags on top of `FLAGS`; each choice of them is a library of its own.
        folder: of the source.

    Returns:
        None when there is no compiler, or it fails; `why(name)` says so in one line.
    """
    return _load(name, flags, folder)


def variant(name: str, dtype: torch.dtype, **constants: int) -> ctypes.CDLL | None:
    """`load` for tensors of a dtype, with constants under their names in capitals: what no run needs is not compiled.

    Returns:
        None also for a dtype that no kernel knows.
    """
    element = ELEMENTS.get(dtype)
    if element is None:
        _reasons[name] = f"there are none for {dtype}"
        return None
    return load(name, f"-DELEMENT={element}", *(f"-D{key.upper()}={value:d}" for key, value in constants.items()))


def why(name: str) -> str | None:
    """Why the last `load` or `variant` of that name returned None."""
    return _reasons.get(name)


def cache_folder() -> Path:
    """Where built libraries are kept: `snn-bench/ops` in the user's cache directory."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "snn-bench" / "ops"


@cache
def _load(name: str, flags: tuple[str, ...], sources: Path) -> ctypes.CDLL | None:
    try:
        return _open(_build(name, flags, sources))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        lines = str(error).strip().splitlines()
        _reasons[name] = lines[0] if lines else type(error).__name__
        return None


def _open(path: Path) -> ctypes.CDLL:
    # The library names no OpenMP runtime: it is to use the one that torch, imported above, has loaded. A second
    # one would have its own threads, which spin while the first one's work.
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        for runtime in ("libgomp.so.1", "libomp.so.5", "libomp.so"):
            try:
                ctypes.CDLL(runtime, ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            break
        return ctypes.CDLL(str(path))


def _build(name: str, flags: tuple[str, ...], sources: Path) -> Path:
    """The path of the built library.

    Raises:
        RuntimeError: no compiler, or it failed; the first line says which.
    """
    compiler = next((path for path in map(shutil.which, COMPILERS) if path), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler (g++, c++ or clang++) in PATH")
    source = sources / f"{name}.cpp"
    wide = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()
    command = [compiler, *FLAGS, *wide, *flags]
    binary = Path(compiler).resolve().stat()
    # The compiler by its file rather than by asking for its version: that costs a process at each start.
    texts = [file.read_text() for file in (source, *sorted(sources.glob("*.h")))]
    key = [*texts, *command, binary.st_size, binary.st_mtime_ns, _processor()]
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).hexdigest()[:24]
    target = cache_folder() / f"{name}-{digest}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unlinked, linked = f"{folder}/{name}.o", f"{folder}/{name}.so"
        _call([*command, "-c", str(source), "-o", unlinked])
        # Linked without -fopenmp, see `_open`.
        _call([compiler, "-shared", unlinked, "-o", linked, "-lm"])
        os.replace(linked, target)
    return target


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=BUILD_SECONDS, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or [""]
        raise RuntimeError(f"{Path(command[0]).name} failed: {said[0]}")


def _processor() -> str:
    """What `-march=native` depends on: a cache on a shared disk may serve unlike machines."""
    try:
        with open("/proc/cpuinfo") as lines:
            wanted = ("model name", "flags", "Features", "CPU part")
            facts = {line.split(":")[0].strip(): line for line in lines if line.startswith(wanted)}
    except OSError:
        return platform.processor()
    return "".join(facts.values())
