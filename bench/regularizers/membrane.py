"""Penalties that draw membrane potentials to where they say much."""

from __future__ import annotations

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
from bench.space import Choice, Log


class Form(StrEnum):
    """`rmp` draws each potential to the spike that it becomes, `im` the mean potential to the threshold."""

    rmp = "rmp"
    im = "im"


def rmp_loss(potential: Tensor, threshold: float, order: float = 2.0) -> Tensor:
    """Mean of min(|x|, |1 - x|)^order with x = u / (2 threshold).

    With the authors' threshold of 1/2 that is |u - s|^order, s being the spike that u becomes.

    Args:
        potential: u before the reset, `[T, N, ...]`.
        threshold: of the neurons.
        order: p.
    """

    def lost(u: Tensor) -> Tensor:
        x = u / (2 * threshold)
        # |x - 1| from 1/2 on, and |x| below.
        off = x - (x >= 0.5).to(x.dtype)
        return off.square() if order == 2 else off.abs().pow(order)

    return mean_of(lost, potential.float())


def im_loss(potential: Tensor, threshold: float) -> Tensor:
    """(mean of u - threshold)^2, which is 0 where a neuron of symmetrically distributed potentials fires half the time.

    Args:
        potential: u before the reset, `[T, N, ...]`.
        threshold: of the neurons.
    """
    return (potential.float().mean() - threshold).square()


@REGULARIZERS.register("membrane")
class Membrane(Regularizer):
    """Membrane potential losses: potentials are drawn to the spikes they become (rmp), or to the threshold (im).

    `rmp`: weight times the mean over spiking layers of the mean of min(|x|, |1 - x|)^order, x = u / (2 threshold):
    what rounding a potential to a spike loses. `im`: weight times the sum over spiking layers of (mean u -
    threshold)^2, since a spike of probability 1/2 says most. The authors let the weight of `rmp` rise and fall over
    the training by a schedule that could not be verified: it is constant here.

    Source: RMP-Loss, Guo et al. 2023 (ICCV, arXiv 2308.06787), eq. 9; IM-Loss, Guo et al. 2022 (NeurIPS), eq. 11 (the
    numbers are not verified). 0.1 for `rmp` is not verified; for `im` 0.005 is in the authors' code.

    Args:
        weight: coefficient, 0 or more.
        form: which, see `Form`.
        order: of `rmp`, above 0.

    Raises:
        BenchError: a negative weight, an order of 0 or below, or a network without potentials.
    """

    family = Family.potentials
    strength = "weight"
    replayable = True
    reads = (Read.potential,)
    space = {
        "weight": Log(1e-4, 10.0, authors=0.1, source="arXiv 2308.06787, not verified"),
        "form": Choice(("rmp", "im"), authors="rmp", source="arXiv 2308.06787; im: Guo et al. 2022"),
    }

    def __init__(self, weight: float = 0.1, form: Form = Form.rmp, order: float = 2.0) -> None:
        super().__init__()
        nonnegative("membrane", weight=weight)
        positive("membrane", order=order)
        self.weight, self.form, self.order = weight, Form(form), order
        self.threshold = 1.0

    def attach(self, model: SpikingNetwork) -> None:
        spiking("membrane", model, "potentials")
        self.threshold = model.spec.neuron.v_threshold

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or not activity:
            return {}
        if self.form is Form.im:
            terms = torch.stack([im_loss(layer.potential, self.threshold) for layer in activity.values()]).sum()
        else:
            each = [rmp_loss(layer.potential, self.threshold, self.order) for layer in activity.values()]
            terms = torch.stack(each).mean()
        return {"membrane": self.weight * terms}
