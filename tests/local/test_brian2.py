"""The network's step against Brian2, on the same input spikes: spike times and weights agree.

What Brian2 gave is kept in brian2.json, so that our network is held against it where Brian2 (extra `brian`, Python
3.13) is not installed; where it is, it must still give the same. `python tests/local/test_brian2.py` writes the file.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.local.constants import ANTONOV, DIEHL_COOK, TRACE, Constants
from bench.local.network import Mode, Network, Wiring, wire
from bench.local.simulate import simulate
from bench.local.spikes import Trains, poisson

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import brian2 as b2
    except ImportError:
        b2 = None

pytestmark = pytest.mark.filterwarnings("ignore")

FILE = Path(__file__).with_name("brian2.json")
PRESENTATION = 200.0  # ms of input; 50 ms of rest follow
# By name: constants, inputs, and the rate of the strongest input in Hz.
CASES = {
    "all-LTD with decay": (ANTONOV, 30, 90.0),
    "triplet": (DIEHL_COOK, 40, 60.0),
    "trace": (replace(DIEHL_COOK, plasticity=TRACE), 40, 60.0),
}


def equations(constants: Constants) -> tuple[str, str]:
    """The two populations' equations as Brian2 reads them."""
    e, i = constants.excitatory, constants.inhibitory
    held = " (unless refractory)"
    excitatory = f"""
        dv/dt = (ge*(0*mV - v) + gi*({e.inhibition}*mV - v) + ({e.rest}*mV - v)) / ({e.tau}*ms) : volt{held * e.hold}
        dtheta/dt = -theta / ({constants.theta_tau}*ms) : volt
        dge/dt = -ge / ({e.tau_e}*ms) : 1
        dgi/dt = -gi / ({e.tau_i}*ms) : 1
        sampled : volt"""
    inhibitory = f"""
        dv/dt = (ge*(0*mV - v) + ({i.rest}*mV - v)) / ({i.tau}*ms) : volt{held * i.hold}
        dge/dt = -ge / ({i.tau_e}*ms) : 1"""
    return excitatory, inhibitory


def learning(net: Network) -> dict[str, str]:
    """Model, on_pre and on_post of the input synapses, written down from the papers rather than from our kernel."""
    most = net.w_max
    if net.constants.plasticity.tau_triplet is not None:  # Diehl & Cook's script
        return {
            "model": """w : 1
                dpre/dt = -pre/(20*ms) : 1 (event-driven)
                dpost1/dt = -post1/(20*ms) : 1 (event-driven)
                dpost2/dt = -post2/(40*ms) : 1 (event-driven)""",
            "on_pre": f"ge_post += w; pre = 1.0; w = clip(w - 1e-4*{most}*post1, 0, {most})",
            "on_post": f"w = clip(w + 1e-2*{most}*pre*post2, 0, {most}); post1 = 1.0; post2 = 1.0",
        }
    if net.constants.plasticity == TRACE:  # Diehl & Cook 2015, eq. 3
        return {
            "model": "w : 1\ndx/dt = -x/(20*ms) : 1 (event-driven)",
            "on_pre": "ge_post += w; x += 1",
            "on_post": f"w = clip(w + 1e-2*{most}*(x - 0.4)*({most} - w)**0.2, 0, {most})",
        }
    # antonov2024, eqs. 3-5. `pruning` is a variable: of exp(-(x/(100*ms))**2) Brian2 makes exp(x**2/ms**2)**-1e-4,
    # which overflows, and so gives 0, for an x above 27 ms.
    return {
        "model": """w : 1
            lr : 1
            used : second
            pruning : second
            da/dt = -a/(20*ms) : 1 (event-driven)
            db/dt = -b/(20*ms) : 1 (event-driven)""",
        "on_pre": f"""w = w*exp(-((t - used)/pruning)**2)
            ge_post += w
            a += {0.01 * most}
            w = clip(w + b, 0, {most})
            used = t""",
        "on_post": f"b -= {0.0105 * most}; w = clip(w + lr*a, 0, {most})",
    }


class Brian:
    """The same network in Brian2, fed with the same spikes."""

    def __init__(self, net: Network, w: np.ndarray) -> None:
        c, wiring = net.constants, net.wiring
        b2.start_scope()
        b2.prefs.codegen.target = "numpy"
        b2.defaultclock.dt = c.dt * b2.ms
        first, second = equations(c)
        bound = "theta" if c.theta_live else "sampled"
        self.e = b2.NeuronGroup(
            wiring.neurons, first, method="euler", refractory=c.excitatory.refractory * b2.ms,
            threshold=f"v > {c.excitatory.threshold - c.theta_offset}*mV + {bound}",
            reset=f"v = {c.excitatory.reset}*mV; theta += {c.theta_plus}*mV",
        )  # fmt: skip
        self.i = b2.NeuronGroup(
            wiring.neurons, second, method="euler", refractory=c.inhibitory.refractory * b2.ms,
            threshold=f"v > {c.inhibitory.threshold}*mV", reset=f"v = {c.inhibitory.reset}*mV",
        )  # fmt: skip
        self.e.v, self.i.v = c.excitatory.start * b2.mV, c.inhibitory.start * b2.mV
        self.e.theta = c.theta_start * b2.mV
        self.inputs = b2.SpikeGeneratorGroup(wiring.inputs, [], [] * b2.ms)
        self.s1 = b2.Synapses(self.inputs, self.e, method="euler", **learning(net))
        self.s1.connect()
        self.s1.w, self.s1.delay = w.ravel(), wiring.delay_in.ravel() * c.dt * b2.ms
        self.s2 = b2.Synapses(self.e, self.i, on_pre=f"ge_post += {c.w_ei}")
        self.s2.connect(j="i")
        self.s2.delay = wiring.delay_ei * c.dt * b2.ms
        self.s3 = b2.Synapses(self.i, self.e, on_pre=f"gi_post += {net.w_ie}")
        self.s3.connect(condition="i != j")
        self.s3.delay = wiring.delay_ie[self.s3.i[:], self.s3.j[:]] * c.dt * b2.ms
        self.seen, self.seen_i = b2.SpikeMonitor(self.e), b2.SpikeMonitor(self.i)
        self.network = b2.Network(self.e, self.i, self.inputs, self.s1, self.s2, self.s3, self.seen, self.seen_i)

    def run(self, steps: np.ndarray, inputs: np.ndarray, length: int, dt: float) -> None:
        """Spikes at `steps` from now."""
        self.inputs.set_spikes(inputs, (steps + 0.0) * dt * b2.ms + self.network.t)
        self.network.run(length * dt * b2.ms)


def steps_of(constants: Constants) -> tuple[int, int]:
    """Of the input, and of a presentation with its rest."""
    return round(PRESENTATION / constants.dt), round((PRESENTATION + 50) / constants.dt)


def supervision(constants: Constants) -> np.ndarray:
    """The first half of the neurons is of the right class."""
    return np.where(np.arange(6) < 3, 1.0, -1.0) if constants is ANTONOV else np.ones(6)


def drawn(constants: Constants, inputs: int, drive: float) -> dict[str, Any]:
    """Delays, first weights, and the input spikes of two presentations as (step, input)."""
    rng = np.random.default_rng(3)
    wiring = wire(constants, inputs, 6, rng)
    on, total = steps_of(constants)
    w = Network(constants, wiring).fresh(rng).w
    trains = [poisson(rng.uniform(0.2, 1, inputs) * drive, constants.dt, on, total, rng) for _ in range(2)]
    return {
        "delay_in": wiring.delay_in.tolist(),
        "delay_ei": wiring.delay_ei.tolist(),
        "delay_ie": wiring.delay_ie.tolist(),
        "w": w.tolist(),
        "input": [
            [np.repeat(np.arange(total), np.diff(train.offset)).tolist(), train.inputs.tolist()] for train in trains
        ],
    }


def network(constants: Constants, given: dict[str, Any]) -> Network:
    delays = {key: np.array(given[key], dtype=np.int32) for key in ("delay_in", "delay_ei", "delay_ie")}
    return Network(constants, Wiring(**delays))


def by_brian(constants: Constants, given: dict[str, Any]) -> dict[str, Any]:
    """Spikes as sorted (step, neuron), the inhibitory neurons from 6 on, and what was learned."""
    net, start = network(constants, given), np.array(given["w"])
    brian: Any = Brian(net, start)
    if constants is ANTONOV:
        brian.s1.lr, brian.s1.pruning = np.tile(supervision(constants), len(start)), 100 * b2.ms
    for steps, inputs in given["input"]:
        brian.e.sampled = brian.e.theta
        brian.run(np.array(steps), np.array(inputs), steps_of(constants)[1], constants.dt)
    spikes = [
        (round(float(t / b2.ms) / constants.dt), int(i + offset))
        for monitor, offset in ((brian.seen, 0), (brian.seen_i, 6))
        for i, t in zip(monitor.i[:], monitor.t[:], strict=True)
    ]
    used = np.asarray(brian.s1.used / b2.ms).reshape(start.shape)[:, 0].tolist() if constants is ANTONOV else None
    return {
        "spikes": sorted(spikes),
        "weights": np.asarray(brian.s1.w).reshape(start.shape).tolist(),
        "theta": np.asarray(brian.e.theta / b2.mV).tolist(),
        "used": used,
    }


@cache
def kept() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


@pytest.mark.parametrize("name", CASES)
def test_spike_times_and_weights_agree(name: str) -> None:
    constants, given, theirs = CASES[name][0], kept()["given"][name], kept()["brian2"][name]
    net, total = network(constants, given), steps_of(constants)[1]
    state = net.fresh(np.random.default_rng(0))
    start = np.array(given["w"])
    state.w[:] = start
    unused = (constants.dt / 100) ** 2 if constants is ANTONOV else 0.0
    ours = []
    for k, (steps, inputs) in enumerate(given["input"]):
        offset = np.searchsorted(steps, np.arange(total + 1)).astype(np.int32)
        trains = Trains(offset, np.array(inputs, dtype=np.int32))
        response = simulate(net, state, trains, Mode(supervision(constants), adapt=True, unused=unused), total)
        ours += [[int(step) + k * total, int(i)] for step, i in zip(response.step, response.neuron, strict=True)]
    assert len(ours) > 40
    assert min(len({n for _, n in ours if n < 6}), len({n for _, n in ours if n >= 6})) > 3, "most neurons must fire"
    assert sorted(ours) == theirs["spikes"]
    if constants is ANTONOV:
        assert theirs["used"] == pytest.approx(state.last[:, 0] * 0.1)
    np.testing.assert_allclose(state.w, theirs["weights"], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(state.theta, theirs["theta"], rtol=1e-9)
    assert np.abs(state.w - start).max() > 0.05 * net.w_max, "weights that hardly move agree with anything"


@pytest.mark.skipif(b2 is None, reason="needs Brian2")
@pytest.mark.parametrize("name", CASES)
def test_this_brian_says_what_was_kept(name: str) -> None:
    ours, theirs = by_brian(CASES[name][0], kept()["given"][name]), kept()["brian2"][name]
    assert [list(spike) for spike in ours["spikes"]] == theirs["spikes"]
    np.testing.assert_allclose(ours["weights"], theirs["weights"], rtol=1e-12)
    np.testing.assert_allclose(ours["theta"], theirs["theta"], rtol=1e-12)


if __name__ == "__main__":
    inputs = {name: drawn(*case) for name, case in CASES.items()}
    answers = {name: by_brian(CASES[name][0], given) for name, given in inputs.items()}
    versions = {"brian2": b2.__version__, "numpy": np.__version__}
    FILE.write_text(json.dumps({"versions": versions, "given": inputs, "brian2": answers}) + "\n")
