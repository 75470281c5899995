"""Accuracy and spike rate on test images that noise, blur, light, motion or a codec has corrupted."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError, nearest
from bench.probes._corrupt import CORRUPTIONS, SEVERITIES
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.ranges import Numbers
from bench.registry import PROBES
from bench.seeds import generator

SETTINGS = Numbers("corruptions.")


@PROBES.register("corruptions")
class CorruptionsProbe(Probe):
    """Accuracy and spike rate under common corruptions in five severities each.

    What is random is drawn from the seed and the image's own bytes: every network meets the same corrupted images,
    whichever subset it is tested on. Images are corrupted at the size the network takes, and rounded to 8 bits.

    Source: after Hendrycks & Dietterich 2019 (arXiv 1903.12261), section 3; torchvision's transforms, with
    severities of this suite, since theirs are for photographs of 224 pixels.

    Args:
        kinds: some of the corruptions; null takes all.
        images: test images, class-balanced.

    Raises:
        BenchError: an unknown corruption, one twice, or fewer than one image.
    """

    def __init__(self, kinds: list[str] | None = None, images: int = 1000) -> None:
        SETTINGS.at_least(1, images=images)
        self.kinds = list(CORRUPTIONS) if kinds is None else kinds
        for name in self.kinds:
            if name not in CORRUPTIONS:
                raise BenchError(f"corruptions.kinds: there is no '{name}'. {nearest(name, CORRUPTIONS)}")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise BenchError(f"corruptions.kinds=[{','.join(self.kinds)}] must name one or more, each once")
        self.images = images

    def measure(self, subject: Subject, say: Say) -> Outcome:
        images, labels = subject.test_images(self.images)
        clean = subject.measure(images, labels).summary()
        rows: list[dict[str, Any]] = [row("none", 0, clean, clean)]
        say(f"corruptions: clean, {clean['acc']:.2f} %")
        means: dict[str, dict[str, float | None]] = {}
        for name in self.kinds:
            own = []
            for severity in range(SEVERITIES):
                summary = subject.measure(corrupted(images, name, severity, subject.seed), labels).summary()
                own.append(row(name, severity + 1, summary, clean))
            rows += own
            means[name] = {key: mean([line[key] for line in own]) for key in ("acc", "spike_rate")}
            say(f"corruptions: {name}, {means[name]['acc']:.2f} % over {SEVERITIES} severities")
        return Outcome(
            images=len(labels),
            rows=rows,
            headline={
                "clean (%)": clean["acc"],
                "corrupted (%)": mean([average["acc"] for average in means.values()]),
                "spike rate, clean": clean["spike_rate"],
                "spike rate, corrupted": mean([average["spike_rate"] for average in means.values()]),
            },
            notes={
                "acc": "percent; corrupted: mean over severities, then over corruptions",
                "spike_rate": "spikes / (neurons x time steps x images)",
                "drop": "points of accuracy lost against the same images, clean",
            },
            more={"means": means},
        )


def row(name: str, severity: int, summary: dict[str, Any], clean: dict[str, Any]) -> dict[str, Any]:
    """One row of the table, from what was measured; severity 0 is the clean set."""
    return {
        "corruption": name,
        "severity": severity,
        "acc": summary["acc"],
        "drop": clean["acc"] - summary["acc"],
        "spike_rate": summary["spike_rate"],
    }


def corrupted(images: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """All images corrupted, each by random numbers of its own.

    Args:
        images: uint8 `[M, C, H, W]`.
        name: of the corruption.
        severity: from 0 to 4.
        seed: of the probe.
    """
    change = CORRUPTIONS[name]
    # The severity is left out: a harder image is the same image, more so.
    draws = (generator("cpu", seed, "corruption", name, zlib.crc32(image.numpy().tobytes())) for image in images)
    return torch.stack([change(image, severity, draw) for image, draw in zip(images, draws, strict=True)])


def mean(values: list[float | None]) -> float | None:
    """The mean; None where something was not measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) and known else None
