"""Penalties on answers that are too sure: smoothed labels, low entropy, large logits."""

from __future__ import annotations

from enum import StrEnum

from torch import Tensor
from torch.nn import functional as F

from bench.families import Family
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, probability
from bench.regularizers.targets import class_weights
from bench.space import Choice, Log


class Form(StrEnum):
    """`smooth` mixes labels with the uniform distribution, `confidence` rewards entropy, `logits` shrinks logits."""

    smooth = "smooth"
    confidence = "confidence"
    logits = "logits"


def unsure_loss(logits: Tensor, y: Tensor, weight: float, form: Form = Form.smooth) -> Tensor:
    """Cross-entropy that does not reward certainty.

    `smooth`: CE of (1 - weight) y + weight / classes; `confidence`: CE(y) - weight H(softmax o); `logits`:
    CE(y) + weight times the mean of |o|^2 over images.

    Args:
        logits: o, `[..., N, classes]`; losses of leading axes are averaged.
        y: labels `[N]`, or soft labels `[N, classes]`.
        weight: of the penalty.
        form: which.

    Returns:
        Scalar, float32.
    """
    o, classes = logits.float(), logits.shape[-1]
    target = class_weights(y, classes)
    if form is Form.smooth:
        target = (1 - weight) * target + weight / classes
    logs = F.log_softmax(o, -1)
    loss = -(target * logs).sum(-1).mean()
    if form is Form.confidence:
        loss = loss + weight * (logs.exp() * logs).sum(-1).mean()
    if form is Form.logits:
        loss = loss + weight * o.square().sum(-1).mean()
    return loss


@REGULARIZERS.register("labelsmooth")
class LabelSmoothing(Regularizer):
    """Label smoothing: the right class has a target of 1 - weight + weight / C, every other of weight / C.

    `form=confidence` subtracts weight times the entropy of the answer, `form=logits` adds weight times the squared
    norm of the logits. With `per_step` every time step's answer is judged, as in temporal efficient training.

    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7, eq. 12 and below (numbers not verified); confidence
    penalty: Pereyra et al. 2017 (arXiv 1701.06548), section 3. Squared logits: this suite's reading of the field's use.

    Args:
        weight: of the penalty; for `smooth` the share of the uniform distribution, at most 1.
        form: which penalty, see `Form`.
        per_step: judge each time step's logits instead of their mean.

    Raises:
        BenchError: a negative weight, or one above 1 for `smooth`.
    """

    family = Family.loss
    strength = "weight"
    replayable = True
    space = {
        "weight": Log(1e-3, 0.5, authors=0.1, source="Szegedy et al. 2016, section 7; Composer's default"),
        "form": Choice(("smooth", "confidence", "logits"), authors="smooth", source="Szegedy et al. 2016"),
        "per_step": Choice((False, True), authors=False, source="Szegedy et al. 2016: networks without time"),
    }

    def __init__(self, weight: float = 0.1, form: Form = Form.smooth, per_step: bool = False) -> None:
        super().__init__()
        self.form = Form(form)
        (probability if self.form is Form.smooth else nonnegative)("labelsmooth", weight=weight)
        self.weight, self.per_step = weight, per_step

    def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
        return unsure_loss(logits_t if self.per_step else logits_t.mean(0), y, self.weight, self.form)
