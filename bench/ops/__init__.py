"""Fast kernels under the networks, and plain references beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.lazy import face
from bench.ops.choice import Backend

if TYPE_CHECKING:
    from bench.ops import depthwise, winograd
    from bench.ops.backend import asked, resolve, set_backend, using
    from bench.ops.block import ConvNorm, StepNorm, explain, fire_block

__all__ = [
    "Backend",
    "ConvNorm",
    "StepNorm",
    "asked",
    "depthwise",
    "explain",
    "fire_block",
    "resolve",
    "set_backend",
    "using",
    "winograd",
]

__getattr__ = face(
    __name__,
    {
        **dict.fromkeys(("asked", "resolve", "set_backend", "using"), "backend"),
        **dict.fromkeys(("ConvNorm", "StepNorm", "explain", "fire_block"), "block"),
        **{name: name for name in ("depthwise", "winograd")},
    },
)
