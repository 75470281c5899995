"""The frame of a model file: what every network is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.predict import Predicting
from bench.models.spec import Spec
from bench.neurons import Spiking, adopt
from bench.ranges import Numbers

KNOBS = Numbers("model.")
"""The ranges of what a network's constructor takes."""


class Pool(StrEnum):
    """How a network halves its maps: by the largest of four values, or by their mean.

    The mean of spikes is no spike: what the next layer does with it counts as multiplications. It is linear, so that
    chips and exchange formats that know no maximum take such a network.
    """

    max = "max"
    avg = "avg"


def halving(pool: Pool | None) -> nn.Module:
    """The pooling of 2, `[B, C, H, W]` to `[B, C, H // 2, W // 2]`; None is `max`."""
    return nn.AvgPool2d(2) if Pool(pool or "max") is Pool.avg else nn.MaxPool2d(2)


class SpikingNetwork(Predicting, ABC):
    """Frame of a network: subclasses define `features` and a linear `head`.

    `model(x)` starts from rest; to go on from the potentials of the last pass is asked for by `remembering`. Whoever
    calls `features` itself calls `forget` before (in a run, the task does).

    A layer of its own with neurons of SpikingJelly's is adopted: it is reset, counted and regularized like the suite's.

    Attributes:
        spec: what it was built for.
        time_steps: T; 1 for the ReLU twin, whose steps would all be the same.
        learning: `gradient`, or `local` for rules of the network's own, which know no loss.
        spiking_input: whether the first layer is fed with spikes, so that what it does is counted as SynOps.
    """

    head: nn.Linear
    learning: ClassVar[Literal["gradient", "local"]] = "gradient"
    spiking_input: bool = False

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        Numbers().at_least(1, time_steps=spec.time_steps)
        self.spec = spec
        self.time_steps = 1 if spec.neuron.name == "relu" else spec.time_steps
        self._remembers = False
        self._others: list[Any] | None = None

    def spiking(self) -> Spiking:
        """A new spiking layer of this network's neuron."""
        return Spiking(self.spec.neuron, self.time_steps)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` to features `[T, N, F]`."""

    def read(self, logits_t: Tensor) -> Tensor:
        """Logits per step `[T, N, classes]` to logits `[N, classes]`: their mean."""
        return logits_t.mean(0)

    def logits(self, features: Tensor) -> Tensor:
        """Features `[T, N, F]` to logits `[N, classes]`: what `read` makes of the head's, here by the mean first."""
        return self.head(features.mean(0))

    def forward(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` to logits `[N, classes]`, from rest."""
        if not self._remembers:
            self.forget()
        return self.logits(self.features(x))

    def by_step(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` to logits of every time step `[T, N, classes]`, from rest, for losses that see them.

        Examples:
            >>> import bench, torch
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4, time_steps=6)
            >>> network.by_step(torch.rand(3, 1, 8, 8)).shape
            torch.Size([6, 3, 10])
        """
        if not self._remembers:
            self.forget()
        return self.head(self.features(x))

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """While this context is open, a forward pass goes on from the potentials that the last one has left."""
        layers = [layer for _, layer in self.spiking_layers()]
        try:
            self._remembers = True
            for layer in layers:
                layer.remembers = True
            yield
        finally:
            self._remembers = False
            for layer in layers:
                layer.remembers = False

    def spiking_layers(self) -> Iterator[tuple[str, Spiking]]:
        """(name, layer) of every spiking layer, in the order of definition.

        Raises:
            BenchError: a layer has neurons that the suite can neither reset nor count.
        """
        if self._others is None:
            self._others = adopt(self, self.time_steps)
        for name, module in self.named_modules():
            if isinstance(module, Spiking):
                yield name, module

    def initialize(self, images: Tensor) -> None:
        """Data-dependent start, once, before the first step of a fresh run (not on resume), after the regularizers'.

        Args:
            images: `[500, C, H, W]` (or fewer) normalized training images, without augmentation.
        """

    def residual_layers(self) -> list[Spiking]:
        """The last spiking layer of every residual branch that is added to its input, from the input on."""
        return []

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are no weights, so that weight decay leaves them alone."""
        return set()

    def forget(self) -> None:
        """Reset every membrane potential and drop the last pass' activity."""
        for _, layer in self.spiking_layers():
            layer.forget()
        for module in self._others or ():
            module.reset()


def check_halvings(depth: int, height: int, width: int, knob: str | None = None) -> None:
    """Refuse more poolings than the image has room for.

    Args:
        depth: how many poolings.
        height: of the image.
        width: of the image.
        knob: the setting that says so; None is `model.depth`.

    Raises:
        BenchError: says how often the image can be halved.
    """
    if min(height, width) >> depth == 0:
        raise BenchError(
            f"{knob or f'model.depth={depth}'} halves the image {depth} times, but {height}x{width} can be halved "
            f"{min(height, width).bit_length() - 1} times at most"
        )
