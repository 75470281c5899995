"""Temporal regularization training: weights pay less the later the time step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.activity import Activity
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, probability
from bench.regularizers.targets import class_weights, per_step_cross_entropy
from bench.space import Linear, Log

EPSILON = 1e-5
"""Added to |w| in the denominator, as the authors' code does."""


def decayed_weights(weights: Tensor, time_steps: int, decay: float) -> Tensor:
    """Mean over t = 0 ... T - 1 of the sum over weights of w^2 / (1 + (exp(decay t) - 1) (|w| + epsilon)).

    At t = 0 that is w^2; later it grows ever more slowly where |w| is large.

    Args:
        weights: of any shape.
        time_steps: T.
        decay: delta of the paper.

    Returns:
        Scalar, float32.
    """
    w = weights.float()
    squares, size = w.square(), w.abs() + EPSILON
    # Beyond e^700 there is nothing left of the term.
    rises = [math.expm1(min(decay * t, 700.0)) for t in range(time_steps)]
    return torch.stack([(squares / (1 + rise * size)).sum() for rise in rises]).mean()


@REGULARIZERS.register("trt")
class TRT(Regularizer):
    """Temporal regularization training: a loss at every time step, and a weight penalty that fades over the steps.

    Mean over t of (1 - mse) CE(o_t, y) + mse times the mean of (o_t - onehot y)^2, plus weight times
    `decayed_weights` of every parameter without "bias" in its name, as in the authors' code: batch norm's scales too.
    Since weights do not depend on t, the penalty's sum over time is one static penalty, like L2 for small weights and
    growing less for large ones. The authors train without weight decay.

    Source: Zhang, Xu & Tao 2025 (arXiv 2506.19256), eqs. 5 to 8 (their numbers are not verified), and the authors'
    repository.

    Args:
        weight: lambda of the weight penalty, 0 or more.
        decay: delta, how fast it fades, 0 or more.
        mse: eta, the share of the squared error, in [0, 1].

    Raises:
        BenchError: a number outside its range.
    """

    family = Family.loss
    replayable = True
    reads = ()  # its penalty is of weights alone
    space = {
        "weight": Log(1e-7, 1e-2, authors=1e-5, source="arXiv 2506.19256, CIFAR-10 ResNet-19"),
        "decay": Linear(0.05, 1.0, authors=0.25, source="arXiv 2506.19256, CIFAR-10 ResNet-19"),
        "mse": Linear(0.0, 0.5, authors=0.05, source="arXiv 2506.19256, CIFAR-10 ResNet-19"),
    }

    def __init__(self, weight: float = 1e-5, decay: float = 0.25, mse: float = 0.05) -> None:
        super().__init__()
        nonnegative("trt", weight=weight, decay=decay)
        probability("trt", mse=mse)
        self.weight, self.decay, self.mse = weight, decay, mse
        # In a list: the network's parameters are not this module's own.
        self.network: list[SpikingNetwork] = []

    def attach(self, model: SpikingNetwork) -> None:
        self.network = [model]

    def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
        loss = per_step_cross_entropy(logits_t, y)
        if self.mse == 0:
            return loss
        off = logits_t.float() - class_weights(y, logits_t.shape[-1])
        return (1 - self.mse) * loss + self.mse * off.square().mean()

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or not self.network:
            return {}
        (model,) = self.network
        steps = model.time_steps
        terms = [decayed_weights(w, steps, self.decay) for w in decaying(model)]
        return {"trt": self.weight * torch.stack(terms).sum()}


def decaying(model: SpikingNetwork) -> list[nn.Parameter]:
    """The parameters that the penalty sums over: all that are trained and have no "bias" in their name."""
    return [p for name, p in model.named_parameters() if p.requires_grad and "bias" not in name]
