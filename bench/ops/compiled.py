"""Batch norm, neuron and pooling on the CPU: the kernels of `csrc/fire.cpp` behind `reference.bn_fire`'s signature."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.ops import native
from bench.ops.reference import Dropped, Fired

if TYPE_CHECKING:
    from bench.neurons import NeuronConfig

DTYPES = (torch.float32, torch.bfloat16)
GATES = True
"""Whether `bn_fire` takes `dropped`."""


class _Shape(ctypes.Structure):
    """`Shape` of fire.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "images", "height", "width", "channels")),
        *((name, ctypes.c_int32) for name in ("pool", "repeat")),
    )


class _Neuron(ctypes.Structure):
    """`Neuron` of fire.cpp."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("keep", "threshold", "reset", "alpha")),
        ("soft", ctypes.c_int32),
    )


class _Norm(ctypes.Structure):
    """`Norm` of fire.cpp."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("mean", "scale", "shift"))


class _Drop(ctypes.Structure):
    """`Drop` of fire.cpp."""

    _fields_ = (
        ("keep", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("step", "image", "row", "column")),
        *((name, ctypes.c_float) for name in ("gain", "offset", "fill")),
    )


def library() -> Any:
    """The kernels, or None where they can't be built (`native.why("fire")`)."""
    kernels = native.load("fire")
    if kernels is not None and kernels.fire_forward.restype is not ctypes.c_int64:
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
        kernels.fire_moments.argtypes = [integer, pointer, size, size, pointer, pointer, integer]
        kernels.fire_moments.restype = None
        kernels.fire_backward.argtypes = [integer, *[pointer] * 10, integer]
        kernels.fire_backward.restype = None
        kernels.fire_forward.argtypes = [integer, *[pointer] * 7, integer]
        kernels.fire_forward.restype = size
    return kernels


def supports(x: Tensor, neuron: NeuronConfig) -> bool:
    """Whether the kernels compute this: float32 or bfloat16 on the CPU, IF or LIF, detached reset."""
    return x.device.type == "cpu" and x.dtype in DTYPES and neuron.name in ("if", "lif") and neuron.detach_reset


def bn_fire(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    *,
    time_steps: int,
    neuron: NeuronConfig,
    pool: int = 1,
    training_stats: bool,
    repeat: bool = False,
    want_spikes: bool = True,
    dropped: Dropped | None = None,
) -> Fired:
    """See `reference.bn_fire`; x must be one that it `supports`."""
    setting = _Setting(neuron, time_steps, pool, repeat, want_spikes, training_stats and gamma is not None, eps)
    if gamma is None:
        beta = mean = var = None
    keep = None
    if dropped is not None:
        setting.affine = dropped[1:]
        keep = dropped.keep if dropped.keep.stride(2) == 1 else dropped.keep.movedim(2, -1).contiguous().movedim(-1, 2)
    spikes, out, count, mean, var = _BNFire.apply(x, gamma, beta, mean, var, setting, keep)
    return Fired(out if pool == 1 else spikes, out, count, mean, var)


class _Setting:
    """What the kernels need besides tensors, in their terms: charge is h = keep v + share y + lift."""

    def __init__(
        self,
        neuron: NeuronConfig,
        time_steps: int,
        pool: int,
        repeat: bool,
        want_spikes: bool,
        training_stats: bool,
        eps: float,
    ) -> None:
        self.time_steps, self.pool, self.repeat = time_steps, pool, repeat
        self.want_spikes, self.training_stats, self.eps = want_spikes, training_stats, eps
        rest = 0.0 if neuron.v_reset is None else neuron.v_reset
        leak = 0.0 if neuron.name == "if" else 1.0 / neuron.tau
        self.lift = rest * leak
        self.share = leak if leak and neuron.decay_input else 1.0
        self.affine = (1.0, 0.0, 0.0)
        self.neuron = _Neuron(1.0 - leak, neuron.v_threshold, rest, neuron.alpha, neuron.v_reset is None)

    def shape(self, x: Tensor) -> _Shape:
        images, channels, height, width = x.shape
        if not self.repeat:
            images //= self.time_steps
        return _Shape(self.time_steps, images, height, width, channels, self.pool, self.repeat)

    def drop(self, keep: Tensor | None) -> Any:
        """A pointer to `_Drop` for `[T, N, C, H, W]`; None without."""
        if keep is None:
            return None
        step, image, _, row, column = (
            0 if size == 1 else stride for size, stride in zip(keep.shape, keep.stride(), strict=True)
        )
        gain, offset, fill = self.affine
        # The kernel's y is share y + lift already.
        offset, fill = self.lift * (1 - gain) + self.share * offset, self.share * fill + self.lift
        return ctypes.byref(_Drop(keep.data_ptr(), step, image, row, column, gain, offset, fill))


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(x: Tensor, batch: int, height: int, width: int) -> Tensor:
    return torch.empty((batch, x.shape[1], height, width), dtype=x.dtype, memory_format=torch.channels_last)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _norm(vectors: Tensor) -> _Norm:
    """Of `[3, C]` float32."""
    return _Norm(*(row.data_ptr() for row in vectors[:3]))


class _BNFire(torch.autograd.Function):
    """Saves x and five vectors over channels; backward computes spikes and potentials anew."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        setting: _Setting,
        keep: Tensor | None,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None, Tensor | None]:
        kernels, threads = library(), torch.get_num_threads()
        half = x.dtype is torch.bfloat16
        x = _dense(x)
        shape = setting.shape(x)
        channels = x.shape[1]
        # Rows: mean, scale, shift, 1 / (var + eps), gamma / scale.
        vectors = torch.zeros(4, channels)
        if gamma is None or beta is None:
            vectors[1], vectors[2] = setting.share, setting.lift
        else:
            if setting.training_stats:
                mean, var = torch.empty(2, channels)
                rows = x.numel() // channels
                kernels.fire_moments(half, _address(x), rows, channels, _address(mean), _address(var), threads)
            assert mean is not None
            assert var is not None
            vectors[0] = mean
            torch.add(var, setting.eps, out=vectors[3]).reciprocal_()
            torch.mul(vectors[3].sqrt(), gamma, out=vectors[1]).mul_(setting.share)
            torch.mul(beta, setting.share, out=vectors[2]).add_(setting.lift)
        batch = setting.time_steps * shape.images
        spikes = None
        if setting.want_spikes and setting.pool > 1:
            spikes = _empty(x, batch, shape.height, shape.width)
        out = _empty(x, batch, shape.height // setting.pool, shape.width // setting.pool)
        count = kernels.fire_forward(
            half,
            ctypes.byref(shape),
            ctypes.byref(setting.neuron),
            ctypes.byref(_norm(vectors)),
            setting.drop(keep),
            _address(x),
            _address(spikes),
            _address(out),
            threads,
        )
        ctx.save_for_backward(x, vectors, keep)
        ctx.setting, ctx.has_norm = setting, gamma is not None
        ctx.set_materialize_grads(False)
        counted = torch.tensor(count)
        if not setting.training_stats:
            mean = var = None
        ctx.mark_non_differentiable(*[t for t in (counted, mean, var) if t is not None])
        return spikes, out, counted, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_spikes: Tensor | None, g_out: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        setting: _Setting = ctx.setting
        nothing: tuple[Tensor | None, ...] = (None,) * 7
        if g_spikes is None and g_out is None:
            return nothing
        x, vectors, keep = ctx.saved_tensors
        if setting.pool == 1:
            g_spikes, g_out = g_out, None
        # Kept in variables until the kernel is done: it sees their addresses only.
        g_spikes, g_out = (None if g is None else _dense(g.to(x.dtype)) for g in (g_spikes, g_out))
        dx = torch.empty_like(x)
        sums = torch.zeros(2, x.shape[1], dtype=torch.float64)
        library().fire_backward(
            x.dtype is torch.bfloat16,
            ctypes.byref(setting.shape(x)),
            ctypes.byref(setting.neuron),
            ctypes.byref(_norm(vectors)),
            setting.drop(keep),
            _address(vectors[3]) if setting.training_stats else None,
            _address(x),
            _address(g_spikes),
            _address(g_out),
            _address(dx),
            _address(sums),
            torch.get_num_threads(),
        )
        if not ctx.has_norm:
            return dx, *nothing[1:]
        sums *= setting.share
        return dx, (sums[1] * vectors[3].double().sqrt()).float(), sums[0].float(), *nothing[3:]
