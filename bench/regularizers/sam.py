"""Sharpness-aware minimization: gradients from where the loss is worst nearby."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.families import Family
from bench.ranges import Numbers
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.regularizers.stepping import Step
from bench.space import Choice, Log


@torch.no_grad()
def climb(parameters: list[nn.Parameter], rho: float, adaptive: bool = False) -> list[Tensor]:
    """Where the loss is highest at a distance rho, to first order: what each parameter is to be moved by.

    rho g / |g|, g being all gradients together; adaptive: rho w^2 g / | |w| g |, so that the scale of a weight does not
    matter.

    Args:
        parameters: with their gradients.
        rho: the distance.
        adaptive: ASAM's.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    scaled = [p.abs() * g for p, g in zip(parameters, grads, strict=True)] if adaptive else grads
    norm = torch.stack([torch.linalg.vector_norm(g) for g in scaled]).square().sum().sqrt().clamp(min=1e-12)
    if adaptive:
        return [rho * p.square() * g / norm for p, g in zip(parameters, grads, strict=True)]
    return [rho * g / norm for g in grads]


@REGULARIZERS.register("sam")
class SAM(Regularizer):
    """SAM: each step descends the gradient at w + rho g / |g|, where the loss is highest near w, to first order.

    The second pass draws masks anew, leaves batch norm's statistics alone and is not reported. `adaptive` is ASAM. With
    an interval, the steps between are plain ones, which saves most of the second passes.

    Source: Foret et al. 2021 (arXiv 2010.01412), eqs. 2 and 3; ASAM: Kwon et al. 2021 (arXiv 2102.11600), eq. 5 (the
    number is not verified). Its authors have 0.05 for SAM and 0.5 for ASAM; on spiking networks 0.3 (N-MNIST) and 0.4
    (DVS-Gesture) are reported (arXiv 2603.18039). Composer's interval is 10, with a distance of 0.5.

    Args:
        rho: the distance, 0 or more.
        adaptive: scale it by the weights.
        interval: of so many steps the last climbs, 1 or more; null is each.

    Raises:
        BenchError: a negative distance, or no interval.
    """

    family = Family.optimizer
    strength = "rho"
    passes_per_step = 2.0
    steps: Tensor
    space = {
        "rho": Log(0.005, 2.0, authors=0.05, source="Foret et al. 2021, section 3.1"),
        "adaptive": Choice((False, True), authors=False, source="Foret et al. 2021; ASAM: Kwon et al. 2021"),
    }

    def __init__(self, rho: float = 0.05, adaptive: bool = False, interval: int | None = None) -> None:
        super().__init__()
        nonnegative("sam", rho=rho)
        if interval is not None:
            Numbers("reg.sam.").at_least(1, interval=interval)
        self.rho, self.adaptive, self.interval = rho, adaptive, interval
        self.passes_per_step = 1 + 1 / (interval or 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def around_step(self, step: Step) -> None:
        step.backward(step.forward().total)
        self.steps += 1
        if self.steps % (self.interval or 1):
            return
        parameters = [p for p in step.model.parameters() if p.requires_grad]
        moves = climb(parameters, self.rho, self.adaptive)
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p.add_(move)
        try:
            step.backward(step.forward(told=False).total)
        finally:
            with torch.no_grad():
                for p, old in zip(parameters, before, strict=True):
                    p.copy_(old)
