"""Which kernels a machine gets: Triton, compiled C++, or plain torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from bench.errors import BenchError
from bench.ops import compiled
from bench.ops.choice import Backend

OLDEST_GPU = (7, 0)  # compute capability that Triton supports


def resolve(asked: Backend, device: str | torch.device) -> tuple[Backend, str | None]:
    """What `asked` comes to on this device, and in one line why it is not the fast kernels, if so.

    The first call may build the compiled kernels, which takes seconds.

    Raises:
        BenchError: triton was asked for, and the device is no CUDA GPU.
    """
    return _resolve(Backend(asked), torch.device(device).type)


@cache
def _resolve(asked: Backend, device: str) -> tuple[Backend, str | None]:
    if asked is Backend.reference:
        return Backend.reference, None
    if asked is Backend.triton and (device != "cuda" or not torch.cuda.is_available()):
        raise BenchError(f"ops=triton needs a CUDA GPU, and this run is on {device}; use auto, compiled or reference")
    if device == "cuda" and asked is not Backend.compiled:
        fault = _triton_fault()
        return (Backend.triton, None) if fault is None else (Backend.reference, fault)
    if device != "cpu":
        return Backend.reference, f"the compiled kernels are for the CPU, this run is on {device}"
    fault = compiled.fault()
    if fault is not None:
        return Backend.reference, f"the compiled kernels can't be built: {fault}"
    return Backend.compiled, None


def _triton_fault() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST_GPU:
        return f"this GPU has compute capability {capability[0]}.{capability[1]}, Triton needs {OLDEST_GPU[0]}.0"
    return None


_asked = Backend.auto


def set_backend(asked: Backend) -> None:
    """What every network of this process uses from here on."""
    global _asked
    _asked = Backend(asked)


def asked() -> Backend:
    """What `set_backend` was last given."""
    return _asked


@contextmanager
def using(asked: Backend) -> Iterator[None]:
    """`set_backend` for a while."""
    before = _asked
    set_backend(asked)
    try:
        yield
    finally:
        set_backend(before)


def kernels_for(device: torch.device) -> Any:
    """The module whose `bn_fire` and `obstacle` serve this device; None for the plain modules."""
    backend, _ = resolve(_asked, device)
    if backend is Backend.compiled:
        return compiled
    if backend is Backend.triton:
        # Only here is it known that Triton is installed.
        from bench.ops import triton_fire

        return triton_fire
    return None
