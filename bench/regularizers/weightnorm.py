"""Weight normalization in place of batch norm, with mean-only batch norm and data-dependent start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ops import ConvNorm
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.space import Choice


def channel_mean(x: Tensor) -> Tensor:
    """Mean of each channel, `[B, C, ...]` to `[C]`, in float32 at least."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    # A mean in bfloat16 would keep two digits.
    return x.mean(axes, dtype=torch.promote_types(x.dtype, torch.float32))


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """`[C]` with axes of size 1 around, so that it broadcasts against `like` of `[B, C, ...]`."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


class MeanOnlyBatchNorm(nn.Module):
    """Batch norm that subtracts the batch's mean and does not divide, with learnable scale and shift.

    Shapes: `[B, C, ...]` in and out; B is T * N behind the static stem, whose own B is N.

    Source: Salimans & Kingma 2016 (arXiv 1602.07868), eq. 7; nandan2022, section 4.1 ("with affine").

    Args:
        channels: C.
        momentum: share of the newest batch in the running mean, which eval mode subtracts.
    """

    running_mean: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean = channel_mean(x)
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        else:
            mean = self.running_mean
        out = (x - per_channel(mean, x)) * per_channel(self.weight, x) + per_channel(self.bias, x)
        return out.to(x.dtype)


def transformations(layer: Any) -> Any:
    """What transforms the layer's weight (torch's `ParametrizationList`); empty if nothing does."""
    return layer.parametrizations.weight if parametrize.is_parametrized(layer, "weight") else []


def normalize_weight(layer: nn.Conv2d | nn.Linear) -> None:
    """Put w = g v / ||v|| (nandan2022, eq. 4.1) at the layer's weight, one g an output unit.

    What already transforms the weight goes on doing so, after the normalization: torch takes a
    transformation that needs two tensors, as this one does, only as the first.
    """
    later = list(transformations(layer))
    if later:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    weight_norm(layer, "weight", dim=0)
    for transformation in later:
        parametrize.register_parametrization(layer, "weight", transformation)


@torch.no_grad()
def scale_weight(layer: nn.Conv2d | nn.Linear, factor: Tensor) -> None:
    """Multiply the layer's weight in place, also under weight normalization.

    There ||v|| keeps its value, so a row that the factor makes 0 has g = 0 and a v that can still be
    normalized.

    Args:
        layer: with a plain weight `[O, I, ...]` or one under `normalize_weight`.
        factor: broadcasts against the weight.

    Raises:
        BenchError: something else transforms the weight.
    """
    chain = transformations(layer)
    if not chain:
        layer.weight.mul_(factor)
        return
    if not hasattr(chain, "original1") or len(chain) != 1:
        others = ", ".join(type(transformation).__name__ for transformation in chain)
        raise BenchError(f"the weight of a layer is transformed by {others} and can't be scaled in place")
    g, v = chain.original0, chain.original1
    scaled = v * factor
    ratio = torch.norm_except_dim(scaled, 2, 0) / torch.norm_except_dim(v, 2, 0)
    g.mul_(ratio)
    v.copy_(torch.where(ratio > 0, scaled / ratio, v))


@REGULARIZERS.register("weightnorm")
class WeightNorm(Regularizer):
    """Weight normalization of every convolution, replacing batch norm: w = g v / ||v||.

    Convolutions keep their bias, also under mean-only batch norm, where it has no effect.

    Source: nandan2022 (arXiv 2201.02538), eq. 4.1; Salimans & Kingma 2016 (arXiv 1602.07868), eq. 2,
    eqs. 5 and 6 (data-dependent start), eq. 7 (mean-only batch norm).

    Args:
        mean_only_bn: subtract the batch's mean behind each convolution, see `MeanOnlyBatchNorm`.
        data_init: start from v ~ N(0, 0.05^2) and g, b such that each channel's input current has
            mean 0 and variance 1 over some training images and all time steps, layer by layer.
    """

    family = Family.normalization
    replaces = ("normalization",)
    identity_in_eval = False
    replayable = True
    space = {
        "mean_only_bn": Choice((False, True), authors=False, source="nandan2022, table 4.1"),
        "data_init": Choice((False, True), authors=False, source="nandan2022, table 4.2"),
    }

    def __init__(self, mean_only_bn: bool = False, data_init: bool = False) -> None:
        super().__init__()
        self.mean_only_bn, self.data_init = mean_only_bn, data_init

    def attach(self, model: SpikingNetwork) -> None:
        for block in self._blocks(model):
            weight = block.conv.weight
            block.norm = MeanOnlyBatchNorm(len(weight)).to(weight) if self.mean_only_bn else nn.Identity()
            normalize_weight(block.conv)

    @torch.no_grad()
    def initialize(self, model: SpikingNetwork, images: Tensor) -> None:
        if not self.data_init:
            return
        handles = []
        for block in self._blocks(model):
            chain = transformations(block.conv)
            chain.original0.fill_(1.0)
            chain.original1.normal_(std=0.05)
            if block.conv.bias is not None:
                block.conv.bias.zero_()
            handles.append(block.conv.register_forward_hook(self._start))
        # Eval mode: dropout and other regularizers' clocks stay out of the statistics.
        was_training = model.training
        model.eval()
        model.forget()
        try:
            # One pass is enough: each layer sees what the layers before it give after their start.
            model.features(images)
        finally:
            for handle in handles:
                handle.remove()
            model.train(was_training)
            model.forget()

    def bake(self, model: SpikingNetwork) -> None:
        for block in self._blocks(model):
            if transformations(block.conv):
                parametrize.remove_parametrizations(block.conv, "weight")

    @staticmethod
    def _blocks(model: SpikingNetwork) -> Iterator[ConvNorm]:
        yield from [module for module in model.modules() if isinstance(module, ConvNorm)]

    @staticmethod
    def _start(conv: nn.Conv2d, inputs: tuple[Tensor, ...], t: Tensor) -> Tensor:
        """g = 1 / sqrt(var + 1e-8), b = -mean g of the current t `[B, C, H, W]` that g = 1, b = 0 gave."""
        mean = channel_mean(t)
        centred = t - per_channel(mean, t)
        g = (channel_mean(centred.square()) + 1e-8).rsqrt()
        transformations(conv).original0.copy_(g.view(-1, 1, 1, 1))
        if conv.bias is None:
            return (t * per_channel(g, t)).to(t.dtype)
        conv.bias.copy_(-mean * g)
        return (centred * per_channel(g, t)).to(t.dtype)
