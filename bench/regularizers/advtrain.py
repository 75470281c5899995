"""Adversarial training: images are moved to where the loss is highest nearby."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ranges import Numbers
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.regularizers.stepping import Step
from bench.space import Choice, Log


class Form(StrEnum):
    """`pgd` trains on attacked images alone (one step of it is FGSM), `trades` on clean ones and on the agreement."""

    pgd = "pgd"
    trades = "trades"


@REGULARIZERS.register("advtrain")
class AdversarialTraining(Regularizer):
    """Adversarial training: each step trains on images within eps, pixel by pixel, where the loss is highest.

    They are found by `steps` steps of 2.5 eps / steps (eps for one step: FGSM) along the sign of the gradient, from a
    random start if there are several. `trades` keeps the clean loss and adds beta KL(p(x) || p(x + d)), and finds d by
    that divergence. Pixels stay in [0, 1].

    Source: FGSM, Goodfellow et al. 2015 (arXiv 1412.6572), section 4; PGD, Madry et al. 2018 (arXiv 1706.06083),
    eq. 2.1; TRADES, Zhang et al. 2019 (arXiv 1901.08573), eq. 5 (the number is not verified). On spiking networks
    2/255 with two steps (arXiv 2511.12199), and 8/255 with five and a beta of 5 for TRADES.

    Args:
        eps: radius in pixels of [0, 1]; 0 attacks nothing.
        steps: of the attack.
        form: which training, see `Form`.
        beta: of TRADES.

    Raises:
        BenchError: a negative number, or no step.
    """

    family = Family.data
    strength = "eps"
    passes_per_step = 3
    space = {
        "eps": Log(0.002, 0.1, authors=0.0078, source="arXiv 2511.12199: 2/255"),
        "form": Choice(("pgd", "trades"), authors="pgd", source="arXiv 2511.12199"),
    }

    def __init__(self, eps: float = 2 / 255, steps: int = 2, form: Form = Form.pgd, beta: float = 5.0) -> None:
        super().__init__()
        nonnegative("advtrain", eps=eps, beta=beta)
        Numbers("reg.advtrain.").at_least(1, steps=steps)
        self.eps, self.steps, self.form, self.beta = eps, steps, Form(form), beta
        self.passes_per_step = steps + (2 if self.form is Form.trades else 1)
        self.mean: tuple[float, ...] = (0.0,)
        self.std: tuple[float, ...] = (1.0,)

    def attach(self, model: SpikingNetwork) -> None:
        self.mean, self.std = model.spec.mean, model.spec.std

    def around_step(self, step: Step) -> None:
        if self.form is Form.pgd:
            step.backward(step.forward(self.attacked(step, None)).total)
            return
        clean = step.forward()
        target = clean.logits.detach().float().softmax(-1)
        there = step.forward(self.attacked(step, target), told=False)
        step.backward(clean.total + self.beta * self.divergence(there.logits, clean.logits.float().softmax(-1)))

    @staticmethod
    def divergence(logits: Tensor, target: Tensor) -> Tensor:
        """KL(target || softmax(logits)), mean over images."""
        return F.kl_div(F.log_softmax(logits.float(), -1), target, reduction="batchmean")

    def attacked(self, step: Step, target: Tensor | None) -> Tensor:
        """Images near the step's where the loss is high, or the divergence from `target` where there is one."""
        mean, std = (step.x.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        clean = step.x.detach()
        eps, low, high = self.eps / std, -mean / std, (1 - mean) / std
        x = clean
        if self.steps > 1 or target is not None:
            # At the clean image itself the divergence has no gradient.
            x = clean + (2 * torch.rand_like(clean) - 1) * eps
        length = self.eps if self.steps == 1 else 2.5 * self.eps / self.steps
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            there = step.forward(x, told=False)
            measure = there.loss if target is None else self.divergence(there.logits, target)
            (slope,) = torch.autograd.grad(measure, x)
            moved = x.detach() + length / std * slope.sign()
            x = torch.maximum(torch.minimum(moved, clean + eps), clean - eps)
            x = torch.maximum(torch.minimum(x, high), low)
        return x.detach()
