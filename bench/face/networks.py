"""Networks from Python: new ones by their name, trained ones by their run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.config.component import build
from bench.config.compose import named_component
from bench.errors import BenchError, nearest
from bench.models.base import SpikingNetwork
from bench.models.spec import Spec
from bench.neurons import NEURONS, NeuronConfig
from bench.ranges import Numbers
from bench.registry import MODELS
from bench.weights.store import load

__all__ = ["create_model", "load"]


def create_model(
    name: str,
    *,
    image_shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    neuron: str | Mapping[str, Any] | NeuronConfig = "if",
    time_steps: int = 4,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    labels: Sequence[str] = (),
    **arguments: Any,
) -> SpikingNetwork:
    """A network of the suite, untrained, with the defaults of `bench run size=full`.

    `network(x)` takes normalized images `[N, C, H, W]` and gives logits `[N, classes]`, from rest; `by_step` gives
    those of each time step, `predict` takes raw images.

    Args:
        name: one of `bench.list_models()`.
        image_shape: (C, H, W) of one image.
        num_classes: how many.
        neuron: `if`, `lif`, `plif` or `relu` (the non-spiking twin), or its settings, `{"name": "lif", "tau": 4.0}`.
        time_steps: T.
        mean: what normalization takes from each channel of pixels in [0, 1], for `predict`.
        std: what it then divides by.
        labels: the classes' names, for `predict`.
        arguments: of the network, as `bench list models` has them.

    Raises:
        BenchError: no such network, neuron or argument (names the nearest), or numbers that do not fit.

    Examples:
        >>> import bench, torch
        >>> network = bench.create_model("cnn", image_shape=(1, 28, 28), neuron="lif", time_steps=4, channels=32)
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    Numbers().at_least(1, num_classes=num_classes)
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise BenchError(f"image_shape is {image_shape}, and must be (channels, height, width)")
    per_channel = {key: tuple(map(float, values)) for key, values in (("mean", mean), ("std", std))}
    for key, values in per_channel.items():
        if len(values) not in (1, shape[0]):
            raise BenchError(f"{key} has {len(values)} numbers, and the images have {shape[0]} channel(s)")
    if labels and len(labels) != num_classes:
        raise BenchError(f"labels has {len(labels)} names, and num_classes is {num_classes}")
    spec = Spec(
        shape, num_classes, time_steps, neuron_of(neuron), per_channel["mean"], per_channel["std"],
        tuple(map(str, labels)),
    )  # fmt: skip
    network: SpikingNetwork = build(MODELS, named_component(MODELS, name, arguments), spec=spec)
    return network.to(memory_format=torch.channels_last)


def neuron_of(given: str | Mapping[str, Any] | NeuronConfig) -> NeuronConfig:
    """A neuron's settings, by its name or as they are.

    Raises:
        BenchError: no such neuron or setting; names the nearest.
    """
    if isinstance(given, NeuronConfig):
        return given
    own = {"name": given} if isinstance(given, str) else dict(given)
    if own.get("name", "if") not in NEURONS:
        raise BenchError(f"no neuron is called '{own['name']}'. {nearest(str(own['name']), NEURONS)}")
    known = list(NeuronConfig.__dataclass_fields__)
    for key in own:
        if key not in known:
            raise BenchError(f"a neuron has no setting '{key}'. {nearest(key, known)}")
    return NeuronConfig(**own)
