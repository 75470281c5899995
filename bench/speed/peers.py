"""The suite's networks as users of SpikingJelly, snnTorch and Norse would write them, from those packages' layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, EnvironmentFault
from bench.models.base import Spec
from bench.neurons import NeuronConfig, make_neuron

PARITY = 1e-9
"""How far, in float64, logits may be from ours that must be the same."""


@dataclass(frozen=True)
class Kit:
    """One package's layers.

    Attributes:
        folded: whether its networks work on `[T * N, ...]`; if not, on `[T, N, ...]`.
        conv, norm, pool, linear: constructors with the arguments of torch's layers.
        fire: makes a spiking layer.
    """

    folded: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    pool: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]
    fire: Callable[[], nn.Module]

    def conv_norm_fire(self, inputs: int, outputs: int, kernel: int, **options: int) -> nn.Sequential:
        """Convolution - BN - neuron."""
        options.setdefault("padding", kernel // 2)
        return nn.Sequential(self.conv(inputs, outputs, kernel, **options), self.norm(outputs), self.fire())


class OverTime(nn.Module):
    """A neuron of a package without a folded time axis: `[T * N, ...]` in and out, one call of `step` a time step.

    Args:
        step: `(x_t, state) -> (spikes_t, state)`; the state of the first step is None.
        time_steps: T.
    """

    def __init__(self, step: Callable[[Tensor, Any], tuple[Tensor, Any]], time_steps: int) -> None:
        super().__init__()
        self.step, self.time_steps = step, time_steps

    def forward(self, x: Tensor) -> Tensor:
        state, fired = None, []
        for now in x.unflatten(0, (self.time_steps, -1)):
            spikes, state = self.step(now, state)
            fired.append(spikes)
        return torch.cat(fired)


def spikingjelly(neuron: NeuronConfig, time_steps: int) -> Kit:
    """Plain SpikingJelly layers in multi-step mode."""
    from spikingjelly.activation_based import layer

    def multi(kind: Any) -> Callable[..., nn.Module]:
        return lambda *args, **options: kind(*args, step_mode="m", **options)

    return Kit(
        False,
        multi(layer.Conv2d),
        multi(layer.BatchNorm2d),
        multi(layer.MaxPool2d),
        multi(layer.Linear),
        lambda: make_neuron(neuron),
    )


def folded(step: Callable[[Tensor, Any], tuple[Tensor, Any]], time_steps: int) -> Kit:
    """torch's layers on `[T * N, ...]`, which is faster than a loop over the network, around a package's neuron."""
    return Kit(True, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Linear, lambda: OverTime(step, time_steps))


def snntorch(neuron: NeuronConfig, time_steps: int) -> Kit:
    """snnTorch's Leaky without leak."""
    package, surrogate = import_module("snntorch"), import_module("snntorch.surrogate")
    node = package.Leaky(
        beta=1.0,
        threshold=neuron.v_threshold,
        spike_grad=surrogate.atan(alpha=neuron.alpha),
        reset_mechanism="subtract" if neuron.v_reset is None else "zero",
    )
    return folded(lambda x, mem: node(x, torch.zeros_like(x) if mem is None else mem), time_steps)


def norse(neuron: NeuronConfig, time_steps: int) -> Kit:
    """Norse's integrate-and-fire step."""
    iaf = import_module("norse.torch.functional.iaf")
    threshold, rest = torch.tensor(neuron.v_threshold), torch.tensor(0.0)
    parameters = iaf.IAFParameters(v_th=threshold, v_reset=rest, method="super")

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        # Handed over at the start: Norse's own first state asks for a gradient, which costs a reduction a layer.
        state = iaf.IAFFeedForwardState(v=torch.zeros_like(x)) if state is None else state
        return iaf.iaf_feed_forward_step(x, state, parameters)

    return folded(step, time_steps)


def any_spiking(neuron: NeuronConfig) -> bool:
    """Whether it is a neuron at all."""
    return neuron.name != "relu"


def plain_if(neuron: NeuronConfig) -> bool:
    """Whether it is what every package can express: IF whose reset is left out of the gradient."""
    return neuron.name == "if" and neuron.v_reset in (0.0, None) and neuron.detach_reset


@dataclass(frozen=True)
class Peer:
    """A package, how it is used, and what it does not do as the suite does.

    Attributes:
        package: what must be installed.
        kit: its layers for a neuron and a number of time steps.
        differs: what is not the same, in a line.
        expresses: whether it has the neuron.
        best: with every setting its documentation has for speed.
        float64: whether its neuron can compute in float64, as the parity check does.
        same: whether its logits must be ours.
    """

    package: str
    kit: Callable[[NeuronConfig, int], Kit]
    differs: str
    expresses: Callable[[NeuronConfig], bool]
    best: bool = False
    float64: bool = True
    same: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.package) is not None


PEERS = {
    "spikingjelly_eager": Peer(
        "spikingjelly", spikingjelly, "the same function; fp32, stock settings, stem T times", any_spiking, same=True
    ),
    "spikingjelly_best": Peer(
        "spikingjelly",
        spikingjelly,
        "the same in bf16 autocast where the processor has bf16, channels_last, torch.compile, mallopt; stem T times",
        any_spiking,
        best=True,
        same=True,
    ),
    "snntorch": Peer(
        "snntorch",
        snntorch,
        "Leaky, beta 1, ATan: fires above the threshold, not at it; fp32, stem T times",
        plain_if,
        float64=False,
    ),
    "norse": Peer(
        "norse",
        norse,
        "IAF: SuperSpike for want of ATan, gradient through the reset; fp32, stem T times",
        lambda neuron: plain_if(neuron) and neuron.v_reset is not None,
    ),
}


class PeerNetwork(nn.Module):
    """Body and linear head on an image shown T times; `[N, C, H, W]` to logits `[N, classes]`."""

    def __init__(self, kit: Kit, body: nn.Module, features: int, spec: Spec) -> None:
        super().__init__()
        self.folded, self.time_steps = kit.folded, spec.time_steps
        self.body, self.fc = body, kit.linear(features, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(self.time_steps, *x.shape)
        logits = self.fc(self.body(x.flatten(0, 1) if self.folded else x))
        return (logits.unflatten(0, (self.time_steps, -1)) if self.folded else logits).mean(0)


class Flat(nn.Module):
    """`[..., C, H, W]` to `[..., C * H * W]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(-3)


class SpaceMean(nn.Module):
    """`[..., C, H, W]` to `[..., C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))


class SEWBlock(nn.Module):
    """Two conv - BN - neuron, then ADD, AND or IAND with the block's input."""

    def __init__(self, kit: Kit, channels: int, cnf: str) -> None:
        super().__init__()
        self.cnf = cnf
        self.first = kit.conv_norm_fire(channels, channels, 3)
        self.second = kit.conv_norm_fire(channels, channels, 3)

    def forward(self, s: Tensor) -> Tensor:
        a = self.second(self.first(s))
        if self.cnf == "ADD":
            return a + s
        return a * s if self.cnf == "AND" else s - a * s


class MixerBlock(nn.Module):
    """pointwise(x + depthwise(x)), each conv - BN - neuron."""

    def __init__(self, kit: Kit, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = kit.conv_norm_fire(width, width, kernel, groups=width)
        self.pointwise = kit.conv_norm_fire(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(x + self.depthwise(x))


def cnn(kit: Kit, spec: Spec, channels: int, depth: int) -> PeerNetwork:
    """{conv - BN - neuron - max pool} x depth - FC."""
    inputs, height, width = spec.image_shape
    body = nn.Sequential()
    for i in range(depth):
        body.extend([kit.conv_norm_fire(channels if i else inputs, channels, 3), kit.pool(2)])
    body.append(Flat())
    return PeerNetwork(kit, body, channels * (height >> depth) * (width >> depth), spec)


def sew(kit: Kit, spec: Spec, channels: int, depth: int, blocks: int, cnf: str) -> PeerNetwork:
    """Stem - {SEW block x blocks - max pool} x depth - FC."""
    inputs, height, width = spec.image_shape
    body = nn.Sequential(kit.conv_norm_fire(inputs, channels, 3))
    for _ in range(depth):
        body.extend([*(SEWBlock(kit, channels, cnf) for _ in range(blocks)), kit.pool(2)])
    body.append(Flat())
    return PeerNetwork(kit, body, channels * (height >> depth) * (width >> depth), spec)


def convmixer(kit: Kit, spec: Spec, width: int, depth: int, kernel: int, patch: int) -> PeerNetwork:
    """Patch stem - mixer block x depth - mean over space - FC."""
    body = nn.Sequential(kit.conv_norm_fire(spec.image_shape[0], width, patch, stride=patch, padding=0))
    body.extend([*(MixerBlock(kit, width, kernel) for _ in range(depth)), SpaceMean()])
    return PeerNetwork(kit, body, width, spec)


NETWORKS: dict[str, Callable[..., PeerNetwork]] = {"cnn": cnn, "sew": sew, "convmixer": convmixer}


def network(peer: Peer, model: str, spec: Spec, arguments: dict[str, Any]) -> PeerNetwork:
    """A peer's network, with weights of its own.

    Args:
        peer: one of `PEERS`.
        model: one of `NETWORKS`.
        spec: what it is built for.
        arguments: of our network's constructor.

    Raises:
        BenchError: peers pool by the maximum alone.
    """
    arguments = dict(arguments)
    if arguments.pop("pool", None) not in (None, "max"):
        raise BenchError("model.pool=avg has no peer: peers=none measures the suite alone")
    return NETWORKS[model](peer.kit(spec.neuron, spec.time_steps), spec, **arguments)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the weights of `source`; both must define their layers in the same order."""
    from spikingjelly.activation_based import neuron

    for kinds in (nn.Conv2d, nn.BatchNorm2d, nn.Linear, neuron.ParametricLIFNode):
        mine, theirs = ([m for m in net.modules() if isinstance(m, kinds)] for net in (source, target))
        for a, b in zip(mine, theirs, strict=True):
            b.load_state_dict(a.state_dict())


def check_parity(distances: dict[str, float]) -> None:
    """Refuse a peer that computes something else: every ratio would be meaningless.

    Args:
        distances: of each peer's logits from ours, the largest, in float64.

    Raises:
        EnvironmentFault: the logits of one that must be ours are not.
    """
    for name, distance in distances.items():
        if PEERS[name].same and not distance <= PARITY:
            raise EnvironmentFault(
                f"the logits of {name} differ from ours by {distance:.1e} in float64, more than {PARITY:g}: "
                "the networks are not the same, nothing was measured"
            )
