"""What a network is built for: images, classes, time steps, neuron."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bench.neurons import NeuronConfig


@dataclass(frozen=True)
class Spec:
    """What a network is built for; everything else a constructor takes is a knob.

    Attributes:
        image_shape: (C, H, W) of one image.
        classes: number of classes.
        time_steps: T, how often the network sees the image.
        neuron: the neuron of every spiking layer.
        mean: what normalization has taken from each channel of pixels in [0, 1].
        std: what it has then divided each channel by.
        labels: the classes' names; without, they are called by their numbers.
        raw_shape: (C, H, W) of the data set's images, which are padded or resized to `image_shape`; None is the same.
        posterize: leading bits of each pixel that the network sees; None is all 8.
        precision: of the passes that it is trained and judged by: fp32 or bf16.
    """

    image_shape: tuple[int, int, int]
    classes: int
    time_steps: int = 4
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    labels: tuple[str, ...] = ()
    raw_shape: tuple[int, int, int] | None = None
    posterize: int | None = None
    precision: str = "fp32"

    def pixels(self, x: Tensor) -> Tensor:
        """Normalized images `[N, C, H, W]` back in pixels, [0, 1] up to rounding: for encodings by rate or time."""
        mean, std = (x.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return x * std + mean
