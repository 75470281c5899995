"""The SEW ResNet of nandan2022, section 2.1.2, after Fang et al. 2021."""

from __future__ import annotations

from enum import StrEnum

from torch import Tensor, nn

from bench.models.base import KNOBS, Pool, Spec, SpikingNetwork, check_halvings, halving
from bench.neurons import Spiking
from bench.ops import ConvNorm, fire_block
from bench.registry import MODELS


class Connect(StrEnum):
    """Element-wise function g of a block's output A and its input S (Fang et al. 2021, table 1).

    ADD gives A + S (values above 1: no spikes), AND gives A S, IAND gives (1 - A) S.
    """

    ADD = "ADD"
    AND = "AND"
    IAND = "IAND"


class SEWBlock(nn.Module):
    """Two conv 3x3 - BN - IF, then g with the block's input, then pooling; `[T * N, C, H, W]` in and out."""

    def __init__(self, net: SpikingNetwork, channels: int, cnf: Connect) -> None:
        super().__init__()
        self.cnf = cnf
        self.conv1, self.spiking1 = ConvNorm(channels, channels, 3), net.spiking()
        self.conv2, self.spiking2 = ConvNorm(channels, channels, 3), net.spiking()

    def forward(self, x: Tensor, pool: nn.Module | None = None) -> Tensor:
        out = fire_block(self.conv1, self.spiking1, x)
        if self.cnf is Connect.ADD:
            return fire_block(self.conv2, self.spiking2, out, pool, add=x)
        fired = fire_block(self.conv2, self.spiking2, out)
        out = fired * x if self.cnf is Connect.AND else (1 - fired) * x
        return out if pool is None else pool(out)


@MODELS.register("sew")
class SEWResNet(SpikingNetwork):
    """SEW ResNet: conv - BN - IF - {SEWBlock - SEWBlock - max pool 2} x 5 - FC.

    Source: nandan2022 (arXiv 2201.02538), section 2.1.2; blocks of Fang et al. 2021
    (arXiv 2102.04159), eq. 6. The thesis does not say what the stem is: 3x3, stride 1.

    Args:
        spec: image shape, classes, time steps, neuron.
        channels: width of every convolution (the thesis: 32 and 64).
        depth: number of stages; each halves the image.
        blocks: SEW blocks in a stage.
        cnf: how a block's output meets its input.
        pool: `max` or `avg`; null is `max`, as in the thesis.

    Raises:
        BenchError: a knob below 1, or an image too small to be halved `depth` times.
    """

    def __init__(
        self,
        spec: Spec,
        channels: int = 64,
        depth: int = 5,
        blocks: int = 2,
        cnf: Connect = Connect.ADD,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(spec)
        KNOBS.at_least(1, channels=channels, depth=depth, blocks=blocks)
        in_channels, height, width = spec.image_shape
        check_halvings(depth, height, width)
        self.stem, self.spiking_stem = ConvNorm(in_channels, channels, 3), self.spiking()
        self.stages = nn.ModuleList(
            nn.ModuleList(SEWBlock(self, channels, cnf) for _ in range(blocks)) for _ in range(depth)
        )
        self.pool = halving(pool)
        self.head = nn.Linear(channels * (height >> depth) * (width >> depth), spec.classes)

    def residual_layers(self) -> list[Spiking]:
        blocks = [block for block in self.modules() if isinstance(block, SEWBlock)]
        return [block.spiking2 for block in blocks if block.cnf is Connect.ADD]

    def features(self, x: Tensor) -> Tensor:
        x = fire_block(self.stem, self.spiking_stem, x, repeat=True)
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, self.pool if block is stage[-1] else None)  # type: ignore[index]
        return x.flatten(1).unflatten(0, (self.time_steps, -1))
