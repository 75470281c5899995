"""What the tests of convolutions share: gradients by a kernel and by the library in float64, and the graph between."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


def gradients(
    convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, dy: Tensor
) -> list[Tensor]:
    """[y, dx, dweight, dbias] of one convolution."""
    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    y = convolve(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def assert_within(found: list[Tensor], expected: list[Tensor], bounds: list[float]) -> None:
    """The largest error of y, dx, dweight and dbias by the largest value of each."""
    for name, a, b, bound in zip(("y", "dx", "dweight", "dbias"), found, expected, bounds, strict=False):
        error = (a.double() - b).abs().max() / b.abs().max()
        assert a.shape == b.shape
        assert error <= bound, f"{name} is off by {error:.2g}"


def graph(out: Tensor) -> list[Any]:
    """Every node of backward."""
    nodes: list[Any] = [out.grad_fn]
    for node in nodes:
        nodes += [child for child, _ in node.next_functions if child is not None and child not in nodes]
    return nodes


def run(script: str, **env: str) -> str:
    """The output of a Python of its own that finds `bench` and `tests`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{script}"],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
