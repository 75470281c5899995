"""Batch norm, IF or LIF neuron and max pooling as one function, in plain torch: what every backend computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.neurons import SPIKES, NeuronConfig, Read, make_neuron, potential_of
from bench.neurons.reads import SUMS, channel_means, summed
from bench.ops import masks

NEXT = 0x5851F42D4C957F2D
"""From the key of a layer's mask to that of its next in the same step."""


class Dropped(NamedTuple):
    """A dropout of values y: a kept entry becomes y gain + offset, any other `fill`.

    Attributes:
        key: scalar int64 on the values' device, which names the mask: see `masks.keep`, also for the next three.
        lowest: of the numbers that keep an entry.
        fixed: whether the time steps share the mask.
        channels: whether a channel's pixels do.
        gain: of kept entries.
        offset: of kept entries.
        fill: of dropped ones.
    """

    key: Tensor
    lowest: int
    fixed: bool
    channels: bool
    gain: float
    offset: float
    fill: float

    def __call__(self, x: Tensor, kernel: bool = False) -> Tensor:
        """Of `[T, N, C, ...]`.

        Args:
            x: the values.
            kernel: see `masks.keep`.
        """
        if self.lowest == 0:
            return self.kept(x)
        how = {"fixed": self.fixed, "channels": self.channels, "kernel": kernel}
        return self.by(masks.keep(x.shape, self.key, self.lowest, **how), x)

    def by(self, keep: Tensor, x: Tensor) -> Tensor:
        """The same by a mask that is given.

        Args:
            keep: booleans that broadcast against the values.
            x: the values.
        """
        return torch.where(keep, self.kept(x), self.fill)

    def kept(self, x: Tensor) -> Tensor:
        """What becomes of values that are kept."""
        kept = x if self.gain == 1 else x * self.gain
        return kept + self.offset if self.offset else kept


class Gate(nn.Module, ABC):
    """Base of modules on a layer's current or spikes that kernels can do on the way, told what they do.

    Attributes:
        key: scalar int64 on the network's device that masks come from; each one drawn moves it on. With None they come
            from torch's global generator.
    """

    key: Tensor | None = None

    def next_key(self, device: torch.device) -> Tensor:
        """The key of the next mask, scalar int64 on the device."""
        if self.key is None:
            return torch.empty((), dtype=torch.int64, device=device).random_(torch.iinfo(torch.int64).min, None)
        key = self.key.clone()
        # In place, so that a replayed step sees it move. Any odd number goes through all of 2^64.
        self.key += NEXT
        return key

    @property
    @abstractmethod
    def acts(self) -> bool:
        """Whether it does anything in the present mode."""

    @abstractmethod
    def draw(self, device: torch.device) -> Dropped:
        """What to do in this pass, where it `acts`: a mask of its own at each call.

        Args:
            device: of the values.
        """


class Fired(NamedTuple):
    """What a block of batch norm, neuron and pooling gives.

    Attributes:
        spikes: `[T * N, C, H, W]` zeros and ones with their graph, of x's dtype; None if not wanted.
        out: `[T * N, C, H // pool, W // pool]` the spikes, after their dropout, with `add`, pooled; `spikes` itself
            where there is none of these.
        spike_count: how many spikes there are, a scalar int64 on x's device, without gradient.
        mean: `[C]` float32 mean of x over batch and space; None unless batch statistics were used.
        var: `[C]` float32 biased variance, likewise.
        potential: `[T * N, C, H, W]` membrane potential before the reset, float32 at least, with its graph; None if not
            wanted.
        sums: the sums over the spikes that are wanted, as `Read` has them, float32 at least, with their graph.
    """

    spikes: Tensor | None
    out: Tensor
    spike_count: Tensor
    mean: Tensor | None
    var: Tensor | None
    potential: Tensor | None
    sums: dict[Read, Tensor]


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
    reads: frozenset[Read] = SPIKES,
    dropped: Dropped | None = None,
    dropped_spikes: Dropped | None = None,
    add: Tensor | None = None,
) -> Fired:
    """y = gamma (x - mean) / sqrt(var + eps) + beta, then an IF or LIF neuron from rest, then + add, then max pooling.

    The potential and what batch norm does are float32 for inputs of less; the result has x's dtype. Gradients of all
    that is given reach x, gamma and beta: through the batch statistics where they are used, through the ATan surrogate,
    not through the reset (`detach_reset`). In a pooling window the first maximum in the order of rows gets the gradient
    (of a silent window: the first value). Backends save x, vectors over channels, a dropout's key and what is added
    before pooling for backward, nothing else, and take any strides; channels_last is the fast layout, in which they
    also answer.

    Args:
        x: `[T * N, C, H, W]`, time slowest; `[N, C, H, W]` with `repeat`.
        gamma: `[C]` float32; None leaves batch norm out, and ignores the next four.
        beta: `[C]` float32.
        mean: `[C]` running mean, used without `training_stats`. It is not written to.
        var: `[C]` running variance, likewise.
        eps: added to the variance.
        time_steps: T.
        neuron: its constants: `name` (`if` or `lif`), `v_threshold`, `v_reset` (None: soft reset), `tau`,
            `decay_input`, `alpha`, `detach_reset` (backends other than this one: True only).
        pool: 2 for 2 x 2 windows with stride 2 (an odd last row or column is in no window), 1 for none.
        training_stats: normalize by the statistics of this x rather than by `mean` and `var`.
        repeat: every time step gets the same x (the static stem); its gradient is summed over time.
        reads: what is read of the spikes besides `out`: of `spikes` and `potential` whether they are wanted, and which
            sums are.
        dropped: applied to y at every time step.
        dropped_spikes: applied to the spikes on their way to the sum and the pooling; what is read of them is without.
            Backends other than this one do one of the two dropouts.
        add: `[T * N, C, H, W]` of x's dtype, which every spike is added to (SEW's ADD, a residual path).
    """
    dtype = x.dtype
    current = x.float() if dtype in (torch.bfloat16, torch.float16) else x
    batch_mean = batch_var = None
    if gamma is not None:
        if training_stats:
            with torch.no_grad():
                batch_var, batch_mean = torch.var_mean(current, (0, 2, 3), correction=0)
            current = F.batch_norm(current, None, None, gamma.to(current), _to(beta, current), True, 0.0, eps)
        else:
            statistics = _to(mean, current), _to(var, current)
            current = F.batch_norm(current, *statistics, gamma.to(current), _to(beta, current), False, 0.0, eps)
    if repeat:
        steps = current.unsqueeze(0).expand(time_steps, *current.shape)
    else:
        steps = current.unflatten(0, (time_steps, -1))
    if dropped is not None:
        steps = dropped(steps)
    node = make_neuron(neuron)
    node.store_v_seq, start = Read.potential in reads, node.v
    emitted = node(steps)
    potential = potential_of(node, steps, start).flatten(0, 1) if Read.potential in reads else None
    spikes = emitted.flatten(0, 1).to(dtype)
    passed = spikes
    if dropped_spikes is not None:
        passed = dropped_spikes(spikes.unflatten(0, (time_steps, -1))).flatten(0, 1)
    out = passed if add is None else passed + add
    out = F.max_pool2d(out, pool) if pool > 1 else out
    return Fired(
        spikes if Read.spikes in reads or out is spikes else None,
        out,
        spikes.detach().count_nonzero(),
        None if batch_mean is None else batch_mean.float(),
        None if batch_var is None else batch_var.float(),
        potential,
        {
            read: channel_means(out, time_steps) if read is Read.channel_outputs else summed(emitted, read)
            for read in SUMS
            if read in reads
        },
    )


def _to(values: Tensor | None, like: Tensor) -> Tensor | None:
    return None if values is None else values.to(like)
