"""The spiking ConvMixer of nandan2022, section 2.1.3, after Trockman & Kolter 2022."""

from __future__ import annotations

from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import KNOBS, Spec, SpikingNetwork
from bench.neurons import Spiking
from bench.ops import ConvNorm, fire_block
from bench.registry import MODELS


class MixerBlock(nn.Module):
    """x + IF(BN(depthwise(x))), then pointwise - BN - IF; `[T * N, C, H, W]` in and out."""

    def __init__(self, net: SpikingNetwork, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise, self.spiking_depthwise = ConvNorm(width, width, kernel, groups=width), net.spiking()
        self.pointwise, self.spiking_pointwise = ConvNorm(width, width, 1), net.spiking()

    def forward(self, x: Tensor) -> Tensor:
        x = fire_block(self.depthwise, self.spiking_depthwise, x, add=x)
        return fire_block(self.pointwise, self.spiking_pointwise, x)


@MODELS.register("convmixer")
class ConvMixer(SpikingNetwork):
    """Spiking ConvMixer: patch conv - BN - IF, {depthwise + ADD, pointwise} x 8, global mean, FC.

    Source: nandan2022 (arXiv 2201.02538), section 2.1.3; ConvMixer of Trockman & Kolter 2022
    (arXiv 2201.09792), figure 2.

    Args:
        spec: image shape, classes, time steps, neuron.
        width: channels of every convolution.
        depth: number of mixer blocks.
        kernel: side of the depthwise kernel, odd.
        patch: side and stride of the patch convolution; must divide the image.

    Raises:
        BenchError: a knob below 1, an even kernel, or a patch that does not divide the image.
    """

    def __init__(self, spec: Spec, width: int = 256, depth: int = 8, kernel: int = 9, patch: int = 1) -> None:
        super().__init__(spec)
        KNOBS.at_least(1, width=width, depth=depth, kernel=kernel, patch=patch)
        in_channels, height, breadth = spec.image_shape
        if kernel % 2 == 0:
            raise BenchError(f"model.kernel is {kernel}, it must be odd: {kernel - 1} or {kernel + 1}")
        if height % patch or breadth % patch:
            fits = [p for p in range(1, min(height, breadth) + 1) if height % p == 0 and breadth % p == 0]
            raise BenchError(
                f"model.patch={patch} does not divide the image of {height}x{breadth}; these do: "
                f"{', '.join(map(str, fits))}"
            )
        self.stem, self.spiking_stem = ConvNorm(in_channels, width, patch, stride=patch, padding=0), self.spiking()
        self.blocks = nn.Sequential(*(MixerBlock(self, width, kernel) for _ in range(depth)))
        self.head = nn.Linear(width, spec.classes)

    def residual_layers(self) -> list[Spiking]:
        return [block.spiking_depthwise for block in self.blocks if isinstance(block, MixerBlock)]

    def features(self, x: Tensor) -> Tensor:
        x = self.blocks(fire_block(self.stem, self.spiking_stem, x, repeat=True))
        return x.mean((2, 3)).unflatten(0, (self.time_steps, -1))
