"""Dropout of single elements."""

from __future__ import annotations

from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, probability
from bench.regularizers.masking import At, Mask, Scaling, drop_scaled, insert


@REGULARIZERS.register("dropout")
class Dropout(Regularizer):
    """Dropout: zero single elements of every spiking layer's current or spikes with probability p.

    Under a threshold the two scalings differ: dividing by 1 - p in training lets kept currents fire
    that would not fire in eval mode.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), eqs. 5 and 6; Srivastava et al. 2014 (JMLR 15, 1929-1958), section 4.

    Args:
        p: probability of being dropped, in [0, 1] (our choice for lyu2023: 0.5).
        mask: a new mask at each time step (the paper's algorithm), or one for all steps.
        at: on the input current (the paper's algorithm), or on the spikes.
        scaling: `inverted` divides by 1 - p in training, `test` multiplies by 1 - p in eval mode (eq. 6).

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
        scaling: Scaling = Scaling.inverted,
    ) -> None:
        super().__init__()
        probability("dropout", p=p)
        self.p, self.mask, self.at, self.scaling = p, Mask(mask), At(at), Scaling(scaling)
        self.identity_in_eval = self.scaling is Scaling.inverted or p == 0

    def attach(self, model: SpikingNetwork) -> None:
        drop, eval_factor = drop_scaled(self.scaling, self.p)
        insert(model, self.at, drop, self.p, self.mask, eval_factor=eval_factor)
