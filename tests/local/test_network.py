"""The network's step: by hand, against the plain NumPy one, and its promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.errors import BenchError
from bench.local.constants import ANTONOV, DIEHL_COOK, TRACE, Constants, Plasticity
from bench.local.network import ARRAYS, Mode, Network, State, Wiring, wire
from bench.local.simulate import simulate
from bench.local.spikes import Trains, by_step

CASES: dict[str, Constants] = {
    "all-LTD": replace(ANTONOV, w_start=(0.0, 0.05)),
    "triplet": replace(DIEHL_COOK, w_start=(0.0, 0.5)),
    "trace": replace(DIEHL_COOK, w_start=(0.0, 0.5), plasticity=TRACE),
    "pairs with delays": replace(
        DIEHL_COOK, dt=0.2, w_start=(0.0, 0.5), plasticity=Plasticity(0.02, 0.01, 15, 30), delay_ei=2.0, delay_ie=3.0
    ),
}
"""Each rule, each kind of delay and threshold."""


def one(constants: Constants, w: float, inputs: int = 1, neurons: int = 1) -> tuple[Network, State]:
    """A network without delays, every input weight w, which scaling leaves as the papers state it."""
    nowhere = Wiring(
        np.zeros((inputs, neurons), dtype=np.int32),
        np.zeros(neurons, dtype=np.int32),
        np.where(np.eye(neurons, dtype=bool), -1, 0).astype(np.int32),
    )
    net = Network(replace(constants, w_max=constants.w_max * inputs / 784), nowhere)
    return net, net.rested(np.full((inputs, neurons), w), np.zeros(neurons), 0)


def trains(length: int, *spikes: tuple[int, int]) -> Trains:
    """Spikes as (step, input)."""
    pairs = np.array(spikes, dtype=np.int64).reshape(-1, 2)
    return by_step(pairs[:, 0], pairs[:, 1], length)


def test_one_synapse_by_hand(reference: bool) -> None:
    """w 0.04 arrives in step 0 and moves the potential from step 1 on: two steps of Euler, worked out by hand."""
    net, state = one(ANTONOV, 0.04)
    state.v[:] = -60.0
    simulate(net, state, trains(1, (0, 0)), Mode(), 1, reference)
    assert state.v[0] == -60.0
    assert state.ge[0] == 0.04
    simulate(net, state, trains(1), Mode(), 1, reference)
    # dv = 0.1 ms / 100 ms x (0.04 x 60 + 0)
    assert state.v[0] == pytest.approx(-60 + 0.0024, abs=1e-12)
    assert state.ge[0] == pytest.approx(0.04 * 0.98, abs=1e-15)
    simulate(net, state, trains(1), Mode(), 1, reference)
    assert state.v[0] == pytest.approx(-59.9976 + 0.001 * (0.0392 * 59.9976 - 0.0024), abs=1e-12)


def test_a_pair_potentiates_and_the_next_input_spike_depresses(reference: bool) -> None:
    """Input at 0, output at 10 ms: + 5e-4 e^(-10/20); input again 5 ms later: - 5.25e-4 e^(-5/20)."""
    net, state = one(ANTONOV, 0.02)
    learn = Mode(np.ones(1))
    simulate(net, state, trains(100, (0, 0)), learn, 100, reference)
    state.v[:] = 0.0  # far above the threshold: it fires in the next step, number 100
    fired = simulate(net, state, trains(50), learn, 50, reference)
    assert fired.excitatory.tolist() == [1]
    up = 5e-4 * np.exp(-10 / 20)
    assert state.w[0, 0] == pytest.approx(0.02 + up, abs=1e-15)
    simulate(net, state, trains(1, (0, 0)), learn, 1, reference)
    assert state.w[0, 0] == pytest.approx(0.02 + up - 5.25e-4 * np.exp(-5 / 20), abs=1e-15)


def test_all_ltd_turns_potentiation_into_depression(reference: bool) -> None:
    net, state = one(ANTONOV, 0.02)
    simulate(net, state, trains(100, (0, 0)), Mode(-np.ones(1)), 100, reference)
    state.v[:] = 0.0
    simulate(net, state, trains(1), Mode(-np.ones(1)), 1, reference)
    assert state.w[0, 0] == pytest.approx(0.02 - 5e-4 * np.exp(-0.5), abs=1e-15)


def test_weights_stay_between_0_and_the_largest(reference: bool) -> None:
    net, state = one(ANTONOV, 0.0499)
    state.w[:] = 0.0499
    simulate(net, state, trains(2, (0, 0)), Mode(np.ones(1)), 1, reference)
    state.v[:] = 0.0
    simulate(net, state, trains(1), Mode(np.ones(1)), 1, reference)
    assert state.w[0, 0] == 0.05
    state.w[:] = 1e-4
    simulate(net, state, trains(1, (0, 0)), Mode(np.ones(1)), 1, reference)
    assert state.w[0, 0] == 0.0


def test_unused_weights_decay_by_the_square_of_the_gap(reference: bool) -> None:
    """exp(-k_p (gap / tau)^2) at each input spike, compounding; the spike itself gets the new weight."""
    net, state = one(ANTONOV, 0.04)
    mode = Mode(unused=2.0 / 1000**2)  # k_p 2, tau 100 ms
    simulate(net, state, trains(501, (300, 0)), mode, 501, reference)
    once = 0.04 * np.exp(-2 * 0.3**2)
    assert state.w[0, 0] == pytest.approx(once, rel=1e-14)
    simulate(net, state, trains(300, (299, 0)), mode, 300, reference)
    twice = once * np.exp(-2 * 0.5**2)
    assert state.w[0, 0] == pytest.approx(twice, rel=1e-14)
    assert state.ge[0] == pytest.approx(twice + once * 0.98**500, rel=1e-12)


def test_threshold_rises_with_a_spike_and_counts_from_the_next_presentation(reference: bool) -> None:
    net, state = one(ANTONOV, 0.0)
    state.v[:] = -51.9
    response = simulate(net, state, trains(1), Mode(adapt=True), 1, reference)
    assert response.excitatory.tolist() == [1]
    assert state.v.tolist() == [-65.0]
    assert state.theta.tolist() == [3.0]
    simulate(net, state, trains(100), Mode(adapt=True), 100, reference)
    assert state.theta[0] == pytest.approx(3 * (1 - 0.1 / 150) ** 100, rel=1e-12)
    threshold, live = net.threshold(state, Mode(adapt=True))
    assert threshold[0] == -52 + state.theta[0]
    assert not live
    assert net.threshold(state, Mode())[0].tolist() == [-52.0]


def test_refractory_time_and_delays_to_the_step(reference: bool) -> None:
    """Spike at 0; inhibitory neuron charged 3 ms later, which fires and inhibits the other neuron 2 ms after that."""
    wiring = Wiring(
        np.zeros((1, 2), dtype=np.int32),
        np.array([30, 0], dtype=np.int32),
        np.array([[-1, 20], [0, -1]], dtype=np.int32),
    )
    net = Network(ANTONOV, wiring)
    state = net.rested(np.zeros((1, 2)), np.zeros(2), 0)
    state.v[:] = [-50.0, -60.0]
    state.v_i[:] = -60.0
    response = simulate(net, state, trains(200), Mode(), 200, reference)
    excitatory, inhibitory = response.neuron < 2, response.neuron == 2
    assert response.step[excitatory][:1].tolist() == [0]
    assert (np.diff(response.step[inhibitory]) >= 20).all(), "refractory for 2 ms"
    first = response.step[inhibitory][0]
    # 3 (0 + 60) / 10 ms from -60 to -40: by hand, 30 steps of delay and 12 to charge.
    v, g, k = -60.0, 0.0, 0
    while v <= -40:
        v, g = v + 0.01 * (g * -v + (-60 - v)), g * 0.98
        g += 3.0 if k == 30 else 0.0
        k += 1
    assert first == k - 1
    again = net.rested(np.zeros((1, 2)), np.zeros(2), 0)
    again.v[:], again.v_i[:] = [-50.0, -60.0], -60.0
    simulate(net, again, trains(int(first) + 20), Mode(), 1, reference)
    assert again.gi.tolist() == [0.0, 0.0]
    simulate(net, again, trains(1), Mode(), 1, reference)
    assert again.gi.tolist() == [0.0, 1.5], "3 shared by 2 neurons, its own neuron spared"


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("case", CASES)
def test_compiled_agrees_with_the_reference(case: str, small) -> None:
    net, state, trains = small(CASES[case])
    plain, total = state.copy(), 0
    learn = Mode(np.where(np.arange(6) < 3, 1.0, -1.0), True, 1e-8)
    for k in range(5):
        mode = learn if k < 4 else Mode()
        for s in (state, plain):
            net.normalize(s)
        fast, slow = simulate(net, state, trains(k), mode, 400), simulate(net, plain, trains(k), mode, 400, plain=True)
        assert np.array_equal(fast.step, slow.step)
        assert np.array_equal(fast.neuron, slow.neuron)
        assert np.array_equal(fast.excitatory, slow.excitatory)
        assert np.array_equal(fast.inhibitory, slow.inhibitory)
        total += len(fast.step)
    assert total > 50, "a silent network shows nothing"
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(state, name), getattr(plain, name), rtol=1e-12, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("case", ["all-LTD", "pairs with delays"])
def test_two_runs_are_one(case: str, reference: bool, small) -> None:
    """Spikes under way, lateral inhibition and delayed input included, cross from one run into the next."""
    net, state, trains = small(CASES[case])
    split, all_of_it = state.copy(), trains(0)
    mode = Mode(np.ones(6), adapt=case != "all-LTD")
    whole = simulate(net, state, all_of_it, mode, 10_000, reference)
    at = all_of_it.steps // 2
    middle = all_of_it.offset[at]
    first = simulate(net, split, Trains(all_of_it.offset[: at + 1], all_of_it.inputs[:middle]), mode, 10_000, reference)
    rest = Trains(all_of_it.offset[at:] - middle, all_of_it.inputs[middle:])
    second = simulate(net, split, rest, mode, 10_000, reference)
    assert np.array_equal(whole.step, np.concatenate([first.step, second.step + at]))
    assert np.array_equal(whole.neuron, np.concatenate([first.neuron, second.neuron]))
    for name in ARRAYS:
        assert np.array_equal(getattr(state, name), getattr(split, name)), name


def test_normalized_columns_have_the_stated_sum(small) -> None:
    net, state, _ = small(CASES["triplet"])
    state.w[:, 0] = 0.0
    before = state.w.copy()
    net.normalize(state)
    assert state.w.sum(0) == pytest.approx([0.0] + [78.0] * 5)
    assert state.w[:, 1] / before[:, 1] == pytest.approx(78 / before[:, 1].sum())


@pytest.mark.parametrize("key", ["delay_in", "delay_ei", "delay_ie"])
def test_negative_delays_are_one_line(key: str) -> None:
    with pytest.raises(BenchError, match=rf"^model\.{key} is -1 ms, it must be 0 or more$"):
        wire(replace(ANTONOV, **{key: -1.0}), 4, 2, np.random.default_rng(0))


def test_delays_are_uniform_up_to_the_longest() -> None:
    wiring = wire(ANTONOV, 4, 400, np.random.default_rng(0))
    off = wiring.delay_ie[~np.eye(400, dtype=bool)]
    assert (off.min(), off.max()) == (0, 50)
    assert off.mean() == pytest.approx(25, abs=0.2)
    assert (np.diag(wiring.delay_ie) == -1).all()
    assert wiring.delay_ei.max() <= 100
    assert not wiring.delay_in.any()
