"""An optimizer step as a regularizer's `around_step` sees it: forward passes as it likes, one of which is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from bench.activity import Activity
from bench.models.base import SpikingNetwork


class Pass(NamedTuple):
    """A forward pass of a step.

    Attributes:
        total: what is to be descended, with its graph: the loss and all penalties.
        logits: `[N, classes]`.
        loss: the task's in it.
        penalties: the penalties in it, by name.
        activity: what the spiking layers did.
    """

    total: Tensor
    logits: Tensor
    loss: Tensor
    penalties: dict[str, Tensor]
    activity: Activity


class Step:
    """The gradients of one optimizer step.

    Exactly one forward pass is *told*: its loss, penalties and spikes are what the run reports, its activity is what
    `after_step` sees, and it moves batch norm's running statistics. All others leave no trace but their graph.

    Args:
        model: the network.
        x: images `[N, C, H, W]`, mixed already.
        y: labels `[N]`, or soft labels `[N, classes]`.
        objective: a forward pass of images and labels.
        backward: sets the parameters' gradients to those of a total.

    Attributes:
        told: the pass that is told; None before it.
        passes: forward passes so far.
    """

    def __init__(
        self,
        model: SpikingNetwork,
        x: Tensor,
        y: Tensor,
        objective: Callable[[Tensor, Tensor], Pass],
        backward: Callable[[Tensor], None],
    ) -> None:
        self.model, self.x, self.y = model, x, y
        self._objective, self.backward = objective, backward
        self.told: Pass | None = None
        self.passes = 0

    def forward(self, x: Tensor | None = None, y: Tensor | None = None, told: bool = True) -> Pass:
        """A forward pass from rest.

        Args:
            x: images in place of the step's own.
            y: labels in place of the step's own.
            told: whether this is the pass that the run reports; the first that says so is, and no later one.
        """
        self.passes += 1
        x, y = self.x if x is None else x, self.y if y is None else y
        if told and self.told is None:
            self.told = self._objective(x, y)
            return self.told
        with momentum(self.model, 0.0):
            return self._objective(x, y)


@contextmanager
def momentum(model: nn.Module, share: float) -> Iterator[list[Any]]:
    """While this context is open, batch norm's running statistics take up another share of each batch, and none of the
    passes counts as a step: 0 leaves them alone, 1 makes them the last batch's. It yields the norms."""
    norms: list[Any] = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    momenta = [norm.momentum for norm in norms]
    batches = [getattr(norm, "num_batches_tracked", None) for norm in norms]
    before = [None if count is None else count.clone() for count in batches]
    try:
        for norm in norms:
            norm.momentum = share
        yield norms
    finally:
        for norm, own, count, old in zip(norms, momenta, batches, before, strict=True):
            norm.momentum = own
            if count is not None:
                count.copy_(old)
