"""What a network's spikes say: labels of neurons, the vote of pools, the first pool to reach a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_ANSWER = -1
"""The label of a neuron that has none, and the answer of a network that stayed silent."""


def assign(counts: NDArray[np.floating], shown: NDArray[np.integer]) -> NDArray[np.int64]:
    """The class that each neuron answers with most spikes per image (Diehl & Cook 2015, section 2.6).

    Args:
        counts: [neurons, classes] spikes summed over the images of a class.
        shown: [classes] how many images that were.

    Returns:
        [neurons] labels; the first of equal ones, NO_ANSWER for a neuron that never fired.
    """
    mean = counts / np.maximum(shown, 1)
    return np.where(mean.max(1) > 0, mean.argmax(1), NO_ANSWER)


def pools(labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """[neurons, classes] what a neuron's spike counts for each class: 1 over the size of its pool, or nothing."""
    member = labels[:, None] == np.arange(classes)
    return member / np.maximum(member.sum(0), 1)


def vote(counts: NDArray[np.integer], labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """[images, classes] mean spikes of a pool's neurons, from counts [images, neurons]; the highest is the answer."""
    return counts @ pools(labels, classes)


def answers(votes: NDArray[np.floating]) -> NDArray[np.int64]:
    """[images] the first class with the highest vote, NO_ANSWER where no pool fired."""
    return np.where(votes.max(1) > 0, votes.argmax(1), NO_ANSWER)


def decide(
    step: NDArray[np.integer], neuron: NDArray[np.integer], labels: NDArray[np.integer], classes: int, threshold: int
) -> tuple[int, int]:
    """The first pool whose spikes add up to the threshold, and when (Beyeler, Dutt & Krichmar 2013).

    Args:
        step: [spikes] of one presentation, ascending.
        neuron: [spikes]; neurons beyond the labelled ones are left out.
        labels: [neurons].
        classes: how many.
        threshold: spikes of a pool, 1 or more.

    Returns:
        Class and step; (NO_ANSWER, NO_ANSWER) if no pool gets so far. Of pools that reach it in one step the one with
        more spikes by then wins, then the first.
    """
    known = neuron < len(labels)
    label = np.where(known, labels[np.where(known, neuron, 0)], NO_ANSWER)
    total = (label[:, None] == np.arange(classes)).cumsum(0)
    reached = (total >= threshold).any(1).nonzero()[0]
    if not len(reached):
        return NO_ANSWER, NO_ANSWER
    at = step[reached[0]]
    return int(total[np.searchsorted(step, at, side="right") - 1].argmax()), int(at)


@dataclass(frozen=True)
class Reaction:
    """Reaction times of a network at one threshold.

    Attributes:
        threshold: spikes that a pool needs.
        acc: percent of all images that are answered rightly.
        decided: percent of all images that are answered at all.
        right: mean reaction time of right answers, ms; None where there are none.
        wrong: of wrong ones.
        statistic: of the two-sample Kolmogorov-Smirnov test of right against wrong ones' times.
        p: its p-value, two-sided; both None where either has no times.
    """

    threshold: int
    acc: float
    decided: float
    right: float | None
    wrong: float | None
    statistic: float | None
    p: float | None


def reaction(
    decided: NDArray[np.integer], times: NDArray[np.floating], y: NDArray[np.integer], threshold: int
) -> Reaction:
    """Compare the reaction times of right and wrong answers.

    Args:
        decided: [images] classes, or NO_ANSWER.
        times: [images] ms; without meaning where there is no answer.
        y: [images] true classes.
        threshold: that was used.
    """
    # A second to import, which no training has to wait for.
    from scipy.stats import ks_2samp  # type: ignore[import-untyped]

    right, wrong = times[decided == y], times[(decided != y) & (decided != NO_ANSWER)]
    test = ks_2samp(right, wrong) if len(right) and len(wrong) else None
    return Reaction(
        threshold,
        100.0 * float(np.mean(decided == y)),
        100.0 * float(np.mean(decided != NO_ANSWER)),
        float(right.mean()) if len(right) else None,
        float(wrong.mean()) if len(wrong) else None,
        None if test is None else float(test.statistic),
        None if test is None else float(test.pvalue),
    )
