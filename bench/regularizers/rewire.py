"""Gradient rewiring: connections of a fixed sign that are cut when their strength falls to 0, and may grow again."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.activity import Activity
from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ranges import Numbers
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.space import Log

SETTINGS = Numbers("reg.rewire.")


def connected(hidden: Tensor, sign: Tensor) -> Tensor:
    """sign * relu(theta), of hidden = sign * theta: the hidden weight where it still has its sign, else 0.

    The gradient passes a cut connection as if it were none: by theta it is that of the loss by the weight, times sign.
    So a connection that is cut learns on and grows again when the loss wants it to.

    Args:
        hidden: of a layer's weight, any shape.
        sign: 1 or -1, of the same shape.
    """
    kept = torch.where(hidden * sign > 0, hidden, torch.zeros_like(hidden))
    # Both are exact: of a kept weight 0 is added, of a cut one its negative.
    return hidden + (kept - hidden).detach()


def centre(alpha: float, sparsity: float) -> float:
    """Where a Laplace prior of theta must lie for a share `sparsity` of it to be below 0: ln(2 (1 - s)) / alpha.

    Args:
        alpha: of the density alpha / 2 exp(-alpha |theta - c|), above 0.
        sparsity: s, in [0.5, 1).
    """
    return math.log(2 * (1 - sparsity)) / alpha


def prior_step(hidden: Tensor, sign: Tensor, alpha: float, sparsity: float, rate: Tensor) -> Tensor:
    """theta - alpha rate sign(theta - c), as a hidden weight.

    Args:
        hidden: sign * theta.
        sign: 1 or -1, of the same shape.
        alpha: see `centre`.
        sparsity: see `centre`.
        rate: learning rate, a scalar.
    """
    return hidden - alpha * rate * sign * (hidden * sign - centre(alpha, sparsity)).sign()


class Connections(nn.Module):
    """A layer's weight out of its hidden one, each entry of the sign that it began with.

    Args:
        weight: at the start; 0 counts as positive.
    """

    sign: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("sign", torch.empty_like(weight))
        self.fix(weight)

    @torch.no_grad()
    def fix(self, weight: Tensor) -> None:
        """Take the signs of a weight."""
        self.sign.copy_(torch.where(weight < 0, -1.0, 1.0))

    def forward(self, hidden: Tensor) -> Tensor:
        return connected(hidden, self.sign)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The hidden weight of a weight."""
        return weight


@REGULARIZERS.register("rewire")
class Rewire(Regularizer):
    """Gradient rewiring: w = sign * relu(theta), signs fixed at the start, theta under a prior that cuts connections.

    A connection whose theta falls below 0 is cut, and its theta goes on along the gradient that the weight would have:
    connections compete for being there. After each optimizer step theta moves by alpha lr against the sign of
    theta - c: the step along a Laplace prior, of which the share `sparsity` is below 0 (`centre`). For a small alpha c
    lies far below 0, and until theta gets there all thetas sink alike, by alpha times the sum of the learning rates:
    how many connections a run cuts is then decided by alpha and its length, and by `sparsity` only in the limit.

    Convolutions' and linear layers' weights are rewired, biases and norms are not. SynOps count a cut synapse like any
    other.

    The step of the prior is added to the optimizer's own, at the rate of that very step. As a penalty it would pass
    through the optimizer: momentum would smear it out, and Adam would divide it by the gradient's size, so that alpha
    would mean something else for each weight. Weight decay is proportional to the weight, which this is not. Two
    things differ from the authors' code, which is Adam's: the prior's step there begins larger, by Adam's correction of
    its first moment, and looks at theta before the gradient's step instead of after it.

    Source: Chen et al. 2021 (arXiv 2105.04916), eqs. 4 to 9 and algorithm 1 (the numbers are not verified), and the
    authors' repository.

    Args:
        alpha: of the prior, 0 or more; 0 rewires nothing. The authors' optimizer has 1e-5, their scripts 1e-3.
        sparsity: share of theta below 0 under the prior, in [0.5, 1).

    Raises:
        BenchError: a negative alpha, a sparsity outside [0.5, 1), or a network whose weights another method replaces
            (weight normalization).
    """

    family = Family.weights
    needs_rate = True
    reads = ()  # weights alone
    strength = "alpha"
    replayable = True
    # Not the sparsity: no run is long enough for theta to reach c, but at the upper end of alpha.
    space = {"alpha": Log(1e-5, 1.0, authors=1e-5, source="Chen et al. 2021, their repository's optimizer")}
    acted: Tensor

    def __init__(self, alpha: float = 1e-5, sparsity: float = 0.95) -> None:
        super().__init__()
        nonnegative("rewire", alpha=alpha)
        SETTINGS.within("[0.5, 1)", sparsity=sparsity)
        self.alpha, self.sparsity = alpha, sparsity
        self.register_buffer("acted", torch.zeros(()))
        # In a list: they belong to the network.
        self.layers: list[tuple[str, nn.Module, Connections]] = []

    def attach(self, model: SpikingNetwork) -> None:
        for name, module in list(model.named_modules()) if self.alpha > 0 else ():
            if isinstance(module, nn.Conv2d | nn.Linear):
                own = Connections(module.weight.detach())
                parametrize.register_parametrization(module, "weight", own)
                self.layers.append((name, module, own))
                self.hidden(name, module)

    @torch.no_grad()
    def initialize(self, model: SpikingNetwork, images: Tensor) -> None:
        # What a run starts from may have replaced the weights that were there before.
        for name, module, own in self.layers:
            own.fix(self.hidden(name, module))

    @staticmethod
    def hidden(name: str, module: nn.Module) -> Tensor:
        """The hidden weight of a layer.

        Raises:
            BenchError: it is made of other parameters still.
        """
        made = module.parametrizations["weight"]  # type: ignore[index]
        if not hasattr(made, "original"):
            raise BenchError(
                f"reg=rewire: the weights of {name} are made of others by another regularizer; keep one of them"
            )
        hidden: Tensor = made.original
        return hidden

    @torch.no_grad()
    def after_step(self, activity: Activity) -> None:
        for name, module, own in self.layers:
            hidden = self.hidden(name, module)
            moved = prior_step(hidden, own.sign, self.alpha, self.sparsity, self.learning_rate)
            cut = moved * own.sign < 0
            self.acted.copy_(torch.maximum(self.acted, ((moved != hidden) | cut).any().to(self.acted.dtype)))
            hidden.copy_(moved)

    def had_effect(self) -> bool | None:
        return bool(self.acted) if self.layers else super().had_effect()

    @torch.no_grad()
    def bake(self, model: SpikingNetwork) -> None:
        for name, module, own in self.layers:
            if not parametrize.is_parametrized(module, "weight"):
                continue  # by another regularizer's `bake`
            hidden = self.hidden(name, module)
            hidden.copy_(own(hidden))
            # Another one's part of the chain is its own to fold; what is folded already stays as it is there.
            if len(module.parametrizations["weight"]) == 1:  # type: ignore[index]
                parametrize.remove_parametrizations(module, "weight")
        self.layers = []
