"""The fully connected spike response network of lyu2023: delayed synapses, time-to-first-spike input, no reset."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import KNOBS, Spec, SpikingNetwork
from bench.models.mlp import BLACK
from bench.neurons import NeuronConfig, Read, Spiking
from bench.registry import MODELS


class Firing(StrEnum):
    """`first`: a hidden neuron fires at its first crossing of the threshold alone; `multi`: at every one."""

    first = "first"
    multi = "multi"


def kernel(age: Tensor, tau: float) -> Tensor:
    """Spike response: the potential that a spike of that age leaves, 1 at its peak (lyu2023, eq. 2).

    Args:
        age: time steps since the spike arrived, any shape; the response to what lies ahead is 0.
        tau: time to the peak, in time steps.
    """
    # Clamped before the exponential: an age far below 0 would overflow, and 0 times infinity is NaN.
    age = age.clamp(min=0) / tau
    return age * torch.exp(1 - age)


def responses(delays: Sequence[int], tau: float, time_steps: int) -> Tensor:
    """What a spike at step s does to the potential at step t through each synapse: `[K, T, T]`, float64.

    Args:
        delays: of the K synapses, in time steps.
        tau: time to the kernel's peak, in time steps.
        time_steps: T.
    """
    steps = torch.arange(time_steps, dtype=torch.float64)
    age = steps[:, None] - steps
    return torch.stack([kernel(age - delay, tau) for delay in delays])


def spike_times(pixels: Tensor, time_steps: int) -> Tensor:
    """When a pixel fires: (1 - x) (T - 1), the brightest first; T, which is never, for black ones.

    Args:
        pixels: in [0, 1], any shape; what lies outside is clipped.
        time_steps: T.

    Returns:
        Of the pixels' shape, before rounding to a step.
    """
    times = (1 - pixels.clamp(0.0, 1.0)) * (time_steps - 1)
    return torch.where(pixels < BLACK, float(time_steps), times)


def spike_trains(times: Tensor, time_steps: int) -> Tensor:
    """One spike for each unit, at its time rounded to a step; the gradient knows what a shift by a step would do.

    Args:
        times: `[N, C]`; no spike comes of what does not round to one of the steps 0 to T - 1.
        time_steps: T.

    Returns:
        `[T, N, C]` of 0 and 1. Its gradient by the times is the central difference of two shifted trains.
    """
    step = torch.arange(time_steps, device=times.device, dtype=times.dtype).view(-1, 1, 1)
    at = times.detach().round()
    trains = (step == at).to(times.dtype)
    if not times.requires_grad:
        return trains
    shift = ((step == at + 1).to(times.dtype) - (step == at - 1).to(times.dtype)) / 2
    return trains + shift * (times - times.detach())


class DelayedSynapses(nn.Linear):
    """K delayed synapses from every unit to every neuron, without bias (lyu2023, eqs. 1 and 3).

    No step is simulated: one product with the matrix of the responses gives the postsynaptic potentials y of all
    steps, one with the weights the membrane potentials. With `tau=None` there are no responses: every synapse passes on
    what it is given.

    Shapes: spikes `[..., C * K]`, the K synapses of a unit side by side and time slowest in the axes before them, to
    potentials `[..., H]`.

    Args:
        units: C.
        neurons: H.
        delays: of the K synapses, in time steps.
        tau: time to the kernel's peak, in time steps.
        time_steps: T.
    """

    response: Tensor | None

    def __init__(self, units: int, neurons: int, delays: Sequence[int], tau: float | None, time_steps: int) -> None:
        super().__init__(units * len(delays), neurons, bias=False)
        # torch's own start would leave nearly all potentials far below the threshold.
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.synapses, self.time_steps = len(delays), time_steps
        # float64 until it is used, so that a network in float64 is exact.
        response = None if tau is None else responses(delays, tau, time_steps)
        self.register_buffer("response", response, persistent=False)

    def forward(self, x: Tensor, current: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Spikes to potentials.

        Args:
            x: spikes, see the class.
            current: maps the postsynaptic potentials `[T * N, C, K]` before they are weighted.
        """
        potentials = self.postsynaptic(x)
        if current is not None:
            potentials = current(potentials)
        return F.linear(potentials.reshape(x.shape), self.weight)

    def postsynaptic(self, x: Tensor) -> Tensor:
        """Spikes `[..., C * K]` to the postsynaptic potentials `[T * N, C, K]`, one for each synapse (eq. 1's y)."""
        if self.response is None:
            return x.reshape(-1, x.shape[-1] // self.synapses, self.synapses)
        trains = x.reshape(self.time_steps, -1, x.shape[-1] // self.synapses, self.synapses)
        return torch.einsum("kts,snck->tnck", self.response.to(x.dtype), trains).flatten(0, 1)


class ResponseNeuron(nn.Module):
    """Fires where the potential that its synapses give reaches the threshold; `[T, N, H]` in and out.

    With `recovery=None` it fires once. Otherwise each spike takes the threshold off its potential, which comes back
    with that time constant: the refractory term of the spike response model (Gerstner & Kistler 2002, section 4.2).

    Args:
        surrogate: Heaviside step with a surrogate gradient.
        v_threshold: firing threshold.
        recovery: time constant of the refractory term, in time steps; None for one spike.
        detach_reset: whether the refractory term is left out of the gradient.

    Attributes:
        spent: `[N, H]` what the last pass left, until `reset`: who has fired already, or the refractory term.
        v_seq: `[T, N, H]` potential before firing, when `store_v_seq` is set.
    """

    def __init__(
        self, surrogate: Callable[[Tensor], Tensor], v_threshold: float, recovery: float | None, detach_reset: bool
    ) -> None:
        super().__init__()
        self.surrogate, self.v_threshold, self.detach_reset = surrogate, v_threshold, detach_reset
        self.decay = None if recovery is None else math.exp(-1 / recovery)
        self.store_v_seq = False
        self.v_seq: Tensor | None = None
        self.spent: Tensor | None = None

    def reset(self) -> None:
        """Start anew: nobody has fired."""
        self.spent = None

    def forward(self, v: Tensor) -> Tensor:
        fired, v = self.once(v) if self.decay is None else self.repeatedly(v, self.decay)
        self.v_seq = v if self.store_v_seq else None
        return fired

    def once(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and potentials of neurons that fire at their first crossing alone."""
        crossed = v.detach() >= self.v_threshold
        before = crossed.cumsum(0) - crossed.long()
        spent = torch.zeros_like(crossed[0]) if self.spent is None else self.spent
        self.spent = spent | crossed.any(0)
        # The gradient reaches the steps up to the first spike: no later one could change anything.
        return self.surrogate(v - self.v_threshold) * ((before == 0) & ~spent), v

    def repeatedly(self, v: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        """Spikes and potentials of neurons with a refractory term."""
        spent = torch.zeros_like(v[0]) if self.spent is None else self.spent
        fired, potentials = [], []
        for step in v.unbind(0):
            potentials.append(step - spent)
            fired.append(self.surrogate(potentials[-1] - self.v_threshold))
            reset = fired[-1].detach() if self.detach_reset else fired[-1]
            spent = (spent + self.v_threshold * reset) * decay
        self.spent = spent
        return torch.stack(fired), torch.stack(potentials)


class Branches(nn.Module):
    """The axon of every unit parts into K synapses: `[B, C]` to `[B, C, K]`."""

    def __init__(self, synapses: int) -> None:
        super().__init__()
        self.synapses = synapses

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1).expand(*x.shape, self.synapses)

    def extra_repr(self) -> str:
        return str(self.synapses)


class ResponseLayer(Spiking):
    """Spiking layer whose input is the membrane potential itself.

    Its slots see a sample's units with their K synapses, `[T * N, C, K]`, so that dropping a channel drops one
    presynaptic unit and dropping an element one delayed synapse: `current` the postsynaptic potentials in front of its
    weights (the network applies it there), `spikes` what its neurons emit, branched already. The slot `weighted` sees
    what the weights make of the potentials, `[T * N, H]`: there a channel and an element are one neuron.

    Shapes: potentials `[T * N, H]` to spikes `[T * N, H, K]`, time slowest.

    Args:
        config: threshold, surrogate and detach_reset; the reset potential and tau are not those of this model.
        time_steps: T.
        recovery: see `ResponseNeuron`.
        synapses: K.
    """

    def __init__(self, config: NeuronConfig, time_steps: int, recovery: float | None, synapses: int) -> None:
        super().__init__(config, time_steps)
        if self.is_spiking:
            surrogate = self.neuron.surrogate_function
            self.neuron = ResponseNeuron(surrogate, config.v_threshold, recovery, config.detach_reset)
        self.spikes.append(Branches(synapses))
        self.weighted = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.weighted(x))

    def _fire(self, x: Tensor) -> Tensor:
        self.neuron.store_v_seq = Read.potential in self.reads
        with torch.autocast(x.device.type, enabled=False):
            fired: Tensor = self.neuron(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x)
        self.potential = self.neuron.v_seq
        return fired.to(x.dtype)


@MODELS.register("srm")
class SRM(SpikingNetwork):
    """Spike response network: pixels that fire once, delayed synapses, threshold, delayed synapses, maximum over time.

    A bright pixel fires early, a black one never. Every unit has a synapse for each delay to every neuron of the next
    layer; a spike's response there rises to its peak after tau steps. The output neurons do not fire: the logits are
    the largest potentials that they reach, the 0 before the first spike included. `time_steps=16` goes with the
    defaults.

    For dropouts a channel is one presynaptic unit with its K delayed synapses, an element one delayed synapse: on
    `[N, C]` dropout2d would be dropout, and feature dropout alpha dropout. They have three places, as the paper is not
    of one mind:

    - `at=current` drops postsynaptic potentials of the pixels, in front of the weights: this suite's reading, by
      section II.D's "channels of the input data";
    - `at=weighted` drops the weighted sum in front of the threshold, where the paper's algorithm has its dropout; there
      the four are two;
    - `at=spikes` drops what hidden neurons send to the output: eq. 5's f(W x) m. Its mask has one entry a neuron, which
      here is dropout2d's.

    Source: lyu2023 (Lyu & Yin), eqs. 1 to 3. Width, T, tau, delays, encoding, the read-out and `spikes=multi` are this
    suite's: the paper states none of them.

    Args:
        spec: image shape, classes, time steps, neuron (`if` stands for the response neuron, `relu` for the twin).
        hidden: number of hidden neurons.
        tau: time to the peak of the response, in time steps; `multi` recovers with it too.
        delays: of the synapses between two neurons, in time steps.
        spikes: whether a hidden neuron fires once or repeatedly.

    Raises:
        BenchError: no hidden neuron, tau of 0 or below, no delay or a negative one, or a neuron with its own reset.
    """

    def __init__(
        self,
        spec: Spec,
        hidden: int = 128,
        tau: float = 4.0,
        delays: list[int] = [0, 2, 4],  # noqa: B006
        spikes: Firing = Firing.first,
    ) -> None:
        super().__init__(spec)
        KNOBS.at_least(1, hidden=hidden)
        KNOBS.above(0, " time steps", tau=tau)
        if not delays:
            raise BenchError("model.delays is [], it needs one for each synapse between two neurons, as in [0,2,4]")
        for delay in delays:
            if delay < 0:
                raise BenchError(f"model.delays has {delay}, a spike cannot arrive before it was sent: 0 or more")
        if spec.neuron.name not in ("if", "relu"):
            raise BenchError(
                f"model=srm has a neuron of its own, so that neuron={spec.neuron.name} means nothing; take if, or relu "
                "for the twin"
            )
        self.spiking_input = spec.neuron.name != "relu"
        response = tau if self.spiking_input else None
        units = math.prod(spec.image_shape)
        self.branches = Branches(len(delays))
        self.synapses = DelayedSynapses(units, hidden, delays, response, self.time_steps)
        recovery = tau if Firing(spikes) is Firing.multi else None
        self.hidden = ResponseLayer(spec.neuron, self.time_steps, recovery, len(delays))
        self.head = DelayedSynapses(hidden, spec.classes, delays, response, self.time_steps)

    def features(self, x: Tensor) -> Tensor:
        inputs = self.branches(self.encode(x).flatten(0, 1)).flatten(1)
        potentials = self.synapses(inputs, self.hidden.current)
        return self.hidden(potentials).flatten(1).unflatten(0, (self.time_steps, -1))

    def encode(self, x: Tensor) -> Tensor:
        """Normalized images `[N, C, H, W]` to input spikes `[T, N, C * H * W]`; the twin's `[1, N, ...]` are pixels."""
        pixels = self.spec.pixels(x).flatten(1)
        if not self.spiking_input:
            return pixels.unsqueeze(0)
        return spike_trains(spike_times(pixels, self.time_steps), self.time_steps)

    def read(self, logits_t: Tensor) -> Tensor:
        return logits_t.amax(0)

    def logits(self, features: Tensor) -> Tensor:
        return self.read(self.head(features))
