"""What a network costs beside its non-spiking twin: the same network with ReLU in place of its neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.records.schema import MEASURES
from bench.report.collect import StoredRun
from bench.report.words import ACCURACY

ENERGY = MEASURES["energy_uj"]


class Twin(NamedTuple):
    """Means over the runs of a ReLU network.

    Attributes:
        energy: of one image, in microjoules.
        accuracy: on the test images, in percent.
    """

    energy: float
    accuracy: float


def kind_of(record: StoredRun) -> tuple[Any, ...]:
    """What a network and its non-spiking twin have in common."""
    return tuple(record.result[key] for key in ("data", "model", "train_images", "epochs", "budget"))


def twins(records: Sequence[StoredRun]) -> dict[tuple[Any, ...], Twin]:
    """The ReLU twin of each network that has one among the records, by `kind_of`."""
    runs: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for record in records:
        energy, accuracy = record.number(ENERGY.key), record.number(ACCURACY.key)
        if record.result["neuron"] == "relu" and energy is not None and accuracy is not None:
            runs.setdefault(kind_of(record), []).append((energy, accuracy))
    return {
        key: Twin(*(math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True)))
        for key, pairs in runs.items()
    }
