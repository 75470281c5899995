"""A penalty on synaptic operations, spikes times their fan-out."""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from bench.activity import Activity, fan_out
from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.neurons import Read, Spiking
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, positive
from bench.regularizers.needs import spiking
from bench.space import Choice, Linear, Log


class Form(StrEnum):
    """`target` pulls the network's SynOps to a number, `bound` keeps each layer's below one, `plain` adds them up."""

    target = "target"
    bound = "bound"
    plain = "plain"


def synops_of_spikes(model: SpikingNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """SynOps that one spike of each layer causes on average, and the layer's spikes an image.

    Each spike's share is the derivative of all SynOps by it, on the direct ways alone (pooling, residual sums): where
    pooling merges spikes, one of them counts.

    Args:
        model: the network; it is left as it was.
        images: `[N, C, H, W]`, normalized.

    Returns:
        `[L]` each, for the spiking layers in the network's order.
    """
    twin = copy.deepcopy(model).train()
    fired: list[Tensor] = []
    total: list[Tensor] = []

    def cut(_: Spiking, __: Any, out: Tensor) -> Tensor:
        fired.append(out.detach().requires_grad_())
        return fired[-1]

    def count(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        if x.requires_grad:
            fan = fan_out(module, x.shape)
            total.append((x * (fan.to(x) if isinstance(fan, Tensor) else fan)).sum())

    for _, layer in twin.spiking_layers():
        layer.register_forward_hook(cut)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not twin.head:
            module.register_forward_pre_hook(count)
    twin.forget()
    with torch.enable_grad():
        features = twin.features(images)
        count(twin.head, (features.flatten(0, 1),))
        shares = torch.autograd.grad(torch.stack(total).sum(), fired, allow_unused=True)
    spikes = torch.stack([out.detach().float().sum() for out in fired])
    caused = [
        torch.zeros_like(spikes[0]) if share is None else (share * out.detach()).float().sum()
        for share, out in zip(shares, fired, strict=True)
    ]
    return torch.stack(caused) / spikes.clamp(min=1), spikes / len(images)


@REGULARIZERS.register("synops")
class SynOps(Regularizer):
    """SynOps penalty: what spikes cost behind their synapses is pulled to a target, bounded by layer, or added up.

    S_l is the number of layer l's spikes for an image times the SynOps that one of them causes, which is measured at
    the start on 500 training images; S is their sum. `target`: weight ((S - S0) / S0)^2; `bound`: weight times the sum
    over layers of relu((S_l - S_l0) / S_l0)^order; `plain`: weight S / S_start. S0 and S_l0 are `share` of what the
    network has at the start, on those images; `synops` sets S0 itself, for `target`.

    Source: Sorbaro et al. 2020 (Frontiers in Neuroscience 14, 662), eq. 6 for the plain and the target loss (its number
    is not verified); bounds: documentation of sinabs.

    Args:
        weight: coefficient, 0 or more.
        form: which, see `Form`.
        share: of the start's SynOps, above 0.
        synops: S0 of `target`, SynOps an image, above 0; null is `share` of the start's.
        order: of `bound`, 1 or 2.

    Raises:
        BenchError: a number outside its range, or a network without spikes.
    """

    family = Family.activity
    strength = "weight"
    replayable = True
    reads = (Read.rate,)
    space = {
        "weight": Log(1e-2, 30.0, authors=1.0, source="Sorbaro et al. 2020 as users of sinabs set it"),
        "share": Linear(0.1, 0.9, authors=0.5, source="ours: Sorbaro et al. 2020 sweep the target"),
        "form": Choice(("target", "bound", "plain"), authors="target", source="Sorbaro et al. 2020"),
    }

    fan: Tensor
    start: Tensor

    def __init__(
        self,
        weight: float = 1.0,
        form: Form = Form.target,
        share: float = 0.5,
        synops: float | None = None,
        order: int = 2,
    ) -> None:
        super().__init__()
        nonnegative("synops", weight=weight)
        positive("synops", share=share, **({} if synops is None else {"synops": synops}))
        if order not in (1, 2):
            raise BenchError(f"reg.synops.order is {order}, it must be 1 or 2")
        self.weight, self.form, self.share, self.synops, self.order = weight, Form(form), share, synops, order

    def attach(self, model: SpikingNetwork) -> None:
        spiking("synops", model, "spikes")
        layers = len(list(model.spiking_layers()))
        self.register_buffer("fan", torch.zeros(layers))
        self.register_buffer("start", torch.ones(layers))

    def initialize(self, model: SpikingNetwork, images: Tensor) -> None:
        if self.weight > 0:
            fan, spikes = synops_of_spikes(model, images)
            self.fan.copy_(fan)
            # A layer that is silent at the start has the bound of one spike.
            self.start.copy_(fan * spikes.clamp(min=1))

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or not activity:
            return {}
        # Spikes an image: the rate times neurons and time steps.
        sizes = [layer.size[0] * layer.size[2:].numel() for layer in activity.values()]
        spikes = torch.stack([layer.rate * size for layer, size in zip(activity.values(), sizes, strict=True)])
        # A network that was silent at the start has no fan-out: then nothing is penalised.
        own, start = self.fan * spikes, self.start.sum().clamp(min=1)
        if self.form is Form.plain:
            term = own.sum() / start
        elif self.form is Form.target:
            wanted = self.share * start if self.synops is None else self.synops
            term = torch.where(self.start.sum() > 0, own.sum() / wanted - 1, 0.0).square()
        else:
            bounds = (self.share * self.start).clamp(min=1e-12)
            over = torch.where(self.fan > 0, own / bounds - 1, 0.0)
            term = over.relu().pow(self.order).sum()
        return {"synops": self.weight * term}
