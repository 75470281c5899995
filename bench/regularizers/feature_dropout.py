"""Feature dropout: whole channels become alpha' or zero."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from bench.registry import REGULARIZERS
from bench.regularizers.masking import At, Change, Mask, Masked, drop, drop_alpha
from bench.space import Choice, Linear


class Fill(StrEnum):
    """`alpha` is torch's FeatureAlphaDropout, `zero` what the paper's text says."""

    alpha = "alpha"
    zero = "zero"


@REGULARIZERS.register("feature_dropout")
class FeatureDropout(Masked):
    """Feature dropout: whole channels of a sample become alpha' (or zero) with probability p.

    The paper gives no equation and no code. Its text sets channels to zero and names no rescaling,
    which sets `fill=zero` apart from `dropout2d`: the kept channels stay as they are, in eval mode too.
    `fill=alpha` is our reading: it pairs with the paper's finding that feature dropout and alpha dropout
    both make training collapse.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), section II.D, alpha' of eq. 8; Klambauer et al. 2017 (arXiv 1706.02515), section 3.

    Args:
        p: probability of a channel's being replaced, in [0, 1] (our choice for lyu2023: 0.5).
        mask: see `Masked`.
        at: see `Masked`.
        fill: what a dropped channel becomes.
    """

    name = "feature_dropout"
    space = {
        "p": Linear(0.02, 0.5, authors=0.1, source="lyu2023 states none; this suite's default"),
        "mask": Choice(("per_step", "fixed"), authors="per_step", source="lyu2023, its algorithm"),
        "fill": Choice(("alpha", "zero"), authors="alpha", source="lyu2023, section II.D, as this suite reads it"),
    }
    channels = True

    def __init__(
        self, p: float = 0.1, mask: Mask = Mask.per_step, at: At = At.current, fill: Fill = Fill.alpha
    ) -> None:
        super().__init__(p, mask, at)
        self.fill = Fill(fill)

    @property
    def drop(self) -> Callable[[float], Change]:
        return drop_alpha if self.fill is Fill.alpha else drop
