"""A run of the network over given input spikes, by the compiled step or the plain one."""

from __future__ import annotations

import numpy as np

from bench.local import compiled, reference
from bench.local.network import Mode, Network, Response, State
from bench.local.spikes import Trains


def simulate(network: Network, state: State, trains: Trains, mode: Mode, window: int, plain: bool = False) -> Response:
    """Step through input spikes; `state` changes in place.

    Args:
        network: that is run.
        state: of this network.
        trains: the input.
        mode: what changes.
        window: spikes of the first so many steps are counted.
        plain: without the compiled kernel, which is also what happens where there is no compiler.
    """
    past = network.wiring.terminals - 1
    tail = state.tail
    offset = np.concatenate([tail.offset, trains.offset[1:] + tail.offset[-1]]) if past else trains.offset
    joined = Trains(offset, np.concatenate([tail.inputs, trains.inputs]) if len(tail.inputs) else trains.inputs)
    step = reference.run if plain or compiled.library() is None else compiled.run
    response = step(network, state, joined, mode, window)
    if past:
        begin = offset[-past - 1]
        state.tail = Trains(offset[-past - 1 :] - begin, joined.inputs[begin:].copy())
    return response
