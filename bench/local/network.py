"""The network of Diehl & Cook 2015: its wiring and its state, what may change in a run, and the neurons' response."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bench.local.constants import Constants
from bench.local.spikes import Trains
from bench.ranges import Numbers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Indices = NDArray[np.int32]

MILLISECONDS = Numbers("model.", "{key} is {value} ms, it must {wanted}")
"""The ranges of delays and durations."""

TINY = 1e-100
"""Decayed values below this become 0 at the start of a run: subnormal numbers slow every step down."""

INPUTS = 784
"""For so many inputs the papers state their weights; for others these are scaled, so that the drive is the same."""


@dataclass(frozen=True)
class Wiring:
    """What does not change: who is connected to whom, and how late a spike arrives.

    Attributes:
        delay_in: int32 [inputs, neurons] steps.
        delay_ei: int32 [neurons] steps from an excitatory neuron to its inhibitory one.
        delay_ie: int32 [neurons, neurons] steps from an inhibitory neuron to an excitatory one, -1 on the diagonal:
            its own is spared.
    """

    delay_in: Indices
    delay_ei: Indices
    delay_ie: Indices

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.delay_in.shape[0]

    @property
    def neurons(self) -> int:
        """Number of excitatory neurons, and of inhibitory ones."""
        return self.delay_in.shape[1]

    @property
    def terminals(self) -> int:
        """Of an input, one for each number of steps from 0 to the longest delay."""
        return int(self.delay_in.max()) + 1


@dataclass
class State:
    """What changes from step to step.

    Attributes:
        step: since the start.
        w: [inputs, neurons] input weights.
        v, ge, gi: [neurons] potential in mV and conductances of the excitatory neurons.
        theta: [neurons] what their threshold has gained, mV.
        post, post2: [neurons] postsynaptic traces, the faster and the slower.
        free_e: [neurons] the step from which a neuron may fire again.
        v_i, ge_i, free_i: of the inhibitory neurons.
        trace: [inputs, terminals] presynaptic trace right after the last spike's arrival.
        last: [inputs, terminals] step of that arrival; 0 before the first.
        ring_ei, ring_ie: [slots, neurons] conductance under way, by the step (modulo slots) of its arrival.
        tail: input spikes of the last `terminals - 1` steps, some of which are still under way.
    """

    step: int
    w: Floats
    v: Floats
    ge: Floats
    gi: Floats
    theta: Floats
    post: Floats
    post2: Floats
    free_e: Ints
    v_i: Floats
    ge_i: Floats
    free_i: Ints
    trace: Floats
    last: Ints
    ring_ei: Floats
    ring_ie: Floats
    tail: Trains

    def copy(self) -> State:
        """An independent copy."""
        return copy.deepcopy(self)


@dataclass(frozen=True)
class Response:
    """What a run's neurons did.

    Attributes:
        excitatory: int64 [neurons] spikes in the counted window.
        inhibitory: likewise.
        step: int32 [spikes] of every spike of the run, ascending.
        neuron: int32 [spikes]; inhibitory neurons are numbered after the excitatory ones.
    """

    excitatory: Ints
    inhibitory: Ints
    step: Indices
    neuron: Indices


@dataclass(frozen=True)
class Mode:
    """What changes during a run.

    Attributes:
        sign: of potentiation, +1 or -1 (all-LTD) for each neuron; None: nothing is learned.
        adapt: whether thresholds rise with spikes and fall with time.
        unused: k_p / tau^2 of the decay of unused weights, tau in steps; 0 is none.
    """

    sign: Floats | None = None
    adapt: bool = False
    unused: float = 0.0


class Network:
    """Inputs - excitatory neurons - inhibitory neurons, with all numbers of a step at hand.

    Args:
        constants: of a paper.
        wiring: of `wire`.
    """

    def __init__(self, constants: Constants, wiring: Wiring) -> None:
        self.constants, self.wiring = constants, wiring
        n, c = wiring.neurons, constants
        self.scale = INPUTS / wiring.inputs
        self.w_max = c.w_max * self.scale
        self.w_ie = c.w_ie / n if c.w_ie_shared else c.w_ie
        self.slots_ei, self.slots_ie = int(wiring.delay_ei.max()) + 1, int(wiring.delay_ie.max(initial=0)) + 1
        # The neurons of each input in the order of their delays, and where each delay begins among them.
        self.order = np.argsort(wiring.delay_in, axis=1, kind="stable").astype(np.int32)
        counts = np.zeros((wiring.inputs, wiring.terminals), dtype=np.int64)
        np.add.at(counts, (np.arange(wiring.inputs)[:, None], wiring.delay_in), 1)
        self.start = np.concatenate([[0], counts.cumsum()]).astype(np.int32)

    def fresh(self, rng: np.random.Generator) -> State:
        """The state before anything is learned: random weights, everything else at its start."""
        c, (inputs, n) = self.constants, self.wiring.delay_in.shape
        low, high = c.w_start
        state = self.rested(rng.uniform(low, high, (inputs, n)) * self.scale, np.full(n, c.theta_start), 0)
        # Uniform on [low, high) in theory; scaling may round the highest onto w_max.
        np.minimum(state.w, self.w_max, out=state.w)
        return state

    def rested(self, w: Floats, theta: Floats, step: int) -> State:
        """A state in which nothing is under way.

        Args:
            w: [inputs, neurons], copied.
            theta: [neurons], copied.
            step: that it is.
        """
        c, (inputs, n), terminals = self.constants, self.wiring.delay_in.shape, self.wiring.terminals
        nothing = Trains(np.zeros(terminals, dtype=np.int32), np.zeros(0, dtype=np.int32))
        return State(
            step=step,
            w=np.ascontiguousarray(w, dtype=np.float64).copy(),
            v=np.full(n, float(c.excitatory.start)),
            ge=np.zeros(n),
            gi=np.zeros(n),
            theta=np.array(theta, dtype=np.float64),
            post=np.zeros(n),
            post2=np.zeros(n),
            free_e=np.zeros(n, dtype=np.int64),
            v_i=np.full(n, float(c.inhibitory.start)),
            ge_i=np.zeros(n),
            free_i=np.zeros(n, dtype=np.int64),
            trace=np.zeros((inputs, terminals)),
            last=np.full((inputs, terminals), step, dtype=np.int64),
            ring_ei=np.zeros((self.slots_ei, n)),
            ring_ie=np.zeros((self.slots_ie, n)),
            tail=nothing,
        )

    def threshold(self, state: State, mode: Mode) -> tuple[Floats, bool]:
        """The thresholds of a run [neurons] in mV, and whether theta is to be added step by step."""
        c = self.constants
        base = np.full(len(state.v), c.excitatory.threshold - c.theta_offset)
        if not mode.adapt and not c.theta_test:
            return np.full(len(state.v), float(c.excitatory.threshold)), False
        return (base, True) if c.theta_live else (base + state.theta, False)

    def normalize(self, state: State) -> None:
        """Scale each neuron's input weights to the sum that the constants have, if any; in place."""
        if self.constants.w_sum is not None:
            sums = state.w.sum(0)
            state.w *= np.divide(self.constants.w_sum * 1.0, sums, out=np.ones_like(sums), where=sums > 0)


def steps(ms: float, dt: float) -> int:
    """Time steps in a duration, rounded."""
    return int(np.floor(ms / dt + 0.5))


def check_delays(constants: Constants) -> None:
    """Refuse delays that no spike could have.

    Raises:
        BenchError: a delay below 0 or not finite.
    """
    for key in ("delay_in", "delay_ei", "delay_ie"):
        longest = getattr(constants, key)
        MILLISECONDS.check(key, longest, longest >= 0, "be 0 or more")


def wire(constants: Constants, inputs: int, neurons: int, rng: np.random.Generator) -> Wiring:
    """Draw every delay.

    Raises:
        BenchError: a delay below 0 or not finite, or no neuron.
    """
    Numbers("model.").at_least(1, neurons=neurons)
    check_delays(constants)

    def draw(longest: float, *shape: int) -> Indices:
        return np.floor(rng.uniform(0, longest, shape) / constants.dt + 0.5).astype(np.int32)

    delay_in = draw(constants.delay_in, inputs, neurons)
    delay_ei = draw(constants.delay_ei, neurons)
    delay_ie = draw(constants.delay_ie, neurons, neurons)
    np.fill_diagonal(delay_ie, -1)
    return Wiring(delay_in, delay_ei, delay_ie)


ARRAYS = [f.name for f in fields(State) if f.name not in ("step", "tail")]
"""The names of a state's arrays, as checkpoints hold them."""
