"""What the spiking layers did in a forward pass: spikes and their rates, SynOps, dead and saturated neurons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bench.energy import microjoules
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.neurons import Read
from bench.neurons.reads import summed


@dataclass(frozen=True)
class LayerActivity:
    """What one spiking layer did in one forward pass, in entries of the names of `Read`, with their graph.

    Attributes:
        kept: the spikes `[T, N, ...]`; None where a kernel left them out. What follows from them is then computed from
            them.
        before_reset: the membrane potentials `[T, N, ...]`, if they were kept.
        sums: other sums over the spikes that were kept.
        count: how many spikes there were, a scalar on the device, where somebody has counted them.
        shape: `[T, N, ...]`, where the spikes are left out.
        reader: which regularizer this is shown to, for messages.
        reads: what it may read, by its declaration; None is all that was kept.
    """

    kept: Tensor | None = None
    before_reset: Tensor | None = None
    sums: Mapping[Read, Tensor] = field(default_factory=dict)
    count: Tensor | None = None
    shape: torch.Size | None = None
    reader: str | None = None
    reads: frozenset[Read] | None = None

    @property
    def rate(self) -> Tensor:
        """Spikes per neuron, time step and image, a scalar."""
        return self._read(Read.rate)

    @property
    def channel_rates(self) -> Tensor:
        """Spikes of each image's channels per neuron and time step, `[N, C]`; a fully connected layer's C are its
        neurons."""
        return self._read(Read.channel_rates)

    @property
    def neuron_counts(self) -> Tensor:
        """How often each neuron fired for each image, `[N, C, ...]`."""
        return self._read(Read.neuron_counts)

    @property
    def squared_rate(self) -> Tensor:
        """`rate` of S^2: of the same value, without a gradient where a neuron was silent."""
        return self._read(Read.squared_rate)

    @property
    def squared_channel_rates(self) -> Tensor:
        """`channel_rates` of S^2."""
        return self._read(Read.squared_channel_rates)

    @property
    def squared_neuron_counts(self) -> Tensor:
        """`neuron_counts` of S^2."""
        return self._read(Read.squared_neuron_counts)

    @property
    def channel_outputs(self) -> Tensor:
        """Mean of what each image's channels pass on per place and time step, `[N, C]`: behind a dropout of the spikes,
        a residual sum and a pooling."""
        return self._read(Read.channel_outputs)

    @property
    def spikes(self) -> Tensor:
        """`[T, N, C, ...]` zeros and ones; the ReLU twin's activations."""
        return self._read(Read.spikes)

    @property
    def potential(self) -> Tensor:
        """`[T, N, C, ...]` membrane potential before the reset, float32 at least."""
        return self._read(Read.potential)

    @property
    def size(self) -> torch.Size:
        """`[T, N, C, ...]` of the spikes, kept or not."""
        if self.shape is not None:
            return self.shape
        if self.kept is None:
            raise RuntimeError("an activity has either spikes or a shape")
        return self.kept.shape

    def shown_to(self, reader: str, reads: frozenset[Read]) -> LayerActivity:
        """The same, of which a regularizer can read what it declares alone.

        Args:
            reader: its name.
            reads: its declaration.
        """
        return replace(self, reader=reader, reads=reads)

    def _read(self, read: Read) -> Tensor:
        """An entry.

        Raises:
            BenchError: nobody asked for it to be kept, or the regularizer that this is shown to did not.
        """
        if self.reads is None or read in self.reads:
            if read is Read.potential:
                if self.before_reset is not None:
                    return self.before_reset
            elif read in self.sums:
                return self.sums[read]
            elif self.kept is not None:
                return self.kept if read is Read.spikes else summed(self.kept, read)
        if self.reader is None:
            raise BenchError(f"layer.{read} was not kept in this pass: have it in the spiking layers' `reads`")
        raise BenchError(
            f"regularizer '{self.reader}': a hook reads layer.{read}, which it does not declare; add \"{read}\" to its "
            "`reads`"
        )


Activity = dict[str, LayerActivity]
"""Layer name -> its activity, in the network's order."""


def activity_of(model: SpikingNetwork) -> Activity:
    """The activity of the model's last forward pass; a layer that was used again has `name#2`, `name#3`, ... for it."""
    return {
        f"{name}#{place}" if place > 1 else name: LayerActivity(
            use.fired, use.potential, use.sums, use.count, use.shape
        )
        for name, layer in model.spiking_layers()
        if layer.shape is not None
        for place, use in enumerate([*layer.earlier, layer.use()], 1)
    }


def over_batch(x: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Reduce the first axis of `[B, ...]`, reading memory in its order: torch is over ten times slower when an image
    is stored with its channels last.

    Args:
        x: `[B, ...]`.
        reduce: from `[B, M]` to `[M]`.
    """
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        _, channels, height, width = x.shape
        return reduce(x.permute(0, 2, 3, 1).flatten(1)).view(height, width, channels).permute(2, 0, 1)
    return reduce(x.flatten(1)).view(x.shape[1:])


PIECE = 1 << 17
"""Values that `mean_of` takes at once: half a mebibyte of float32, so that what f makes of them stays in the cache."""


class _MeanByPieces(torch.autograd.Function):
    """Keeps the slope of f at every value, nothing of what f computes on the way."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        slope = torch.empty_like(values)
        total = torch.zeros((), dtype=torch.float64)
        for piece, into in zip(_in_memory(values).split(PIECE), _in_memory(slope).split(PIECE), strict=True):
            leaf = piece.detach().requires_grad_()
            with torch.enable_grad():
                of_piece = f(leaf).sum()
            (gradient,) = torch.autograd.grad(of_piece, leaf)
            into.copy_(gradient)
            total += of_piece.detach().double()
        ctx.save_for_backward(slope)
        return (total / values.numel()).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * (g / slope.numel()), None


def _in_order(values: Tensor) -> Tensor:
    """With the axes in the order in which they lie in memory."""
    strides = values.stride()
    return values.permute(sorted(range(values.ndim), key=lambda axis: -strides[axis]))


def _dense(values: Tensor) -> bool:
    return _in_order(values).is_contiguous()


def _in_memory(values: Tensor) -> Tensor:
    """The values of a dense tensor one after the other as they lie in memory, a view of them."""
    return _in_order(values).view(-1)


def mean_of(f: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """The mean of f over all entries: `f(values).mean()` without the memory and most of the time that takes on a CPU.

    Potentials are the largest tensors there are, so that each operation on all of them waits for memory; here f sees
    pieces that stay in the processor's cache.

    Args:
        f: from float32 (or float64) values to as many, each from its own alone, by torch's differentiable functions.
            Tensors that it takes from elsewhere are constants: no gradient reaches them.
        values: of any shape, say a layer's `potential`.

    Returns:
        A scalar of the values' dtype, with a graph that can be gone through once.
    """
    if values.device.type != "cpu" or not values.requires_grad or values.numel() <= PIECE or not _dense(values):
        return f(values).mean()
    mean: Tensor = _MeanByPieces.apply(values, f)
    return mean


def spike_count(layer: LayerActivity) -> Tensor:
    """How many spikes a layer emitted: float64 scalar on the device."""
    if layer.count is not None:
        return layer.count.double()
    if Read.neuron_counts in layer.sums:
        return layer.neuron_counts.detach().sum(dtype=torch.float64)
    # float32: a sum of ones in bfloat16 stops growing at 256.
    return layer.spikes.detach().sum(dtype=torch.float32).double()


class RateMeter:
    """Spike counts by layer, summed over batches on the device, and the opportunities for spikes.

    A spike rate is spikes / (neurons x time steps x images). `global_rate` takes all neurons
    together, `layer_mean` is the mean of the layers' rates: nandan2022 does not say which of the two
    it reports.

    Args:
        per_neuron: also keep which neurons fired never or always (one boolean each); reads `neuron_counts`.
    """

    def __init__(self, per_neuron: bool = False) -> None:
        self.per_neuron = per_neuron
        self.images = 0
        self.counts: dict[str, Any] = {}
        self.per_image: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.ever: dict[str, Tensor] = {}
        self.always: dict[str, Tensor] = {}

    @property
    def reads(self) -> frozenset[Read]:
        """What it reads of the layers, beyond the number of spikes."""
        return frozenset({Read.neuron_counts} if self.per_neuron else ())

    @torch.no_grad()
    def update(self, activity: Activity) -> None:
        """Add one batch, without waiting for the device; costs a read of the spikes that no kernel has counted.

        Sums stay in the tensors that the first batch made, so that a captured step can write there."""
        for name, layer in activity.items():
            shape = layer.size
            if name not in self.counts:
                self.counts[name], self.per_image[name] = 0, shape[0] * shape[2:].numel()
                self.neurons[name] = shape[2:].numel()
            self.counts[name] += spike_count(layer)
            if self.per_neuron:
                # Extrema, not any and all: torch reduces booleans an order of magnitude slower.
                fired = layer.neuron_counts.detach()
                ever = over_batch(fired, lambda x: x.amax(0)) > 0
                always = over_batch(fired, lambda x: x.amin(0)) == shape[0]
                self.ever[name] = self.ever[name] | ever if name in self.ever else ever
                self.always[name] = self.always[name] & always if name in self.always else always
        if activity:
            self.images += shape[1]

    def rates(self) -> dict[str, float]:
        """Spike rate of each layer."""
        return {name: float(self.counts[name]) / (self.images * self.per_image[name]) for name in self.counts}

    def global_rate(self) -> float:
        """Spikes of all layers over the opportunities of all layers."""
        return sum(map(float, self.counts.values())) / (self.images * sum(self.per_image.values()))

    def layer_mean(self) -> float:
        """Mean of the layers' spike rates."""
        rates = self.rates()
        return sum(rates.values()) / len(rates)

    def layers(self) -> list[dict[str, Any]]:
        """One row a layer: name, neurons, spike_rate, and the fractions of neurons that were dead
        (no spike on any image) or saturated (a spike at every step of every image)."""
        return [
            {
                "name": name,
                "neurons": self.neurons[name],
                "spike_rate": rate,
                "dead": 1.0 - self.ever[name].double().mean().item() if self.per_neuron else None,
                "saturated": self.always[name].double().mean().item() if self.per_neuron else None,
            }
            for name, rate in self.rates().items()
        ]


def fan_out(layer: nn.Conv2d | nn.Linear, shape: torch.Size) -> Tensor | int:
    """How many multiplications one input value takes part in.

    Args:
        layer: the layer that the value enters.
        shape: of the layer's input, `[B, C, H, W]` or `[B, ..., F]`.

    Returns:
        `[C, H, W]` for a convolution (fewer at the borders), the number of outputs for a linear layer.
    """
    if isinstance(layer, nn.Linear):
        return layer.out_features
    with torch.no_grad():
        x = torch.zeros(1, *shape[1:], dtype=torch.float64, requires_grad=True)
        ones = torch.ones(layer.weight.shape, dtype=torch.float64)
        with torch.enable_grad():
            # The gradient of the sum of all outputs, at weights of one, counts the paths.
            out = F.conv2d(x, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            (paths,) = torch.autograd.grad(out.sum(), x)
    return paths[0]


class Operations(ABC):
    """What forward passes cost, counted while `attached`.

    Args:
        spiking: False for a network without spikes, which has no SynOps.

    Attributes:
        synops, nonbinary, macs: totals over `images`, float64 tensors or floats.
    """

    def __init__(self, spiking: bool = True) -> None:
        self.spiking = spiking
        self.synops: Any = 0.0
        self.nonbinary: Any = 0.0
        self.macs = 0.0
        self.images = 0

    @abstractmethod
    def attached(self) -> AbstractContextManager[Any]:
        """Count while this context is open."""

    @abstractmethod
    def batch(self, features: Tensor) -> None:
        """Finish one batch, of features `[T, N, F]`."""

    def per_image(self) -> dict[str, float | None]:
        """synops, nonbinary and macs per image, and the energy in microjoule (`bench.energy`)."""
        synops, nonbinary = float(self.synops) / self.images, float(self.nonbinary) / self.images
        macs = self.macs / self.images
        return {
            "synops_per_image": synops if self.spiking else None,
            "synops_nonbinary_per_image": nonbinary if self.spiking else None,
            "macs_per_image": macs,
            "energy_uj": microjoules(synops, nonbinary, macs),
        }


class OpCounter(Operations):
    """Counts by hooks on every convolution and linear layer.

    SynOps: nonzero inputs times their fan-out, over all time steps, for layers fed by spikes. Sums of
    spikes (SEW's ADD, pooled means) count as one event each, are also reported apart, and cost a
    multiplication. MACs: the multiplications of layers that are fed by analog values (the stem; everything in the
    ReLU twin), padding left out. The head counts its events per time step, though the task averages first.
    """

    def __init__(self, model: SpikingNetwork) -> None:
        super().__init__(model.spec.neuron.name != "relu")
        self.model = model
        self._fan: dict[tuple[nn.Module, torch.Size], Any] = {}

    @contextmanager
    def attached(self) -> Iterator[OpCounter]:
        handles = []
        for module in self.model.modules():
            if module is self.model.head:
                continue
            if isinstance(module, nn.Conv2d | nn.Linear):
                handles.append(module.register_forward_pre_hook(self._before))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def batch(self, features: Tensor) -> None:
        # The head sees features by time step here, though the task averages first.
        self._count(self.model.head, features.flatten(0, 1))
        self.images += features.shape[1]

    def _spikes_seen(self) -> bool:
        """Whether a spiking layer has fired in this pass, or the network is fed with spikes. Asked of the layers: a
        hook on them would keep them from the fused kernels."""
        if self.model.spiking_input:
            return True
        return any(layer.is_spiking and layer.shape is not None for _, layer in self.model.spiking_layers())

    def _before(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._count(module, args[0])

    @torch.no_grad()
    def _count(self, module: Any, x: Tensor) -> None:
        key = (module, x.shape[1:])
        if key not in self._fan:
            fan = fan_out(module, x.shape)
            self._fan[key] = fan.to(x.device) if isinstance(fan, Tensor) else fan
        fan = self._fan[key]
        if not self._spikes_seen():
            self.macs += x.shape[0] * (float(fan.sum()) if isinstance(fan, Tensor) else float(fan * x.shape[-1]))
            return
        # Summed as float32: exact up to 2^24 images, and torch sums booleans several times slower.
        events = over_batch(x, lambda x: (x != 0).float().sum(0))
        graded = events - over_batch(x, lambda x: (x == 1).float().sum(0))
        self.synops = self.synops + (events * fan).sum(dtype=torch.float64)
        self.nonbinary = self.nonbinary + (graded * fan).sum(dtype=torch.float64)
