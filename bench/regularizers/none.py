"""The baseline: no regularizer."""

from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer


@REGULARIZERS.register("none")
class NoRegularizer(Regularizer):
    """No regularizer: the baseline of every comparison.

    Source: nandan2022 (arXiv 2201.02538), eq. 2.1 with lambda = 0.
    """

    replayable = True
