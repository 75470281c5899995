"""Depthwise k x k convolution by kernels of our own, the library's being slow, or else by the library."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from bench.ops import native
from bench.ops.convolution import compute_dtype, keeps_size, through

KERNELS = (3, 5, 7, 9, 11)
Backend = Literal["reference", "compiled", "triton"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Kernels(Protocol):
    """What a backend provides; every tensor is dense and, if of four axes, channels_last."""

    def correlate(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, mirror: bool = False) -> Tensor:
        """x * weight + bias `[B, C, H, W]`; the taps are mirrored for the data gradient."""

    def weight_gradient(self, x: Tensor, dy: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
        """(dweight `[C, 1, k, k]`, dbias `[C]`), float32."""


def supported(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether `depthwise(conv, x)` says the same as `conv(x)` and may be faster."""
    return (
        keeps_size(conv) and conv.groups == conv.in_channels == conv.out_channels > 1 and conv.kernel_size[0] in KERNELS
    )


def depthwise(conv: nn.Conv2d, x: Tensor, backend: Backend | None = None) -> Tensor:
    """`conv(x)` for a convolution that is `supported`, its hooks included; see `depthwise_conv2d`."""
    return through(lambda x, weight, bias: depthwise_conv2d(x, weight, bias, backend), conv, x)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, backend: Backend | None = None) -> Tensor:
    """Convolve every channel with its own k x k taps, stride 1, padding k // 2.

    Sums are float32 whatever the dtype. Under autocast x is cast as `F.conv2d` would cast it and weight
    and bias are rounded likewise, but their gradients are not rounded. Differentiable once.

    Args:
        x: `[B, C, H, W]`, any strides; channels_last is read as it is, all else is copied into it.
        weight: `[C, 1, k, k]`.
        bias: `[C]`.
        backend: which kernels; None takes those of `choose`. What a backend has no kernel for is left
            to the library, whichever is named.

    Returns:
        `[B, C, H, W]`, channels_last unless the library answered.
    """
    if backend is None:
        backend = choose(x.device)
    dtype = compute_dtype(x, weight, bias)
    kernels = _kernels(backend, x, weight, bias, dtype)
    if kernels is None or dtype is None:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])
    return _Depthwise.apply(x.to(dtype), weight, bias, kernels)


def choose(device: torch.device) -> Backend:
    """The fastest backend that works on a device.

    With AVX-512 the compiled kernels were 2 to 3 times ahead of oneDNN's on channels_last in the forward pass and
    the data gradient and over 10 times in the weight gradient, in float32 and bfloat16. With AVX2 alone the float32
    forward pass of a 9 x 9 kernel is a tie. Triton's have not been timed.
    """
    if device.type == "cuda" and _triton() is not None:
        return "triton"
    if device.type == "cpu" and _library(torch.float32) is not None:
        return "compiled"
    return "reference"


def _kernels(
    backend: Backend, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None
) -> Kernels | None:
    """A backend's kernels, if it has them for these tensors."""
    if backend == "reference" or dtype is None or dtype not in DTYPES:
        return None
    if weight.dim() != 4 or weight.shape[2] not in KERNELS:
        return None
    channels, kernel = x.shape[1], weight.shape[2]
    if weight.shape != (channels, 1, kernel, kernel) or (bias is not None and bias.shape != (channels,)):
        return None
    if backend == "triton":
        return _triton() if x.device.type == "cuda" else None
    return _Compiled() if x.device.type == "cpu" and _library(dtype) is not None else None


def _triton() -> Kernels | None:
    try:
        from bench.ops import triton_depthwise
    except ImportError:
        return None
    return triton_depthwise


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, kernels: Kernels) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.kernels, ctx.bias_dtype = kernels, None if bias is None else bias.dtype  # type: ignore[attr-defined]
        return kernels.correlate(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        kernels: Kernels = ctx.kernels  # type: ignore[attr-defined]
        needs_dx, needs_dweight, needs_dbias, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = None
        if needs_dx:
            dx = kernels.correlate(dy, weight.to(x.dtype), None, mirror=True)
        if needs_dweight or needs_dbias:
            dweight, dbias = kernels.weight_gradient(x, dy, weight.shape[-1])
            dweight = dweight.to(weight.dtype)
            dbias = dbias.to(ctx.bias_dtype) if needs_dbias else None  # type: ignore[attr-defined]
        return dx, dweight, dbias, None


class _Compiled:
    """The kernels of `csrc/depthwise.cpp`."""

    def correlate(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, mirror: bool = False) -> Tensor:
        batch, channels, height, width = x.shape
        weight = weight.float().contiguous()
        bias = None if bias is None else bias.float().contiguous()
        y = torch.empty_like(x, memory_format=torch.channels_last)
        done = _library(x.dtype).depthwise_forward(
            x.data_ptr(), weight.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr(),
            batch, height, width, channels, weight.shape[-1], mirror, torch.get_num_threads(),
        )  # fmt: skip
        return _checked(done, y)

    def weight_gradient(self, x: Tensor, dy: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = x.shape
        dweight = torch.empty(channels, 1, kernel, kernel)
        dbias = torch.empty(channels)
        done = _library(x.dtype).depthwise_weight_gradient(
            x.data_ptr(), dy.data_ptr(), dweight.data_ptr(), dbias.data_ptr(),
            batch, height, width, channels, kernel, torch.get_num_threads(),
        )  # fmt: skip
        return _checked(done, dweight), dbias


@cache
def _library(dtype: torch.dtype) -> Any:
    library = native.variant("depthwise", dtype)
    if library is not None:
        pointer, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        library.depthwise_forward.argtypes = [pointer] * 4 + [size] * 4 + [flag] * 3
        library.depthwise_weight_gradient.argtypes = [pointer] * 4 + [size] * 4 + [flag] * 2
    return library


def _checked(done: int, result: Tensor) -> Tensor:
    if not done:
        raise MemoryError("the depthwise kernel got no scratch memory")
    return result
