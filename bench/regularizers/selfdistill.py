"""Temporal self-distillation: time steps of one network teach each other."""

from __future__ import annotations

from enum import StrEnum

from torch import Tensor
from torch.nn import functional as F

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, positive
from bench.regularizers.needs import several_steps
from bench.regularizers.targets import class_weights, kl, per_step_cross_entropy
from bench.space import Choice, Log


class Form(StrEnum):
    """Who teaches: the surest time step the least sure one, the other way round, or the right steps all of them."""

    strong_to_weak = "strong_to_weak"
    weak_to_strong = "weak_to_strong"
    right = "right"


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / temperature) || softmax(student / temperature)), mean over all axes but the last.

    The teacher has no gradient.

    Args:
        teacher: logits `[..., classes]`.
        student: logits that it broadcasts to.
        temperature: above 0.
    """
    return kl(teacher.detach() / temperature, student / temperature).mean()


def extreme_steps_loss(logits_t: Tensor, y: Tensor, weight: float, temperature: float, strong_teaches: bool) -> Tensor:
    """CE(mean over t of o_t, y) plus weight times temperature^2 times the divergence between two time steps.

    These are the one whose mean confidence over the batch, max over classes of softmax o_t, is highest, and the one
    whose is lowest.

    Args:
        logits_t: `[T, N, classes]`.
        y: labels `[N]`, or soft labels `[N, classes]`.
        weight: of the distillation.
        temperature: of both sides.
        strong_teaches: whether the surest step is the teacher.

    Returns:
        Scalar, float32.
    """
    o = logits_t.float()
    confidence = o.detach().softmax(-1).amax(-1).mean(-1)
    # Gathered by a tensor: a number that Python reads would stop the GPU, and no replayed step would see another.
    strong, weak = (o.index_select(0, place.view(1))[0] for place in (confidence.argmax(), confidence.argmin()))
    teacher, student = (strong, weak) if strong_teaches else (weak, strong)
    taught = weight * temperature**2 * divergence(teacher, student, temperature)
    return F.cross_entropy(o.mean(0), y) + taught


def right_steps_loss(logits_t: Tensor, y: Tensor, weight: float, temperature: float) -> Tensor:
    """Mean over t of CE(o_t, y) + weight temperature^2 KL(softmax(q / temperature) || softmax(o_t / temperature)).

    q is, for each image, the mean of the logits of those time steps that classify it rightly; an image that none does
    teaches nothing, and counts as 0 in the mean over the batch.

    Args:
        logits_t: `[T, N, classes]`.
        y: labels `[N]`, or soft labels `[N, classes]`, whose largest weight is the right class.
        weight: of the distillation.
        temperature: of both sides.

    Returns:
        Scalar, float32.
    """
    o = logits_t.float()
    label = class_weights(y, o.shape[-1]).argmax(-1)
    right = (o.argmax(-1) == label).float()  # [T, N]
    count = right.sum(0)
    teacher = (o.detach() * right[..., None]).sum(0) / count.clamp(min=1)[:, None]
    each = kl(teacher / temperature, o / temperature) * (count > 0)
    return per_step_cross_entropy(o, y) + weight * temperature**2 * each.mean()


@REGULARIZERS.register("selfdistill")
class SelfDistillation(Regularizer):
    """Temporal self-distillation: the surest time step of a batch teaches the least sure one, or the other way round.

    Both divergences are multiplied by the squared temperature, as is usual where softened answers are learned. With
    `form=right` every step has a loss of its own and learns from the mean of those steps that were right.

    Source: Ding et al. 2025 (arXiv 2510.07924), strong to weak and weak to strong, eq. 8 (its number is not verified);
    `right`: Yu et al. 2025 (ICML, arXiv 2501.15925), temperature 3 in the authors' repository, weight not stated.

    Args:
        weight: of the distillation, 0 or more.
        form: who teaches, see `Form`.
        temperature: above 0; null is the authors': 2, and 3 for `right`.

    Raises:
        BenchError: a negative weight, a temperature of 0 or below, or a network of one time step.
    """

    family = Family.loss
    strength = "weight"
    replayable = True
    space = {
        "weight": Log(0.03, 10.0, authors=1.0, source="Ding et al. 2025"),
        "form": Choice(("strong_to_weak", "weak_to_strong", "right"), authors="strong_to_weak",
                       source="Ding et al. 2025; right: Yu et al. 2025"),
    }  # fmt: skip

    def __init__(self, weight: float = 1.0, form: Form = Form.strong_to_weak, temperature: float | None = None) -> None:
        super().__init__()
        nonnegative("selfdistill", weight=weight)
        self.weight, self.form = weight, Form(form)
        self.temperature = (3.0 if self.form is Form.right else 2.0) if temperature is None else temperature
        positive("selfdistill", temperature=self.temperature)

    def attach(self, model: SpikingNetwork) -> None:
        several_steps("selfdistill", model)

    def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
        if self.form is Form.right:
            return right_steps_loss(logits_t, y, self.weight, self.temperature)
        strong = self.form is Form.strong_to_weak
        return extreme_steps_loss(logits_t, y, self.weight, self.temperature, strong)
