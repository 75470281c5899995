"""Alpha dropout of single elements."""

from __future__ import annotations

from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, probability
from bench.regularizers.masking import At, Mask, drop_alpha, insert


@REGULARIZERS.register("alpha_dropout")
class AlphaDropout(Regularizer):
    """Alpha dropout: single elements become SELU's limit alpha', then mean 0 and variance 1 are restored.

    On spikes it emits values that are no spikes, also where all were silent; spikes are counted
    before it.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), eq. 8 and section II.E; Klambauer et al. 2017 (arXiv 1706.02515), section 3.

    Args:
        p: probability of being dropped, in [0, 1] (our choice for lyu2023: 0.5).
        mask: a new mask at each time step (the paper's algorithm), or one for all steps.
        at: on the input current (the paper's algorithm), or on the spikes.

    Raises:
        BenchError: p outside [0, 1].
    """

    strength = "p"
    replayable = True

    def __init__(self, p: float = 0.1, mask: Mask = Mask.per_step, at: At = At.current) -> None:
        super().__init__()
        probability("alpha_dropout", p=p)
        self.p, self.mask, self.at = p, Mask(mask), At(at)

    def attach(self, model: SpikingNetwork) -> None:
        insert(model, self.at, drop_alpha, self.p, self.mask)
