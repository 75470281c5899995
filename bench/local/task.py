"""Training by local rules within Lightning's loop: one presentation after the other, no loss, no optimizer."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.activity import PICOJOULE_PER_AC, Activity, LayerActivity
from bench.config import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.local.network import Floats, Mode, Spikes, State
from bench.local.readout import answers, assign, vote
from bench.models.diehl_cook import DiehlCook
from bench.ops import Backend, asked
from bench.random import derive
from bench.regularizers.base import Regularizer
from bench.regularizers.none import NoRegularizer
from bench.regularizers.uselose import Form, Scope, UseItOrLoseIt
from bench.task import Meter, Task


class LocalMeter(Meter):
    """A meter without a loss; without an accuracy where no neuron has a label yet."""

    def summary(self) -> dict[str, float | None]:
        found = {**super().summary(), "loss": None}
        return found if bool(torch.isfinite(torch.as_tensor(self.loss))) else {**found, "acc": None}


class LocalOps:
    """SynOps of the test images: every spike of an input or a neuron times the synapses it arrives at.

    Args:
        model: the network, which adds up its own.
    """

    def __init__(self, model: DiehlCook) -> None:
        self.model = model
        self.synops, self.images = 0.0, 0

    @contextmanager
    def attached(self) -> Iterator[LocalOps]:
        """Count while this context is open."""
        self.model.synops = 0.0
        yield self

    def batch(self, features: Tensor) -> None:
        """Finish one batch, of features `[1, N, F]`."""
        self.synops += self.model.synops
        self.images += features.shape[1]

    def per_image(self) -> dict[str, float | None]:
        """As `bench.activity.OpCounter.per_image`; nothing here multiplies."""
        synops = self.synops / self.images
        return {
            "synops_per_image": synops,
            "synops_nonbinary_per_image": 0.0,
            "macs_per_image": 0.0,
            "energy_uj": synops * PICOJOULE_PER_AC * 1e-6,
        }


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


class LocalTask(Task):
    """Trains `DiehlCook` image by image, and answers from a copy of it that does not learn.

    A batch of an evaluation starts from rest and then keeps time: an image's spikes may reach into the next one's
    presentation, as they do in training. Input spikes derive from (seed, epoch, step, place in the batch), in
    evaluations from the seed and the image.

    Args:
        model: the network.
        regularizers: none, or `uselose`, see `Decay`.
        optim: `local`; its rate scales every weight change.
        seed: see `Task`.
        epochs: after the last the decay that is still due is applied.
        splits: see `Task`.

    Raises:
        BenchError: a regularizer or optimizer that needs a gradient, several devices.
    """

    model: DiehlCook
    meter = LocalMeter
    takes = (Optimizer.local,)

    def __init__(
        self,
        model: DiehlCook,
        regularizers: dict[str, Regularizer],
        optim: OptimConfig,
        *,
        seed: int,
        epochs: int,
        splits: Iterable[str] = ("test",),
    ) -> None:
        # Attaching would put hooks and parametrizations where no gradient and no forward pass comes by.
        super().__init__(model, {}, optim, seed=seed, epochs=epochs, splits=splits)
        self.decay = decay_of(regularizers, model.period)
        self.regularizers = nn.ModuleDict(regularizers)
        model.learn_at(optim.lr)
        model.reference = asked() is Backend.reference
        self.recent: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []

    # -- training ------------------------------------------------------------------------------------

    def training_step(self, batch: Sequence[tuple[Tensor, Tensor]], batch_idx: int) -> None:
        """The presentations of one list of `bench.data.batches.Chunks`."""
        for x, y in batch:
            self.learn(x, y)
            self.steps += 1
            if self.on_step is not None:
                self.on_step()

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
        seen = []
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            sign = np.where(own == label, 1.0, -1.0) if model.supervised else np.ones(len(own))
            rng = np.random.default_rng([key, place])
            seen.append(model.present(state, image, Mode(sign, adapt=True, unused=self.decay.training), rng))
        model.step.fill_(state.step)
        if not model.supervised:
            self.keep(images, labels)
        features, activity = self.outcome(seen)
        self.meters["train"].update(*self.scored(features, y), activity)

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
        state, key = self.frozen(), derive(self.seed, "label spikes", self.current_epoch)
        responses = np.zeros((model.network.wiring.neurons, classes))
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            spikes = model.present(state, image, Mode(), np.random.default_rng([key, place]))
            responses[:, label] += spikes.excitatory
        model.labels.copy_(torch.from_numpy(assign(responses, np.bincount(labels, minlength=classes))))
        model.assigned_at.copy_(model.step)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.recent = []

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.give_labels()
        if self.current_epoch + 1 == self.epochs and self.decay.flush > 0:
            state = self.model.state()
            self.model.flush(state, self.decay.flush, self.flush_rng())
            self.model.step.fill_(state.step)
            self.model.flushed_at.fill_(state.step)

    def flush_rng(self) -> np.random.Generator:
        """Input spikes of the flush."""
        return np.random.default_rng(derive(self.seed, "flush"))

    def configure_optimizers(self) -> None:
        """There is none, and that is meant."""
        warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None.*")

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    # -- evaluation ----------------------------------------------------------------------------------

    def frozen(self) -> State:
        """A copy at rest, with the decay that unused weights wait for."""
        model, state = self.model, self.model.state().copy()
        if self.decay.flush > 0 and int(model.flushed_at) != state.step:
            model.flush(state, self.decay.flush, self.flush_rng())
        return model.network.rested(state.w, state.theta, state.step)

    def forward_t(self, x: Tensor, keep_spikes: bool = True) -> tuple[Tensor, Activity]:
        """Present images with learning off.

        Args:
            x: normalized images `[N, 1, H, W]`.
            keep_spikes: without effect: their counts are kept.

        Returns:
            Votes `[1, N, classes + 1]`, see `outcome`, and what the neurons did.

        Raises:
            BenchError: a gradient with respect to the images is asked for.
        """
        if x.requires_grad:
            raise BenchError("model=diehl_cook has no gradient with respect to its images")
        features, activity = self.outcome(self.answer(x))
        return features.to(x.device), activity

    def answer(self, x: Tensor) -> list[Spikes]:
        """The spikes of each image `[N, 1, H, W]` with learning off, from rest if the last pass was forgotten."""
        model, key = self.model, derive(self.seed, "test spikes")
        if model.evaluation is None:
            model.evaluation = self.frozen()
        seen = []
        for image in model.pixels(x):
            # By its pixels: what came before an image, in this set or another, does not change its input.
            rng = np.random.default_rng([key, zlib.crc32(image.tobytes())])
            seen.append(model.present(model.evaluation, image, Mode(), rng))
        return seen

    def outcome(self, seen: list[Spikes]) -> tuple[Tensor, Activity]:
        """Votes and activity of some presentations.

        Returns:
            Votes `[1, N, classes + 1]`: the mean spikes of each class' neurons, and 1 in the last place where none of
            these has fired: no class is an answer then. The activity counts the presentation, not the pause.
        """
        model, counts = self.model, np.stack([spikes.excitatory for spikes in seen])
        votes = vote(counts, model.labels.numpy(), model.spec.classes)
        silent = answers(votes) < 0
        features = torch.from_numpy(np.concatenate([votes, silent[:, None]], axis=1))[None]
        inhibitory = np.stack([spikes.inhibitory for spikes in seen])
        # The layer whose spikes are the answer comes last, as in every network of the suite.
        return features, {"inhibitory": self.layer(inhibitory), "excitatory": self.layer(counts)}

    def layer(self, counts: NDArray[np.int64]) -> LayerActivity:
        """The activity of neurons of which only the number of spikes is known, [N, neurons]."""
        found, steps = torch.from_numpy(counts), self.model.time_steps
        # All that is read of the spikes themselves is who fired at any step, and who at all: two steps tell.
        extremes = torch.stack([found > 0, found == steps]).float()
        return LayerActivity(extremes, None, found.sum(), torch.Size([steps, *found.shape]))

    def scored(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, labels and loss, as a meter takes them."""
        logits, loss = self.logits_and_loss(features, y)
        return logits, y.cpu(), loss

    def logits_and_loss(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The votes as logits `[N, classes + 1]`; no loss: 0, or NaN where no neuron has a label yet."""
        labelled = bool((self.model.labels >= 0).any())
        return features[0], torch.tensor(0.0 if labelled else torch.nan)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.give_labels()

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.give_labels()
        self.ops = LocalOps(self.model)  # type: ignore[assignment]
