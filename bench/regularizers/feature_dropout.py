"""Feature dropout: whole channels become alpha' or zero."""

from __future__ import annotations

from enum import StrEnum

from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, probability
from bench.regularizers.masking import At, Mask, drop, drop_alpha, insert


class Fill(StrEnum):
    """`alpha` is torch's FeatureAlphaDropout, `zero` what the paper's text says."""

    alpha = "alpha"
    zero = "zero"


@REGULARIZERS.register("feature_dropout")
class FeatureDropout(Regularizer):
    """Feature dropout: whole channels of a sample become alpha' (or zero) with probability p.

    The paper gives no equation and no code. Its text sets channels to zero and names no rescaling,
    which sets `fill=zero` apart from `dropout2d`: the kept channels stay as they are, in eval mode too.
    `fill=alpha` is our reading: it pairs with the paper's finding that feature dropout and alpha dropout
    both make training collapse.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), section II.D, alpha' of eq. 8; Klambauer et al. 2017 (arXiv 1706.02515), section 3.

    Args:
        p: probability of being dropped, in [0, 1] (our choice for lyu2023: 0.5).
        mask: a new mask at each time step (the paper's algorithm), or one for all steps.
        at: on the input current (the paper's algorithm), or on the spikes.
        fill: what a dropped channel becomes.

    Raises:
        BenchError: p outside [0, 1].
    """

    strength = "p"
    replayable = True

    def __init__(
        self,
        p: float = 0.1,
        mask: Mask = Mask.per_step,
        at: At = At.current,
        fill: Fill = Fill.alpha,
    ) -> None:
        super().__init__()
        probability("feature_dropout", p=p)
        self.p, self.mask, self.at, self.fill = p, Mask(mask), At(at), Fill(fill)

    def attach(self, model: SpikingNetwork) -> None:
        replace = drop_alpha if self.fill is Fill.alpha else drop
        insert(model, self.at, replace, self.p, self.mask, channels=True)
