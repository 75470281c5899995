"""When a network of spiking pools decides: the first pool to reach a threshold, and its reaction times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import ks_2samp  # type: ignore[import-untyped]
from torch import Tensor

from bench.errors import BenchError
from bench.local.readout import NO_ANSWER, Reaction, answers, decide, reaction, vote
from bench.models.diehl_cook import DiehlCook
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.ranges import Numbers
from bench.registry import PROBES

SETTINGS = Numbers("decision.")


@PROBES.register("decision")
class DecisionProbe(Probe):
    """The first pool to reach a decision threshold, beside the majority vote, and the reaction times of both answers.

    A pool is the neurons of one class. Its spikes since the image appeared add up; the first pool with as many as the
    threshold is the answer, and the time until then the reaction time. Those of right and wrong answers are compared by
    the two-sample Kolmogorov-Smirnov test, and so are, at the threshold with the highest accuracy, those of test images
    and training images. For `model=diehl_cook` alone: other networks see a handful of time steps.

    Source: gutekunst, section 3, after Beyeler, Dutt & Krichmar 2013 (Neural Networks 48, 109-124), whose network and
    threshold are others.

    Args:
        images: test images, and as many training images.
        thresholds: spikes of a pool, ascending or not.

    Raises:
        BenchError: fewer than 1 image, no threshold, or one below 1.
    """

    def __init__(self, images: int = 1000, thresholds: list[int] | None = None) -> None:
        SETTINGS.at_least(1, images=images)
        self.images, self.thresholds = images, [1, 2, 3, 5, 8, 13, 21] if thresholds is None else thresholds
        if not self.thresholds:
            raise BenchError("decision.thresholds is empty; give at least one, say [5]")
        SETTINGS.at_least(1, thresholds=min(self.thresholds))

    def measure(self, subject: Subject, say: Say) -> Outcome:
        model, data = subject.task.model, subject.splits.dataset
        if not isinstance(model, DiehlCook):
            raise BenchError("probe=decision reads when neurons fire within a presentation: it is for model=diehl_cook")
        test, counts = self.reactions(model, subject, *subject.test_images(self.images))
        y = subject.test_images(self.images)[1].numpy()
        voted = answers(vote(counts, model.labels.numpy(), subject.splits.classes))
        majority = replace(reaction(voted, np.zeros(len(y)), y, 0), right=None, wrong=None, statistic=None, p=None)
        best = max(test, key=lambda pair: pair[0].acc)
        say(f"decision: vote {majority.acc:.2f} %, first pool with {best[0].threshold} spikes {best[0].acc:.2f} %")
        train, _ = self.reactions(model, subject, *subject.choose(data.train_images, data.train_labels, self.images))
        apart = compare(best[1], train[test.index(best)][1])
        rows = [row(majority, "vote")] + [row(measured, "first pool") for measured, _ in test]
        return Outcome(
            images=self.images,
            rows=rows,
            headline={
                "vote (%)": majority.acc,
                "first pool (%)": best[0].acc,
                "threshold (spikes)": best[0].threshold,
                "right answers (ms)": best[0].right,
                "wrong answers (ms)": best[0].wrong,
                "p (right and wrong alike)": best[0].p,
            },
            notes={
                "read_out": "vote: the class whose neurons fire most on average; first pool: the first class whose "
                "neurons' spikes add up to the threshold",
                "acc": "percent of all images; an image without an answer counts as wrong",
                "ks": "largest distance of the two distributions of reaction times; p two-sided, of all thresholds",
            },
            more={"training_against_test": {"threshold": best[0].threshold, **apart}},
        )

    def reactions(
        self, model: DiehlCook, subject: Subject, images: Tensor, labels: Tensor
    ) -> tuple[list[tuple[Reaction, np.ndarray]], np.ndarray]:
        """Each threshold's reaction times in ms with their comparison; and spike counts [images, neurons]."""
        classes, y = subject.splits.classes, labels.numpy()
        responses = []
        for x, _ in subject.batches(images, labels):
            responses += model.answer(x)
            model.forget()
        own, window, dt = model.labels.numpy(), model.time_steps, model.network.constants.dt
        spikes = [(r.step[r.step < window], r.neuron[r.step < window]) for r in responses]
        by_threshold = []
        for threshold in self.thresholds:
            both = np.array([decide(step, neuron, own, classes, threshold) for step, neuron in spikes])
            # A spike in a step comes at its end.
            times = (both[:, 1] + 1) * dt
            by_threshold.append((reaction(both[:, 0], times, y, threshold), times[both[:, 0] != NO_ANSWER]))
        return by_threshold, np.stack([response.excitatory for response in responses])


def compare(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """The Kolmogorov-Smirnov test of two samples of reaction times, where both have any."""
    if not len(a) or not len(b):
        return {"ks": None, "p": None}
    test = ks_2samp(a, b)
    return {"ks": float(test.statistic), "p": float(test.pvalue)}


def row(measured: Reaction, name: str) -> dict[str, Any]:
    """A line of the probe's table."""
    return {
        "read_out": name,
        "threshold": measured.threshold or None,
        "acc": measured.acc,
        "decided": measured.decided,
        "right_ms": measured.right,
        "wrong_ms": measured.wrong,
        "ks": measured.statistic,
        "p": measured.p,
    }
