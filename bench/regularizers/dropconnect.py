"""DropConnect: weights that are left out at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, probability
from bench.space import Linear


class Connections(nn.Module):
    """A weight with some entries left out and the others over 1 - p, in training mode.

    Args:
        weight: of whose shape the mask is.
        p: chance of an entry to be left out, in [0, 1].
    """

    factor: Tensor

    def __init__(self, weight: Tensor, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("factor", torch.ones_like(weight), persistent=False)

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the mask of a training step."""
        kept = torch.rand(self.factor.shape, device=self.factor.device) >= self.p
        self.factor.copy_(kept / (1 - self.p) if self.p < 1 else torch.zeros_like(self.factor))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factor if self.training else weight


@REGULARIZERS.register("dropconnect")
class DropConnect(Regularizer):
    """DropConnect: in training each weight is left out with probability p, one mask a step for all images and times.

    Kept weights are divided by 1 - p, so that the mean current stays, and in eval mode the network has its plain
    weights; the authors draw from a normal distribution of the same moments there instead.

    Source: Wan et al. 2013 (ICML), eq. 4 (its number is not verified); one mask for all time steps: SpikingJelly's
    DropConnectLinear. Convolutions are masked too, which is our reading.

    Args:
        p: chance of a weight to be left out, in [0, 1].
        only_linear: leave convolutions alone.

    Raises:
        BenchError: p outside [0, 1].
    """

    family = Family.masks
    strength = "p"
    space = {"p": Linear(0.02, 0.6, authors=0.5, source="Wan et al. 2013; SpikingJelly's default")}

    def __init__(self, p: float = 0.1, only_linear: bool = False) -> None:
        super().__init__()
        probability("dropconnect", p=p)
        self.p, self.only_linear = p, only_linear
        # In a list: they belong to the network.
        self.connections: list[Connections] = []

    def attach(self, model: SpikingNetwork) -> None:
        kinds = nn.Linear if self.only_linear else (nn.Linear, nn.Conv2d)
        for module in list(model.modules()) if self.p > 0 else ():
            if isinstance(module, kinds):
                own = Connections(module.weight.detach(), self.p)
                parametrize.register_parametrization(module, "weight", own)
                self.connections.append(own)

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # Once a step: a network reads its weights as often as it likes.
        for own in self.connections:
            own.draw()
        return x, y

    def bake(self, model: SpikingNetwork) -> None:
        for module in model.modules():
            if parametrize.is_parametrized(module, "weight"):
                made = module.parametrizations["weight"]  # type: ignore[index]
                mine = [one for one in made if any(one is own for own in self.connections)]
                for one in mine:
                    one.eval()  # without its mask
                if mine:
                    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
