"""Weight decay, as an option of the optimizer."""

from __future__ import annotations

from typing import Any

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.space import Log


@REGULARIZERS.register("weight_decay")
class WeightDecay(Regularizer):
    """Weight decay: the optimizer shrinks every parameter by a fraction of itself at each step.

    The factor is PyTorch's: SGD adds `weight * w` to the gradient of w, AdamW shrinks w by
    `lr * weight * w` apart from the gradient. Eq. 2.1 as printed, lambda ||w||^2, would be twice that;
    the script of the thesis' author passes lambda to PyTorch, and decays batch norm and biases too.
    With 0 the optimizer keeps its own setting. Leaks and thresholds that `model=diet` trains are never decayed.

    Source: nandan2022 (arXiv 2201.02538), eq. 2.1; Loshchilov & Hutter 2019 (arXiv 1711.05101) for AdamW.

    Args:
        weight: coefficient, 0 or more (the thesis: up to 5e-4 with SGD, up to 0.3 with AdamW).
        only_weights: leave out biases, batch norm and neuron parameters (those of fewer than two axes).

    Raises:
        BenchError: negative weight.
    """

    family = Family.weights
    strength = "weight"
    replayable = True
    space = {"weight": Log(1e-4, 1.0, authors=0.03, source="nandan2022, table 2.2: best of AdamW's")}

    def __init__(self, weight: float = 1e-4, only_weights: bool = False) -> None:
        super().__init__()
        nonnegative("weight_decay", weight=weight)
        self.weight, self.only_weights = weight, only_weights

    def param_groups(self, model: SpikingNetwork) -> list[dict[str, Any]]:
        if self.weight == 0:
            return []
        spared = model.no_weight_decay()
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and name not in spared]
        params = [p for _, p in named if p.ndim > 1 or not self.only_weights]
        return [{"params": params, "weight_decay": self.weight}]
