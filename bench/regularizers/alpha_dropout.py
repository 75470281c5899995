"""Alpha dropout of single elements."""

from __future__ import annotations

from collections.abc import Callable

from bench.registry import REGULARIZERS
from bench.regularizers.masking import Change, Masked, drop_alpha
from bench.space import Choice, Linear


@REGULARIZERS.register("alpha_dropout")
class AlphaDropout(Masked):
    """Alpha dropout: single elements become SELU's limit alpha', then mean 0 and variance 1 are restored.

    On spikes it emits values that are no spikes, also where all were silent; spikes are counted
    before it.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), eq. 8 and section II.E; Klambauer et al. 2017 (arXiv 1706.02515), section 3.

    Args:
        p: probability of being replaced, in [0, 1] (our choice for lyu2023: 0.5).
        mask: see `Masked`.
        at: see `Masked`.
    """

    name = "alpha_dropout"
    space = {
        "p": Linear(0.02, 0.5, authors=0.1, source="lyu2023 states none; this suite's default"),
        "mask": Choice(("per_step", "fixed"), authors="per_step", source="lyu2023, its algorithm"),
    }

    @property
    def drop(self) -> Callable[[float], Change]:
        return drop_alpha
