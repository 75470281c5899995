"""DIET-SNN: a convolutional network converted from its trained ReLU twin; leaks and thresholds are trained too."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import KNOBS, Spec, SpikingNetwork, check_halvings
from bench.models.diet_neuron import (
    LOWEST_THRESHOLD,
    DietNeuron,
    DietSpiking,
    balanced_threshold,
    check_neuron,
)
from bench.ops import ConvNorm, fire_block
from bench.registry import MODELS

CALIBRATION_IMAGES = 100  # thresholds are percentiles over all their neurons: more images change little


@MODELS.register("diet")
class Diet(SpikingNetwork):
    """DIET-SNN: a direct-encoded VGG that starts from its trained ReLU twin, then trains weights, leaks and thresholds.

    One command does all of it. With `twin=auto` the same run with `neuron=relu` comes first, as a run with a record of
    its own, shared by all runs that differ only in what is spiking; its optimizer takes `twin_lr`. Its weights are
    kept; a layer's threshold becomes a percentile of its input current in the converted network, layer by layer, leaks
    at 1, then all thresholds are multiplied by `threshold_scale`. A run that is continued needs no twin.

    There are no biases and no batch norm: the spikes of a layer may then stand for its activations up to a factor. Of
    the settings under `neuron` it uses `detach_reset`, and `v_threshold` where there is no twin; the reset is soft. The
    recipe's dropout is `reg=dropout` with `mask=fixed at=spikes`. Weight decay leaves leaks and thresholds alone.

    Source: gutekunst, section 5, eq. 4; Rathi & Roy 2021 (DIET-SNN, arXiv 2008.03658). Constants are those of their
    public script, except `calibration_steps`, there 500.

    Args:
        spec: image shape, classes, time steps, neuron.
        convs: widths of the 3x3 convolutions in turn; 0 is an average pooling of 2 (their VGG6 if left alone).
        hidden: widths of the fully connected layers before the output.
        train_leak: train one leak a layer.
        train_threshold: train one threshold a layer.
        leak: what is left of a potential after a step at the start, in [0, 1].
        percentile: of a layer's input current, which its threshold is taken from, in (0, 100].
        threshold_scale: multiplies these thresholds.
        calibration_steps: time steps over which they are taken, rounded up to whole passes.
        damping: height of the linear surrogate gradient.
        twin: `auto`, `none` (start from random weights), or the id or folder of a finished run of the twin.
        twin_lr: learning rate of the twin under `auto`.
        twin_epochs: epochs of the twin under `auto`; null is as many as this run's.

    Raises:
        BenchError: an argument out of its range, too many poolings, or a neuron that it does not have.
    """

    twin_arguments: ClassVar[tuple[str, ...]] = ("convs", "hidden")
    """What the twin is built from; all else concerns spikes."""

    def __init__(
        self,
        spec: Spec,
        convs: list[int] = [64, 0, 128, 128, 0],  # noqa: B006
        hidden: list[int] = [4096, 4096],  # noqa: B006
        train_leak: bool = True,
        train_threshold: bool = True,
        leak: float = 1.0,
        percentile: float = 99.7,
        threshold_scale: float = 0.2,
        calibration_steps: int = 100,
        damping: float = 0.3,
        twin: str = "auto",
        twin_lr: float = 1e-3,
        twin_epochs: int | None = None,
    ) -> None:
        super().__init__(spec)
        check_neuron(spec.neuron)
        KNOBS.at_least(1, calibration_steps=calibration_steps, twin_epochs=twin_epochs)
        KNOBS.within("[0, 1]", leak=leak)
        KNOBS.within("(0, 100]", percentile=percentile)
        KNOBS.above(0, threshold_scale=threshold_scale, damping=damping, twin_lr=twin_lr)
        listed = ",".join(map(str, convs))
        if not convs or convs[0] == 0 or min(convs) < 0:
            raise BenchError(
                f"model.convs is [{listed}], it must begin with a width and hold widths, or 0 for a pooling, "
                "as in [64,0,128,128,0]"
            )
        for units in hidden:
            KNOBS.at_least(1, hidden=units)
        channels, height, width = spec.image_shape
        poolings = convs.count(0)
        check_halvings(poolings, height, width, knob=f"model.convs=[{listed}]")
        self.leak, self.percentile, self.threshold_scale = leak, percentile, threshold_scale
        self.calibration_steps = calibration_steps
        self.twin_weights: dict[str, Tensor] | None = None
        self.halvings: list[int] = []
        self.convs = nn.ModuleList()
        for entry in convs:
            if entry == 0:
                self.halvings[-1] += 1
                continue
            block = ConvNorm(channels, entry, 3)
            block.conv = nn.Conv2d(channels, entry, 3, padding=1, bias=False)
            block.norm = nn.Identity()
            self.convs.append(block)
            self.halvings.append(0)
            channels = entry
        sizes = [channels * (height >> poolings) * (width >> poolings), *hidden]
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(sizes, hidden, strict=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # Without batch norm PyTorch's own start would shrink the activations of every layer.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        own = (leak, train_leak, train_threshold, damping)
        self.spikings = nn.ModuleList(
            self.spiking() if spec.neuron.name == "relu" else DietSpiking(spec.neuron, self.time_steps, *own)
            for _ in range(len(self.convs) + len(hidden))
        )
        self.head = nn.Linear(sizes[-1], spec.classes, bias=False)

    def features(self, x: Tensor) -> Tensor:
        for i in range(len(self.spikings)):
            x = self.layer(i, x)
        return x.flatten(1).unflatten(0, (self.time_steps, -1))

    def read(self, logits_t: Tensor) -> Tensor:
        """The output neurons' potential after the last step: the sum of their inputs, without leak or spikes."""
        return logits_t.sum(0)

    def logits(self, features: Tensor) -> Tensor:
        return self.head(features.sum(0))

    def layer(self, i: int, x: Tensor) -> Tensor:
        """Spiking layer i with its weights and poolings: `[T * N, ...]` in and out; images `[N, C, H, W]` into 0."""
        spiking: Any = self.spikings[i]
        if i >= len(self.convs):
            return spiking(self.current(i, x))
        conv: Any = self.convs[i]
        x = fire_block(conv, spiking, x, repeat=i == 0)
        for _ in range(self.halvings[i]):
            x = F.avg_pool2d(x, 2)
        return x

    def current(self, i: int, x: Tensor) -> Tensor:
        """The input current of spiking layer i, from what `layer` takes."""
        if i < len(self.convs):
            return self.convs[i](x)
        return self.linears[i - len(self.convs)](x.flatten(1))

    def no_weight_decay(self) -> set[str]:
        return {
            f"{layer}.neuron.{name}"
            for layer, spiking in self.spiking_layers()
            for name, _ in spiking.neuron.named_parameters()
        }

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the twin's weights at `initialize`; leaks and thresholds stay this network's.

        Args:
            weights: state of the twin, by the names of this network's.

        Raises:
            BenchError: they are of another network.
        """
        own = {key: value for key, value in self.state_dict().items() if ".neuron." not in key}
        for name in [*own, *weights]:
            if name not in own or name not in weights or own[name].shape != weights[name].shape:
                raise BenchError(f"the twin is another network: '{name}' does not fit")
        self.twin_weights = weights

    @torch.no_grad()
    def initialize(self, images: Tensor) -> None:
        """Become the converted twin, where there is one.

        Args:
            images: `[M, C, H, W]` normalized training images, of which some set the thresholds.

        Raises:
            BenchError: a layer's input current gives no threshold.
        """
        if self.twin_weights is None:
            return
        self.load_state_dict(self.twin_weights, strict=False)
        self.twin_weights = None
        was_training = self.training
        self.eval()
        try:
            with self.remembering():
                self.calibrate(images[:CALIBRATION_IMAGES].to(self.head.weight))
        finally:
            self.train(was_training)
            self.forget()

    def calibrate(self, images: Tensor) -> None:
        """Set all thresholds from input currents, the first layer's first.

        Args:
            images: `[N, C, H, W]`.

        Raises:
            BenchError: a layer's currents are too low for any threshold.
        """
        neurons: list[DietNeuron] = [layer.neuron for _, layer in self.spiking_layers()]
        for neuron in neurons:
            neuron.leak.fill_(1.0)
        for i, neuron in enumerate(neurons):
            self.forget()
            largest = 0.0
            # The image is the same at every step: so is the first layer's current.
            for _ in range(-(-self.calibration_steps // self.time_steps) if i else 1):
                x = images
                for j in range(i):
                    x = self.layer(j, x)
                steps = self.current(i, x).float().unflatten(0, (self.time_steps if i else 1, -1))
                largest = max(largest, balanced_threshold(steps, self.percentile))
            if not largest > LOWEST_THRESHOLD:
                raise BenchError(
                    f"the converted twin gives spiking layer {i} of {len(neurons)} an input current of {largest:g} at "
                    f"percentile {self.percentile:g}, too low for a threshold: train the twin better (model.twin_lr, "
                    "model.twin_epochs), or raise model.percentile or model.calibration_steps"
                )
            neuron.threshold.fill_(largest)
        for neuron in neurons:
            neuron.threshold.mul_(self.threshold_scale)
            neuron.leak.fill_(self.leak)
