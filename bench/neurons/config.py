"""The settings under `neuron=`, a dataclass that Hydra checks types against; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NeuronConfig:
    """The neuron of every spiking layer; defaults are those of nandan2022's author's script.

    Attributes:
        name: `if`, `lif`, `plif`, or `relu` (the non-spiking twin: one pass, no time).
        v_threshold: firing threshold.
        v_reset: potential after a spike (hard reset); null subtracts the threshold (soft reset).
        tau: membrane time constant in time steps, above 1 (`lif`; the start value of `plif`).
        decay_input: whether the leak also divides the input by tau (`lif`, `plif`).
        detach_reset: whether the reset is left out of the gradient.
        alpha: steepness of the ATan surrogate gradient (Fang et al. 2021, arXiv 2007.05785, eq. 10).
    """

    name: str = "if"
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    tau: float = 2.0
    decay_input: bool = True
    detach_reset: bool = True
    alpha: float = 2.0


NEURONS = ("if", "lif", "plif", "relu")
