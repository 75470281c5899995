"""A penalty on how fast the answer changes with the image."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.families import Family
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, positive
from bench.regularizers.stepping import Step
from bench.regularizers.targets import class_weights
from bench.space import Log


def lead(logits: Tensor, y: Tensor) -> Tensor:
    """The softmax share of the right class against the strongest wrong one, `[N]`.

    Args:
        logits: `[N, classes]`.
        y: labels `[N]`, or soft labels `[N, classes]`, whose largest weight is the right class.
    """
    o = logits.float()
    right = class_weights(y, o.shape[-1]).argmax(-1, keepdim=True)
    wrong = o.scatter(-1, right, -torch.inf).amax(-1, keepdim=True)
    return (o.gather(-1, right) - wrong).sigmoid().squeeze(-1)


@REGULARIZERS.register("inputgrad")
class InputGradient(Regularizer):
    """Input gradient: weight times the mean over images of ((f(x + h v) - f(x)) / h)^2, v the sign of f's gradient.

    f is the share of the right class in a softmax over it and the strongest wrong one, so that this is the squared
    derivative along the direction in which an attack would go. Steps are in units of the normalized images.

    Source: Liu et al. 2024 (ICML, gradient regularization of spiking networks), eq. 12 (the number is not verified); h
    as in the authors' repository, whose weight is set on the command line and not stated: 0.01 is ours.

    Args:
        weight: coefficient, 0 or more.
        h: length of the step, above 0.

    Raises:
        BenchError: a negative weight, or a step of 0 or below.
    """

    family = Family.loss
    strength = "weight"
    passes_per_step = 2
    space = {"weight": Log(1e-4, 1.0, authors=0.01, source="not stated; this suite's default")}

    def __init__(self, weight: float = 0.01, h: float = 0.01) -> None:
        super().__init__()
        nonnegative("inputgrad", weight=weight)
        positive("inputgrad", h=h)
        self.weight, self.h = weight, h

    def around_step(self, step: Step) -> None:
        x = step.x.detach().requires_grad_()
        here = step.forward(x)
        f = lead(here.logits, step.y)
        (slope,) = torch.autograd.grad(f.sum(), x, retain_graph=True)
        there = step.forward(step.x + self.h * slope.sign(), told=False)
        change = (lead(there.logits, step.y) - f) / self.h
        step.backward(here.total + self.weight * change.square().mean())
