"""The hooks of a regularizer, all optional, and the order in which a run calls them.

Several regularizers are asked in the order of `reg=[...]`, hook by hook: all attach, then all initialize. Of a training
step the order is

1. `batch`: each gets what the one before made of images and labels;
2. `around_step`, of the one that has it: it makes the forward and backward passes, each with 3 and 4;
3. `loss`, of the one that has it, in place of the task's;
4. `penalty` of each, added to the loss;
5. the optimizer's step, with the options of `param_groups`, where a later regularizer's win;
6. `after_step` of each.

An evaluation takes place inside `eval_weights` of the one that has it. At a run's end `had_effect` is asked, then
`bake` of each in the opposite order: who changed the network last is the first to fold it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.activity import Activity
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ranges import Numbers
from bench.regularizers.stepping import Step
from bench.space import Space

HOOKS = (
    "attach", "initialize", "batch", "loss", "penalty", "param_groups", "after_step", "around_step", "eval_weights",
)  # fmt: skip
"""By which a regularizer can change a training."""


def nonnegative(reg: str, /, **arguments: float) -> None:
    """Refuse an argument below 0, infinite or NaN.

    Raises:
        BenchError: names the first such argument as `reg.<reg>.<argument>`.
    """
    Numbers(f"reg.{reg}.", finite=True).at_least(0, **arguments)


def positive(reg: str, /, **arguments: float) -> None:
    """Refuse an argument of 0 or below, infinite or NaN.

    Raises:
        BenchError: names the first such argument as `reg.<reg>.<argument>`.
    """
    Numbers(f"reg.{reg}.", finite=True).above(0, **arguments)


def probability(reg: str, /, **arguments: float) -> None:
    """Refuse an argument outside [0, 1], or NaN.

    Raises:
        BenchError: names the first such argument as `reg.<reg>.<argument>`.
    """
    Numbers(f"reg.{reg}.").within("[0, 1]", **arguments)


def finite(reg: str, /, **arguments: float) -> None:
    """Refuse an argument that is infinite or NaN.

    Raises:
        BenchError: names the first such argument as `reg.<reg>.<argument>`.
    """
    Numbers(f"reg.{reg}.").within("(-inf, inf)", **arguments)


class Regularizer(nn.Module):
    """Base of every regularizer; a subclass overrides the hooks it needs.

    Its constructor's typed defaults are its configuration. It is a module, so buffers and parameters
    it registers move to the device and are stored in checkpoints. Modules that `attach` puts into
    the network need not be registered here as well. Random numbers come from torch's global generators,
    which the task seeds from (seed, epoch, step) before every step; those of a `Gate` from a key that it gets likewise.

    Attributes:
        family: the group in which it is listed; None is a group of its own.
        strength: the constructor argument that scales the effect, 0 meaning none; None if there is none.
        reads: what `penalty` and `after_step` read of each spiking layer, by the names of `Read`: `rate`,
            `channel_rates`, `neuron_counts`, each also as `squared_...`, `channel_outputs`, `spikes`, `potential`. Just
            that is kept: sums cost next to nothing, spikes and potentials their way through memory. An instance may set
            it where it depends on an argument. None is the spikes for one that has either hook, else nothing.
        identity_in_eval: whether the network in eval mode computes what it would without it, given
            the same weights. An instance may set it where it depends on an argument.
        replayable: whether all that its hooks do in a training step, `batch` left out, may be captured on a GPU and
            replayed: they look at no value from the CPU, and keep between steps no number or tensor but in
            tensors that they write into in place. If in doubt leave it: steps are then done one by one.
        space: what `bench tune` searches, by the constructor's arguments: at most three, each with its range and its
            authors' value. Empty where there is nothing to tune.
        passes_per_step: forward and backward passes that a training step takes in the mean; a run's record has what was
            counted. An instance may set it where it depends on an argument.
        needs_rate: whether its `after_step` steps by `learning_rate`, which a loop of one's own then has to give.
        replaces: parts of a training that it takes for itself, beyond the hooks in `bench.training.together`, so that
            no other can: `normalization`.
        counts_passes: whether each forward pass in training mode moves its state, so that it cannot go together with a
            method that makes several in a step.
        progress: share of the epochs that are done, in [0, 1), a scalar on the device, for weights that follow a
            schedule: a replayed step sees it move.
        learning_rate: of the optimizer's last step, a scalar on the device, for an `after_step` that moves weights by
            as much as the optimizer does; 0 before the first. It is that of the optimizer's first group.
    """

    progress: Tensor
    learning_rate: Tensor

    family: ClassVar[Family | None] = None
    strength: ClassVar[str | None] = None
    space: ClassVar[Space] = {}
    passes_per_step: float = 1
    counts_passes: bool = False
    needs_rate: ClassVar[bool] = False
    replaces: Collection[str] = ()
    reads: Collection[str] | None = None
    identity_in_eval: bool = True
    replayable: bool = False

    def __init__(self) -> None:
        # Without it the schema of an option with no arguments would be nn.Module's *args, **kwargs.
        super().__init__()
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.register_buffer("learning_rate", torch.zeros(()), persistent=False)

    @property
    def off(self) -> bool:
        """Whether its strength is 0: then its `loss` and `around_step` replace nothing."""
        return self.strength is not None and getattr(self, self.strength) == 0

    @classmethod
    def has(cls, hook: str) -> bool:
        """Whether it has a hook of its own."""
        return getattr(cls, hook) is not getattr(Regularizer, hook)

    def acts(self, hook: str) -> bool:
        """Whether it has a hook of its own, and a strength other than 0."""
        return self.has(hook) and not self.off

    @torch.no_grad()
    def tell_rate(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over the optimizer's learning rate, which lies in a tensor on the device where steps are replayed."""
        rate = optimizer.param_groups[0]["lr"]
        if isinstance(rate, Tensor):
            self.learning_rate.copy_(rate)
        else:
            self.learning_rate.fill_(rate)

    def attach(self, model: SpikingNetwork) -> None:
        """Change the network before the optimizer exists."""

    def initialize(self, model: SpikingNetwork, images: Tensor) -> None:
        """Data-dependent start, once, before the first step of a fresh run (not on resume).

        Args:
            model: the network, after every `attach`.
            images: `[500, C, H, W]` (or fewer) normalized training images, without augmentation.
        """

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a training batch: images `[N, C, H, W]`, labels `[N]` or soft labels `[N, classes]`."""
        return x, y

    def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
        """Replace the task's loss, which is this one; sees logits `[T, N, classes]`, labels `[N]` or `[N, classes]`."""
        return F.cross_entropy(logits_t.mean(0).float(), y)

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        """Scalars to add to the loss, by name, already scaled; reads of each layer what `reads` declares."""
        return {}

    def param_groups(self, model: SpikingNetwork) -> list[dict[str, Any]]:
        """Options of the optimizer for some parameters: `[{"params": [...], "weight_decay": 0.1}]`."""
        return []

    def after_step(self, activity: Activity) -> None:
        """Update own state after the optimizer's step; reads of each layer what `reads` declares."""

    def around_step(self, step: Step) -> None:
        """Replace how a step comes to its gradients, for a second pass, a changed gradient, a perturbed input.

        It has to leave the gradients in the parameters, by `step.backward`, and to make one pass that is told.
        """
        step.backward(step.forward().total)

    def eval_weights(self, model: SpikingNetwork, images: Tensor) -> AbstractContextManager[None]:
        """A context in which the network has the weights to be judged by.

        Args:
            model: the network.
            images: `[500, C, H, W]` (or fewer) normalized training images, for statistics of batch norm.
        """
        return nullcontext()

    def bake(self, model: SpikingNetwork) -> None:
        """Fold what it did into plain weights, for export."""

    def had_effect(self) -> bool | None:
        """Whether it has changed anything since the start; asked at the end of a run, before `bake`.

        Override it where a strength above 0 can come to nothing; a penalty that was 0 at every step is noticed anyway.

        Returns:
            False where its strength is 0, else None: it cannot tell.
        """
        return False if self.off else None


def bake(model: SpikingNetwork, regularizers: Iterable[Regularizer]) -> None:
    """Fold what regularizers did into plain weights: the last to be attached first, as its parts lie outermost.

    Args:
        model: the network; one that learns by a rule of its own has none attached, and stays as it is.
        regularizers: in the order in which they were attached.
    """
    for reg in reversed(list(regularizers)) if model.learning == "gradient" else ():
        reg.bake(model)
