"""Where numbers come from: time, versions, commit, hardware, memory."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench import __version__


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


def commit() -> tuple[str | None, bool]:
    """The suite's git commit (None outside a checkout), and whether tracked files outside reports/ differ from it."""
    here = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str | None:
        try:
            out = subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return out.stdout.strip() if out.returncode == 0 else None

    # Installed inside somebody else's repository, the package is not tracked there.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None, False
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)reports")
    return git("rev-parse", "HEAD"), bool(dirty)


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
