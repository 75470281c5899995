"""Poisson spike trains of images: which input fires in which step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError


@dataclass(frozen=True)
class Trains:
    """The spikes of a run, by step.

    Attributes:
        offset: int32 [steps + 1]; the spikes of step t are `inputs[offset[t]:offset[t + 1]]`.
        inputs: int32 [spikes].
    """

    offset: NDArray[np.int32]
    inputs: NDArray[np.int32]

    @property
    def steps(self) -> int:
        """How long they are."""
        return len(self.offset) - 1


def by_step(steps: NDArray[np.integer], inputs: NDArray[np.integer], length: int) -> Trains:
    """Sort spikes, given as pairs of step and input, by step (and by input within one).

    Args:
        steps: [spikes] in [0, length).
        inputs: [spikes].
        length: steps.
    """
    order = np.lexsort((inputs, steps))
    counts = np.bincount(steps, minlength=length)
    offset = np.zeros(length + 1, dtype=np.int32)
    np.cumsum(counts, out=offset[1:])
    return Trains(offset, inputs[order].astype(np.int32))


def poisson(rates: NDArray[np.floating], dt: float, steps: int, total: int, rng: np.random.Generator) -> Trains:
    """Each input fires in each of the first `steps` steps with probability rate x dt, independently; then it rests.

    Drawn as the geometric gaps between spikes: the number of draws follows the spikes, not the steps.

    Args:
        rates: [inputs] Hz.
        dt: ms.
        steps: with input.
        total: steps altogether.
        rng: of this presentation.

    Raises:
        BenchError: a rate that a step of dt cannot carry.
    """
    chance = np.asarray(rates, dtype=np.float64) * dt * 1e-3
    active = np.flatnonzero(chance > 0)
    if not len(active) or not steps:
        return Trains(np.zeros(total + 1, dtype=np.int32), np.zeros(0, dtype=np.int32))
    chance = chance[active]
    check_rate(float(chance.max()) / dt * 1e3, dt)
    # Gaps enough to pass the end almost always; whoever has not gets more.
    mean = steps * chance.max()
    draws = int(mean + 6 * mean**0.5) + 2

    def gaps() -> NDArray[np.integer]:
        # A gap past the end is as good as the longest: sums of those of tiny rates would overflow.
        return np.minimum(rng.geometric(chance, size=(draws, len(active))), steps + 1).cumsum(0)

    at = gaps() - 1
    while (at[-1] < steps).any():
        more = gaps()
        at = np.concatenate([at, at[-1] + more])
    inside = at < steps
    inputs = np.broadcast_to(active, at.shape)[inside]
    return by_step(at[inside], inputs, total)


def check_rate(rate: float, dt: float) -> None:
    """Refuse a rate at which an input would have to fire more than once a step.

    Raises:
        BenchError: says the highest rate.
    """
    if rate * dt > 1e3:
        raise BenchError(f"{rate:g} Hz is more than one spike in a step of {dt:g} ms; at most {1e3 / dt:g} Hz fit")
