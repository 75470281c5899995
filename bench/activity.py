"""What the spiking layers did in a forward pass: spikes and their rates, SynOps, dead and saturated neurons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.energy import microjoules
from bench.models.base import SpikingNetwork
from bench.neurons.layer import Use


@dataclass
class LayerActivity:
    """One spiking layer in one forward pass.

    Attributes:
        kept: the spikes; None where nobody reads them and a kernel left them out.
        potential: `[T, N, ...]` membrane potential before the reset; None unless a regularizer asked
            for it (`needs_potential`).
        count: how many spikes there were, a scalar on the device, where a kernel has counted them.
        shape: `[T, N, ...]`, where the spikes are left out.
    """

    kept: Tensor | None
    potential: Tensor | None = None
    count: Tensor | None = None
    shape: torch.Size | None = None

    @property
    def spikes(self) -> Tensor:
        """`[T, N, ...]` zeros and ones, with their graph; the ReLU twin's activations.

        Raises:
            RuntimeError: they were left out. The task keeps them for every regularizer that overrides `penalty` or
                `after_step`.
        """
        if self.kept is None:
            raise RuntimeError("this pass kept no spikes, only their count")
        return self.kept


Activity = dict[str, LayerActivity]
"""Layer name -> its activity, in the network's order."""


def activity_of(model: SpikingNetwork) -> Activity:
    """The activity of the model's last forward pass; a layer that was used again has `name#2`, `name#3`, ... for it."""
    return {
        f"{name}#{place}" if place > 1 else name: LayerActivity(use.fired, use.potential, use.count, use.shape)
        for name, layer in model.spiking_layers()
        if layer.shape is not None
        for place, use in enumerate([*layer.earlier, Use(layer.fired, layer.potential, layer.count, layer.shape)], 1)
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


def spike_count(layer: LayerActivity) -> Tensor:
    """How many spikes a layer emitted: float64 scalar on the device."""
    if layer.count is not None:
        return layer.count.double()
    # float32: a sum of ones in bfloat16 stops growing at 256.
    return layer.spikes.detach().sum(dtype=torch.float32).double()


class RateMeter:
    """Spike counts by layer, summed over batches on the device, and the opportunities for spikes.

    A spike rate is spikes / (neurons x time steps x images). `global_rate` takes all neurons
    together, `layer_mean` is the mean of the layers' rates: nandan2022 does not say which of the two
    it reports.

    Args:
        per_neuron: also keep which neurons fired never or always (one boolean each).
    """

    def __init__(self, per_neuron: bool = False) -> None:
        self.per_neuron = per_neuron
        self.images = 0
        self.counts: dict[str, Any] = {}
        self.per_image: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.ever: dict[str, Tensor] = {}
        self.always: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, activity: Activity) -> None:
        """Add one batch, without waiting for the device; costs a read of the spikes that no kernel has counted.

        Sums stay in the tensors that the first batch made, so that a captured step can write there."""
        for name, layer in activity.items():
            shape = layer.spikes.shape if layer.shape is None else layer.shape
            if name not in self.counts:
                self.counts[name], self.per_image[name] = 0, shape[0] * shape[2:].numel()
                self.neurons[name] = shape[2:].numel()
            self.counts[name] += spike_count(layer)
            if self.per_neuron:
                # Extrema, not any and all: torch reduces booleans an order of magnitude slower.
                fired = layer.spikes.detach().flatten(0, 1)
                ever = over_batch(fired, lambda x: x.amax(0)) > 0
                always = over_batch(fired, lambda x: x.amin(0)) > 0
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
