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
class Apart:
    """The two-sample Kolmogorov-Smirnov test; all None where a sample is empty.

    Attributes:
        ks: largest distance of the two distributions, in [0, 1].
        scaled: the same times sqrt(n m / (n + m)). Of large samples of one distribution it has the law of Kolmogorov,
            whatever their sizes: a mean of 0.87, and in 5 % of cases more than 1.36.
        p: two-sided.
    """

    ks: float | None
    scaled: float | None
    p: float | None


def apart(a: NDArray[np.floating], b: NDArray[np.floating]) -> Apart:
    """How far apart the distributions of two samples lie."""
    if not len(a) or not len(b):
        return Apart(None, None, None)
    # A second to import, which no training has to wait for.
    from scipy.stats import ks_2samp  # type: ignore[import-untyped]

    test = ks_2samp(a, b)
    ks = float(test.statistic)
    return Apart(ks, ks * float(np.sqrt(len(a) * len(b) / (len(a) + len(b)))), float(test.pvalue))


@dataclass(frozen=True)
class Reaction:
    """Reaction times of a network at one threshold.

    Attributes:
        threshold: spikes that a pool needs.
        acc: percent of all images that are answered rightly.
        decided: percent of all images that are answered at all.
        right: mean reaction time of right answers, ms; None where there are none.
        wrong: of wrong ones.
        fast: percent of the wrong answers that come before the median right one; None where either has no times.
        apart: the right answers' times against the wrong ones'.
    """

    threshold: int
    acc: float
    decided: float
    right: float | None
    wrong: float | None
    fast: float | None
    apart: Apart


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
    right, wrong = times[decided == y], times[(decided != y) & (decided != NO_ANSWER)]
    return Reaction(
        threshold,
        100.0 * float(np.mean(decided == y)),
        100.0 * float(np.mean(decided != NO_ANSWER)),
        float(right.mean()) if len(right) else None,
        float(wrong.mean()) if len(wrong) else None,
        100.0 * float(np.mean(wrong < np.median(right))) if len(right) and len(wrong) else None,
        apart(right, wrong),
    )


def confusions(decided: NDArray[np.integer], y: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """[classes, classes + 1] how many images of a class got each answer; the last column is no answer.

    Args:
        decided: [images] classes, or NO_ANSWER.
        y: [images] true classes.
        classes: how many.
    """
    table = np.zeros((classes, classes + 1), dtype=np.int64)
    # NO_ANSWER, -1, is the last column.
    np.add.at(table, (y, decided), 1)
    return table


def lead(table: NDArray[np.integer], true: int, answer: int) -> float | None:
    """How far one confusion is ahead of the most frequent other, in percent of the wrong answers; below 0 behind it.

    Args:
        table: of `confusions`; images without an answer are left out.
        true: the class of the images.
        answer: another class, that they are taken for.

    Returns:
        None where no answer is wrong.
    """
    wrong = table[:, :-1].copy()
    np.fill_diagonal(wrong, 0)
    total, own = int(wrong.sum()), int(wrong[true, answer])
    wrong[true, answer] = 0
    return 100.0 * (own - int(wrong.max())) / total if total else None
