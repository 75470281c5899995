"""Batch norm of the membrane potential, in front of the threshold."""

from __future__ import annotations

import torch
from spikingjelly.activation_based.neuron import IFNode, LIFNode, ParametricLIFNode
from torch import Tensor, nn

from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ops import Backend, using
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, positive
from bench.regularizers.needs import spiking
from bench.space import Log

NODES = (IFNode, LIFNode, ParametricLIFNode)
"""Neurons whose potential before firing is known."""


KINDS: dict[int, type[nn.modules.batchnorm._BatchNorm]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
"""Batch norms by the number of axes of `[N, C, ...]`."""


class PotentialNorm(nn.Module):
    """Batch norm of one step's potentials, less the threshold: g (u - mu) / sqrt(var + eps) + b - V.

    One for all steps: in training each is normalized by its own batch, in eval mode all by the same running statistics.
    These move by 1 - (1 - momentum)^T in a forward pass, as far as batch norm's do that is called T times, but towards
    the mean over its steps, so that the last one counts no more than the first.

    Shapes: u `[N, C, ...]` in and out.

    Args:
        norm: the batch norm, with g and b.
        threshold: V.
        time_steps: T.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, threshold: float, time_steps: int) -> None:
        super().__init__()
        self.norm, self.threshold, self.time_steps = norm, threshold, time_steps

    def forward(self, u: Tensor, step: int) -> Tensor:
        momentum = self.norm.momentum
        assert momentum is not None
        moved = 1 - (1 - momentum) ** self.time_steps
        self.norm.momentum = moved / (self.time_steps * (1 - moved) + (step + 1) * moved)
        try:
            out: Tensor = self.norm(u) - self.threshold
        finally:
            self.norm.momentum = momentum
        return out


class ChannelThresholds(nn.Module):
    """A threshold for each channel: slope (u - threshold), which is 0 or more where a neuron fires.

    A channel with a slope below 0 fires below its threshold. The slope's size matters to surrogate gradients alone.

    Shapes: u `[N, C, ...]` in and out.

    Args:
        threshold: `[C]`.
        slope: `[C]`, not 0.
    """

    threshold: Tensor
    slope: Tensor

    def __init__(self, threshold: Tensor, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.register_buffer("slope", slope)

    def forward(self, u: Tensor, step: int) -> Tensor:
        shape = (1, -1, *[1] * (u.ndim - 2))
        return (u - self.threshold.view(shape)) * self.slope.view(shape)


@torch.no_grad()
def folded(trigger: PotentialNorm) -> ChannelThresholds:
    """The thresholds that a norm's running statistics come to: V~ = (V - b) sqrt(var + eps) / g + mu, with slope
    g / sqrt(var + eps). A channel with g = 0 fires always or never: V~ is infinite.

    Args:
        trigger: as training has left it.
    """
    norm, firing = trigger.norm, trigger.threshold
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var, g, b = (x.double() for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    slope = (g / (var + norm.eps).sqrt()).to(norm.weight.dtype)
    flat = slope == 0
    never = torch.where(b < firing, torch.inf, -torch.inf)
    slope = torch.where(flat, 1.0, slope)
    threshold = torch.where(flat, never, (firing - b) / slope.double() + mean)
    return ChannelThresholds(threshold.to(norm.weight.dtype), slope)


@torch.no_grad()
def shapes_of(model: SpikingNetwork) -> list[torch.Size | None]:
    """The shape `[N, C, ...]` of every spiking layer's potentials for one image, in the network's order; None for a
    layer that the network does not use.

    Args:
        model: it sees an image of zeros, and is left as it was.
    """
    was_training, weight = model.training, model.head.weight
    image = torch.zeros(1, *model.spec.image_shape, dtype=weight.dtype, device=weight.device)
    try:
        # The reference: for one image no kernel is worth building. What the pass draws is dropped after it.
        with torch.random.fork_rng(devices=[]), using(Backend.reference):
            model.eval()
            model.forget()
            model.features(image)
        shapes = [layer.shape for _, layer in model.spiking_layers()]
        return [None if shape is None else shape[1:] for shape in shapes]
    finally:
        model.train(was_training)
        model.forget()


@REGULARIZERS.register("mpbn")
class MembranePotentialBatchNorm(Regularizer):
    """Membrane potential batch norm: neurons fire where the batch norm of their potential reaches the threshold.

    s[t] = H(BN(u[t]) - V), one batch norm for each spiking layer and all its time steps, besides those behind
    convolutions. The reset is of the potential itself, which is also what others read. In training each step is
    normalized by its own batch, through which the gradient flows; no kernel does that inside the loop over time, and
    these layers use the reference.

    With running statistics the norm is a threshold for each channel, V~ = (V - b) sqrt(var + eps) / g + mu, below which
    it fires where g is negative: `bake` leaves those. Neurons with a common threshold cannot hold them.

    Source: Guo et al. 2023 (ICCV, arXiv 2308.08359), eq. 9, and eq. 13 for the folded thresholds (the numbers are not
    verified). What the authors' g starts at is not verified: 1 is batch norm's own.

    Args:
        gain: what g starts at, above 0: at first the potentials have this standard deviation at the threshold.

    Raises:
        BenchError: a gain of 0 or below, or a network with other neurons than IF, LIF and PLIF.
    """

    family = Family.normalization
    identity_in_eval = False
    replayable = True
    space = {"gain": Log(0.25, 4.0, authors=1.0, source="not verified; batch norm's own")}

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        positive("mpbn", gain=gain)
        self.gain = gain

    def attach(self, model: SpikingNetwork) -> None:
        spiking("mpbn", model, "potentials")
        layers = dict(model.spiking_layers())
        for name, layer in layers.items():
            if type(layer.neuron) not in NODES:
                kinds = ", ".join(kind.__name__ for kind in NODES)
                raise BenchError(
                    f"reg=mpbn knows the potentials of {kinds}; {name} of {type(model).__name__} is a "
                    f"{type(layer.neuron).__name__}"
                )
        for layer, shape in zip(layers.values(), shapes_of(model), strict=True):
            if shape is None:
                continue
            norm = KINDS[len(shape)](shape[1])
            nn.init.constant_(norm.weight, self.gain)
            trigger = PotentialNorm(norm, layer.neuron.v_threshold, layer.time_steps)
            layer.trigger = trigger.to(model.head.weight)

    def bake(self, model: SpikingNetwork) -> None:
        for _, layer in model.spiking_layers():
            if isinstance(layer.trigger, PotentialNorm):
                layer.trigger = folded(layer.trigger)
