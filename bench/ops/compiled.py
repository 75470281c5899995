"""Batch norm, neuron and pooling on the CPU: the kernels of `csrc/` behind `reference.bn_fire`'s signature."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.neurons import NeuronConfig, Read
from bench.neurons.reads import SUMS
from bench.ops import masks, native
from bench.ops.setting import Setting, bn_fire_by, dense, empty, shared_strides

# Time steps that the kernels are compiled for, as a constant; all other numbers share one that counts.
UNROLLED = (4,)


class _Shape(ctypes.Structure):
    """`Shape` of fire.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "images", "height", "width", "channels")),
        *((name, ctypes.c_int32) for name in ("pool", "repeat")),
    )


class _Neuron(ctypes.Structure):
    """`Neuron` of fire.cpp."""

    _fields_ = tuple((name, ctypes.c_float) for name in ("keep", "threshold", "reset", "alpha"))


class _Norm(ctypes.Structure):
    """`Norm` of fire.cpp."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("mean", "scale", "shift"))


class _Drop(ctypes.Structure):
    """`Drop` of fire.cpp."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("key", "high", "lowest")),
        *((name, ctypes.c_int32) for name in ("fixed", "channels")),
        *((name, ctypes.c_float) for name in ("gain", "offset", "fill", "spike", "silence")),
    )


class _Reads(ctypes.Structure):
    """`Reads` of fire.cpp."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("potential", "neurons", "channels", "outputs"))


class _Shared(ctypes.Structure):
    """`Shared` of fire.cpp."""

    _fields_ = (("at", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("image", "row", "column")))


class _Given(ctypes.Structure):
    """`Given` of fire.cpp."""

    _fields_ = (("potential", ctypes.c_void_p), ("outputs", ctypes.c_void_p), ("silent", _Shared), ("firing", _Shared))


def fault() -> str | None:
    """Why kernels can't be built here, if so, by the smallest of them; the others are built when they are needed."""
    return None if _moments(torch.float32) is not None else native.why("moments")


def obstacle(x: Tensor, neuron: NeuronConfig, time_steps: int, drops: int) -> str | None:
    """What keeps the kernels from an IF or LIF with a detached reset, in a few words: they do float32, bfloat16 and
    float16 on the CPU."""
    if x.device.type != "cpu" or x.dtype not in native.ELEMENTS:
        return f"{str(x.dtype)[6:]} on {x.device.type}"
    if _fire(x.dtype, time_steps, neuron.v_reset is None, drops) is None:
        return f"its kernel can't be built: {native.why('fire')}"
    return None if _moments(x.dtype) is not None else f"its kernel can't be built: {native.why('moments')}"


@cache
def _moments(dtype: torch.dtype) -> Any:
    kernels = native.variant("moments", dtype)
    if kernels is not None:
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        kernels.moments.argtypes = [pointer, size, size, pointer, pointer, ctypes.c_int]
        kernels.moments.restype = None
    return kernels


@cache
def _fire(dtype: torch.dtype, time_steps: int, soft: bool, drops: int) -> Any:
    steps = time_steps if time_steps in UNROLLED and not soft else 0
    kernels = native.variant("fire", dtype, steps=steps, soft=soft, drop=drops)
    if kernels is not None:
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
        kernels.fire_forward.argtypes = [*[pointer] * 9, integer]
        kernels.fire_forward.restype = size
        kernels.fire_backward.argtypes = [*[pointer] * 13, integer]
        kernels.fire_backward.restype = None
    return kernels


def _shape(setting: Setting, x: Tensor) -> Any:
    _, channels, height, width = x.shape
    shape = _Shape(setting.time_steps, setting.images(x), height, width, channels, setting.pool, setting.repeat)
    return ctypes.byref(shape)


def _neuron(setting: Setting) -> Any:
    return ctypes.byref(_Neuron(setting.keep, setting.threshold, setting.rest, setting.alpha))


def _drop(setting: Setting, key: Tensor | None, dtype: torch.dtype) -> Any:
    drop = setting.drop
    if drop is None or key is None:
        return None
    gain, offset, fill = setting.affine
    spike = silence = 0.0
    if setting.drops == 2:
        spike, silence, fill = setting.passed(dtype)
    return ctypes.byref(
        _Drop(*masks.words(int(key)), drop.lowest, drop.fixed, drop.channels, gain, offset, fill, spike, silence)
    )


def _places(setting: Setting, height: int, width: int) -> int:
    """Over how many values of what comes out a channel's mean is taken, of an image."""
    return setting.time_steps * (height // setting.pool) * (width // setting.pool)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _shared(values: Tensor) -> _Shared:
    """Of `[N, C, H, W]` with C last in memory."""
    return _Shared(values.data_ptr(), *shared_strides(values))


def _norm(vectors: Tensor) -> _Norm:
    """Of `[3, C]` float32."""
    return _Norm(*(row.data_ptr() for row in vectors[:3]))


class _BNFire(torch.autograd.Function):
    """Saves x and five vectors over channels, and what is added where it is pooled; backward computes spikes and
    potentials anew."""

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
        threads = torch.get_num_threads()
        x, add = dense(x), None if add is None else dense(add)
        _, channels, height, width = x.shape
        # Rows: mean, scale, shift, 1 / (var + eps), gamma / scale.
        vectors = torch.zeros(4, channels)
        if gamma is None or beta is None:
            vectors[1], vectors[2] = setting.share, setting.lift
        else:
            if setting.training_stats:
                mean, var = torch.empty(2, channels)
                rows = x.numel() // channels
                _moments(x.dtype).moments(_address(x), rows, channels, _address(mean), _address(var), threads)
            assert mean is not None
            assert var is not None
            vectors[0] = mean
            torch.add(var, setting.eps, out=vectors[3]).reciprocal_()
            torch.mul(vectors[3].sqrt(), gamma, out=vectors[1]).mul_(setting.share)
            torch.mul(beta, setting.share, out=vectors[2]).add_(setting.lift)
        batch, pool = setting.time_steps * setting.images(x), setting.pool
        spikes = None
        if Read.spikes in setting.reads and not setting.plain(add is not None):
            spikes = empty(x, batch, height, width)
        out = empty(x, batch, height // pool, width // pool)
        images, real = setting.images(x), torch.float32
        potential = empty(x, batch, height, width, real) if Read.potential in setting.reads else None
        neurons = empty(x, images, height, width, real) if setting.wants(Read.neuron_counts) else None
        # By rows of windows, as threads share the work.
        per_row = (images, -(-height // pool), channels)
        by_row = torch.empty(per_row) if setting.wants(Read.channel_rates) else None
        outputs = torch.empty(per_row) if setting.remade and Read.channel_outputs in setting.reads else None
        kernels = _fire(x.dtype, setting.time_steps, setting.soft, setting.drops)
        count = kernels.fire_forward(
            _shape(setting, x),
            _neuron(setting),
            ctypes.byref(_norm(vectors)),
            _drop(setting, key, x.dtype),
            _address(x),
            _address(add),
            _address(spikes),
            _address(out),
            ctypes.byref(_Reads(_address(potential), _address(neurons), _address(by_row), _address(outputs))),
            threads,
        )
        ctx.save_for_backward(x, vectors, key, add if pool > 1 else None)
        ctx.setting, ctx.has_norm, ctx.adds = setting, gamma is not None, add is not None
        ctx.set_materialize_grads(False)
        counted = torch.tensor(count)
        if not setting.training_stats:
            mean = var = None
        ctx.mark_non_differentiable(*[t for t in (counted, mean, var) if t is not None])
        size = batch * channels * height * width
        counts = None if by_row is None else by_row.sum(1)
        means = None if outputs is None else outputs.sum(1) / _places(setting, height, width)
        sums = setting.sums(counted, counts, neurons, size, means)
        return spikes, out, counted, mean, var, potential, *sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_spikes: Tensor | None, g_out: Tensor | None, *more: Any) -> tuple[Tensor | None, ...]:
        setting: Setting = ctx.setting
        nothing: tuple[Tensor | None, ...] = (None,) * 8
        _, _, _, g_potential, *g_sums = more
        if all(g is None for g in (g_spikes, g_out, g_potential, *g_sums)):
            return nothing
        x, vectors, key, add = ctx.saved_tensors
        # Kept in variables until the kernel is done: it sees their addresses only.
        g_spikes, g_out = (None if g is None else dense(g.to(x.dtype)) for g in (g_spikes, g_out))
        g_spikes, g_out, d_add = setting.gradients(g_spikes, g_out, add, ctx.adds)
        g_potential = None if g_potential is None else dense(g_potential)
        shares = setting.shares(g_sums, x)
        g_outputs = g_sums[SUMS.index(Read.channel_outputs)] if setting.remade else None
        if g_outputs is not None:
            g_outputs = (g_outputs.float() / _places(setting, *x.shape[2:])).contiguous()
        silent, firing = (_Shared(), _Shared()) if shares is None else map(_shared, shares)
        dx = torch.empty_like(x)
        sums = torch.zeros(2, x.shape[1], dtype=torch.float64)
        _fire(x.dtype, setting.time_steps, setting.soft, setting.drops).fire_backward(
            _shape(setting, x),
            _neuron(setting),
            ctypes.byref(_norm(vectors)),
            _drop(setting, key, x.dtype),
            _address(vectors[3]) if setting.training_stats else None,
            _address(x),
            _address(add),
            _address(g_spikes),
            _address(g_out),
            ctypes.byref(_Given(_address(g_potential), _address(g_outputs), silent, firing)),
            _address(dx),
            None if add is None else _address(d_add),
            _address(sums),
            torch.get_num_threads(),
        )
        if not ctx.has_norm:
            return dx, *nothing[1:-1], d_add
        sums *= setting.share
        return dx, (sums[1] * vectors[3].double().sqrt()).float(), sums[0].float(), *nothing[3:-1], d_add


bn_fire = bn_fire_by(_BNFire)
"""See `reference.bn_fire`."""
