"""Accuracy, loss and spike rates of one pass over a split, summed on the device."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from bench.activity import Activity, RateMeter
from bench.training import distributed


class Meter:
    """Accuracy, loss and spike rates of one pass over a split, summed on the device.

    Several ranks that saw different images: `join` makes the sums those of all.
    """

    def __init__(self, per_neuron: bool = False) -> None:
        self.images = 0
        self.correct: Any = 0
        self.loss: Any = None
        self.answers = True
        self.rates = RateMeter(per_neuron)

    @torch.no_grad()
    def update(self, logits: Tensor | None, y: Tensor, loss: Tensor | None, activity: Activity) -> None:
        """Add a batch.

        Args:
            logits: `[N, classes]`; None of a network that cannot answer yet.
            y: labels `[N]`, or soft labels `[N, classes]`.
            loss: the batch's mean; None of a network that learns without one.
            activity: of the batch.
        """
        self.images += len(y)
        if logits is None:
            self.answers = False
        else:
            hard = y.argmax(1) if y.ndim == 2 else y
            self.correct += (logits.argmax(1) == hard).sum()
        if loss is not None:
            total = loss.detach().double() * len(y)
            if self.loss is None:
                self.loss = total
            else:
                self.loss += total
        if activity:
            self.rates.update(activity)

    def sums(self) -> list[Tensor]:
        """What `update` adds to, from its second call on in place."""
        return [self.correct, self.loss, *self.rates.counts.values()]

    def count(self, images: int) -> None:
        """Say how many images went into the sums, where replays added to them unseen."""
        self.images = images
        self.rates.images = images if self.rates.counts else 0

    def restart(self) -> None:
        """Begin anew, in the same tensors."""
        self.images = self.rates.images = 0
        for tensor in self.sums():
            tensor.zero_()

    def join(self) -> None:
        """Take in what the other ranks' meters saw; all ranks call it."""
        own = self.rates
        kinds = own.per_image, own.neurons
        state = (self.images, self.correct, self.loss, own.images, own.counts, kinds, own.ever, own.always)
        parts = distributed.gather(move_data_to_device(state, "cpu"))
        del parts[distributed.rank()]
        for images, correct, loss, seen, counts, kinds, ever, always in parts:
            self.images += images
            self.correct = self.correct + correct
            if loss is not None:
                self.loss = loss if self.loss is None else self.loss + loss
            own.images += seen
            own.per_image |= kinds[0]
            own.neurons |= kinds[1]
            for name in counts:
                own.counts[name] = own.counts.get(name, 0) + counts[name]
            for name in ever:
                own.ever[name] = ever[name] | own.ever[name].cpu() if name in own.ever else ever[name]
                own.always[name] = always[name] & own.always[name].cpu() if name in own.always else always[name]

    def summary(self) -> dict[str, float | None]:
        """acc in percent, loss, spike_rate and spike_rate_layer_mean; None for what there is none of."""
        spiking = bool(self.rates.counts)
        return {
            "acc": 100.0 * int(self.correct) / self.images if self.answers else None,
            "loss": None if self.loss is None else float(self.loss) / self.images,
            "spike_rate": self.rates.global_rate() if spiking else None,
            "spike_rate_layer_mean": self.rates.layer_mean() if spiking else None,
        }
