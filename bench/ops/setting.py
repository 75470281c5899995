"""What the kernels of every backend are told besides tensors, in their terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.neurons import SPIKES, NeuronConfig, Read
from bench.neurons.reads import SUMS, channel_means
from bench.ops.reference import Dropped, Fired


class Setting:
    """Of one `bn_fire`: the potential before firing is keep v + y, where y = (x - mean) scale + shift holds batch norm,
    the leak's `share` of the current and the `lift` that draws to rest.

    Attributes:
        drop: the dropout, if there is one.
        drops: of what: 0 for none, 1 for the current, 2 for the spikes.
        affine: its gain, offset and fill; of the current, for that y.
    """

    def __init__(
        self,
        neuron: NeuronConfig,
        time_steps: int,
        training_stats: bool,
        eps: float,
        pool: int = 1,
        repeat: bool = False,
        reads: frozenset[Read] = SPIKES,
        dropped: Dropped | None = None,
        dropped_spikes: Dropped | None = None,
    ) -> None:
        self.time_steps, self.pool, self.repeat = time_steps, pool, repeat
        self.reads, self.training_stats, self.eps = reads, training_stats, eps
        self.soft = neuron.v_reset is None
        self.rest = 0.0 if neuron.v_reset is None else neuron.v_reset
        leak = 0.0 if neuron.name == "if" else 1.0 / neuron.tau
        self.keep, self.threshold, self.alpha = 1.0 - leak, neuron.v_threshold, neuron.alpha
        self.lift = self.rest * leak
        self.share = leak if leak and neuron.decay_input else 1.0
        assert dropped is None or dropped_spikes is None
        self.drop = dropped_spikes if dropped is None else dropped
        self.drops = 1 if dropped is not None else 0 if dropped_spikes is None else 2
        self.affine = (1.0, 0.0, 0.0)
        if self.drop is not None:
            gain, offset, fill = self.drop.gain, self.drop.offset, self.drop.fill
            self.affine = (gain, offset, fill)
            if self.drops == 1:
                self.affine = (gain, self.lift * (1 - gain) + self.share * offset, self.share * fill + self.lift)

    def plain(self, adds: bool) -> bool:
        """Whether what comes out are the spikes themselves.

        Args:
            adds: whether anything is added to them.
        """
        return self.pool == 1 and not adds and self.drops != 2

    def passed(self, dtype: torch.dtype) -> tuple[float, float, float]:
        """What a dropout of the spikes makes of a kept spike, a kept silence and what it drops, as a dtype holds it."""
        gain, offset, fill = self.affine
        kept = torch.tensor([1.0, 0.0], dtype=dtype) * gain + offset
        return (*kept.tolist(), torch.tensor(fill, dtype=dtype).item())

    def images(self, x: Tensor) -> int:
        """Of a time step; x is `[T * N, C, H, W]`, or `[N, C, H, W]` of a repeated current."""
        return x.shape[0] if self.repeat else x.shape[0] // self.time_steps

    @property
    def remade(self) -> bool:
        """Whether what comes out has other sums than the spikes and what is added to them."""
        return self.pool > 1 or self.drops == 2

    def wants(self, sum_: Read) -> bool:
        """Whether a sum over the spikes is wanted, or that of their squares."""
        if sum_ is Read.channel_rates and Read.channel_outputs in self.reads and not self.remade:
            return True
        return any(read.linear is sum_ for read in self.reads)

    def sums(
        self,
        count: Tensor,
        channels: Tensor | None,
        neurons: Tensor | None,
        size: int,
        outputs: Tensor | None = None,
    ) -> list[Tensor | None]:
        """The sums that are wanted, in the order of `SUMS`, None for those that are not; each in memory of its own.

        Args:
            count: how many spikes there are.
            channels: `[N, C]` float32, how many in each image's channels; None if not wanted.
            neurons: `[N, C, H, W]` float32, how many of each neuron, likewise.
            size: T * N * C * H * W.
            outputs: `[N, C]` float32, means of what comes out where that is `remade`, without what is added unless it
                is pooled; None if not wanted, or for `bn_fire_by` to find.
        """
        found: list[Tensor | None] = []
        for read in SUMS:
            value: Tensor | None = None
            if read in self.reads:
                if read.linear is Read.rate:
                    value = (count.double() / size).float()
                elif read is Read.channel_outputs and self.remade:
                    value = outputs
                elif read.linear is Read.channel_rates or read is Read.channel_outputs:
                    assert channels is not None
                    value = channels / (size // channels.numel())
                else:
                    # An output of its own, so that its gradient is told from the other's.
                    taken = read.squared and read.linear in self.reads
                    assert neurons is not None
                    value = neurons.clone(memory_format=torch.preserve_format) if taken else neurons
            found.append(value)
        return found

    def shares(self, gradients: Sequence[Tensor | None], x: Tensor) -> tuple[Tensor, Tensor] | None:
        """What the gradients of the sums add to a silent neuron's gradient and to that of a spike, at every step.

        Args:
            gradients: of `SUMS`, in their order.
            x: `[B, C, H, W]`, the current.

        Outputs that are `remade` are left out: their gradient is of another shape.

        Returns:
            Both float32 `[N, C, H, W]` with C last in memory, where all but C may be 1; None where no sum has one.
        """
        _, channels, height, width = x.shape
        images, area = self.images(x), height * width
        silent: Tensor | None = None
        firing: Tensor | None = None
        for read, gradient in zip(SUMS, gradients, strict=True):
            if gradient is None or (read is Read.channel_outputs and self.remade):
                continue
            share = gradient.float()
            if read.linear is Read.rate:
                share = (share / (self.time_steps * images * channels * area)).expand(1, 1, 1, channels)
            elif read.linear is Read.channel_rates or read is Read.channel_outputs:
                share = (share / (self.time_steps * area)).view(images, 1, 1, channels)
            else:
                share = share.permute(0, 2, 3, 1)
            if read.squared:
                # d(S^2) = 2 S dS.
                share = 2 * share
            else:
                silent = share if silent is None else silent + share
            firing = share if firing is None else firing + share
        if firing is None:
            return None
        silent = torch.zeros_like(firing) if silent is None else silent
        silent, firing = (entry.contiguous() for entry in torch.broadcast_tensors(silent, firing))
        return silent.permute(0, 3, 1, 2), firing.permute(0, 3, 1, 2)

    def gradients(
        self, g_spikes: Tensor | None, g_out: Tensor | None, add: Tensor | None, adds: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients that a backward kernel takes, of spikes and of what is pooled, and that of what was added: of
        its own where sums are pooled, and the kernel fills it in; else the sum's.

        Args:
            g_spikes: `[T * N, C, H, W]`.
            g_out: of `Fired.out`.
            add: what was added, kept where sums are pooled.
            adds: whether anything was.
        """
        if self.pool == 1 and self.drops == 2:
            return g_spikes, g_out, g_out if adds else None
        if self.pool > 1:
            return g_spikes, g_out, None if add is None else torch.empty_like(add)
        both = g_out if g_spikes is None else g_spikes if g_out is None else g_spikes + g_out
        return both, None, g_out if adds else None


def bn_fire_by(function: Any) -> Callable[..., Fired]:
    """`reference.bn_fire` by a pair of kernels, with its arguments; there must be no `obstacle` to it.

    Args:
        function: whose `apply` takes x, gamma, beta, mean, var, the setting, a dropout's key and what is added. It
            gives the entries of `Fired`, its sums in the order of `SUMS`; spikes may be left out where they are `out`.
    """

    def bn_fire(
        x: Tensor,
        *norm: Any,
        training_stats: bool,
        add: Tensor | None = None,
        **settings: Any,
    ) -> Fired:
        *vectors, eps = norm
        normalizes = vectors[0] is not None
        setting = Setting(training_stats=training_stats and normalizes, eps=eps, **settings)
        key = None if setting.drop is None else setting.drop.key
        given = (x, *(vectors if normalizes else [None] * 4), setting, key, add)
        spikes, out, count, mean, var, potential, *sums = function.apply(*given)
        wanted: dict[Read, Tensor] = {read: value for read, value in zip(SUMS, sums, strict=True) if value is not None}
        if Read.channel_outputs in setting.reads:
            own = wanted.get(Read.channel_outputs)
            if own is None:
                wanted[Read.channel_outputs] = channel_means(out, setting.time_steps)
            elif add is not None and setting.pool == 1:
                wanted[Read.channel_outputs] = own + channel_means(add, setting.time_steps)
        return Fired(out if setting.plain(add is not None) else spikes, out, count, mean, var, potential, wanted)

    return bn_fire


def shared_strides(values: Tensor) -> tuple[int, int, int]:
    """Of the images, rows and columns of `[N, C, H, W]` with C last in memory; 0 where they share a value."""
    image, _, row, column = (
        0 if size == 1 else stride for size, stride in zip(values.shape, values.stride(), strict=True)
    )
    return image, row, column


def dense(x: Tensor) -> Tensor:
    """With C last in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def empty(x: Tensor, batch: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Like x `[B, C, H, W]` but for these sizes, and a dtype if one is given, with C last in memory."""
    shape = (batch, x.shape[1], height, width)
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=torch.channels_last)
