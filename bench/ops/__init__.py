"""Fast kernels under the networks: the face of the package."""

from bench.ops import depthwise, winograd
from bench.ops.backend import Backend, asked, resolve, set_backend, using
from bench.ops.block import explain, fire_block

__all__ = ["Backend", "asked", "depthwise", "explain", "fire_block", "resolve", "set_backend", "using", "winograd"]
