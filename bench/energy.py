"""The one rule by which operations become energy."""

from __future__ import annotations

PICOJOULE_PER_AC = 0.9  # Horowitz 2014, 45 nm, 32 bit float addition
PICOJOULE_PER_MAC = 4.6  # the same, multiplication and addition

RULE = (
    f"compute only, 45 nm: {PICOJOULE_PER_AC} pJ for each spike that enters a synapse (an accumulation), "
    f"{PICOJOULE_PER_MAC} pJ for every other input (a multiplication and an accumulation): pixels, sums of spikes, "
    "pooled means"
)
"""The rule, for people."""


def microjoules(synops: float, nonbinary: float, macs: float) -> float:
    """Energy of the synaptic operations of one image, in microjoule.

    A spike adds a weight; what is neither 0 nor 1 multiplies it first, whether it comes from an image or is a sum or a
    mean of spikes. Neuron updates are left out (`neuron_updates_per_image` in the record says how many there are), and
    so is memory.

    Args:
        synops: nonzero inputs of layers fed by spikes, times their fan-out.
        nonbinary: those of them that are not 1.
        macs: multiplications of layers fed by analog values.
    """
    picojoules = (synops - nonbinary) * PICOJOULE_PER_AC + (nonbinary + macs) * PICOJOULE_PER_MAC
    return picojoules * 1e-6
