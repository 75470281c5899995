"""Triton kernels of the depthwise convolution, over channels_last tensors: forward, data and weight gradient.

Both reuse what they load. A pixel serves every output row (forward) or row of taps (weight gradient) of a
group that it belongs to, held in a tuple of float32 tiles `[BLOCK_W, BLOCK_C]`: columns by channels.
"""

# Triton's own conventions: constants in capitals, kernels without types, tuples that grow by `+`.
# ruff: noqa: N803, N806, RUF005
# mypy: disable-error-code="no-untyped-def, assignment, import-untyped"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Output rows of a program: more would reuse more but spill registers.
ROWS = 4
# Programs that a weight gradient is split over, so that a small batch of few channels fills the GPU.
SPLITS = 64


def correlate(x: Tensor, weight: Tensor, bias: Tensor | None, *, mirror: bool = False) -> Tensor:
    """y[b, c, h, w] = bias[c] + sum over i, j of weight[c, i, j] x[b, c, h + i - k // 2, w + j - k // 2].

    Args:
        x: `[B, C, H, W]`, channels_last.
        weight: `[C, 1, k, k]`, odd k.
        bias: `[C]` or None.
        mirror: take the taps in reverse, which gives the data gradient from the output's.

    Returns:
        `[B, C, H, W]` of x's dtype, channels_last.
    """
    batch, channels, height, width = x.shape
    kernel = weight.shape[-1]
    taps = weight.flatten(1).t()
    taps = (taps.flip(0) if mirror else taps).contiguous()  # [k * k, C]: a warp reads neighbouring channels
    y = torch.empty_like(x, memory_format=torch.channels_last)
    block_w, block_c = _blocks(width, channels)
    grid = (batch * triton.cdiv(height, ROWS), triton.cdiv(width, block_w), triton.cdiv(channels, block_c))
    _correlate[grid](
        x, taps, taps if bias is None else bias, y, height, width, channels,
        KERNEL=kernel, BIAS=bias is not None, ROWS=ROWS, BLOCK_W=block_w, BLOCK_C=block_c, num_warps=4,
    )  # fmt: skip
    return y


def weight_gradient(x: Tensor, dy: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, float32.

    Parts are summed in a fixed order, without atomics: the same input gives the same bits.

    Args:
        x: `[B, C, H, W]`, channels_last.
        dy: the output's gradient, likewise.
        kernel: k.

    Returns:
        (`[C, 1, k, k]`, `[C]`).
    """
    batch, channels, height, width = x.shape
    # group * k sums a program; a row of taps beyond k is summed for nothing and dropped.
    group = 3 if kernel <= 9 else 2
    block_w, block_c = min(16, triton.next_power_of_2(width)), min(32, triton.next_power_of_2(channels))
    lines = batch * height
    splits = max(1, min(SPLITS, lines // 16))
    parts = torch.empty(splits, kernel * kernel, channels, device=x.device, dtype=torch.float32)
    grid = (triton.cdiv(channels, block_c), triton.cdiv(kernel, group), splits)
    _weight_gradient[grid](
        x, dy, parts, batch, height, width, channels, triton.cdiv(lines, splits),
        KERNEL=kernel, GROUP=group, BLOCK_W=block_w, BLOCK_C=block_c, num_warps=4,
    )  # fmt: skip
    dweight = parts.sum(0).t().reshape(channels, 1, kernel, kernel)
    return dweight, dy.sum((0, 2, 3), dtype=torch.float32)


def _blocks(width: int, channels: int) -> tuple[int, int]:
    return min(32, triton.next_power_of_2(width)), min(64, triton.next_power_of_2(channels))


@triton.jit
def _within(index, size):
    return (index >= 0) & (index < size)


@triton.jit
def _correlate(
    x, taps, bias, y, height, width, channels,
    KERNEL: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One image's ROWS output rows by BLOCK_W columns by BLOCK_C channels."""
    PAD: tl.constexpr = KERNEL // 2
    bands = tl.cdiv(height, ROWS)
    image = (tl.program_id(0) // bands).to(tl.int64) * height * width * channels
    top = tl.program_id(0) % bands * ROWS
    column = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    # Triton's interpreter (3.9) has no `block of booleans & one boolean`: rows are compared as blocks.
    column_of_zeros = tl.zeros((BLOCK_W, 1), tl.int32)

    zero = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    if BIAS:
        zero += tl.load(bias + channel, inside, 0).to(tl.float32)[None, :]
    sums = (zero,)
    for _ in tl.static_range(ROWS - 1):
        sums = sums + (zero,)
    for j in range(KERNEL):
        tap = ()
        for i in tl.static_range(KERNEL):
            tap = tap + (tl.load(taps + (i * KERNEL + j) * channels + channel, inside, 0).to(tl.float32)[None, :],)
        source = column + j - PAD
        valid = _within(source, width)[:, None] & inside[None, :]
        at = image + source[:, None] * channels + channel[None, :]
        for r in tl.static_range(ROWS + KERNEL - 1):
            row = top + r - PAD
            here = valid & _within(row + column_of_zeros, height)
            pixels = tl.load(x + at + row * width * channels, here, 0).to(tl.float32)
            added = ()
            for a in tl.static_range(ROWS):
                if r - a >= 0 and r - a < KERNEL:
                    added = added + (sums[a] + pixels * tap[r - a],)
                else:
                    added = added + (sums[a],)
            sums = added
    at = image + column[:, None] * channels + channel[None, :]
    valid = (column < width)[:, None] & inside[None, :]
    for a in tl.static_range(ROWS):
        here = valid & (top + a + column_of_zeros < height)
        tl.store(y + at + (top + a) * width * channels, sums[a].to(y.dtype.element_ty), here)


@triton.jit
def _weight_gradient(
    x, dy, parts, batch, height, width, channels, lines_each,
    KERNEL: tl.constexpr, GROUP: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """GROUP rows of taps of BLOCK_C channels, summed over `lines_each` rows of the images."""
    PAD: tl.constexpr = KERNEL // 2
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    first = tl.program_id(1) * GROUP
    part = tl.program_id(2)
    column_of_zeros = tl.zeros((BLOCK_W, 1), tl.int32)  # as above

    zero = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    sums = (zero,)
    for _ in tl.static_range(GROUP * KERNEL - 1):
        sums = sums + (zero,)
    end = tl.minimum((part + 1) * lines_each, batch * height)
    for line in range(part * lines_each, end):
        image = (line // height).to(tl.int64) * height * width * channels
        r = line % height
        for left in range(0, width, BLOCK_W):
            column = left + tl.arange(0, BLOCK_W)
            at = image + column[:, None] * channels + channel[None, :]
            valid = (column < width)[:, None] & inside[None, :]
            gradient = ()
            for a in tl.static_range(GROUP):
                h = r - first - a + PAD
                here = valid & _within(h + column_of_zeros, height)
                gradient = gradient + (tl.load(dy + at + h * width * channels, here, 0).to(tl.float32),)
            added = ()
            for j in tl.static_range(KERNEL):
                source = column + j - PAD
                there = _within(source, width)[:, None] & inside[None, :]
                pixels = tl.load(x + at + (r * width + j - PAD) * channels, there, 0).to(tl.float32)
                for a in tl.static_range(GROUP):
                    added = added + (sums[j * GROUP + a] + pixels * gradient[a],)
            sums = added
    for j in tl.static_range(KERNEL):
        for a in tl.static_range(GROUP):
            tap = (part.to(tl.int64) * KERNEL + first + a) * KERNEL + j
            here = inside & (first + a + 0 * channel < KERNEL)
            tl.store(parts + tap * channels + channel, tl.sum(sums[j * GROUP + a], 0), here)
