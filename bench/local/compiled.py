"""The network's step as compiled by `csrc/network.cpp`, behind ctypes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.local.constants import Population
from bench.local.network import ARRAYS, Mode, Network, Response, State, steps
from bench.local.spikes import Trains
from bench.ops import native

_real, _whole, _address = ctypes.c_double, ctypes.c_int64, ctypes.c_void_p


class _Population(ctypes.Structure):
    _fields_ = (
        *((name, _real) for name in ("leak", "rest", "reset", "inhibition", "keep_e", "keep_i")),
        ("refractory", _whole),
        ("hold", _whole),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        *((name, _whole) for name in ("inputs", "neurons", "terminals", "slots_ei", "slots_ie")),
        ("e", _Population),
        ("i", _Population),
        *((name, _real) for name in ("threshold_i", "theta_keep", "theta_plus", "w_ei", "w_ie")),
        *((name, _address) for name in ("start", "order", "delay_in", "delay_ei", "delay_ie")),
        *((name, _real) for name in ("potentiation", "depression", "target", "mu", "w_max")),
        *((name, _real) for name in ("rate_pre", "keep_post", "keep_triplet")),
        ("nearest", _whole),
        ("triplet", _whole),
    )


class _State(ctypes.Structure):
    _fields_ = (("step", _whole), *((name, _address) for name in ARRAYS))


class _Run(ctypes.Structure):
    _fields_ = (
        *((name, _whole) for name in ("steps", "window", "learn", "adapt", "live")),
        ("unused", _real),
        *((name, _address) for name in ("sign", "threshold", "offset", "spikes", "count_e", "count_i", "raster")),
        ("capacity", _whole),
        ("fired", _whole),
    )


@cache
def library() -> Any:
    """The kernel, or None where it can't be built (`native.why("network")`)."""
    # Contraction would round otherwise than the reference does, and one spike's difference grows.
    kernels = native.load("network", "-ffp-contract=off", folder=Path(__file__).with_name("csrc"))
    if kernels is not None:
        kernels.network_run.argtypes = [_address, _address, _address]
        kernels.network_run.restype = None
    return kernels


def _population(p: Population, dt: float, steps: int) -> _Population:
    return _Population(
        dt / p.tau, p.rest, p.reset, p.inhibition, 1 - dt / p.tau_e, 1 - dt / p.tau_i, steps, int(p.hold)
    )


def _describe(net: Network) -> _Network:
    c, rule, w = net.constants, net.constants.plasticity, net.wiring
    return _Network(
        w.inputs, w.neurons, w.terminals, net.slots_ei, net.slots_ie,
        _population(c.excitatory, c.dt, steps(c.excitatory.refractory, c.dt)),
        _population(c.inhibitory, c.dt, steps(c.inhibitory.refractory, c.dt)),
        c.inhibitory.threshold, 1 - c.dt / c.theta_tau, c.theta_plus, c.w_ei, net.w_ie,
        net.start.ctypes.data, net.order.ctypes.data, w.delay_in.ctypes.data, w.delay_ei.ctypes.data,
        w.delay_ie.ctypes.data,
        rule.potentiation * net.w_max, rule.depression * net.w_max, rule.target, rule.mu, net.w_max,
        c.dt / rule.tau_pre, np.exp(-c.dt / rule.tau_post), np.exp(-c.dt / (rule.tau_triplet or rule.tau_post)),
        int(rule.nearest), int(rule.tau_triplet is not None),
    )  # fmt: skip


def run(net: Network, state: State, trains: Trains, mode: Mode, window: int) -> Response:
    """As `bench.local.reference.run`."""
    past, n = net.wiring.terminals - 1, net.wiring.neurons
    length = trains.steps - past
    threshold, live = net.threshold(state, mode)
    sign = np.zeros(n) if mode.sign is None else np.ascontiguousarray(mode.sign, dtype=np.float64)
    counts = np.zeros((2, n), dtype=np.int64)
    described = _describe(net)
    # No neuron fires twice within its refractory time, so this always suffices.
    capacity = n * sum(length // max(p.refractory, 1) + 1 for p in (described.e, described.i))
    raster = np.empty((capacity, 2), dtype=np.int32)
    offset, inputs = np.ascontiguousarray(trains.offset), np.ascontiguousarray(trains.inputs)
    addresses = _State(state.step, *(getattr(state, name).ctypes.data for name in ARRAYS))
    job = _Run(
        length, window, int(mode.sign is not None), int(mode.adapt), int(live), mode.unused, sign.ctypes.data,
        threshold.ctypes.data, offset.ctypes.data, inputs.ctypes.data, counts[0].ctypes.data, counts[1].ctypes.data,
        raster.ctypes.data, capacity, 0,
    )  # fmt: skip
    library().network_run(ctypes.byref(described), ctypes.byref(addresses), ctypes.byref(job))
    state.step = addresses.step
    kept = raster[: job.fired]
    return Response(counts[0], counts[1], kept[:, 0].copy(), kept[:, 1].copy())
