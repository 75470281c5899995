"""What users of SpikingJelly write for what a regularizer does: hooks that gather spikes, the package's own dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from bench.config.schema import Optimizer
from bench.regularizers.masking import At, Scaling
from bench.regularizers.spikepen import Scale


@dataclass
class Way:
    """What has been done to a plain network of SpikingJelly's layers.

    Attributes:
        terms: of the penalty, after a forward pass.
        weight_decay: of the optimizer.
    """

    terms: list[Callable[[], Tensor]] = field(default_factory=list)
    weight_decay: float = 0.0

    def penalty(self) -> Tensor | float:
        """The sum of its terms."""
        return sum(term() for term in self.terms)

    def optimizer(self, cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a run, with the decay that was asked for."""
        optim = cfg.optim
        if optim.name is Optimizer.sgd:
            return torch.optim.SGD(model.parameters(), optim.lr, optim.momentum, weight_decay=self.weight_decay)
        betas = tuple(optim.betas)
        return torch.optim.AdamW(model.parameters(), optim.lr, betas=betas, weight_decay=self.weight_decay)


def neurons(model: nn.Module) -> list[nn.Module]:
    """Its spiking layers."""
    from spikingjelly.activation_based.neuron import BaseNode

    return [module for module in model.modules() if isinstance(module, BaseNode)]


def spike_penalty(way: Way, model: nn.Module, settings: Any) -> None:
    """Forward hooks keep every layer's spikes; the penalty is computed from them."""
    fired: list[Tensor] = []

    def start(module: nn.Module, given: Any) -> None:
        fired.clear()

    def keep(module: nn.Module, given: Any, spikes: Tensor) -> None:
        fired.append(spikes)

    model.register_forward_pre_hook(start)
    for neuron in neurons(model):
        neuron.register_forward_hook(keep)

    def term() -> Tensor:
        means = [(spikes.square() if settings.order == 2 else spikes).float().mean() for spikes in fired]
        half = 1.0 if settings.order == 1 and settings.scale == Scale.matched else 0.5
        return settings.weight * half * torch.stack(means).sum()

    way.terms.append(term)


def dropout(kind: str) -> Callable[[Way, nn.Module, Any], None]:
    """SpikingJelly's own dropout in front of every neuron.

    Args:
        kind: its class, of those that keep a mask until the network is reset.
    """

    def apply(way: Way, model: nn.Module, settings: Any) -> None:
        from spikingjelly.activation_based import layer
        from spikingjelly.activation_based.neuron import BaseNode

        for parent in [*model.modules()]:
            for name, child in [*parent.named_children()]:
                if isinstance(child, BaseNode):
                    dropped = getattr(layer, kind)(settings.p, step_mode="m")
                    pair = (child, dropped) if settings.at == At.spikes else (dropped, child)
                    setattr(parent, name, nn.Sequential(*pair))

    return apply


def weight_decay(way: Way, model: nn.Module, settings: Any) -> None:
    """The optimizer's own."""
    way.weight_decay = settings.weight


WAYS: dict[str, Callable[[Way, nn.Module, Any], None]] = {
    "none": lambda way, model, settings: None,
    "spikepen": spike_penalty,
    "dropout": dropout("Dropout"),
    "dropout2d": dropout("Dropout2d"),
    "weight_decay": weight_decay,
}
"""By regularizer."""

DIFFERS = {
    "spikepen": "forward hooks keep the spikes, the penalty is computed from them",
    "dropout": "layer.Dropout, one mask for all time steps",
    "dropout2d": "layer.Dropout2d, one mask for all time steps",
    "weight_decay": "the optimizer's",
}
"""How SpikingJelly's users do it, in a line."""


# Settings are read from the regularizers' source, with enumerations of their own: their values are compared.
def expressed(name: str, settings: Any) -> bool:
    """Whether there is a way to do what a regularizer does with these settings.

    Args:
        name: of the regularizer.
        settings: its node of the configuration.
    """
    if name == "spikepen":
        return settings.layer_weights is None and not settings.increasing
    if name in ("dropout", "dropout2d"):
        return settings.scaling == Scaling.inverted and settings.at != At.weighted
    if name == "weight_decay":
        return not settings.only_weights
    return name in WAYS


def take(model: nn.Module, regs: DictConfig) -> Way:
    """Change a network of SpikingJelly's layers into what does as a set of regularizers does.

    Args:
        model: the network.
        regs: the set, of those that are `expressed`.
    """
    way = Way()
    for name, settings in regs.items():
        WAYS[str(name)](way, model, settings)
    return way
