"""Bounds on how often neurons fire."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from bench.activity import Activity, LayerActivity, mean_of
from bench.errors import BenchError
from bench.families import Family
from bench.neurons import Read
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.space import Choice, Log


class Population(StrEnum):
    """Whose mean the upper bound holds: each neuron's, that of a channel's neurons, or of a layer's."""

    neuron = "neuron"
    channel = "channel"
    layer = "layer"


def lower_bound(counts: Tensor, bound: float, order: int = 2) -> Tensor:
    """Mean over images and neurons of relu(bound - count)^order.

    Args:
        counts: how often each neuron fired for each image, `[N, ...]`.
        bound: in spikes.
        order: 1 or 2.
    """
    return mean_of(lambda count: (bound - count).relu().pow(order), counts)


def upper_bound(counts: Tensor, bound: float, order: int = 2) -> Tensor:
    """Mean over images and populations of relu(count - bound)^order.

    Args:
        counts: mean count of each population for each image, `[N, ...]`.
        bound: in spikes.
        order: 1 or 2.
    """
    return mean_of(lambda count: (count - bound).relu().pow(order), counts)


@REGULARIZERS.register("ratebounds")
class RateBounds(Regularizer):
    """Rate bounds: neurons that fire less often than a lower bound, and populations above an upper one, are penalised.

    weight times the sum over spiking layers of lower_weight mean relu(T lower - zeta)^order over neurons and mean
    relu(mean zeta - T upper)^order over populations, zeta being a neuron's spikes for an image. Bounds are rates, so
    that they hold for any number of time steps T. Common penalties are settings of this one: `lower=0 upper=0
    population=neuron` is the L1 or L2 norm of the counts by `order`, and `lower=x upper=x population=neuron order=2`
    pulls every count to a target.

    Source: Zenke & Vogels 2021 (Neural Computation 33, 899-925), eqs. 10 and 11; populations: Cramer et al. 2022
    (arXiv 2006.07239). The values of their code, 100 and 1e-3 spikes below, 0.1 and 7 or 10 spikes above, are for
    hundreds of time steps; those here are ours.

    Args:
        weight: coefficient of both, 0 or more.
        lower: rate below which a neuron is pushed up, spikes per time step; 0 leaves that out.
        upper: rate above which a population is pushed down.
        lower_weight: factor of the lower bound.
        order: 1 or 2.
        population: whose mean the upper bound holds, see `Population`.

    Raises:
        BenchError: a negative number, another order, or a lower bound above the upper one.
    """

    family = Family.activity
    strength = "weight"
    replayable = True
    space = {
        "weight": Log(1e-3, 10.0, authors=0.1, source="Zenke & Vogels 2021, their code: upper bound"),
        "upper": Log(0.01, 0.3, authors=0.1, source="ours: the authors' is for hundreds of time steps"),
        "population": Choice(("neuron", "channel", "layer"), authors="layer", source="Zenke & Vogels 2021"),
    }

    def __init__(
        self,
        weight: float = 0.1,
        lower: float = 0.01,
        upper: float = 0.1,
        lower_weight: float = 1.0,
        order: int = 2,
        population: Population = Population.layer,
    ) -> None:
        super().__init__()
        nonnegative("ratebounds", weight=weight, lower=lower, upper=upper, lower_weight=lower_weight)
        if order not in (1, 2):
            raise BenchError(f"reg.ratebounds.order is {order}, it must be 1 or 2")
        if lower > upper:
            raise BenchError(f"reg.ratebounds.lower is {lower:g}, it must not be above upper, which is {upper:g}")
        self.weight, self.lower, self.upper, self.lower_weight = weight, lower, upper, lower_weight
        self.order, self.population = order, Population(population)
        pushes_up = lower > 0 and lower_weight > 0
        counts = (Read.neuron_counts,) if pushes_up or self.population is Population.neuron else ()
        self.reads = (*counts, *(() if self.population is Population.neuron else (Read.channel_rates,)))

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or not activity:
            return {}
        return {"ratebounds": self.weight * torch.stack([self.of(layer) for layer in activity.values()]).sum()}

    def of(self, layer: LayerActivity) -> Tensor:
        """What one layer adds, without the weight."""
        steps = layer.size[0]
        if self.population is Population.neuron:
            counts = layer.neuron_counts
        else:
            counts = steps * layer.channel_rates
            if self.population is Population.layer:
                counts = counts.mean(1)
        term = upper_bound(counts, steps * self.upper, self.order)
        if self.lower > 0 and self.lower_weight > 0:
            term = term + self.lower_weight * lower_bound(layer.neuron_counts, steps * self.lower, self.order)
        return term
