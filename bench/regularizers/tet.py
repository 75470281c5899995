"""Temporal efficient training: the loss of every time step, and a pull on the logits."""

from __future__ import annotations

from torch import Tensor

from bench.families import Family
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, finite, probability
from bench.regularizers.targets import per_step_cross_entropy
from bench.space import Log


def tet_loss(logits_t: Tensor, y: Tensor, weight: float = 1e-3, target: float = 1.0) -> Tensor:
    """(1 - weight) times the mean over t of CE(o_t, y), plus weight times the mean of (o_t - target)^2.

    Args:
        logits_t: `[T, N, classes]`.
        y: labels `[N]`, or soft labels `[N, classes]`.
        weight: lambda of the paper, in [0, 1].
        target: phi of the paper, what each logit is pulled to.

    Returns:
        Scalar, float32.
    """
    loss = per_step_cross_entropy(logits_t, y)
    return loss if weight == 0 else (1 - weight) * loss + weight * (logits_t.float() - target).square().mean()


@REGULARIZERS.register("tet")
class TET(Regularizer):
    """Temporal efficient training: cross-entropy at every time step, and logits that are pulled to a constant.

    Without the pull (weight 0) it still differs from the task's loss, which is that of the mean logits: this one asks
    every time step for the right answer.

    Source: Deng et al. 2022 (ICLR, arXiv 2202.11946), section 4, eq. 12 for the sum of both terms (its number is not
    verified); weight and target as in the authors' repository. The paper's text has 0.05 for CIFAR (not verified).

    Args:
        weight: share of the pull, in [0, 1].
        target: of the logits.

    Raises:
        BenchError: a weight outside [0, 1], or a target that is no number.
    """

    family = Family.loss
    replayable = True
    space = {"weight": Log(1e-4, 0.3, authors=1e-3, source="Deng et al. 2022, their repository's default")}

    def __init__(self, weight: float = 1e-3, target: float = 1.0) -> None:
        super().__init__()
        probability("tet", weight=weight)
        finite("tet", target=target)
        self.weight, self.target = weight, target

    def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
        return tet_loss(logits_t, y, self.weight, self.target)
