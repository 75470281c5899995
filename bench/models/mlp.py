"""A spiking network of fully connected layers, fed with the image itself or with Poisson spike trains."""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import KNOBS, Spec, SpikingNetwork
from bench.registry import MODELS
from bench.seeds import generator

BLACK = 0.5 / 255  # pixels below are black: normalizing and undoing it leaves 1e-8 of what was 0


class Encoding(StrEnum):
    """What the first layer sees: `direct`, the normalized image at every step, or `poisson`, spikes."""

    direct = "direct"
    poisson = "poisson"


def poisson(pixels: Tensor, time_steps: int, rate: float, draw: torch.Generator | None = None) -> Tensor:
    """Spikes of independent inputs, each firing in a step with probability `rate` times its pixel.

    The gradient takes a spike for its probability (straight through), so that attacks on the image pass.

    Args:
        pixels: `[N, F]` in [0, 1]; what lies outside is clipped.
        time_steps: T.
        rate: probability of a spike in a step at full intensity.
        draw: where the random numbers come from; None is torch's global generator.

    Returns:
        `[T, N, F]` of 0 and 1, of the pixels' type.
    """
    chance = rate * pixels.clamp(0.0, 1.0)
    # In float32: bfloat16 would round random numbers up to 1, and small probabilities coarsely.
    lot = torch.rand(time_steps, *pixels.shape, generator=draw, device=pixels.device)
    fired = (lot < torch.where(pixels < BLACK, 0.0, chance.float())).to(pixels.dtype)
    return fired + (chance - chance.detach())


@MODELS.register("mlp")
class MLP(SpikingNetwork):
    """Fully connected spiking network: {linear - IF} for each hidden width - FC.

    With `encoding=poisson` pixels are the rates of independent input neurons, as in antonov2024 and Diehl & Cook
    (2015): `rate` is a spike's probability per step at full intensity, whatever `data.mean` and `data.std` are.
    Training draws from torch's global generator, which the task seeds from (seed, epoch, step). In evaluation every
    batch of a size meets the same random numbers, so that the same batch gives the same spikes.

    Source: antonov2024 (Antonov & Sukhov), section 3: 784 Poisson inputs onto one layer of neurons. Training it by
    surrogate gradients with a linear read-out is this suite's.

    Args:
        spec: image shape, classes, time steps, neuron.
        hidden: width of each spiking layer.
        encoding: what the first layer sees.
        rate: probability of an input spike in a step at full intensity, in (0, 1]; `poisson` only.
        bias: whether the layers in front of neurons have one; without it, silence in is silence out.
        excitatory: start the first layer from weights of 0 and above, as the paper's synapses are; training may turn
            them negative.

    Raises:
        BenchError: no hidden layer, a width below 1, or a rate outside (0, 1].
    """

    def __init__(
        self,
        spec: Spec,
        hidden: list[int] = [256],  # noqa: B006
        encoding: Encoding = Encoding.direct,
        rate: float = 1.0,
        bias: bool = True,
        excitatory: bool = False,
    ) -> None:
        super().__init__(spec)
        if not hidden:
            raise BenchError("model.hidden is [], it needs a width for each spiking layer, as in [256]")
        for width in hidden:
            KNOBS.at_least(1, hidden=width)
        KNOBS.within("(0, 1]", ": it is a probability", rate=rate)
        self.encoding, self.rate = Encoding(encoding), rate
        self.spiking_input = self.encoding is Encoding.poisson
        sizes = [math.prod(spec.image_shape), *hidden]
        self.linears = nn.ModuleList(
            nn.Linear(inputs, width, bias=bias) for inputs, width in zip(sizes, hidden, strict=False)
        )
        if excitatory:
            with torch.no_grad():
                self.linears[0].weight.abs_()  # type: ignore[operator]
        self.spikings = nn.ModuleList(self.spiking() for _ in hidden)
        self.head = nn.Linear(hidden[-1], spec.classes)

    def features(self, x: Tensor) -> Tensor:
        if self.encoding is Encoding.poisson:
            x = self.encode(x).flatten(0, 1)
        for i, (linear, spiking) in enumerate(zip(self.linears, self.spikings, strict=True)):
            x = linear(x.flatten(1))
            if i == 0 and self.encoding is Encoding.direct:
                x = x.expand(self.time_steps, -1, -1).flatten(0, 1)
            x = spiking(x)
        return x.unflatten(0, (self.time_steps, -1))

    def encode(self, x: Tensor) -> Tensor:
        """Normalized images `[N, C, H, W]` to input spikes `[T, N, C * H * W]`."""
        pixels = self.spec.pixels(x).flatten(1)
        if self.training:
            return poisson(pixels, self.time_steps, self.rate)
        draw = generator(x.device, 0, "poisson")
        return poisson(pixels, self.time_steps, self.rate, draw)
