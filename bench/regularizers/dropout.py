"""Dropout of single elements."""

from __future__ import annotations

from bench.registry import REGULARIZERS
from bench.regularizers.masking import Scaled
from bench.space import Choice, Linear


@REGULARIZERS.register("dropout")
class Dropout(Scaled):
    """Dropout: zero single elements of every spiking layer's current or spikes with probability p.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), eqs. 5 and 6; Srivastava et al. 2014 (JMLR 15, 1929-1958), section 4.

    Args:
        p: probability of being dropped, in [0, 1] (our choice for lyu2023: 0.5).
        mask: how the time steps share masks, see `Masked`.
        at: on the input current or on the spikes, see `Masked`.
        scaling: in training or in eval mode, see `Scaled`.
    """

    name = "dropout"
    space = {
        "p": Linear(0.02, 0.6, authors=0.1, source="lyu2023 states none; this suite's default"),
        "mask": Choice(("per_step", "fixed"), authors="per_step", source="lyu2023, its algorithm"),
    }
