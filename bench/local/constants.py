"""The constants of the two papers' networks, in milliseconds, millivolts and hertz."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Population:
    """Leaky integrate-and-fire neurons with conductance synapses; excitation reverses at 0 mV.

    Attributes:
        tau: of the membrane, ms.
        rest: potential that the membrane leaks to, mV.
        reset: potential after a spike, mV.
        threshold: mV.
        refractory: time after a spike in which there is no other, ms.
        tau_e: of the excitatory conductance, ms.
        tau_i: of the inhibitory one, ms.
        inhibition: reversal potential of inhibition, mV.
        start: potential at the start, mV.
        hold: whether the potential stands still while refractory.
    """

    tau: float
    rest: float
    reset: float
    threshold: float
    refractory: float
    tau_e: float
    tau_i: float
    inhibition: float
    start: float
    hold: bool


@dataclass(frozen=True)
class Plasticity:
    """How input weights change, with traces that a spike raises by 1 (or sets to 1) and that decay to 0.

    A presynaptic spike: w -= depression * y. A postsynaptic one: w += potentiation (x - target) (w_max - w)^mu,
    for `tau_triplet` times the slower postsynaptic trace right before the spike. Then w is clipped to [0, w_max].

    Attributes:
        potentiation: in units of w_max.
        depression: likewise.
        tau_pre: of the presynaptic trace x, ms.
        tau_post: of the postsynaptic trace y, ms.
        tau_triplet: of the slower postsynaptic trace, ms; None where a rule looks at pairs.
        nearest: whether a spike sets its trace to 1: only the nearest spikes count.
        target: the x that leaves w unchanged.
        mu: how much w itself slows its growth.
    """

    potentiation: float
    depression: float
    tau_pre: float
    tau_post: float
    tau_triplet: float | None = None
    nearest: bool = False
    target: float = 0.0
    mu: float = 0.0


@dataclass(frozen=True)
class Constants:
    """Everything that a network is made with.

    Attributes:
        dt: time step of Euler's method, ms.
        excitatory: the neurons that learn.
        inhibitory: one for each of them; it stops all others.
        theta_plus: what a spike adds to its neuron's threshold, mV.
        theta_tau: time in which that decays, ms.
        theta_start: of every neuron, mV.
        theta_offset: subtracted from threshold + theta, mV.
        theta_live: whether theta counts as it changes; else its value at the start of a presentation counts.
        theta_test: whether it also counts, and stays as it is, while nothing is learned.
        plasticity: of the input weights.
        w_max: the largest input weight, for 784 inputs.
        w_start: input weights start uniform in this range, for 784 inputs.
        w_sum: to which each neuron's input weights are scaled before a presentation; None leaves them alone.
        w_ei: conductance that an excitatory spike gives to its inhibitory neuron.
        w_ie: and an inhibitory one to all other excitatory neurons; divided by their number if `w_ie_shared`.
        w_ie_shared: see there.
        delay_in: delays of input synapses are uniform from 0 to this, ms.
        delay_ei: likewise, excitatory to inhibitory.
        delay_ie: likewise, inhibitory to excitatory.
        present: how long an image is shown, ms.
        pause: rest without input after it, ms.
        rate: of a pixel at full intensity, Hz.
        least_spikes: an image that fewer excitatory spikes answer is shown again, brighter by half the rate.
        flush: after training each input fires at `flush_rate` for this long with learning off, so that the decay of
            unused weights that is still due is applied, ms.
        flush_rate: Hz.
    """

    dt: float
    excitatory: Population
    inhibitory: Population
    theta_plus: float
    theta_tau: float
    theta_start: float
    theta_offset: float
    theta_live: bool
    theta_test: bool
    plasticity: Plasticity
    w_max: float
    w_start: tuple[float, float]
    w_sum: float | None
    w_ei: float
    w_ie: float
    w_ie_shared: bool
    delay_in: float
    delay_ei: float
    delay_ie: float
    present: float = 350.0
    pause: float = 150.0
    rate: float = 63.75
    least_spikes: int = 0
    flush: float = 50.0
    flush_rate: float = 63.0


ANTONOV = Constants(
    dt=0.1,
    excitatory=Population(100, -60, -65, -52, 5, 5, 10, -100, -80, hold=False),
    inhibitory=Population(10, -60, -45, -40, 2, 5, 10, -100, -80, hold=False),
    theta_plus=3.0,
    theta_tau=150.0,
    theta_start=0.0,
    theta_offset=0.0,
    theta_live=False,
    theta_test=False,
    plasticity=Plasticity(0.01, 0.0105, 20, 20),
    w_max=0.05,
    w_start=(0.0, 0.05),
    w_sum=None,
    w_ei=3.0,
    w_ie=3.0,
    w_ie_shared=True,
    delay_in=0.0,
    delay_ei=10.0,
    delay_ie=5.0,
)
"""antonov2024: its text, and its notebooks where that is silent."""

TRIPLET = Plasticity(1e-2, 1e-4, 20, 20, tau_triplet=40, nearest=True)
"""The rule of Diehl & Cook's own script; nu_post 1e-2, nu_pre 1e-4."""

TRACE = Plasticity(1e-2, 0.0, 20, 20, target=0.4, mu=0.2)
"""gutekunst's eq. 1 (Diehl & Cook 2015, eq. 3), whose eta, x_tar and mu neither states: these are ours."""

DIEHL_COOK = Constants(
    dt=0.5,
    excitatory=Population(100, -65, -65, -52, 5, 1, 2, -100, -105, hold=True),
    inhibitory=Population(10, -60, -45, -40, 2, 1, 2, -85, -100, hold=True),
    theta_plus=0.05,
    theta_tau=1e7,
    theta_start=20.0,
    theta_offset=20.0,
    theta_live=True,
    theta_test=True,
    plasticity=TRIPLET,
    w_max=1.0,
    w_start=(0.003, 0.303),
    w_sum=78.0,
    w_ei=10.4,
    w_ie=17.0,
    w_ie_shared=False,
    delay_in=10.0,
    delay_ei=0.0,
    delay_ie=0.0,
    least_spikes=5,
)
"""Diehl & Cook 2015: its text, and its published script where that is silent."""
