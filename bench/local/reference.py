"""The network's step in plain NumPy: what the compiled kernel must agree with, and its stand-in."""

from __future__ import annotations

import numpy as np

from bench.local.network import TINY, Floats, Ints, Mode, Network, Response, State, steps
from bench.local.spikes import Trains


def charge(v: Floats, ge: Floats, gi: Floats | float, leak: float, rest: float, inhibition: float) -> Floats:
    """The potential one Euler step on, gutekunst's eq. 2 with excitation reversing at 0 mV.

    Args:
        v: [neurons] mV.
        ge: [neurons] excitatory conductance.
        gi: [neurons] inhibitory one.
        leak: dt / tau.
        rest: mV.
        inhibition: reversal potential, mV.
    """
    return v + (ge * (0.0 - v) + gi * (inhibition - v) + (rest - v)) * leak


def run(net: Network, state: State, trains: Trains, mode: Mode, window: int) -> Response:
    """Step through input spikes; `state` changes in place, but for its tail.

    Args:
        net: constants and wiring.
        state: where it starts.
        trains: spikes of the last `terminals - 1` steps, then those of the run.
        mode: what changes.
        window: spikes of the first so many steps are counted.
    """
    c, rule, wiring, past = net.constants, net.constants.plasticity, net.wiring, net.wiring.terminals - 1
    e, i, n, s = c.excitatory, c.inhibitory, wiring.neurons, state
    up, down = rule.potentiation * net.w_max, rule.depression * net.w_max
    threshold, live = net.threshold(s, mode)
    slow = np.exp(-c.dt / (rule.tau_triplet or rule.tau_post))
    counts: Ints = np.zeros((2, n), dtype=np.int64)
    raster = []
    for values in (s.ge, s.gi, s.theta, s.post, s.post2, s.ge_i):
        values[values < TINY] = 0

    def decayed(values: Floats, last: Ints, t: int) -> Floats:
        return values * np.exp(-(t - last) * (c.dt / rule.tau_pre))

    for k in range(trains.steps - past):
        t = s.step
        # State
        moved = charge(s.v, s.ge, s.gi, c.dt / e.tau, e.rest, e.inhibition)
        s.v[:] = np.where((t >= s.free_e) | (not e.hold), moved, s.v)
        s.ge *= 1 - c.dt / e.tau_e
        s.gi *= 1 - c.dt / e.tau_i
        s.post *= np.exp(-c.dt / rule.tau_post)
        s.post2 *= slow
        if mode.adapt:
            s.theta *= 1 - c.dt / c.theta_tau
        moved = charge(s.v_i, s.ge_i, 0.0, c.dt / i.tau, i.rest, i.inhibition)
        s.v_i[:] = np.where((t >= s.free_i) | (not i.hold), moved, s.v_i)
        s.ge_i *= 1 - c.dt / i.tau_e
        # Thresholds
        fired = np.flatnonzero((s.v > threshold + live * s.theta) & (t >= s.free_e))
        fired_i = np.flatnonzero((s.v_i > i.threshold) & (t >= s.free_i))
        # Presynaptic spikes: decay of the unused weight, conductance, depression
        for d in range(past + 1):
            first, end = trains.offset[past + k - d], trains.offset[past + k - d + 1]
            for j in trains.inputs[first:end]:
                to = wiring.delay_in[j] == d
                if not to.any():
                    continue
                s.w[j, to] *= np.exp(-mode.unused * float(t - s.last[j, d]) ** 2)
                s.ge[to] += s.w[j, to]
                if mode.sign is not None:
                    s.w[j, to] = np.clip(s.w[j, to] - down * s.post[to], 0, net.w_max)
                s.trace[j, d] = 1.0 if rule.nearest else decayed(s.trace[j, d], s.last[j, d], t) + 1.0
                s.last[j, d] = t
        # Postsynaptic spikes: potentiation
        for j in fired:
            if mode.sign is not None:
                at = np.arange(wiring.inputs), wiring.delay_in[:, j]
                change = decayed(s.trace[at], s.last[at], t) - rule.target
                if rule.tau_triplet is not None:
                    change *= s.post2[j]
                room = (net.w_max - s.w[:, j]) ** rule.mu if rule.mu else 1.0
                s.w[:, j] = np.clip(s.w[:, j] + mode.sign[j] * up * change * room, 0, net.w_max)
            s.post[j] = 1.0 if rule.nearest else s.post[j] + 1.0
            s.post2[j] = 1.0 if rule.nearest else s.post2[j] + 1.0
            s.ring_ei[(t + wiring.delay_ei[j]) % net.slots_ei, j] += c.w_ei
        for j in fired_i:
            for to in np.flatnonzero(wiring.delay_ie[j] >= 0):
                s.ring_ie[(t + wiring.delay_ie[j, to]) % net.slots_ie, to] += net.w_ie
        s.ge_i += s.ring_ei[t % net.slots_ei]
        s.gi += s.ring_ie[t % net.slots_ie]
        s.ring_ei[t % net.slots_ei] = s.ring_ie[t % net.slots_ie] = 0.0
        # Resets
        s.v[fired], s.v_i[fired_i] = e.reset, i.reset
        s.theta[fired] += c.theta_plus * mode.adapt
        s.free_e[fired], s.free_i[fired_i] = t + steps(e.refractory, c.dt), t + steps(i.refractory, c.dt)
        if k < window:
            counts[0, fired] += 1
            counts[1, fired_i] += 1
        raster += [(k, j) for j in fired] + [(k, n + j) for j in fired_i]
        s.step += 1
    events = np.array(raster, dtype=np.int32).reshape(-1, 2)
    return Response(counts[0], counts[1], events[:, 0].copy(), events[:, 1].copy())
