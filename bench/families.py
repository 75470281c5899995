"""By what mechanism a regularizer works: the groups in which methods are listed."""

from __future__ import annotations

from enum import StrEnum


class Family(StrEnum):
    """A group of methods; a member's value is what it does, in a line."""

    weights = "shrink the weights, prune them or keep them orthogonal"
    activity = "charge for spikes: rates, counts, synaptic operations"
    potentials = "draw membrane potentials to the threshold, or away from it"
    normalization = "change how currents or potentials are normalized before a neuron fires"
    masks = "drop units, channels, weights or blocks in training, or add noise"
    loss = "change what is minimised where the network answers"
    optimizer = "change how a step is made, or which weights are judged"
    data = "change the images and labels of a step"
