"""Where numbers come from: time, versions, commit, hardware, memory."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from bench import __version__
from bench.declarations import LiveDeclaration, digest

NUMERICS = 4
"""Raised whenever a change moves results though settings and machine stay: records from before and after are then of
two things. `tests/training/golden.py` tells when."""

CODE = ("bench", "hydra_plugins", "configs")
"""The repository's folders whose code a run may import or compile."""

SUFFIXES = (".py", ".cpp", ".h")
"""Of that code's files."""


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of what a run's numbers depend on."""
    names = ("torch", "torchvision", "lightning", "spikingjelly", "timm", "numpy", "hydra-core", "wandb")
    installed = {"snn-bench": __version__, "python": platform.python_version()}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "none"
    return installed


class Commit(NamedTuple):
    """Which code runs.

    Attributes:
        name: the suite's git commit; None outside a checkout.
        dirty: whether tracked files outside reports/ differ from it, or code that runs is in none.
        uncommitted: the code that is in none.
    """

    name: str | None
    dirty: bool
    uncommitted: list[str]


def commit(plugins: Iterable[LiveDeclaration] = ()) -> Commit:
    """The suite's git commit, and how the code that runs differs from it.

    Args:
        plugins: those that take part.
    """
    head, changed = None, b""
    if _tracked():
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)reports") or b""
    loose = uncommitted(plugins)
    return Commit(None if head is None else head.decode().strip(), bool(changed.strip() or loose), loose)


def uncommitted(plugins: Iterable[LiveDeclaration] = ()) -> list[str]:
    """What code is in no commit: the suite's untracked files, and plugins' files.

    Args:
        plugins: those that take part; each is to be in the suite's commit as it was when it was imported, with the
            files beside it that it imports.

    Returns:
        Paths in the repository; of plugins the files' names, as their folders are a machine's.
    """
    top = _git("rev-parse", "--show-toplevel") if _tracked() else None
    home = None if top is None else Path(top.decode().removesuffix("\n"))
    files: list[str] = []
    if home is not None:
        # Ignored files too: Python imports them.
        others = _git("ls-files", "--others", "-z", "--", *CODE) or b""
        files += [name for name in others.decode().split("\0") if name.endswith(SUFFIXES)]
    for plugin in plugins:
        files += [] if plugin.files else [plugin_file(plugin)]
        files += [plugin.named(file) for file, sha256 in plugin.files if not _committed(file, sha256, home)]
    return list(dict.fromkeys(files))


def plugin_file(plugin: LiveDeclaration) -> str:
    """The name of its file, without folders; of a class without a file that of its module."""
    return plugin.module if plugin.file is None else plugin.file.name


def plugin_hashes(env: Mapping[str, Any]) -> dict[str, str]:
    """What names the code of a run's plugins, by what they are registered as; records of old have none.

    Args:
        env: the content of `env.json`.
    """
    plugins = env.get("plugins")
    entries = plugins.items() if isinstance(plugins, dict) else ()
    return {name: str(entry["sha256"]) for name, entry in entries if isinstance(entry, dict) and entry.get("sha256")}


def loose_plugins(env: Mapping[str, Any]) -> dict[str, str]:
    """The plugins of a run whose code was in no commit: their files' names, by what they are registered as.

    Args:
        env: the content of `env.json`.
    """
    files, plugins = env.get("uncommitted"), env.get("plugins")
    if not isinstance(files, list) or not isinstance(plugins, dict):
        return {}
    named = {name: entry.get("file") for name, entry in plugins.items() if isinstance(entry, dict)}
    return {name: str(file) for name, file in named.items() if file in files}


def changes(env: Mapping[str, Any], commit: str) -> str:
    """What makes a record dirty, for people.

    Args:
        env: the content of `env.json`.
        commit: what to call the commit.
    """
    plugins = [f"'{name}' ({file})" for name, file in loose_plugins(env).items()]
    if plugins:
        return f"the code of the plugin {', '.join(plugins)} is in no commit"
    files = env.get("uncommitted")
    if isinstance(files, list) and files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        return f"the code in {', '.join(map(str, files[:3]))}{more} is in no commit"
    return f"tracked files differed from {commit}"


def _committed(file: Path, sha256: str, top: Path | None) -> bool:
    if top is None or not file.resolve().is_relative_to(top):
        return False
    source = _git("cat-file", "blob", f"HEAD:{file.resolve().relative_to(top).as_posix()}")
    return source is not None and digest(source) == sha256


def _tracked() -> bool:
    # Installed inside somebody else's repository, the package is not tracked there.
    return _git("ls-files", "--error-unmatch", "bench/__init__.py") is not None


def _git(*args: str) -> bytes | None:
    """What git says in the folder that holds the suite; None where it fails."""
    here = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(here), *args], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def hardware(device: str) -> str:
    """What the run ran on, in a line: the GPU's name, or the processor's with its cores."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} threads"


def peak_memory(device: str) -> int:
    """Peak bytes: allocated on the GPU, or resident in this process so far."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if platform.system() == "Darwin" else peak * 1024
