"""Training by local rules within Lightning's loop: one presentation after the other, no loss, no optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.activity import Activity, LayerActivity, Operations
from bench.config.schema import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.local.network import Floats, Mode, Response
from bench.local.readout import assign
from bench.models.diehl_cook import DiehlCook
from bench.neurons import SPIKES, Read
from bench.ops import Backend, asked
from bench.regularizers.base import Regularizer
from bench.regularizers.none import NoRegularizer
from bench.regularizers.uselose import Form, Scope, UseItOrLoseIt
from bench.seeds import derive
from bench.training.base_task import BaseTask


class LocalCounter(Operations):
    """SynOps of images: every spike of an input or a neuron times the synapses it arrives at; nothing multiplies.

    Args:
        model: the network, which adds up its own.
    """

    def __init__(self, model: DiehlCook) -> None:
        super().__init__()
        self.model = model

    @contextmanager
    def attached(self) -> Iterator[LocalCounter]:
        self.model.synops = 0.0
        yield self

    def batch(self, features: Tensor) -> None:
        self.synops += self.model.synops
        self.images += features.shape[1]


@dataclass(frozen=True)
class Decay:
    """The decay of unused weights, antonov2024's eq. 5: k_p / tau^2 per square step, 0 being none.

    A synapse is used at its input's spikes alone, and there the time since the last one has just become 0. So a decay
    that scales the weights in use (`form=effective`) shows only once the training is over and what is due is written
    into the weights. This is also what the authors' notebooks computed: the variable that switches their decay on stays
    0 until then. Their code as written decays the weights themselves at each input spike (`form=literal`).

    Attributes:
        training: at each input spike of the training.
        flush: at the end.
    """

    training: float = 0.0
    flush: float = 0.0


def decay_of(regularizers: Mapping[str, Regularizer], period: int) -> Decay:
    """The decay that the regularizers of a run ask for.

    Args:
        regularizers: of the run. One of `uselose`'s training steps is one presentation.
        period: steps of a presentation with its pause.

    Raises:
        BenchError: a regularizer that has no meaning for a local rule.
    """
    decay = Decay()
    for name, reg in regularizers.items():
        if isinstance(reg, UseItOrLoseIt):
            if reg.form is Form.penalty or reg.scope is not Scope.pre:
                raise BenchError(
                    f"reg.{name}: model=diehl_cook learns without a loss, it takes form=effective or form=literal, "
                    f"scope=pre, not form={reg.form.value} scope={reg.scope.value}"
                )
            rate = reg.k_p / (reg.tau * period) ** 2
            decay = Decay(rate if reg.form is Form.literal else 0.0, rate)
        elif not isinstance(reg, NoRegularizer):
            raise BenchError(f"reg={name} needs a gradient, model=diehl_cook has none; it takes reg=none or uselose")
    return decay


class LocalTask(BaseTask):
    """Trains `DiehlCook` image by image; it answers from a copy of itself that does not learn.

    A batch of an evaluation starts from rest and then keeps time: an image's spikes may reach into the next one's
    presentation, as they do in training. Input spikes derive from (seed, epoch, step, place in the batch), in
    evaluations from the seed and the image. After the last epoch the decay that is still due is applied.

    Args:
        model: the network; no regularizer is attached to it, for want of a gradient and a forward pass.
        regularizers: none, or `uselose`, see `Decay`.
        optim: `local`; its rate scales every weight change.
        base: see `BaseTask`.

    Raises:
        BenchError: a regularizer or optimizer that needs a gradient.
    """

    model: DiehlCook
    takes = (Optimizer.local,)

    def __init__(self, model: DiehlCook, regularizers: dict[str, Regularizer], optim: OptimConfig, **base: Any) -> None:
        super().__init__(model, regularizers, optim, **base)
        self.decay = decay_of(regularizers, model.period)
        model.learn_at(optim.lr)
        model.answer_as(self.seed, self.decay.flush)
        model.reference = asked() is Backend.reference
        self.recent: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []

    # -- training ------------------------------------------------------------------------------------

    def training_step(self, batch: Sequence[tuple[Tensor, Tensor]], batch_idx: int) -> None:
        """The presentations of one list of `bench.data.batches.Chunks`."""
        for x, y in batch:
            self.learn(x, y)
            self.told()

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Present a batch with learning on.

        Args:
            x: normalized images `[N, 1, H, W]`.
            y: labels `[N]`.

        Raises:
            BenchError: soft labels.
        """
        if y.ndim != 1:
            raise BenchError("data.mixup makes soft labels; model=diehl_cook learns one class at a time: set it to 0")
        model, labels, images = self.model, y.cpu().numpy(), self.model.pixels(x)
        state, own = model.state(), model.labels.numpy()
        key = derive(self.seed, "input spikes", self.current_epoch, self.steps)
        responses = []
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            sign = np.where(own == label, 1.0, -1.0) if model.supervised else np.ones(len(own))
            rng = np.random.default_rng([key, place])
            responses.append(model.present(state, image, Mode(sign, adapt=True, unused=self.decay.training), rng))
        model.step.fill_(state.step)
        if not model.supervised:
            self.keep(images, labels)
        logits, loss = self.logits_and_loss(model.votes(responses), y)
        self.meters["train"].update(logits, y.cpu(), loss, self.activity(responses))
        self.steps += 1
        self.passes += 1

    def keep(self, images: Floats, labels: NDArray[np.int64]) -> None:
        """Remember the last images, for the labels of the neurons."""
        self.recent.append((np.round(images * 255).astype(np.uint8), labels))
        while sum(len(labels) for _, labels in self.recent[1:]) >= self.model.assign:
            self.recent.pop(0)

    def give_labels(self) -> None:
        """Label each neuron by its answers to the epoch's last images, with learning off."""
        model, classes = self.model, self.model.spec.classes
        if model.supervised or not self.recent or int(model.assigned_at) == int(model.step):
            return
        images = np.concatenate([images for images, _ in self.recent])[-model.assign :] / 255
        labels = np.concatenate([labels for _, labels in self.recent])[-model.assign :]
        state, key = model.frozen(), derive(self.seed, "label spikes", self.current_epoch)
        counts = np.zeros((model.network.wiring.neurons, classes))
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            response = model.present(state, image, Mode(), np.random.default_rng([key, place]))
            counts[:, label] += response.excitatory
        model.labels.copy_(torch.from_numpy(assign(counts, np.bincount(labels, minlength=classes))))
        model.assigned_at.copy_(model.step)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.recent = []

    def on_train_epoch_end(self) -> None:
        self.give_labels()
        if self.current_epoch + 1 == self.epochs and self.decay.flush > 0:
            model, state = self.model, self.model.state()
            model.flush(state, self.decay.flush, model.flush_rng())
            model.step.fill_(state.step)
            model.flushed_at.fill_(state.step)

    def configure_optimizers(self) -> None:
        """There is none, and that is meant."""
        warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None.*")

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    # -- evaluation ----------------------------------------------------------------------------------

    def forward_t(self, x: Tensor, reads: frozenset[Read] = SPIKES) -> tuple[Tensor, Activity]:
        """Present images with learning off.

        Args:
            x: normalized images `[N, 1, H, W]`.
            reads: without effect: how often each neuron fired is known, and no more.

        Returns:
            Votes `[1, N, classes + 1]`, see `DiehlCook.votes`, and what the neurons did.

        Raises:
            BenchError: a gradient with respect to the images is asked for.
        """
        features = self.model.features(x)
        return features, self.activity(self.model.answered)

    def activity(self, responses: list[Response]) -> Activity:
        """What the neurons did in some presentations, their pauses left out."""
        # The layer whose spikes are the answer comes last, as in every network of the suite.
        return {
            name: self.layer(np.stack([getattr(response, name) for response in responses]))
            for name in ("inhibitory", "excitatory")
        }

    def layer(self, counts: NDArray[np.int64]) -> LayerActivity:
        """The activity of neurons of which only the number of spikes is known, `[N, neurons]`."""
        fired, steps = torch.from_numpy(counts), self.model.time_steps
        shape = torch.Size([steps, *fired.shape])
        return LayerActivity(sums={Read.neuron_counts: fired.float()}, count=fired.sum(), shape=shape)

    def logits_and_loss(self, features: Tensor, y: Tensor) -> tuple[Tensor | None, None]:
        """The votes as logits `[N, classes + 1]`, None as long as no neuron has a label; there is no loss."""
        labelled = bool((self.model.labels >= 0).any())
        return (self.model.logits(features) if labelled else None), None

    def make_counter(self) -> LocalCounter:
        return LocalCounter(self.model)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.give_labels()

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.give_labels()
