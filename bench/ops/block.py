"""Convolution, norm, neuron, residual sum and pooling in one go, by the kernels where they serve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.neurons import Read, Spiking
from bench.neurons.reads import channel_means, tell_channel_means
from bench.ops import depthwise, winograd
from bench.ops.backend import Backend, asked, kernels_for, resolve
from bench.ops.kernel_note import KernelNote, note_at
from bench.ops.reference import Gate


class StepNorm(nn.Module, ABC):
    """Base of norms that tell time steps apart: `fire_block` tells them whether their input has a time axis yet."""

    @abstractmethod
    def forward(self, x: Tensor, repeat: bool = False) -> Tensor:
        """Normalize.

        Args:
            x: `[T * N, C, H, W]`, time slowest; `[N, C, H, W]` with `repeat`.
            repeat: the static stem: every time step has this x.

        Returns:
            `[T * N, C, H, W]` in either case.
        """


class ConvNorm(nn.Sequential):
    """Convolution (with bias) and batch norm as `conv` and `norm`, so that either can be replaced.

    Shapes: `[B, C_in, H, W]` to `[B, C_out, H', W']`, B being N for a stem and T * N elsewhere.
    """

    conv: nn.Conv2d
    norm: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.add_module(
            "conv", nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups)
        )
        self.add_module("norm", nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor, **told: bool) -> Tensor:  # type: ignore[override]
        """Convolution and norm.

        Args:
            x: `[B, C_in, H, W]`.
            told: what a `StepNorm` takes besides; nothing for any other norm.
        """
        out: Tensor = self.norm(self.conv(x), **told)
        return out


def fire_block(
    conv_norm: ConvNorm,
    spiking: Spiking,
    x: Tensor,
    pool: nn.Module | None = None,
    repeat: bool = False,
    add: Tensor | None = None,
) -> Tensor:
    """pool(spiking(conv_norm(x)) + add) with all that follows the convolution in one kernel, where there is one.

    A module with hooks is called as a module, so that they run. `explain` says which layers that
    and other things keep from the kernels.

    Args:
        conv_norm: convolution and norm. A norm other than batch norm runs by itself, and the kernel
            takes over behind it, as it does behind what regularizers put on the current, a `Gate`
            left out: that the kernel does too. A `StepNorm` sees the stem's images T times.
        spiking: the layer; what it did stands there afterwards, on every path.
        x: `[T * N, C, H, W]`, time slowest; `[N, C, H, W]` with `repeat`.
        pool: the kernels do a max pooling of 2; a mean runs by itself behind them, and any other takes the
            layer out of them.
        repeat: the static stem: conv_norm sees each image once, the neurons see it T times.
        add: `[T * N, C, H, W]`, a residual path; it is no part of what the layer did.
    """
    if isinstance(pool, nn.AvgPool2d):
        mean: Tensor = pool(_fire_block(conv_norm, spiking, x, None, repeat, add)[0])
        return _passed_on(spiking, mean)
    return _passed_on(spiking, *_fire_block(conv_norm, spiking, x, pool, repeat, add))


def _passed_on(spiking: Spiking, out: Tensor, known: bool = False) -> Tensor:
    """What a layer passes on, which knows its channels' means from here on, where they are read.

    Args:
        spiking: the layer.
        out: what it passes on.
        known: whether a kernel has put its means down at the layer.
    """
    if Read.channel_outputs in spiking.reads:
        if not known:
            spiking.sums = {**spiking.sums, Read.channel_outputs: channel_means(out, spiking.time_steps)}
        tell_channel_means(out, spiking.sums[Read.channel_outputs])
    return out


def _fire_block(
    conv_norm: ConvNorm, spiking: Spiking, x: Tensor, pool: nn.Module | None, repeat: bool, add: Tensor | None
) -> tuple[Tensor, bool]:
    """What `fire_block` gives, and whether its kernel has put all its sums down at the layer."""
    spiking.begin()
    kernels, note = kernels_for(x.device), note_at(spiking)
    note.obstacle = None if kernels is None else _obstacle(conv_norm, spiking, note, pool)
    norm = conv_norm.norm
    by_step = isinstance(norm, StepNorm)
    if kernels is None or note.obstacle is not None:
        current = conv_norm(x, repeat=repeat) if by_step else _normed(conv_norm, x)
        return _rest(current, spiking, pool, repeat and not by_step, add), False
    gate = _gate(spiking.current)
    inside = _is_plain(norm) and (gate is not None or not len(spiking.current))
    current = _convolve(conv_norm.conv, x)
    if by_step:
        current, repeat = norm(current, repeat), False
    elif not inside:
        current = norm(current)
    if len(spiking.current) and gate is None:
        current = spiking.current(_repeat_last(current, spiking.time_steps) if repeat else current)
        repeat = False
    # torch's own errors are wanted: nothing to pool, or a single value a channel to normalize by.
    faulty = min(current.shape[2:]) < (1 if pool is None else 2) or current[:, 0].numel() == 1
    # One dropout at most: with two, that of the spikes is done by itself.
    first = gate if gate is not None and gate.acts else None
    second = None if first is not None else _acting(spiking.spikes)
    drops = 1 if first is not None else 0 if second is None else 2
    note.obstacle = "its shape" if faulty else kernels.obstacle(current, spiking.config, spiking.time_steps, drops)
    if note.obstacle is not None:
        current = norm(current) if inside else current
        # What stands on the current has been applied, unless it is a gate.
        return _rest(current, spiking, pool, repeat, add, skip_current=gate is None), False
    return _fused(kernels, norm if inside else None, spiking, current, pool, repeat, first, second, add)


def _gate(slot: nn.Sequential) -> Gate | None:
    """What stands in a slot, where the kernels can do it on the way."""
    only = slot[0] if len(slot) == 1 else None
    return only if isinstance(only, Gate) and not _hooked(only) else None


def _acting(slot: nn.Sequential) -> Gate | None:
    """The same, where it does anything in the present mode."""
    gate = _gate(slot)
    return gate if gate is not None and gate.acts else None


def _normed(conv_norm: ConvNorm, x: Tensor) -> Tensor:
    """Convolution and norm by the modules, but for a convolution that our own kernels serve."""
    out: Tensor = conv_norm(x) if _hooked(conv_norm) else conv_norm.norm(_convolve(conv_norm.conv, x))
    return out


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution, by our own kernels where they serve it."""
    # Triton's depthwise kernels have not been timed on a GPU; the library's stay until they are.
    if resolve(asked(), x.device)[0] is Backend.compiled:
        if depthwise.supported(conv):
            return depthwise.depthwise(conv, x, "compiled")
        if winograd.supported(conv):
            return winograd.winograd(conv, x)
    out: Tensor = conv(x)
    return out


def _fused(
    kernels: Any,
    norm: nn.Module | None,
    spiking: Spiking,
    x: Tensor,
    pool: nn.Module | None,
    repeat: bool,
    on_current: Gate | None,
    on_spikes: Gate | None,
    add: Tensor | None,
) -> tuple[Tensor, bool]:
    norm = norm if isinstance(norm, nn.BatchNorm2d) else None
    learned = (None,) * 4 if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    dropped = None if on_current is None else on_current.draw(x.device)
    # What stands on the spikes comes before the sum and the pooling.
    idle = _gate(spiking.spikes)
    passes = not len(spiking.spikes) or on_spikes is not None or (idle is not None and not idle.acts)
    ends_inside = passes and (add is None or (add.dtype is x.dtype and add.device == x.device))
    fired = kernels.bn_fire(
        x,
        *learned,
        0.0 if norm is None else norm.eps,
        time_steps=spiking.time_steps,
        neuron=spiking.config,
        pool=2 if ends_inside and pool is not None else 1,
        training_stats=norm is not None and norm.training,
        repeat=repeat,
        # Of what the kernel does not get to the end, the sums are not its to tell.
        reads=spiking.reads if ends_inside else spiking.reads - {Read.channel_outputs},
        dropped=dropped,
        dropped_spikes=None if on_spikes is None or not ends_inside else on_spikes.draw(x.device),
        add=add if ends_inside else None,
    )
    if norm is not None and norm.training:
        _track(norm, fired.mean, fired.var, x.numel() // x.shape[1])
    shape = torch.Size((spiking.time_steps, fired.out.shape[0] // spiking.time_steps, *x.shape[1:]))

    def current() -> Tensor:
        y = x.detach().float()
        if norm is not None:
            mean, var = (norm.running_mean, norm.running_var) if fired.mean is None else (fired.mean, fired.var)
            y = F.batch_norm(y, mean, var, norm.weight, norm.bias, False, 0.0, norm.eps)
        y = _repeat(y, spiking.time_steps) if repeat else y
        return y if dropped is None else dropped(y.unflatten(0, (spiking.time_steps, -1))).flatten(0, 1)

    note_at(spiking).kernel_fired(spiking, fired, shape, current)
    return (fired.out, True) if ends_inside else (_end(spiking.spikes(fired.out), add, pool), False)


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, values: int) -> None:
    """Move the running statistics as nn.BatchNorm2d does: of the variance, the unbiased one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (values / (values - 1)), norm.momentum)


def _rest(
    x: Tensor,
    spiking: Spiking,
    pool: nn.Module | None,
    repeat: bool,
    add: Tensor | None,
    skip_current: bool = False,
) -> Tensor:
    """What follows the norm, from the modules."""
    x = _repeat(x, spiking.time_steps) if repeat else x
    return _end(spiking.fire(x) if skip_current else spiking(x), add, pool)


def _end(x: Tensor, add: Tensor | None, pool: nn.Module | None) -> Tensor:
    x = x if add is None else x + add
    return x if pool is None else pool(x)


def _repeat(x: Tensor, time_steps: int) -> Tensor:
    return x.unsqueeze(0).expand(time_steps, *x.shape).flatten(0, 1)


def _repeat_last(x: Tensor, time_steps: int) -> Tensor:
    """The same with C last in memory, as the kernels want it."""
    return _repeat(x.permute(0, 2, 3, 1), time_steps).permute(0, 3, 1, 2)


def _is_plain(norm: nn.Module) -> bool:
    """Whether the kernels do what this norm does."""
    if type(norm) is nn.Identity:
        return True
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype is torch.float32
    )


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def _obstacle(conv_norm: ConvNorm, spiking: Spiking, note: KernelNote, pool: nn.Module | None) -> str | None:
    """What keeps this layer from the kernels, in a few words."""
    if not spiking.is_spiking:
        return "the ReLU twin"
    if spiking.config.name not in ("if", "lif"):
        return f"neuron {spiking.config.name}"
    if not spiking.config.detach_reset:
        return "detach_reset=false"
    if spiking.trigger is not None:
        return "no plain threshold"
    if note.goes_on(spiking.neuron):
        return "it goes on from a potential"
    around = (conv_norm, conv_norm.norm, spiking, spiking.neuron, spiking.current, spiking.spikes)
    if any(map(_hooked, around)) or (pool is not None and _hooked(pool)):
        return "a hook"
    if pool is not None and not _halves(pool):
        return "the pooling"
    return None


def _halves(pool: nn.Module) -> bool:
    if not isinstance(pool, nn.MaxPool2d):
        return False
    pairs = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    plain = [value if isinstance(value, tuple) else (value, value) for value in pairs]
    return plain == [(2, 2), (2, 2), (0, 0), (1, 1)] and not pool.ceil_mode and not pool.return_indices


def explain(model: nn.Module) -> str | None:
    """Which layers the last forward pass computed without the kernels, though there are some, and why.

    Examples:
        >>> explain(model)
        "2 of 4 layers use the reference: neuron plif"
    """
    layers = [module for module in model.modules() if isinstance(module, Spiking)]
    notes = [layer.kernel_note for layer in layers if layer.kernel_note is not None]
    reasons = Counter(note.obstacle for note in notes if note.obstacle is not None)
    if not reasons:
        return None
    return f"{reasons.total()} of {len(layers)} layers use the reference: {', '.join(reasons)}"
