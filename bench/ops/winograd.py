"""3 x 3 convolution by Winograd's F(2 x 2, 3 x 3) on the CPU, four ninths of the products, or else by the library."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from bench.ops import native
from bench.ops.convolution import compute_dtype, keeps_size, through

# Tiles are 2 x 2 pixels. Where they stand out of the image this far, the library is as fast.
LARGEST_OVERHANG = 1.5


def supported(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether `winograd(conv, x)` says the same as `conv(x)`, up to rounding, and may be faster."""
    return keeps_size(conv) and conv.kernel_size[0] == 3 and conv.groups == 1


def winograd(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv(x)` for a convolution that is `supported`, its hooks included; see `winograd_conv2d`."""
    return through(winograd_conv2d, conv, x)


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with 3 x 3 taps, stride 1, padding 1: each 2 x 2 outputs by 16 products instead of 36.

    Source: Lavin and Gray 2016 (arXiv 1509.09308), section 4.1, eqs. 8 and 9. Forward pass, data gradient and
    weight gradient all go this way.

    Under autocast x is cast as `F.conv2d` would cast it; the taps are transformed in float32 and rounded once.
    Sums are float32. In bfloat16 the transform of spikes, and of counts of them up to 64, is exact, and the result
    as near to the exact one as the library's; the data gradient's rounding error is twice the library's, its
    root mean square 0.4 % of the gradient's. The weight's and bias's gradients are not rounded. A NaN or infinity
    reaches all of its tiles. Differentiable once.

    Args:
        x: `[B, C_in, H, W]`, any strides; channels_last is read as it is, all else is copied into it.
        weight: `[C_out, C_in, 3, 3]`.
        bias: `[C_out]`.

    Returns:
        `[B, C_out, H, W]`, channels_last unless the library answered, as it does wherever it is faster or there
        is no kernel: float32 and bfloat16 on CPUs, channels that are multiples of a vector's, no tiny images.
    """
    dtype = compute_dtype(x, weight, bias)
    if dtype is None or not _serves(x, weight, bias, dtype):
        return F.conv2d(x, weight, bias, padding=1)
    return _Winograd.apply(x.to(dtype), weight, bias)


def _serves(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> bool:
    if x.device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    _, inputs, height, width = x.shape
    outputs = weight.shape[0]
    if weight.shape != (outputs, inputs, 3, 3) or (bias is not None and bias.shape != (outputs,)):
        return False
    multiple = _multiple(dtype)
    if multiple == 0 or inputs % multiple or outputs % multiple:
        return False
    return (height + height % 2) * (width + width % 2) <= LARGEST_OVERHANG * height * width


@cache
def _multiple(dtype: torch.dtype) -> int:
    """Of channels, that the kernels for a dtype take; 0 where there are none."""
    library = _library(dtype)
    return 0 if library is None else int(library.winograd_channels())


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype  # type: ignore[attr-defined]
        return _convolve(x, weight.permute(2, 3, 1, 0), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        needs_dx, needs_dweight, needs_dbias = ctx.needs_input_grad  # type: ignore[attr-defined]
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = None
        if needs_dx:
            dx = _convolve(dy, weight.permute(2, 3, 0, 1), None, mirror=True)
        if needs_dweight or needs_dbias:
            taps, dbias = _gradients(x, dy)
            dweight = taps.permute(3, 2, 0, 1).to(weight.dtype, memory_format=torch.contiguous_format)
            dbias = dbias.to(ctx.bias_dtype) if needs_dbias else None  # type: ignore[attr-defined]
        return dx, dweight, dbias


def _convolve(x: Tensor, taps: Tensor, bias: Tensor | None, *, mirror: bool = False) -> Tensor:
    """x * taps + bias for taps `[3, 3, C_in, C_out]`; they are mirrored for the data gradient."""
    batch, inputs, height, width = x.shape
    taps = taps.float().contiguous()
    bias = None if bias is None else bias.float().contiguous()
    y = torch.empty((batch, taps.shape[3], height, width), dtype=x.dtype, memory_format=torch.channels_last)
    done = _library(x.dtype).winograd_forward(
        x.data_ptr(), taps.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr(),
        batch, height, width, inputs, y.shape[1], mirror, torch.get_num_threads(),
    )  # fmt: skip
    if not done:
        raise MemoryError("the convolution's kernel got no scratch memory")
    return y


def _gradients(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """(dtaps `[3, 3, C_in, C_out]`, dbias `[C_out]`), float32."""
    batch, inputs, height, width = x.shape
    outputs = dy.shape[1]
    dtaps, dbias = torch.empty(3, 3, inputs, outputs), torch.empty(outputs)
    done = _library(x.dtype).winograd_weight_gradient(
        x.data_ptr(), dy.data_ptr(), dtaps.data_ptr(), dbias.data_ptr(),
        batch, height, width, inputs, outputs, torch.get_num_threads(),
    )  # fmt: skip
    if not done:
        raise MemoryError("the weight gradient's kernel got no scratch memory")
    return dtaps, dbias


@cache
def _library(dtype: torch.dtype) -> Any:
    library = native.variant("winograd", dtype)
    if library is not None:
        pointer, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        library.winograd_channels.restype = size
        library.winograd_forward.argtypes = [pointer] * 4 + [size] * 5 + [flag] * 2
        library.winograd_weight_gradient.argtypes = [pointer] * 4 + [size] * 5 + [flag]
    return library
