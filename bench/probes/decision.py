"""When a network of spiking pools decides: the first pool to reach a threshold, and its reaction times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError
from bench.local.readout import NO_ANSWER, Reaction, answers, apart, confusions, decide, lead, reaction, vote
from bench.models.diehl_cook import DiehlCook
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.ranges import Numbers
from bench.registry import PROBES

SETTINGS = Numbers("decision.")

COLUMNS: Sequence[str] = (
    "read_out", "threshold", "train_acc", "acc", "decided", "right_ms", "wrong_ms", "ks", "p",
)  # fmt: skip

NOTES = {
    "read_out": "vote: the class whose neurons fire most on average; first pool: the first class whose neurons' spikes "
    "add up to the threshold",
    "acc": "percent of all test images; an image without an answer counts as wrong",
    "train_acc": "the same of images that the network was trained on; where it is highest, there the threshold is",
    "ks": "largest distance of the two distributions of reaction times of test images; p two-sided, of all thresholds",
    "KS": "that distance times sqrt(n m / (n + m)) of n and m answers: by chance 0.87 on average, above 1.36 in 5 %",
    "confusions": "rows are true classes, columns answers, the last one: no answer",
    "lead": "percent of the wrong answers that are this one, less those of the most frequent other: above 0 it is the "
    "most frequent",
}


@dataclass(frozen=True)
class Answered:
    """What a network answers to some images.

    Attributes:
        y: [images] true classes.
        voted: [images] the majority vote's classes, or NO_ANSWER.
        first: for each threshold the first pool's classes, or NO_ANSWER, and its reaction times in ms, both [images].
    """

    y: NDArray[np.int64]
    voted: NDArray[np.int64]
    first: list[tuple[NDArray[np.int64], NDArray[np.float64]]]

    def times(self, place: int) -> NDArray[np.float64]:
        """Reaction times of all answers at a threshold, by its place."""
        decided, times = self.first[place]
        return times[decided != NO_ANSWER]

    def acc(self, decided: NDArray[np.int64]) -> float:
        """Percent of all images that are answered rightly."""
        return 100.0 * float(np.mean(decided == self.y))


@PROBES.register("decision")
class DecisionProbe(Probe):
    """The first pool to reach a decision threshold, beside the majority vote, and the reaction times of both answers.

    A pool is the neurons of one class. Its spikes since the image appeared add up; the first pool with as many as the
    threshold is the answer, and the time until then the reaction time. The threshold is the one with the highest
    accuracy on images that the network was trained on; test images are judged by it. There the two-sample
    Kolmogorov-Smirnov test compares the reaction times of right and wrong answers, and those of training and test
    images. The file also has, for both read-outs, which classes are taken for which. For `model=diehl_cook` alone:
    other networks see a handful of time steps.

    Source: gutekunst, section 3, after Beyeler, Dutt & Krichmar 2013 (Neural Networks 48, 109-124), whose network and
    threshold are others.

    Args:
        images: test images, and as many of the training images, at most.
        thresholds: spikes of a pool, ascending or not; null is 1, 2, 3, 5, 8, 13, 21.
        confusions: wrong answers to compare with all others, by their labels: [4-9] is an image of 4 taken for a 9.

    Raises:
        BenchError: fewer than 1 image, no threshold, or one below 1; a confusion that is not of two labels.
    """

    def __init__(
        self,
        images: int = 1000,
        thresholds: list[int] | None = None,
        confusions: list[str] | None = None,
    ) -> None:
        SETTINGS.at_least(1, images=images)
        self.images, self.thresholds = images, [1, 2, 3, 5, 8, 13, 21] if thresholds is None else thresholds
        if not self.thresholds:
            raise BenchError("decision.thresholds is empty; give at least one, say [5]")
        SETTINGS.at_least(1, thresholds=min(self.thresholds))
        self.confusions = [pair(text) for text in confusions or ()]

    def measure(self, subject: Subject, say: Say) -> Outcome:
        model = subject.task.model
        if not isinstance(model, DiehlCook):
            raise BenchError("probe=decision reads when neurons fire within a presentation: it is for model=diehl_cook")
        self.check(subject.splits.classes)
        test = self.answered(model, subject, *subject.test_images(self.images))
        train = self.answered(model, subject, *subject.training_images(self.images))
        rightly = [train.acc(decided) for decided, _ in train.first]
        # Of thresholds that are equally good the lowest, which answers soonest.
        best = max(range(len(rightly)), key=lambda place: (rightly[place], -self.thresholds[place]))
        measured = [
            reaction(*first, test.y, threshold) for first, threshold in zip(test.first, self.thresholds, strict=True)
        ]
        tables = {
            "vote": confusions(test.voted, test.y, subject.splits.classes),
            "first pool": confusions(test.first[best][0], test.y, subject.splits.classes),
        }
        chosen, between = measured[best], apart(train.times(best), test.times(best))
        say(
            f"decision: vote {test.acc(test.voted):.2f} %, first pool with {chosen.threshold} spikes, the best on "
            f"{len(train.y):,} training images, {chosen.acc:.2f} %"
        )
        return Outcome(
            images=len(test.y),
            rows=[voted(test, train), *(row(line, acc) for line, acc in zip(measured, rightly, strict=True))],
            headline={
                "vote (%)": test.acc(test.voted),
                "first pool (%)": chosen.acc,
                "threshold (spikes)": chosen.threshold,
                "right answers (ms)": chosen.right,
                "wrong answers (ms)": chosen.wrong,
                "wrong ones before the median right one (%)": chosen.fast,
                "training images (ms)": mean(train.times(best)),
                "test images (ms)": mean(test.times(best)),
                "KS, right and wrong": chosen.apart.scaled,
                "KS, training and test": between.scaled,
                **self.leads(tables),
            },
            notes=NOTES,
            more={
                "training_against_test": {
                    "threshold": chosen.threshold, "training_images": len(train.y), **asdict(between),
                },
                "confusions": {name: table.tolist() for name, table in tables.items()},
            },
        )  # fmt: skip

    def check(self, classes: int) -> None:
        """Refuse confusions of classes that are not there.

        Raises:
            BenchError: names the pair.
        """
        for true, answer in self.confusions:
            if max(true, answer) >= classes:
                raise BenchError(f"decision.confusions has {true}-{answer}, but labels go from 0 to {classes - 1}")

    def answered(self, model: DiehlCook, subject: Subject, images: Tensor, labels: Tensor) -> Answered:
        """The answers to some images by both read-outs."""
        classes, responses = subject.splits.classes, []
        for x, _ in subject.batches(images, labels):
            responses += model.answer(x)
            model.forget()
        own, window, dt = model.labels.numpy(), model.time_steps, model.network.constants.dt
        spikes = [(r.step[r.step < window], r.neuron[r.step < window]) for r in responses]
        first = []
        for threshold in self.thresholds:
            both = np.array([decide(step, neuron, own, classes, threshold) for step, neuron in spikes])
            # A spike in a step comes at its end.
            first.append((both[:, 0], (both[:, 1] + 1) * dt))
        counts = np.stack([response.excitatory for response in responses])
        return Answered(labels.numpy(), answers(vote(counts, own, classes)), first)

    def leads(self, tables: dict[str, NDArray[np.int64]]) -> dict[str, float | None]:
        """How far each of the asked confusions lies ahead of all others, by read-out."""
        return {
            f"{true} as {answer}, {name}: lead (points)": lead(table, true, answer)
            for true, answer in self.confusions
            for name, table in tables.items()
        }


def pair(text: str) -> tuple[int, int]:
    """The two labels of a confusion, `4-9`.

    Raises:
        BenchError: it is written otherwise, or no confusion.
    """
    match = re.fullmatch(r"(\d+)-(\d+)", text, re.ASCII)
    if match is None or int(match[1]) == int(match[2]):
        raise BenchError(f"decision.confusions has '{text}', it takes two labels each: [4-9] is a 4 taken for a 9")
    return int(match[1]), int(match[2])


def mean(times: NDArray[np.float64]) -> float | None:
    """Of reaction times, None where there are none."""
    return float(times.mean()) if len(times) else None


def voted(test: Answered, train: Answered) -> dict[str, Any]:
    """The first line of the probe's table: the majority vote, which has no reaction times."""
    return {
        **dict.fromkeys(COLUMNS),
        "read_out": "vote",
        "train_acc": train.acc(train.voted),
        "acc": test.acc(test.voted),
        "decided": 100.0 * float(np.mean(test.voted != NO_ANSWER)),
    }


def row(measured: Reaction, train_acc: float) -> dict[str, Any]:
    """A line of the probe's table at one threshold."""
    values = (
        "first pool", measured.threshold, train_acc, measured.acc, measured.decided, measured.right, measured.wrong,
        measured.apart.ks, measured.apart.p,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
