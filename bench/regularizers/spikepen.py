"""Penalty on spikes, squared or of first order."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from bench.activity import Activity, LayerActivity
from bench.errors import BenchError
from bench.families import Family
from bench.neurons import Read
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.space import Choice, Log


class Scale(StrEnum):
    """Factor of the first-order term: `literal` keeps 1/(2KN), `matched` doubles it."""

    literal = "literal"
    matched = "matched"


def spike_penalty(layer: LayerActivity, order: int = 2, scale: Scale = Scale.literal) -> Tensor:
    """1/(2KN) times the sum of S^order, averaged over the batch (nandan2022, eq. 3.1).

    Order 2 has no gradient where the neuron was silent, since d(S^2) = 2 S dS; order 1 has.

    Args:
        layer: of spikes `[T, N, ...]`: T is the paper's N, all axes after the batch its K.
        order: 1 or 2.
        scale: with `matched`, order 1 has the gradient of order 2 at a spike.

    Returns:
        Scalar, float32 at least.
    """
    if order == 2:
        return 0.5 * layer.squared_rate
    return (1.0 if scale is Scale.matched else 0.5) * layer.rate


@REGULARIZERS.register("spikepen")
class SpikePenalty(Regularizer):
    """Spike penalty: weight times the sum over spiking layers of the mean (squared) spikes.

    Source: nandan2022 (arXiv 2201.02538), eq. 3.1; Pellegrini, Zimmer & Masquelier 2021
    (arXiv 2011.06846). The thesis does not say how layers are joined: their sum is our choice.

    Args:
        weight: coefficient, 0 or more (the thesis: 0 to 10).
        order: 2 penalises S^2, 1 penalises S.
        scale: factor of order 1, see `Scale`.
        layer_weights: one factor a spiking layer, in the network's order; null means 1 for each.
        increasing: weigh layer i of L by (i + 1) / L on top.

    Raises:
        BenchError: negative weight, another order, or factors that do not fit the layers.
    """

    family = Family.activity
    strength = "weight"
    replayable = True
    space = {
        "weight": Log(1e-3, 10.0, authors=0.05, source="nandan2022, table 3.1: best of 0 to 10"),
        "order": Choice((2, 1), authors=2, source="nandan2022, eq. 3.1"),
    }

    def __init__(
        self,
        weight: float = 0.1,
        order: int = 2,
        scale: Scale = Scale.literal,
        layer_weights: list[float] | None = None,
        increasing: bool = False,
    ) -> None:
        super().__init__()
        nonnegative("spikepen", weight=weight)
        if order not in (1, 2):
            raise BenchError(f"reg.spikepen.order is {order}, it must be 1 or 2")
        for factor in layer_weights or []:
            nonnegative("spikepen", layer_weights=factor)
        self.weight, self.order, self.scale = weight, order, Scale(scale)
        self.layer_weights, self.increasing = layer_weights, increasing
        self.reads = (Read.rate if order == 1 else Read.squared_rate,)

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or not activity:
            return {}
        layers = len(activity)
        factors = self.layer_weights if self.layer_weights is not None else [1.0] * layers
        if len(factors) != layers:
            raise BenchError(
                f"reg.spikepen.layer_weights has {len(factors)} numbers, but the network has {layers} spiking layers"
            )
        if self.increasing:
            factors = [f * (i + 1) / layers for i, f in enumerate(factors)]
        terms = [f * spike_penalty(a, self.order, self.scale) for f, a in zip(factors, activity.values(), strict=True)]
        return {"spikepen": self.weight * torch.stack(terms).sum()}
