"""The plain spiking CNN of nandan2022, section 2.1.1."""

from __future__ import annotations

from torch import Tensor, nn

from bench.models.base import KNOBS, Pool, Spec, SpikingNetwork, check_halvings, halving
from bench.ops import ConvNorm, fire_block
from bench.registry import MODELS


@MODELS.register("cnn")
class CNN(SpikingNetwork):
    """Spiking CNN: {conv 3x3 - BN - IF - max pool 2} x 4 - FC.

    Source: nandan2022 (arXiv 2201.02538), section 2.1.1, "{c128k3s1-BN-IF-MPk2s2}*4-FC". The first
    conv + BN is the static stem: it sees the image once.

    Args:
        spec: image shape, classes, time steps, neuron.
        channels: width of every convolution.
        depth: number of conv - BN - IF - pool stages; each halves the image.
        pool: `max` or `avg`; null is `max`, as in the thesis.

    Raises:
        BenchError: a knob below 1, or an image too small to be halved `depth` times.
    """

    def __init__(self, spec: Spec, channels: int = 128, depth: int = 4, pool: Pool | None = None) -> None:
        super().__init__(spec)
        KNOBS.at_least(1, channels=channels, depth=depth)
        in_channels, height, width = spec.image_shape
        check_halvings(depth, height, width)
        self.convs = nn.ModuleList(ConvNorm(in_channels if i == 0 else channels, channels, 3) for i in range(depth))
        self.spikings = nn.ModuleList(self.spiking() for _ in range(depth))
        self.pool = halving(pool)
        self.head = nn.Linear(channels * (height >> depth) * (width >> depth), spec.classes)

    def features(self, x: Tensor) -> Tensor:
        for i, (conv, spiking) in enumerate(zip(self.convs, self.spikings, strict=True)):
            x = fire_block(conv, spiking, x, self.pool, repeat=i == 0)  # type: ignore[arg-type]
        return x.flatten(1).unflatten(0, (self.time_steps, -1))
