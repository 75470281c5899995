"""Dropout of whole channels."""

from __future__ import annotations

from bench.registry import REGULARIZERS
from bench.regularizers.masking import Scaled
from bench.space import Choice, Linear


@REGULARIZERS.register("dropout2d")
class Dropout2d(Scaled):
    """Dropout2d: zero whole channels of a sample with probability p and rescale the kept ones.

    On a fully connected layer a channel is one unit, which makes it `dropout`; in the spike response network (`srm`)
    it is one unit with its delayed synapses, so that `at=spikes` has eq. 5's mask of one entry a neuron.

    Source: lyu2023 (Lyu & Yin, A Discussion of Migration of Common Neural Network Regularization
    Methods on SNNs), eq. 7, and eq. 6 for the other scaling; Tompson et al. 2015 (arXiv 1411.4280),
    section 3.2.

    Args:
        p: probability of a channel's being dropped, in [0, 1] (our choice for lyu2023: 0.5).
        mask: see `Masked`.
        at: see `Masked`.
        scaling: see `Scaled`.
    """

    name = "dropout2d"
    space = {
        "p": Linear(0.02, 0.6, authors=0.1, source="lyu2023 states none; this suite's default"),
        "mask": Choice(("per_step", "fixed"), authors="per_step", source="lyu2023, its algorithm"),
    }
    channels = True
