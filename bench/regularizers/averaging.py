"""What averages of weights share: a copy that follows the parameters, and a network that is judged by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.activity import Activity
from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.regularizers.base import Regularizer
from bench.regularizers.stepping import momentum


class Averaging(Regularizer, ABC):
    """Base of the methods that judge a network by a mean of its weights over the training.

    Batch norm's statistics are those of training images under the averaged weights, measured anew for each evaluation:
    the mean weights' activity is not the mean of the activities.

    Attributes:
        name: that the class is registered under.
        count: steps that the mean has seen.
    """

    family = Family.optimizer
    name: ClassVar[str]
    identity_in_eval = False
    replayable = True
    reads = ()  # weights alone
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.names: list[str] = []
        self.network: list[SpikingNetwork] = []

    @abstractmethod
    def share(self) -> Tensor | float:
        """Weight of this step's parameters in the mean, in [0, 1]; 0 before the mean has begun."""

    def attach(self, model: SpikingNetwork) -> None:
        if self.off:
            return
        self.network = [model]
        self.names = [name for name, _ in model.named_parameters()]
        for place, (_, parameter) in enumerate(model.named_parameters()):
            self.register_buffer(f"mean{place}", parameter.detach().clone())
        for place, (_, value) in enumerate(self.statistics(model)):
            self.register_buffer(f"statistic{place}", value.detach().clone())

    @staticmethod
    def statistics(model: nn.Module) -> list[tuple[str, Tensor]]:
        """Batch norm's running statistics, by name."""
        return [(n, b) for n, b in model.named_buffers() if n.rpartition(".")[2] in ("running_mean", "running_var")]

    def parameters_of(self, model: SpikingNetwork) -> list[nn.Parameter]:
        """The parameters that the mean is of, in its order.

        Raises:
            BenchError: a regularizer that was attached later has made others of them, or added some.
        """
        known = dict(model.named_parameters())
        if gone := [name for name in self.names if name not in known]:
            raise BenchError(f"reg={self.name}: a regularizer named after it has replaced {gone[0]}; name it last")
        if len(known) > len(self.names):
            new = next(name for name in known if name not in self.names)
            raise BenchError(f"reg={self.name}: a regularizer named after it has added {new}; name it last")
        return [known[name] for name in self.names]

    def means(self) -> list[Tensor]:
        """The mean of each."""
        return [getattr(self, f"mean{place}") for place in range(len(self.names))]

    @torch.no_grad()
    def after_step(self, activity: Activity) -> None:
        for model in self.network:
            share = self.share()
            for mean, parameter in zip(self.means(), self.parameters_of(model), strict=True):
                mean.lerp_(parameter, share)

    @contextmanager
    def eval_weights(self, model: SpikingNetwork, images: Tensor) -> Iterator[None]:
        if self.off or float(self.count) == 0:
            yield
            return
        own = [p.detach().clone() for p in self.parameters_of(model)]
        kept = [value.clone() for _, value in self.statistics(model)]
        try:
            self._put(model, self.means())
            measure_anew(model, images)
            for place, (_, value) in enumerate(self.statistics(model)):
                getattr(self, f"statistic{place}").copy_(value)
            yield
        finally:
            self._put(model, own)
            for (_, value), old in zip(self.statistics(model), kept, strict=True):
                value.copy_(old)

    @torch.no_grad()
    def _put(self, model: SpikingNetwork, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters_of(model), values, strict=True):
            parameter.copy_(value)

    def bake(self, model: SpikingNetwork) -> None:
        if self.off or float(self.count) == 0:
            return
        self._put(model, self.means())
        for place, (_, value) in enumerate(self.statistics(model)):
            value.copy_(getattr(self, f"statistic{place}"))
        self.names = []
        self.network = []
        self.count.zero_()


@torch.no_grad()
def measure_anew(model: SpikingNetwork, images: Tensor) -> None:
    """Set batch norm's running statistics to those of some images; dropouts and the like stay out.

    Args:
        model: the network, which is left in the mode it was in.
        images: `[N, C, H, W]`, normalized.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with momentum(model, 1.0) as norms:
            for norm in norms:
                norm.train()
            model.forget()
            model.features(images.contiguous(memory_format=torch.channels_last))
            model.forget()
    finally:
        for module, mode in modes.items():
            module.training = mode
