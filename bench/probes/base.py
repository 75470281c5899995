"""What a probe of a trained network is given, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data import DataConfig, Splits
from bench.data.batches import Batches
from bench.data.splits import balanced, fit
from bench.training.base_task import BaseTask
from bench.training.meter import Meter

Say = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A trained network in evaluation mode, with the data it was trained on.

    Attributes:
        task: the network; its regularizers are folded into the weights, unless the user kept them.
        splits: of the run.
        data: the run's settings of the data.
        precision: of the run: fp32 or bf16.
        batch_size: images that pass at once.
        device: where.
        seed: of the probe, not of the run: all runs are probed alike.
        path: the run's folder.
        other: gives the trained network of another run's folder, loaded likewise.
        probe: the name of the probe that asks, for messages that name its settings.
    """

    task: BaseTask
    splits: Splits
    data: DataConfig
    precision: str
    batch_size: int
    device: str
    seed: int
    path: Path
    other: Callable[[Path], Subject]
    probe: str = ""

    def batches(self, images: Tensor, labels: Tensor) -> Batches:
        """Normalized batches `(x, y)` as the run's evaluation made them.

        Args:
            images: `[M, C, H, W]` in 0 to 255, uint8 or float, of the size the network takes.
            labels: `[M]`.
        """
        mean, std = self.splits.mean, self.splits.std
        return Batches(
            images, labels, self.batch_size, mean=mean, std=std, device=self.device, posterize=self.data.posterize
        )  # fmt: skip

    def logits(self, x: Tensor) -> Tensor:
        """Logits `[N, classes]` of normalized images `[N, C, H, W]`, from rest, with their graph."""
        with self.autocast():
            features, _ = self.task.forward_t(x, frozenset())
            logits = self.task.model.logits(features)
        self.task.model.forget()
        return logits.float()

    def measure(self, images: Tensor, labels: Tensor) -> Meter:
        """Accuracy, loss and spikes over some images; see `batches` for the arguments."""
        return self.judge(images, labels)[0]

    def judge(self, images: Tensor, labels: Tensor) -> tuple[Meter, Tensor]:
        """As `measure`; beside it, which images are classified right: bool `[M]`, none by a network without answers."""
        meter, right = Meter(), [torch.zeros(0, dtype=torch.bool)]
        with torch.no_grad(), self.autocast():
            for x, y in self.batches(images, labels):
                features, activity = self.task.forward_t(x, frozenset())
                logits, _, loss = self.scored(features, y)
                meter.update(logits, y, loss, activity)
                right.append((torch.zeros_like(y, dtype=torch.bool) if logits is None else logits.argmax(1) == y).cpu())
                self.task.model.forget()
        return meter, torch.cat(right)

    def scored(self, features: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Logits, labels and loss, as a meter takes them."""
        logits, loss = self.task.logits_and_loss(features, y)
        return logits, y, loss

    def autocast(self) -> torch.autocast:
        """The precision of the run."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16")

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """A class-balanced choice of test images, the same for every run on these classes.

        Args:
            count: at most so many.

        Returns:
            uint8 `[M, C, H, W]` of the size the network takes, int64 `[M]`.
        """
        return self.choose(self.splits.dataset.test_images, self.splits.dataset.test_labels, count)

    def training_images(self, count: int) -> tuple[Tensor, Tensor]:
        """As `test_images`, of those that the network was trained on: after validation and data.limit, without
        augmentation. What a probe chooses for itself, a threshold say, it chooses on these."""
        return self.choose(*self.splits.train.stored, count)

    def choose(self, images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """As `test_images`, from any images; labels of at least one image each, from 0."""
        if count < len(labels):
            setting = f"{self.probe}.images" if self.probe else ""
            index = balanced(labels, count, int(labels.max()) + 1, self.seed, "images", setting)
            images, labels = images[index], labels[index]
        return fit(images, self.data.size), labels

    @property
    def spiking(self) -> bool:
        """False for the ReLU twin."""
        return self.task.spiking


@dataclass(frozen=True)
class Outcome:
    """What a probe found.

    Attributes:
        images: how many images each row is measured on.
        rows: the table, all rows with the same keys.
        headline: the few numbers that a report compares, by a name with its unit; None where there is none.
        notes: what the numbers mean, and what was chosen.
        more: further findings.
        doubts: why the numbers should not be believed, each reason in a line; empty where that was looked into and
            nothing was found, None where it was not.
    """

    images: int
    rows: list[dict[str, Any]]
    headline: dict[str, float | None]
    notes: dict[str, str]
    more: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] | None = None


class Probe(ABC):
    """Base of every probe; its constructor's typed defaults are its settings, as a regularizer's are."""

    @abstractmethod
    def measure(self, subject: Subject, say: Say) -> Outcome:
        """Probe one network; nothing of it may change.

        Args:
            subject: the network and its data.
            say: takes a line of progress.

        Raises:
            BenchError: the network or its data do not fit the probe.
        """
