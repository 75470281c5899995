"""Batch norm, neuron and pooling on a GPU: Triton kernels behind `reference.bn_fire`'s signature.

Not yet measured on a GPU: checked against the reference in Triton's interpreter, and compiled for sm_80 and sm_90,
no more. Block sizes are estimates.

The kernels see x as rows `[B * H * W, C]`, which is what channels_last is in memory. A program has a tile of pooling
windows by channels and goes through time with the potentials in registers. Backward computes spikes and
potentials anew, once for the sums that batch norm needs and once for x's gradient: that moves fewer bytes than a
stored gradient of the current would. All sums have a fixed order: the same input gives the same bits.
"""

# Triton's own conventions: constants in capitals, kernels without types, tuples that grow by `+`.
# ruff: noqa: N803, N806, RUF005, SIM108
# mypy: disable-error-code="no-untyped-def, assignment, import-untyped"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.neurons import NeuronConfig, Read
from bench.ops.setting import Setting, bn_fire_by, dense, empty, shared_strides

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Values of a tile, a power of 2, up to T = 7; with pooling each stands for four. sm_90 needs 139 registers, at most.
TILE = {1: 512, 2: 256}
MOMENT_ROWS = 32  # of a tile of the batch statistics
MOMENT_PARTS = 1024  # programs over the rows, at most


def obstacle(x: Tensor, neuron: NeuronConfig, time_steps: int, drops: int) -> str | None:
    """What keeps the kernels from an IF or LIF with a detached reset, in a few words: they do up to float32 on a GPU,
    any number of time steps, with dropout and without."""
    here = x.device.type == "cuda" or not isinstance(_forward, triton.JITFunction)
    return None if here and x.dtype in DTYPES else f"{str(x.dtype)[6:]} on {x.device.type}"


class _Launch:
    """Sizes, blocks and constants that both passes over x `[B, C, H, W]` share."""

    def __init__(self, setting: Setting, x: Tensor, adds: bool) -> None:
        _, channels, height, width = x.shape
        images, pool, steps = setting.images(x), setting.pool, setting.time_steps
        windows = images * -(-height // pool) * -(-width // pool)
        columns = min(64, triton.next_power_of_2(channels))
        # Backward holds all potentials of a tile in registers.
        tile = TILE[pool] >> max(0, (steps // 4).bit_length() - 1)
        rows = max(1, min(tile // columns, triton.next_power_of_2(windows)))
        self.grid = (triton.cdiv(windows, rows), triton.cdiv(channels, columns))
        drop = setting.drop
        gain, offset, fill = setting.affine
        spike = silence = 0.0
        if setting.drops == 2:
            spike, silence, fill = setting.passed(x.dtype)
        self.numbers = (
            images, height, width, channels, setting.keep, setting.threshold, setting.rest,
            0 if drop is None else drop.lowest, gain, offset, fill, spike, silence,
        )  # fmt: skip
        self.constants: dict[str, Any] = {
            "T": steps,
            "POOL": pool,
            "REPEAT": setting.repeat,
            "SOFT": setting.soft,
            "DROP": setting.drops,
            "FIXED": drop is not None and drop.fixed,
            "CHANNELS": drop is not None and drop.channels,
            "ADD": adds,
            "ROWS": rows,
            "COLUMNS": columns,
            "num_warps": 4,
        }


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x `[B, C, H, W]`, channels_last, over all but channels: float32 [C] each."""
    channels = x.shape[1]
    rows = x.numel() // channels
    columns = min(64, triton.next_power_of_2(channels))
    tiles = triton.cdiv(rows, MOMENT_ROWS)
    each = triton.cdiv(tiles, min(tiles, MOMENT_PARTS))
    parts = triton.cdiv(tiles, each)
    sums = torch.empty(2, parts, channels, device=x.device, dtype=torch.float32)
    _moments[(parts, triton.cdiv(channels, columns))](
        x, sums, rows, channels, parts, each, ROWS=MOMENT_ROWS, COLUMNS=columns, num_warps=4
    )
    # Each part has the squares about its own mean: a difference of large sums would lose them.
    count = torch.full((parts, 1), float(each * MOMENT_ROWS), device=x.device)
    count[-1] = float(rows - (parts - 1) * each * MOMENT_ROWS)
    mean = sums[0].sum(0) / rows
    var = (sums[1].sum(0) + (count * (sums[0] / count - mean).square()).sum(0)) / rows
    return mean, var


class _BNFire(torch.autograd.Function):
    """Saves x and four vectors over channels, and what is added where it is pooled."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        setting: Setting,
        key: Tensor | None,
        add: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        x, add = dense(x), None if add is None else dense(add)
        _, channels, height, width = x.shape
        batch, pool = setting.time_steps * setting.images(x), setting.pool
        with torch.cuda.device_of(x):
            # Rows: mean, scale, shift, 1 / sqrt(var + eps).
            vectors = torch.zeros(4, channels, device=x.device)
            if gamma is None or beta is None:
                vectors[1], vectors[2] = setting.share, setting.lift
            else:
                if setting.training_stats:
                    mean, var = moments(x)
                assert mean is not None
                assert var is not None
                vectors[0] = mean
                torch.rsqrt(var.float() + setting.eps, out=vectors[3])
                torch.mul(vectors[3], gamma * setting.share, out=vectors[1])
                vectors[2] = beta * setting.share + setting.lift
            out = empty(x, batch, height // pool, width // pool)
            spikes = None
            if Read.spikes in setting.reads and not setting.plain(add is not None):
                spikes = empty(x, batch, height, width)
            images, real = setting.images(x), torch.float32
            potential = empty(x, batch, height, width, real) if Read.potential in setting.reads else None
            # Means of what comes out, where that is remade, are `bn_fire_by`'s.
            by_channel = setting.wants(Read.channel_rates)
            neurons = None
            if by_channel or setting.wants(Read.neuron_counts):
                neurons = empty(x, images, height, width, real)
            count = torch.zeros((), dtype=torch.int64, device=x.device)
            launch = _Launch(setting, x, add is not None)
            _forward[launch.grid](
                x, vectors, out, out if spikes is None else spikes, count, vectors if potential is None else potential,
                vectors if neurons is None else neurons, vectors if key is None else key, x if add is None else add,
                *launch.numbers, **launch.constants, SPIKES=spikes is not None, POTENTIAL=potential is not None,
                NEURONS=neurons is not None,
            )  # fmt: skip
        ctx.save_for_backward(x, vectors, key, add if pool > 1 else None)
        ctx.setting, ctx.has_norm, ctx.adds = setting, gamma is not None, add is not None
        ctx.set_materialize_grads(False)
        if not setting.training_stats:
            mean = var = None
        ctx.mark_non_differentiable(*[t for t in (count, mean, var) if t is not None])
        size = batch * channels * height * width
        of_channels = None if neurons is None or not by_channel else neurons.sum((2, 3))
        sums = setting.sums(count, of_channels, neurons, size)
        return spikes, out, count, mean, var, potential, *sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_spikes: Tensor | None, g_out: Tensor | None, *more: Any) -> tuple[Tensor | None, ...]:
        setting: Setting = ctx.setting
        nothing: tuple[Tensor | None, ...] = (None,) * 8
        _, _, _, g_potential, *g_sums = more
        if all(g is None for g in (g_spikes, g_out, g_potential, *g_sums)):
            return nothing
        x, vectors, key, add = ctx.saved_tensors
        g_spikes, g_out = (None if g is None else dense(g) for g in (g_spikes, g_out))
        g_spikes, g_out, d_add = setting.gradients(g_spikes, g_out, add, ctx.adds)
        g_potential = None if g_potential is None else dense(g_potential)
        shares = setting.shares(g_sums, x)
        silent, firing = (vectors, vectors) if shares is None else shares
        places = (0, 0, 0) if shares is None else shared_strides(silent)
        channels = x.shape[1]
        dx = torch.empty_like(x, memory_format=torch.channels_last)
        sums = torch.zeros(2, channels, device=x.device)
        at = _Launch(setting, x, add is not None)

        def launch(parts: Tensor, reduce: bool) -> None:
            _backward[at.grid](
                x, vectors, x if g_out is None else g_out, x if g_spikes is None else g_spikes,
                vectors if g_potential is None else g_potential, silent, firing, sums, parts, dx,
                vectors if key is None else key, x if add is None else add, dx if add is None else d_add, *at.numbers,
                setting.alpha, *places, **at.constants, OUT=g_out is not None, SPIKES=g_spikes is not None,
                REDUCE=reduce, POTENTIAL=g_potential is not None, SUMS=shares is not None,
            )  # fmt: skip

        with torch.cuda.device_of(x):
            if not ctx.has_norm:
                launch(sums, False)
                return dx, *nothing[1:-1], d_add
            parts = torch.empty(2, at.grid[0], channels, device=x.device)
            launch(parts, True)
            total = parts.sum(1)
            if setting.training_stats:
                # Means of the current's gradient, alone and times the normalized x; these go through the statistics.
                rows = x.numel() // channels
                sums[0] = total[0] / rows
                sums[1] = total[1] * vectors[3].square() / rows
            launch(parts, False)
        total = total * setting.share
        return dx, total[1] * vectors[3], total[0], *nothing[3:-1], d_add


bn_fire = bn_fire_by(_BNFire)
"""See `reference.bn_fire`."""


@triton.jit
def _moments(x, sums, rows, channels, parts, each, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums over `each` tiles of rows, and squares about their mean: `sums` is [2, parts, channels]."""
    part = tl.program_id(0)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = c < channels
    mean = tl.zeros((COLUMNS,), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    seen = 0.0
    for i in range(0, each):
        row = (part * each + i) * ROWS + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & inside[None, :]
        tile = tl.load(x + row.to(tl.int64)[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
        count = tl.minimum(tl.maximum(rows - (part * each + i) * ROWS, 0), ROWS).to(tl.float32)
        own = tl.sum(tile, 0) / tl.maximum(count, 1.0)
        away = tl.where(mask, tile - own[None, :], 0.0)
        # Chan, Golub & LeVeque 1979, eq. 2.1: two sets' squares about their common mean.
        total = tl.maximum(seen + count, 1.0)
        step = own - mean
        squares += tl.sum(away * away, 0) + step * step * (seen * count / total)
        mean += step * (count / total)
        seen += count
    tl.store(sums + part * channels + c, mean * seen, mask=inside)
    tl.store(sums + (parts + part) * channels + c, squares, mask=inside)


@triton.jit
def _place(n, row, column, height, width, c, channels, CHANNELS: tl.constexpr):
    """The places of entries in [N, H, W, C], or in [N, C] for whole channels, modulo 2^32."""
    spot = n.to(tl.int64) if CHANNELS else (n.to(tl.int64) * height + row) * width + column
    return (spot[:, None] * channels + c[None, :]).to(tl.uint32)


@triton.jit
def _numbers(first, group, key):
    """Philox2x32 of seven rounds, see masks.py: a tuple of two words, the numbers of four time steps."""
    MULTIPLIER: tl.constexpr = 0xD256D193
    WEYL: tl.constexpr = 0x9E3779B9
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    second = tl.zeros_like(first) + (((key >> 32) & 0xFFFFFFFF) ^ group).to(tl.uint32)
    for _ in tl.static_range(7):
        high = tl.umulhi(first, tl.full(first.shape, MULTIPLIER, tl.uint32))
        product = first * tl.full(first.shape, MULTIPLIER, tl.uint32)
        first = high ^ low ^ second
        second = product
        low = low + tl.full((), WEYL, tl.uint32)
    return first, second


@triton.jit
def _stays(first, second, t: tl.constexpr, lowest):
    """Whether an entry is kept at step t, by its two words."""
    word = first if t // 2 % 2 == 0 else second
    number = (word >> 16) if t % 2 == 1 else (word & 0xFFFF)
    return number.to(tl.int32) >= lowest


@triton.jit
def _forward(
    x, vectors, out, spikes, count, potential, neurons, key, add, images, height, width, channels, keep, threshold,
    reset, lowest, gain, offset, fill, spike_value, silence,
    T: tl.constexpr, POOL: tl.constexpr, REPEAT: tl.constexpr, SOFT: tl.constexpr, DROP: tl.constexpr,
    FIXED: tl.constexpr, CHANNELS: tl.constexpr,
    ADD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPIKES: tl.constexpr, POTENTIAL: tl.constexpr,
    NEURONS: tl.constexpr,
):  # fmt: skip
    """Spikes of a tile of windows by channels over all time steps, with ADD on top of what is added, pooled; the
    number of spikes is added to `count`. With POTENTIAL also the potentials before firing, with NEURONS how often each
    neuron fired."""
    high = (height + POOL - 1) // POOL
    wide = (width + POOL - 1) // POOL
    window = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = window // (high * wide)
    top = window // wide % high * POOL
    left = window % wide * POOL
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (window < images * high * wide)[:, None] & (c < channels)[None, :]
    # Where a window is cut off at the edge, nothing is pooled.
    whole = inside & ((top + POOL <= height) & (left + POOL <= width))[:, None]
    mean = tl.load(vectors + c, mask=c < channels, other=0.0)[None, :]
    scale = tl.load(vectors + channels + c, mask=c < channels, other=0.0)[None, :]
    shift = tl.load(vectors + 2 * channels + c, mask=c < channels, other=0.0)[None, :]
    start = tl.full((ROWS, COLUMNS), 0.0 if SOFT else 1.0, tl.float32)
    start = start * reset
    v = ()
    often = ()
    for _ in tl.static_range(POOL * POOL):
        v = v + (start,)
        often = often + (tl.zeros((ROWS, COLUMNS), tl.float32),)
    fired = tl.zeros((ROWS, COLUMNS), tl.int32)
    words = ()
    for t in tl.static_range(T):
        largest = tl.zeros((ROWS, COLUMNS), tl.float32)
        if DROP > 0 and t % 4 == 0 and (t == 0 or not FIXED):
            words = ()
            for k in tl.static_range(POOL * POOL):
                spot = _place(n, top + k // POOL, left + k % POOL, height, width, c, channels, CHANNELS)
                words = words + _numbers(spot, t // 4, tl.load(key))
        after = ()
        counted = ()
        for k in tl.static_range(POOL * POOL):
            row = top + k // POOL
            column = left + k % POOL
            there = inside & ((row < height) & (column < width))[:, None]
            pixel = (row * width + column)[:, None]
            image = n + (0 if REPEAT else t * images)
            place = (image.to(tl.int64) * height * width)[:, None] * channels + pixel * channels + c[None, :]
            value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
            y = (value - mean) * scale + shift
            if DROP > 0:
                stays = _stays(words[2 * k], words[2 * k + 1], 0 if FIXED else t, lowest)
            if DROP == 1:
                y = tl.where(stays, y * gain + offset, fill)
            h = keep * v[k] + y
            s = h >= threshold
            spike = s.to(tl.float32)  # Triton's interpreter (3.9) has no booleans to bfloat16
            target = ((n + t * images).to(tl.int64) * height * width)[:, None] * channels + pixel * channels
            if SPIKES:
                tl.store(spikes + target + c[None, :], spike.to(spikes.dtype.element_ty), mask=there)
            if POTENTIAL:
                tl.store(potential + target + c[None, :], h, mask=there)
            if NEURONS:
                counted = counted + (often[k] + spike,)
            fired += (s & there).to(tl.int32)
            if ADD or DROP == 2:
                total = spike
                if DROP == 2:
                    total = tl.where(stays, tl.where(s, spike_value, silence), fill)
                if ADD:
                    other = tl.load(add + target + c[None, :], mask=there, other=0.0).to(tl.float32)
                    # As it would be stored, so that ties are those of the sums.
                    total = (total + other).to(out.dtype.element_ty).to(tl.float32)
                if k == 0:
                    largest = total
                else:
                    largest = tl.where((total > largest) | (total != total), total, largest)
            else:
                largest = tl.maximum(largest, spike)
            after = after + (tl.where(s, (h - threshold) if SOFT else reset, h),)
        v = after
        if NEURONS:
            often = counted
        lines = height // POOL
        columns = width // POOL
        pixel = ((top // POOL) * columns + left // POOL)[:, None]
        target = ((n + t * images).to(tl.int64) * lines * columns)[:, None] * channels + pixel * channels + c[None, :]
        tl.store(out + target, largest.to(out.dtype.element_ty), mask=whole)
    if NEURONS:
        for k in tl.static_range(POOL * POOL):
            row = top + k // POOL
            column = left + k % POOL
            there = inside & ((row < height) & (column < width))[:, None]
            place = (n.to(tl.int64) * height * width)[:, None] * channels + (row * width + column)[:, None] * channels
            tl.store(neurons + place + c[None, :], often[k], mask=there)
    tl.atomic_add(count, tl.sum(tl.sum(fired, 1), 0).to(tl.int64))


@triton.jit
def _backward(
    x, vectors, g_out, g_spikes, g_potential, silent, firing, sums, parts, dx, key, add, d_add,
    images, height, width, channels, keep, threshold, reset,
    lowest, gain, offset, fill, spike_value, silence, alpha, sum_image, sum_row, sum_column,
    T: tl.constexpr, POOL: tl.constexpr, REPEAT: tl.constexpr, SOFT: tl.constexpr, DROP: tl.constexpr,
    FIXED: tl.constexpr, CHANNELS: tl.constexpr,
    ADD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT: tl.constexpr, SPIKES: tl.constexpr,
    REDUCE: tl.constexpr, POTENTIAL: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """The gradient g of the current, by the potentials computed anew. With REDUCE its sums over the tile, alone
    and times x - mean, into `parts` [2, tiles, channels]; else x's gradient, given their totals in `sums`, and that of
    what is added before pooling. With SUMS the gradients of sums add `silent` or `firing` at each step, with POTENTIAL
    the potential has one of its own."""
    HALF_PI = 1.5707963267948966
    high = (height + POOL - 1) // POOL
    wide = (width + POOL - 1) // POOL
    window = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = window // (high * wide)
    top = window // wide % high * POOL
    left = window % wide * POOL
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (window < images * high * wide)[:, None] & (c < channels)[None, :]
    whole = inside & ((top + POOL <= height) & (left + POOL <= width))[:, None]
    mean = tl.load(vectors + c, mask=c < channels, other=0.0)[None, :]
    scale = tl.load(vectors + channels + c, mask=c < channels, other=0.0)[None, :]
    shift = tl.load(vectors + 2 * channels + c, mask=c < channels, other=0.0)[None, :]
    start = tl.full((ROWS, COLUMNS), 0.0 if SOFT else 1.0, tl.float32)
    start = start * reset
    nothing = tl.zeros((ROWS, COLUMNS), tl.float32)
    v = ()
    g_v = ()
    total = ()
    for _ in tl.static_range(POOL * POOL):
        v = v + (start,)
        g_v = g_v + (nothing,)
        total = total + (nothing,)
    # Potentials before firing and centred inputs, by t * POOL * POOL + k.
    hs = ()
    centred = ()
    words = ()
    lot = ()  # what a dropout keeps
    for t in tl.static_range(T):
        after = ()
        if DROP > 0 and t % 4 == 0 and (t == 0 or not FIXED):
            words = ()
            for k in tl.static_range(POOL * POOL):
                spot = _place(n, top + k // POOL, left + k % POOL, height, width, c, channels, CHANNELS)
                words = words + _numbers(spot, t // 4, tl.load(key))
        for k in tl.static_range(POOL * POOL):
            row = top + k // POOL
            column = left + k % POOL
            there = inside & ((row < height) & (column < width))[:, None]
            image = n + (0 if REPEAT else t * images)
            place = (image.to(tl.int64) * height * width)[:, None] * channels
            place += (row * width + column)[:, None] * channels + c[None, :]
            value = tl.load(x + place, mask=there, other=0.0).to(tl.float32) - mean
            y = value * scale + shift
            if DROP > 0:
                stays = _stays(words[2 * k], words[2 * k + 1], 0 if FIXED else t, lowest)
                lot = lot + (stays,)
            if DROP == 1:
                y = tl.where(stays, y * gain + offset, fill)
            h = keep * v[k] + y
            s = h >= threshold
            hs = hs + (h,)
            centred = centred + (value,)
            after = after + (tl.where(s, (h - threshold) if SOFT else reset, h),)
        v = after
    ones = tl.zeros((COLUMNS,), tl.float32)
    products = tl.zeros((COLUMNS,), tl.float32)
    through = tl.load(sums + c, mask=c < channels, other=0.0)[None, :]
    along = tl.load(sums + channels + c, mask=c < channels, other=0.0)[None, :]
    for t in tl.static_range(T - 1, -1, -1):
        pooled = nothing
        if OUT:
            lines = height // POOL
            columns = width // POOL
            target = ((n + t * images).to(tl.int64) * lines * columns)[:, None] * channels
            target += ((top // POOL) * columns + left // POOL)[:, None] * channels + c[None, :]
            pooled = tl.load(g_out + target, mask=whole, other=0.0).to(tl.float32)
        quiet = hs[t * POOL * POOL] < threshold
        for k in tl.static_range(1, POOL * POOL):
            quiet = quiet & (hs[t * POOL * POOL + k] < threshold)
        # The first spike of a window takes the pooled gradient; in a silent window the first value does.
        open_ = quiet | (hs[t * POOL * POOL] >= threshold)
        taken = open_
        # With ADD or dropped spikes the first largest sum does.
        first = tl.zeros((ROWS, COLUMNS), tl.int32)
        if (ADD or DROP == 2) and OUT:
            largest = nothing
            for k in tl.static_range(POOL * POOL):
                row = top + k // POOL
                column = left + k % POOL
                there = inside & ((row < height) & (column < width))[:, None]
                target = ((n + t * images).to(tl.int64) * height * width)[:, None] * channels
                target += (row * width + column)[:, None] * channels + c[None, :]
                fired = hs[t * POOL * POOL + k] >= threshold
                sum_ = fired.to(tl.float32)
                if DROP == 2:
                    sum_ = tl.where(lot[t * POOL * POOL + k], tl.where(fired, spike_value, silence), fill)
                if ADD:
                    sum_ += tl.load(add + target, mask=there, other=0.0).to(tl.float32)
                    sum_ = sum_.to(dx.dtype.element_ty).to(tl.float32)
                if k == 0:
                    largest = sum_
                else:
                    better = (sum_ > largest) | (sum_ != sum_)
                    largest = tl.where(better, sum_, largest)
                    first = tl.where(better, k, first)
        before = ()
        summed = ()
        for k in tl.static_range(POOL * POOL):
            row = top + k // POOL
            column = left + k % POOL
            there = inside & ((row < height) & (column < width))[:, None]
            pixel = (row * width + column)[:, None] * channels + c[None, :]
            h = hs[t * POOL * POOL + k]
            s = h >= threshold
            if ADD or DROP == 2:
                open_ = first == k
            elif k > 0:
                open_ = s & ~taken
                taken = taken | s
            g = tl.where(open_, pooled, 0.0)
            target = ((n + t * images).to(tl.int64) * height * width)[:, None] * channels + pixel
            if ADD and not REDUCE:
                tl.store(d_add + target, g.to(d_add.dtype.element_ty), mask=there)
            if DROP == 2:
                g = tl.where(lot[t * POOL * POOL + k], g * gain, 0.0)
            if SPIKES:
                g += tl.load(g_spikes + target, mask=there, other=0.0).to(tl.float32)
            if SUMS:
                spot = (n.to(tl.int64) * sum_image + row * sum_row + column * sum_column)[:, None] + c[None, :]
                by_spike = tl.load(firing + spot, mask=there, other=0.0)
                g += tl.where(s, by_spike, tl.load(silent + spot, mask=there, other=0.0))
            z = HALF_PI * alpha * (h - threshold)
            direct = g_v[k] if SOFT else tl.where(s, 0.0, g_v[k])
            if POTENTIAL:
                direct += tl.load(g_potential + target, mask=there, other=0.0)
            g = g * (0.5 * alpha / (1.0 + z * z)) + direct
            before = before + (keep * g,)
            if DROP == 1:
                g = tl.where(lot[t * POOL * POOL + k], g * gain, 0.0)
            value = centred[t * POOL * POOL + k]
            summed = summed + (total[k] + g,)
            if REDUCE:
                # Outside, every gradient is 0.
                ones += tl.sum(g, 0)
                products += tl.sum(g * value, 0)
            elif not REPEAT:
                slope = scale * (g - through - value * along)
                tl.store(dx + target, slope.to(dx.dtype.element_ty), mask=there)
        g_v = before
        total = summed
    if REDUCE:
        tile = tl.program_id(0)
        tl.store(parts + tile * channels + c, ones, mask=c < channels)
        tl.store(parts + (tl.num_programs(0) + tile) * channels + c, products, mask=c < channels)
    elif REPEAT:
        for k in tl.static_range(POOL * POOL):
            row = top + k // POOL
            column = left + k % POOL
            there = inside & ((row < height) & (column < width))[:, None]
            place = (n.to(tl.int64) * height * width)[:, None] * channels
            place += (row * width + column)[:, None] * channels + c[None, :]
            slope = scale * (total[k] - through - centred[k] * along)
            tl.store(dx + place, slope.to(dx.dtype.element_ty), mask=there)
