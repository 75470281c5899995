"""How many spikes noise, known classes and unknown classes draw from a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import open_dataset
from bench.data.batches import posterized
from bench.data.classes import cut, resolve
from bench.data.splits import first_of_each, fit, statistics
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.probes._noise_sets import DARK_MEAN, SETTINGS, Blur, Level, blurred, delta_noise
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.registry import PROBES
from bench.seeds import generator
from bench.training.meter import Meter

PRUNED = 1e-3  # of the mean weight of used inputs
BLURRED = {
    Blur.image: "each by itself",
    Blur.across: "across samples too",
    Blur.stretched: "across samples too, then stretched from black on, mean kept",
}


@PROBES.register("noise")
class NoiseProbe(Probe):
    """Output spikes on four test sets: delta-correlated noise, blurred noise, known classes, unknown classes.

    A network that tells signal from noise answers the first two with few spikes. Output spikes are those of the last
    spiking layer, over all its neurons, time steps and images; those of all layers stand beside them. Noise has the
    size of the data set's own images and is then padded, and posterized, like these. Unknown are the classes that
    `data.classes` left out; a network trained on all classes has no such row. Both kinds of test images are a
    class-balanced choice, under `data.test_per_class` of the first so many of each class. Where the test set has fewer
    images than asked for, counts per image are what compares.

    Source: antonov2024 (Antonov & Sukhov), section 3 and its table. What an output spike is in a network with
    a linear read-out is this suite's.

    Args:
        images: of each set; the paper has 1,500.
        level: mean intensity of the noise.
        sigma: of the blur, in pixels.
        blur: whether samples are blurred into each other too, and the contrast stretched.
        unknown: which of the classes left out, names or labels; null takes all of them.

    Raises:
        BenchError: fewer than 1 image, or a sigma of 0 or below.
    """

    def __init__(
        self,
        images: int = 1500,
        level: Level = Level.training,
        sigma: float = 2.0,
        blur: Blur = Blur.image,
        unknown: list[int | str] | None = None,
    ) -> None:
        SETTINGS.at_least(1, images=images)
        SETTINGS.above(0, " pixels", sigma=sigma)
        self.images, self.level, self.sigma, self.blur, self.unknown = images, Level(level), sigma, Blur(blur), unknown

    def measure(self, subject: Subject, say: Say) -> Outcome:
        if not subject.spiking:
            raise BenchError("probe=noise counts spikes, and neuron=relu has none")
        sets = self.sets(subject)
        rows: list[dict[str, Any]] = []
        meters: dict[str, Meter] = {}
        for name, (images, labels) in sets.items():
            meters[name] = meter = subject.measure(images, labels)
            layers = [float(count) for count in meter.rates.counts.values()]
            rows.append(
                {
                    "set": name,
                    "images": meter.images,
                    "output_spikes": round(layers[-1]),
                    "output_per_image": layers[-1] / meter.images,
                    "relative": None,
                    "all_spikes": round(sum(layers)),
                    "spike_rate": meter.rates.global_rate(),
                    "acc": meter.summary()["acc"] if name == "known" else None,
                }
            )
            say(f"noise: {name}, {rows[-1]['output_per_image']:.4g} output spikes per image")
        per_image = {row["set"]: row["output_per_image"] for row in rows}
        for row in rows:
            row["relative"] = ratio(row["output_per_image"], per_image["delta"])
        last = list(meters["known"].rates.counts)[-1]
        weights = input_weights(subject)
        return Outcome(
            images=self.images,
            rows=rows,
            headline=headline(per_image) | border(weights),
            notes={
                "output_spikes": f"spikes of the last spiking layer, {last}, summed over neurons, "
                f"{subject.task.model.time_steps} time steps and images",
                "all_spikes": "spikes of all spiking layers; input spikes are not among them",
                "relative": "output spikes per image over those of delta noise",
                "delta": f"independent uniform pixels, mean {[round(m, 6) for m in self.mean(subject)]}"
                + (f", then cut to {bits} bits as the run's images are" if (bits := subject.data.posterize) else ""),
                "blurred": f"the same images, Gaussian of {self.sigma:g} pixels, {BLURRED[self.blur]}",
            },
            more={"input_weights": weights} if weights else {},
        )

    def mean(self, subject: Subject) -> tuple[float, ...]:
        """Of the noise, by channel."""
        images = training_images(subject)
        return (DARK_MEAN,) * images.shape[1] if self.level is Level.dark else statistics(images)[0]

    def sets(self, subject: Subject) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> images in 0 to 255 and labels; those of noise and unknown classes mean nothing."""
        shape = subject.splits.dataset.train_images.shape[1:]
        draw = generator("cpu", subject.seed, "noise")
        delta = delta_noise(self.images, (shape[0], shape[1], shape[2]), self.mean(subject), draw)
        nothing = torch.zeros(self.images, dtype=torch.long)
        sets = {
            name: (fit(255 * noise, subject.data.size), nothing)
            for name, noise in (("delta", delta), ("blurred", blurred(delta, self.sigma, self.blur)))
        }
        dataset = subject.splits.dataset
        sets["known"] = self.choose(subject, dataset.test_images, dataset.test_labels)
        other = self.left_out(subject)
        if other is not None:
            images, labels = self.choose(subject, *other)
            sets["unknown"] = (images, torch.zeros_like(labels))
        return sets

    def choose(self, subject: Subject, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A class-balanced choice of test images and their labels, of those that the run would test on."""
        if subject.data.test_per_class is not None:
            index = first_of_each(labels, subject.data.test_per_class)
            images, labels = images[index], labels[index]
        return subject.choose(images, labels, self.images)

    def left_out(self, subject: Subject) -> tuple[Tensor, Tensor] | None:
        """Test images of the unknown classes and their labels from 0; None where all classes are known.

        Raises:
            BenchError: classes are asked for that were trained on, or do not exist.
        """
        if subject.data.classes is None:
            if self.unknown is not None:
                raise BenchError(f"noise.unknown={self.unknown}, but the run was trained on all classes")
            return None
        whole = open_dataset(subject.data)
        known = subject.splits.dataset.classes
        chosen = [name for name in whole.classes if name not in known] if self.unknown is None else self.unknown
        if not chosen and self.unknown is None:
            return None
        labels = resolve(chosen, whole.classes, "noise.unknown", least=1)
        for label in labels:
            if whole.classes[label] in known:
                raise BenchError(f"noise.unknown: class '{whole.classes[label]}' was trained on")
        return cut(whole.test_images, whole.test_labels, labels, whole.classes, "test")


def training_images(subject: Subject) -> Tensor:
    """The training set, uint8 `[M, C, H, W]`; under `data.per_class` the first so many of each class.

    It is not cut by `data.limit` or validation: noise is of one mean for all runs on a data set and its classes.
    """
    dataset, count = subject.splits.dataset, subject.data.per_class
    return dataset.train_images if count is None else dataset.train_images[first_of_each(dataset.train_labels, count)]


def ratio(a: float, b: float) -> float | None:
    """a / b; None where b is 0."""
    return a / b if b else None


def headline(per_image: Mapping[str, float]) -> dict[str, float | None]:
    """The counts that a report compares, from output spikes per image by set."""
    known, unknown = per_image["known"], per_image.get("unknown")
    return {
        "known (spikes/image)": known,
        "unknown (spikes/image)": unknown,
        "delta noise (spikes/image)": per_image["delta"],
        "blurred noise (spikes/image)": per_image["blurred"],
        "delta noise / known": ratio(per_image["delta"], known),
        "unknown / known": None if unknown is None else ratio(unknown, known),
    }


def border(weights: Mapping[str, Any]) -> dict[str, float | None]:
    """The share of weights behind black pixels that is pruned, from `input_weights`; nothing where none is black."""
    pruned = weights.get("pruned_behind_black")
    return {} if pruned is None else {"pruned behind black pixels (%)": 100 * pruned}


def input_weights(subject: Subject) -> dict[str, Any]:
    """What became of the weights behind pixels that are black on every training image (the paper's figure 2).

    Returns:
        Nothing for a network without a linear layer on the pixels.
    """
    layer = pixel_layer(subject.task.model)
    if layer is None:
        return {}
    images = fit(training_images(subject), subject.data.size)
    black = (posterized(images.amax(0).float(), subject.data.posterize) == 0).flatten()
    size = layer.weight.detach().float().abs().mean(0).cpu()
    used = float(size[~black].mean())
    silent = layer.weight.detach().float().abs().cpu()[:, black]
    shape = subject.task.model.spec.image_shape
    return {
        "black_pixels": int(black.sum()),
        "pixels": len(black),
        "mean_abs_behind_black": float(silent.mean()) if silent.numel() else None,
        "mean_abs_behind_others": used,
        "pruned_behind_black": float((silent < PRUNED * used).float().mean()) if silent.numel() else None,
        "pruned_behind_others": float((layer.weight.detach().abs().cpu()[:, ~black] < PRUNED * used).float().mean()),
        "pruned": f"below {PRUNED:g} of the mean absolute weight behind pixels that are not always black",
        "neuron_0": [round(value, 5) for value in layer.weight.detach()[0].float().tolist()],
        "shape": list(shape),
    }


def pixel_layer(model: SpikingNetwork) -> nn.Linear | None:
    """The linear layer that reads the pixels, if there is one."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fits = isinstance(module, nn.Linear) and module.in_features == math.prod(model.spec.image_shape)
            return module if fits and isinstance(module, nn.Linear) else None
    return None
