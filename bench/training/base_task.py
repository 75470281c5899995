"""What every way of learning shares: meters, the epoch's steps, evaluation, one rank among several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self

import lightning as L
from lightning.fabric.utilities import move_data_to_device
from omegaconf import OmegaConf
from torch import Tensor, nn

from bench.activity import Activity, Operations
from bench.config.component import settings
from bench.config.schema import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.neurons import SPIKES, Read
from bench.regularizers.base import HOOKS, Regularizer
from bench.training import distributed
from bench.training.meter import Meter
from bench.weights.about import About, construct
from bench.weights.store import fill, read_checkpoint

TRAINED = "train_clean"
"""The split that a final test adds: the training images as the test images are seen."""


class BaseTask(L.LightningModule, ABC):
    """The sole owner of resets and of the time axis; a subclass says what a training step is.

    In a run over several devices each rank has a task of its own. Each batch of an evaluation is one rank's; sums over
    a split are joined at its end.

    Args:
        model: the network.
        regularizers: by name, in the order in which they attach.
        optim: optimizer, rate, schedule, clipping.
        seed: every random number of training derives from (seed, epoch, step).
        epochs: of the whole run.
        splits: names of the evaluation loaders, in the trainer's order; a final test has `TRAINED` after them.
        on_step: called with the task after each training step.
        alone: act as the only process, though there may be others.
        images: gives normalized training images, `[500, C, H, W]` or fewer, for what starts or is judged by data.
        about: what the network is, of `bench.weights.about.about`; with it a checkpoint is enough to load the task.

    Attributes:
        meters: by split, and of the epoch under way under `train`.
        penalties: each term summed over the epoch's steps.
        steps: training steps done in the epoch.
        passes: forward passes made in them.
        counter: of the operations of the final test; None before it.
        spiking: False for the ReLU twin.
        rank: of this process; `ranks` is how many there are.

    Raises:
        BenchError: the optimizer is none of those it takes.
    """

    takes: ClassVar[tuple[Optimizer, ...]]

    def __init__(
        self,
        model: SpikingNetwork,
        regularizers: dict[str, Regularizer],
        optim: OptimConfig,
        *,
        seed: int,
        epochs: int,
        splits: Iterable[str] = ("test",),
        on_step: Callable[[BaseTask], None] | None = None,
        alone: bool = False,
        images: Callable[[], Tensor] | None = None,
        about: About | None = None,
    ) -> None:
        super().__init__()
        if optim.name not in self.takes:
            names = " or ".join(name.value for name in self.takes)
            raise BenchError(f"optim.name is '{optim.name.value}', and this network is trained by {names}")
        # A step is spelled out by the subclass: regularizers act between the optimizer's steps.
        self.automatic_optimization = False
        self.model = model
        self.regularizers = nn.ModuleDict(regularizers)
        self.optim, self.seed, self.epochs = optim, seed, epochs
        self.splits = tuple(splits)
        self.on_step = on_step
        self.spiking = model.spec.neuron.name != "relu"
        self.counter: Operations | None = None
        self.meters: dict[str, Meter] = {}
        self.penalties: dict[str, Tensor] = {}
        self.steps = self.passes = 0
        self._images = images
        self.about = about
        self._judging = ExitStack()
        self.rank, self.ranks = (0, 1) if alone else (distributed.rank(), distributed.ranks())

    @property
    def regs(self) -> list[Regularizer]:
        """The regularizers, in their order."""
        return list(self.regularizers.values())  # type: ignore[arg-type]

    def had_effect(self, name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a regularizer changed anything in the run, as far as that can be told.

        Args:
            name: of the regularizer.
            rows: the lines of `metrics.jsonl`: what acts by its penalty alone did nothing if that was always 0.
        """
        reg: Regularizer = self.regularizers[name]  # type: ignore[assignment]
        known = reg.had_effect()
        if known is not None:
            return known
        acts = {hook for hook in HOOKS if reg.has(hook)}
        if acts != {"penalty"}:
            return True
        terms = [value for row in rows for term, value in row["penalties"].items() if term.startswith(name)]
        return any(terms or (value for row in rows for value in row["penalties"].values()))

    # -- checkpoints ---------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.about is not None:
            optim = {key: value.value if isinstance(value, Enum) else value for key, value in vars(self.optim).items()}
            own = {"seed": self.seed, "epochs": self.epochs, "splits": list(self.splits)}
            checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = {"about": self.about, "optim": optim, **own}

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, **more: Any
    ) -> Self:
        """The task of a run as its last finished epoch left it, from the checkpoint alone.

        Nothing is unpickled. To classify images, `bench.load` is enough.

        Args:
            checkpoint_path: `checkpoints/last.ckpt` in a run's folder.
            map_location: the device to put it on.
            more: arguments of the task in place of those it was trained with.

        Raises:
            BenchError: the checkpoint is damaged or of another suite's version, or from before checkpoints said what
                they are of.
        """
        path = Path(checkpoint_path)
        said, state, kept = read_checkpoint(path)
        if said is None:
            raise BenchError(f"{path} does not say what it is of; `bench.load` takes its run's folder")
        model, regs = construct(said, str(path))
        merged: Any = OmegaConf.merge(OmegaConf.structured(OptimConfig), kept.pop("optim"))
        optim: OptimConfig = settings(merged)
        task: Any = cls
        loaded: Self = task(model, regs, optim, **{**kept, "about": said, **more})
        fill(loaded, state, str(path))
        return loaded if map_location is None else loaded.to(map_location)

    # -- what a way of learning says -----------------------------------------------------------------

    @abstractmethod
    def forward_t(self, x: Tensor, reads: frozenset[Read] = SPIKES) -> tuple[Tensor, Activity]:
        """One pass from rest: features `[T, N, F]` and what the spiking layers did.

        Args:
            x: images `[N, C, H, W]`.
            reads: what is kept of that, beyond the number of spikes.
        """

    @abstractmethod
    def logits_and_loss(self, features: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Logits `[N, classes]` and the task's loss, from features `[T, N, F]`; None for what there is none of."""

    @abstractmethod
    def make_counter(self) -> Operations:
        """A counter of the operations of an evaluation."""

    @property
    def about_replays(self) -> str | None:
        """A line on whether steps are captured and replayed, once that is known and worth a line."""
        return None

    # -- training ------------------------------------------------------------------------------------

    def told(self) -> None:
        """Say that a training step is done."""
        if self.on_step is not None:
            self.on_step(self)

    def on_train_epoch_start(self) -> None:
        self.steps = self.passes = 0
        self.meters["train"] = Meter()
        self.penalties = {}
        self.say_progress()

    def say_progress(self) -> None:
        """Tell the regularizers which share of the epochs is done."""
        for reg in self.regs:
            reg.progress.fill_(self.current_epoch / self.epochs)

    # -- evaluation ----------------------------------------------------------------------------------

    def evaluation_step(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        """Add one batch without gradient to the split's meter."""
        x, y = batch
        features, activity = self.forward_t(x, self.meters[split].rates.reads)
        logits, loss = self.logits_and_loss(features, y)
        self.meters[split].update(logits, y, loss, activity)
        if self.counter is not None and split == "test":
            self.counter.batch(features)
        self.model.forget()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        if self.evaluates(batch_idx):
            self.evaluation_step(batch, self.splits[dataloader_idx])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        split = self.tested[dataloader_idx]
        if not self.evaluates(batch_idx):
            return
        if self.counter is None or split != "test":
            self.evaluation_step(batch, split)
            return
        with self.counter.attached():
            self.evaluation_step(batch, split)

    @property
    def tested(self) -> tuple[str, ...]:
        """Names of a final test's loaders, in the trainer's order."""
        return (*self.splits, TRAINED)

    def evaluates(self, batch_idx: int) -> bool:
        """Whether this batch of an evaluation is this rank's: each is one rank's, whole, so that it is computed as one
        process alone would."""
        return batch_idx % self.ranks == self.rank

    def images(self) -> Tensor:
        """Normalized training images, `[500, C, H, W]` or fewer, the same at each call.

        Raises:
            RuntimeError: the task was given none.
        """
        if self._images is None:
            raise RuntimeError("this task has no images to start or to judge a network by: give it `images`")
        return self._images()

    def judge(self) -> None:
        """Give the network the weights to be judged by, until `judged`."""
        for reg in self.regs:
            if reg.acts("eval_weights"):
                self._judging.enter_context(reg.eval_weights(self.model, self.images()))

    def judged(self) -> None:
        """Give it back the weights to train on from."""
        self._judging.close()

    def on_validation_epoch_start(self) -> None:
        self.judge()
        self.meters.update({split: Meter() for split in self.splits})

    def on_validation_epoch_end(self) -> None:
        self.judged()
        self._join(self.splits)

    def on_test_epoch_start(self) -> None:
        self.judge()
        self.counter = self.make_counter()
        self.meters.update({split: Meter(per_neuron=True) for split in self.tested})

    def on_test_epoch_end(self) -> None:
        self.judged()
        self._join(self.tested)
        if self.ranks > 1 and self.counter is not None:
            for name in ("synops", "nonbinary", "macs", "images"):
                own = move_data_to_device(getattr(self.counter, name), "cpu")
                setattr(self.counter, name, sum(distributed.gather(own)))

    def _join(self, splits: Iterable[str]) -> None:
        if self.ranks > 1:
            for split in splits:
                self.meters[split].join()

    # -- optimizer -----------------------------------------------------------------------------------

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, in groups of equal options."""
