"""Penalties on membrane potentials near the threshold, where small changes flip spikes."""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor

from bench.activity import Activity, mean_of
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.neurons import Read
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, positive
from bench.regularizers.needs import spiking
from bench.space import Choice, Linear, Log


class Form(StrEnum):
    """`hinge` pushes each potential a margin away, `gaussian` lowers the share of a channel's potentials near it."""

    hinge = "hinge"
    gaussian = "gaussian"


def hinge_margin(potential: Tensor, threshold: float, margin: float) -> Tensor:
    """Mean of relu(margin - |u - threshold|).

    Args:
        potential: u before the reset, `[T, N, ...]`.
        threshold: of the neurons.
        margin: delta, in units of the potential.
    """
    return mean_of(lambda u: (margin - (u - threshold).abs()).relu(), potential.float())


def gaussian_mass(potential: Tensor, threshold: float, margin: float) -> Tensor:
    """Mean over time steps and channels of Phi((mu + margin) / sigma) - Phi((mu - margin) / sigma).

    mu and sigma are mean and standard deviation of u - threshold over images and space: the share of potentials within
    the margin, were they normal.

    Args:
        potential: u before the reset, `[T, N, C, ...]`.
        threshold: of the neurons.
        margin: gamma, in units of the potential.
    """
    off = potential.float() - threshold
    axes = (1, *range(3, off.ndim))
    mean = off.mean(axes)
    # No square root of 0: a channel whose potentials are all the same has no gradient there.
    deviation = (off.square().mean(axes) - mean.square()).clamp(min=1e-8).sqrt()
    high, low = (torch.special.ndtr((mean + side * margin) / deviation) for side in (1, -1))
    return (high - low).mean()


@REGULARIZERS.register("margin")
class Margin(Regularizer):
    """Threshold margin: potentials near the threshold are penalised, as an attack or noise flips their spikes first.

    `hinge`: weight times the sum over spiking layers of the mean of relu(margin - |u - threshold|), the weight rising
    over the training by a half cosine from 0. `gaussian`: weight times the mean over layers, channels and time steps
    of the share of potentials within the margin, were they normal.

    Source: `hinge`, threshold guarding, arXiv 2602.20548 (ICLR 2026), eq. 8; `gaussian`, MPD-SGR, arXiv 2511.12199
    (AAAI 2026), eq. 10 (the numbers are not verified). The authors' margins could not be verified: 2 / (pi alpha),
    where the ATan surrogate's slope is half, is ours; nor could the weight of `gaussian`.

    Args:
        weight: coefficient, 0 or more (`hinge`: 0.4 for WRN-16, 0.6 for VGG-11).
        form: which, see `Form`.
        margin: in units of the potential, above 0; null is 2 / (pi alpha) of the surrogate.

    Raises:
        BenchError: a negative weight, a margin of 0 or below, or a network without potentials.
    """

    family = Family.potentials
    strength = "weight"
    replayable = True
    reads = (Read.potential,)
    space = {
        "weight": Log(1e-3, 10.0, authors=0.4, source="arXiv 2602.20548, WRN-16"),
        "form": Choice(("hinge", "gaussian"), authors="hinge", source="arXiv 2602.20548; gaussian: 2511.12199"),
        "margin": Linear(0.05, 1.0, authors=0.318, source="ours: half the slope of ATan with alpha 2"),
    }

    def __init__(self, weight: float = 0.4, form: Form = Form.hinge, margin: float | None = None) -> None:
        super().__init__()
        nonnegative("margin", weight=weight)
        if margin is not None:
            positive("margin", margin=margin)
        self.weight, self.form, self.margin = weight, Form(form), margin
        self.threshold, self.width = 1.0, 1 / math.pi if margin is None else margin

    def attach(self, model: SpikingNetwork) -> None:
        spiking("margin", model, "potentials")
        neuron = model.spec.neuron
        self.threshold = neuron.v_threshold
        if self.margin is None:
            self.width = 2 / (math.pi * neuron.alpha)

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or not activity:
            return {}
        measure = hinge_margin if self.form is Form.hinge else gaussian_mass
        terms = torch.stack([measure(layer.potential, self.threshold, self.width) for layer in activity.values()])
        if self.form is Form.gaussian:
            return {"margin": self.weight * terms.mean()}
        return {"margin": self.weight * 0.5 * (1 - torch.cos(math.pi * self.progress)) * terms.sum()}
