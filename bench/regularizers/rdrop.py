"""R-Drop: two passes under different masks have to agree."""

from __future__ import annotations

from torch import Tensor

from bench.families import Family
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.regularizers.stepping import Step
from bench.regularizers.targets import kl
from bench.space import Log


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2 of the answers of two passes, mean over images.

    Args:
        one: logits `[N, classes]`.
        other: logits `[N, classes]`.
    """
    return 0.5 * (kl(one, other) + kl(other, one)).mean()


@REGULARIZERS.register("rdrop")
class RDrop(Regularizer):
    """R-Drop: the mean loss of two passes, plus weight times how much their answers differ.

    Two passes differ by what is drawn in each: name a dropout, or noise, beside it, as in `reg=[rdrop,dropout]`; by
    itself it adds nothing.

    Source: Wu et al. 2021 (arXiv 2106.14448), eqs. 2 to 4 (the numbers are not verified), weight 5 at first; on spiking
    networks LTMD's moderate dropout (Wang et al. 2022, NeurIPS) with 0.5, as in its code.

    Args:
        weight: coefficient of the disagreement, 0 or more.

    Raises:
        BenchError: a negative weight.
    """

    family = Family.loss
    strength = "weight"
    passes_per_step = 2
    space = {"weight": Log(0.03, 10.0, authors=0.5, source="Wang et al. 2022, their code")}

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        nonnegative("rdrop", weight=weight)
        self.weight = weight

    def around_step(self, step: Step) -> None:
        one, other = step.forward(), step.forward(told=False)
        step.backward(0.5 * (one.total + other.total) + self.weight * disagreement(one.logits, other.logits))
