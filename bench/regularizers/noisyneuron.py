"""Noise on the membrane potential."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.space import Log


class Noise(nn.Module):
    """Adds normal noise in training mode; any shape in and out.

    Args:
        sigma: its standard deviation.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # In the order of memory: torch's generator takes six times as long for a tensor in any other.
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if last else torch.randn_like(x)
        return torch.add(x, noise, alpha=self.sigma)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:g}"


@REGULARIZERS.register("noisyneuron")
class NoisyNeuron(Regularizer):
    """Noisy neurons: in training every neuron's potential gets normal noise of standard deviation sigma at each step.

    It is added with the current, so that an IF neuron's potential keeps it until it fires; a LIF neuron whose input
    decays divides it by tau as it does the current.

    Source: Ma et al. 2023 (arXiv 2305.16044), the noisy spiking neuron, eq. 3 (its number is not verified);
    SpikingJelly has such nodes too. The authors' sigma could not be verified: 0.2 is ours, for a threshold of 1.

    Args:
        sigma: standard deviation, in units of the potential, 0 or more.

    Raises:
        BenchError: a negative sigma.
    """

    family = Family.masks
    strength = "sigma"
    replayable = True
    space = {"sigma": Log(0.02, 1.0, authors=0.2, source="not verified; this suite's default")}

    def __init__(self, sigma: float = 0.2) -> None:
        super().__init__()
        nonnegative("noisyneuron", sigma=sigma)
        self.sigma = sigma

    def attach(self, model: SpikingNetwork) -> None:
        for _, layer in model.spiking_layers() if self.sigma > 0 else ():
            layer.current.append(Noise(self.sigma))
