"""Small networks that fire, and trains to drive them with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.local import compiled
from bench.local.constants import Constants
from bench.local.network import Network, State, wire
from bench.local.spikes import Trains, poisson
from bench.ops import native


@pytest.fixture
def kernel() -> None:
    """Without a compiler there is nothing to compare."""
    if compiled.library() is None:
        pytest.skip(f"no compiled kernel: {native.why('network')}")


@pytest.fixture(params=["reference", "compiled"])
def reference(request: pytest.FixtureRequest) -> bool:
    """Whether to step in plain NumPy; every test that asks runs both ways."""
    if request.param == "compiled":
        request.getfixturevalue("kernel")
    return request.param == "reference"


@pytest.fixture
def small() -> Callable[..., tuple[Network, State, Callable[[int], Trains]]]:
    """small(constants, inputs=20, neurons=6): a network, its start, and `trains(k)`: 100 ms of input, 20 of rest."""

    def make(
        constants: Constants, inputs: int = 20, neurons: int = 6
    ) -> tuple[Network, State, Callable[[int], Trains]]:
        rng = np.random.default_rng(7)
        net = Network(constants, wire(constants, inputs, neurons, rng))
        rates = rng.uniform(20, 120, inputs)
        on, total = round(100 / constants.dt), round(120 / constants.dt)

        def trains(k: int) -> Trains:
            return poisson(rates, constants.dt, on, total, np.random.default_rng([1, k]))

        return net, net.fresh(rng), trains

    return make
