"""The decision probe: what it chooses on training images, what it says of test images, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.config.component import build
from bench.errors import BenchError
from bench.experiments import load
from bench.local.readout import NO_ANSWER
from bench.models.base import Spec
from bench.models.diehl_cook import DiehlCook
from bench.neurons import NeuronConfig
from bench.probes.base import Subject
from bench.probes.decision import Answered, DecisionProbe
from bench.probes.evaluate import parse
from bench.registry import PROBES
from bench.report.claims import claims
from tests.probes.conftest import train

SubjectOf = Callable[..., Subject]
TINY = (
    "data=digits", "data.classes=[0,1]", "model=diehl_cook", "model.rule=stdp", "model.neurons=8", "model.present=60",
    "trainer.batch_size=8", "trainer.epochs=1", "trainer.precision=fp32", "logger=none",
)  # fmt: skip


EXPERIMENT = load("gutekunst/decision_time")


def silent(line: str) -> None:
    """No progress."""


def shown(subject: Subject) -> set[bytes]:
    """The normalized images of a training epoch."""
    return {image.numpy().tobytes() for x, _ in subject.splits.train for image in x}


@pytest.mark.parametrize(
    ("settings", "count"), [(["data.limit=40"], 40), (["trainer.max_train_images=48", "data.val_fraction=0.2"], 48)]
)
def test_training_images_are_those_that_the_network_saw(
    settings: list[str], count: int, shared_data: Path, tmp_path: Path, subject_of: SubjectOf
) -> None:
    """All of them, whatever cut the training set; and of fewer, as many of each class."""
    subject = subject_of(train(shared_data, tmp_path, *TINY, *settings))
    images, labels = subject.training_images(1000)
    assert len(images) == count < len(subject.splits.dataset.train_images)
    normalized = {image.numpy().tobytes() for x, _ in subject.batches(images, labels) for image in x}
    assert normalized == shown(subject)
    few, own = subject.training_images(10)
    assert {image.numpy().tobytes() for image in few} <= {image.numpy().tobytes() for image in images}
    assert torch.bincount(own).tolist() == [5, 5]


def answered(y: list[int], *first: tuple[list[int], list[float]]) -> Answered:
    return Answered(np.array(y), np.zeros(len(y), int), [(np.array(a), np.array(times)) for a, times in first])


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """probed(probe, test, train): what a probe makes of some answers."""

    def measure(probe: DecisionProbe, test: Answered, train: Answered, classes: int = 2) -> Any:
        torch.manual_seed(0)
        model = DiehlCook(Spec((1, 8, 8), 2, neuron=NeuronConfig("lif")))
        subject: Any = SimpleNamespace(
            task=SimpleNamespace(model=model),
            splits=SimpleNamespace(classes=classes),
            test_images=lambda count: (test, None),
            training_images=lambda count: (train, None),
        )
        monkeypatch.setattr(DecisionProbe, "answered", lambda self, model, subject, images, labels: images)
        return probe.measure(subject, silent)

    return measure


def test_the_threshold_is_chosen_on_training_images(probed: Callable[..., Any]) -> None:
    """Test images are answered best at 1 spike, all four of them, training images at 2 and as well at 3."""
    test = answered(
        [0, 0, 1, 1],
        ([0, 0, 1, 1], [1.0, 1.0, 1.0, 1.0]),
        ([0, 1, 1, 0], [4.0, 8.0, 6.0, 4.0]),
        ([0, 0, 0, NO_ANSWER], [9.0, 9.0, 9.0, 9.0]),
    )
    train = answered([0, 1], ([1, 0], [1.0, 1.0]), ([0, 1], [3.0, 5.0]), ([0, 1], [7.0, 7.0]))
    outcome = probed(DecisionProbe(thresholds=[1, 2, 3], confusions=["0-1", "1-0"]), test, train)
    assert outcome.headline == {
        "vote (%)": 50.0, "first pool (%)": 50.0, "threshold (spikes)": 2, "right answers (ms)": 5.0,
        "wrong answers (ms)": 6.0, "wrong ones before the median right one (%)": 50.0, "training images (ms)": 4.0,
        # Right 4 and 6, wrong 8 and 4: 1/2 apart, times 1. Training 3 and 5 against 4, 8, 6, 4: 1/2, times sqrt(8 / 6).
        "test images (ms)": 5.5, "KS, right and wrong": 0.5, "KS, training and test": pytest.approx(0.57735),
        # The vote takes both images of class 1 for 0; the first pool errs once each way.
        "0 as 1, vote: lead (points)": -100.0, "0 as 1, first pool: lead (points)": 0.0,
        "1 as 0, vote: lead (points)": 100.0, "1 as 0, first pool: lead (points)": 0.0,
    }  # fmt: skip
    assert [(row["threshold"], row["train_acc"], row["acc"]) for row in outcome.rows] == [
        (None, 50.0, 50.0), (1, 0.0, 100.0), (2, 100.0, 50.0), (3, 100.0, 50.0),
    ]  # fmt: skip
    assert outcome.more["confusions"] == {"vote": [[2, 0, 0], [2, 0, 0]], "first pool": [[1, 1, 0], [1, 1, 0]]}
    assert (outcome.images, outcome.more["training_against_test"]["training_images"]) == (4, 2)


def test_the_lowest_of_equally_good_thresholds_counts(probed: Callable[..., Any]) -> None:
    same = answered([0, 1], ([0, 1], [9.0, 9.0]), ([0, 1], [2.0, 2.0]))
    assert probed(DecisionProbe(thresholds=[5, 2]), same, same).headline["threshold (spikes)"] == 2


def test_the_papers_claims_are_about_numbers_that_the_probe_gives(probed: Callable[..., Any]) -> None:
    """As the experiment has it measured."""
    cfg = parse([f"probe={','.join(word for word in EXPERIMENT.probes if '=' not in word)}", *EXPERIMENT.probes[1:]])
    same = answered([0, 1], *[([0, 1], [9.0, 9.0])] * 7)
    headline = probed(build(PROBES, cfg.decision), same, same, classes=10).headline
    words = [value for claim in claims(EXPERIMENT.name) for value in claim.values() if isinstance(value, str)]
    named = {word.removeprefix("probes.decision.") for word in words if word.startswith("probes.decision.")}
    assert len(named) > 5
    assert named <= headline.keys()


def wrong() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"images": 0}, "decision.images is 0, it must be at least 1"
    yield {"thresholds": []}, "decision.thresholds is empty"
    yield {"thresholds": [2, 0]}, "decision.thresholds is 0, it must be at least 1"
    for text in ("4", "4-4", "a-b", "4-9-1"):
        yield {"confusions": [text]}, rf"decision.confusions has '{text}', it takes two labels each: \[4-9\]"


@pytest.mark.parametrize(("settings", "message"), list(wrong()))
def test_settings_out_of_range_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        DecisionProbe(**settings)


def test_a_label_that_is_not_there_is_one_line(probed: Callable[..., Any]) -> None:
    same = answered([0, 1], ([0, 1], [9.0, 9.0]))
    with pytest.raises(BenchError, match=r"decision\.confusions has 1-2, but labels go from 0 to 1"):
        probed(DecisionProbe(thresholds=[1], confusions=["1-2"]), same, same)
