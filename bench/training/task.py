"""Training by surrogate gradients: one optimizer step after the other, with any set of regularizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.activity import Activity, OpCounter, activity_of
from bench.config.schema import OptimConfig, Optimizer, Schedule
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.neurons import SPIKES, Read
from bench.ops.reference import Gate
from bench.regularizers.base import Regularizer
from bench.regularizers.stepping import Pass, Step
from bench.seeds import derive, seed_everything
from bench.training import contract, distributed
from bench.training.base_task import BaseTask
from bench.training.graph import CapturedStep
from bench.training.together import owners

CHECK_EVERY = 20  # steps between looks at the loss: each look makes the CPU wait for a GPU


OPTIMIZERS: dict[Optimizer, type[torch.optim.Optimizer]] = {
    Optimizer.sgd: torch.optim.SGD,
    Optimizer.adamw: torch.optim.AdamW,
}


class Diverged(Exception):
    """The loss became NaN or infinite; the message says where."""


class Task(BaseTask):
    """Trains a spiking network on static images with any set of regularizers, by surrogate gradients.

    A step: forget, features `[T, N, F]`, mean over time, head, cross-entropy, penalties, optimizer,
    the regularizers' own updates.

    Over several devices the ranks' tasks stay equal: gradients are averaged by Lightning's DDP; what a forward pass or
    a regularizer writes into parameters and buffers (batch norm's running statistics, use-it-or-lose-it's clocks), and
    so what only a rank's own images went into, is averaged here at every step. Masks are drawn apart.

    Args:
        model: the network; regularizers are attached here.
        regularizers: by name, in the order in which they attach.
        optim: optimizer, rate, schedule, clipping.
        replays: whether steps may be captured and replayed, where there is a GPU and nothing speaks against it.
        base: see `BaseTask`; `epochs` is the length of the cosine schedule.

    Attributes:
        captured: what replays them; None where nothing does.

    Raises:
        BenchError: regularizers that do not go together, or the optimizer is none of those it takes.
    """

    takes = tuple(OPTIMIZERS)

    def __init__(
        self,
        model: SpikingNetwork,
        regularizers: dict[str, Regularizer],
        optim: OptimConfig,
        *,
        replays: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(model, regularizers, optim, **base)
        contract.head(model)
        owner = owners(regularizers)
        for regularizer in regularizers.values():
            regularizer.attach(model)
        self.loss_name = owner.get("loss")
        self.stepping = regularizers[owner["around_step"]] if "around_step" in owner else None
        self.reads_of = {name: contract.reads(name, reg, model) for name, reg in regularizers.items()}
        self.reads = frozenset[Read]().union(*self.reads_of.values())
        self.finite: Tensor | None = None
        self.gates = [module for module in model.modules() if isinstance(module, Gate)]
        self.keys: Tensor | None = None  # of their masks, in one tensor: a copy a step
        self.replays = replays
        self.passes_of_step = 0  # of the last step that was not replayed, as replays are
        self.captured: CapturedStep | None = None

    # -- one step ---------------------------------------------------------------------------------

    def forward_t(self, x: Tensor, reads: frozenset[Read] = SPIKES) -> tuple[Tensor, Activity]:
        """One pass from rest: features `[T, N, F]` and what the spiking layers did.

        Args:
            x: images `[N, C, H, W]`.
            reads: what is kept of that, beyond the number of spikes.
        """
        self.model.forget()
        for _, layer in self.model.spiking_layers():
            layer.reads = reads
        # The kernels want the channels last; what follows the first convolution keeps its layout.
        features = self.model.features(x.contiguous(memory_format=torch.channels_last))
        features = contract.features(self.model, features, len(x))
        return features, activity_of(self.model) if self.spiking else {}

    def logits_and_loss(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, classes]` and the task's loss, from features `[T, N, F]`."""
        if self.loss_name is not None:
            logits_t = self.model.head(features)
            loss = self.regularizers[self.loss_name].loss(logits_t, y)  # type: ignore[operator]
            logits = contract.logits(self.model, self.model.read(logits_t), len(y))
            return logits, contract.loss(self.loss_name, loss, logits_t)
        logits = contract.logits(self.model, self.model.logits(features), len(y))
        return logits, F.cross_entropy(logits.float(), y)

    def objective(self, x: Tensor, y: Tensor) -> Pass:
        """A forward pass of a step.

        Args:
            x: images `[N, C, H, W]`, mixed already.
            y: labels `[N]`, or soft labels `[N, classes]`.
        """
        features, activity = self.forward_t(x, self.reads)
        logits, loss = self.logits_and_loss(features, y)
        total, penalties = loss, dict[str, Tensor]()
        for own, reg in self.regularizers.items():
            if not contract.asks_penalty(reg, self.reads_of[own], activity):  # type: ignore[arg-type]
                continue
            returned = reg.penalty(self.shown(own, activity))  # type: ignore[operator]
            for name, term in contract.penalties(own, returned).items():
                total = total + term
                penalties[name] = penalties.get(name, 0.0) + term
        return Pass(total, logits, loss, penalties, activity)

    def shown(self, name: str, activity: Activity) -> Activity:
        """An activity as a regularizer sees it: with what it declares to read."""
        reads = self.reads_of[name]
        return {layer: entry.shown_to(name, reads) for layer, entry in activity.items()}

    def step(self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step: seeds, mixing, forward, backward, update, the regularizers' own updates, meters, reset.

        Args:
            x: images `[N, C, H, W]`.
            y: labels `[N]`, or soft labels `[N, classes]`.
            optimizer: of `make_optimizer`.

        Raises:
            Diverged: the loss became NaN or infinite.
        """
        self._seed()
        for name, reg in self.regularizers.items():
            x, y = contract.images_and_labels(name, reg.batch(x, y), x, self.model.spec.classes)  # type: ignore[operator]
        if self.captured is None:
            self.descend(x, y, optimizer)
        else:
            images = self.meters["train"].images + len(x)
            self.captured.run(x, y)
            self.meters["train"].count(images)
        self.passes += self.passes_of_step
        if self.device.type == "cpu" or self.steps % CHECK_EVERY == CHECK_EVERY - 1:
            self.stop_if_diverged(self.steps)
        self.steps += 1

    def descend(self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """What the device does in a step: forward, backward, update, the regularizers' own updates, meters, reset.

        Sums stay in the tensors that an epoch's first step made, so that a replay finds them there.

        Args:
            x: images `[N, C, H, W]`, mixed already.
            y: labels `[N]`, or soft labels `[N, classes]`.
            optimizer: of `make_optimizer`.
        """
        written = self._writes()

        def backward(total: Tensor) -> None:
            optimizer.zero_grad()
            self._backward(total)

        step = Step(self.model, x, y, self.objective, backward)
        if self.stepping is None:
            backward(step.forward().total)
        else:
            self.stepping.around_step(step)
        if step.told is None:
            raise BenchError(f"regularizer {type(self.stepping).__name__}: its around_step tells of no pass")
        self.passes_of_step = step.passes
        total, logits, loss, penalties, activity = step.told
        for name, term in penalties.items():
            if name in self.penalties:
                self.penalties[name] += term.detach()
            else:
                self.penalties[name] = term.detach().clone()
        self._level(written)
        if self.optim.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.optim.clip)
        optimizer.step()
        written = self._writes()
        for name, reg in self.regularizers.items():
            reg.tell_rate(optimizer)  # type: ignore[operator]
            reg.after_step(self.shown(name, activity))  # type: ignore[operator]
        self._level(written)
        if self.ranks > 1:
            distributed.average(self.buffers())
        self.meters["train"].update(logits, y, loss, activity)
        fine = torch.isfinite(total.detach())
        self.finite = fine if self.finite is None else self.finite.logical_and_(fine)
        self.model.forget()

    def _seed(self) -> None:
        when = (self.current_epoch, self.steps, *([self.rank] if self.rank else []))
        seed_everything(self.seed, "step", *when)
        if not self.gates:
            return
        if self.keys is None or self.keys.device != self.device:
            self.keys = torch.zeros(len(self.gates), dtype=torch.int64, device=self.device)
            for gate, key in zip(self.gates, self.keys, strict=True):
                gate.key = key
        keys = [derive(self.seed, "mask", *when, place) for place in range(len(self.gates))]
        self.keys.copy_(torch.tensor(keys))

    def _backward(self, total: Tensor) -> None:
        if self.ranks > 1:
            self.manual_backward(total)  # DDP averages the gradients
        else:
            total.backward()

    def _writes(self) -> int:
        """How often anything has written into a parameter."""
        return sum(parameter._version for parameter in self.parameters()) if self.ranks > 1 else 0

    def _level(self, written: int) -> None:
        """Average the parameters if something has written into them since `_writes` returned `written`."""
        if self._writes() != written:
            distributed.average(parameter.data for parameter in self.parameters())

    def training_step(self, batch: Sequence[tuple[Tensor, Tensor]], batch_idx: int) -> None:
        """The optimizer steps of one list of `bench.data.batches.Chunks`."""
        # Lightning's own wrapper of the optimizer does nothing here but run hooks and count.
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        self.replay_if_able(optimizer)
        for x, y in batch:
            self.step(x, y, optimizer)
            self.told()

    # -- replaying steps --------------------------------------------------------------------------

    @property
    def unreplayable(self) -> str | None:
        """Why no step is to be captured; None where one is."""
        if self.device.type != "cuda":
            return "no GPU"
        if not self.replays:
            return "trainer.cuda_graph=false"
        if self.ranks > 1:
            return "several devices"
        unsure = [name for name, reg in self.regularizers.items() if not reg.replayable]
        return f"{', '.join(unsure)} does not say that it is replayable" if unsure else None

    @property
    def about_replays(self) -> str | None:
        captured = self.captured
        if self.device.type == "cpu" if captured is None else not (captured.live or captured.fault):
            return None
        fault = self.unreplayable if captured is None else captured.fault
        return "steps are replayed from a CUDA graph" if fault is None else f"no CUDA graph: {fault}"

    def replay_if_able(self, optimizer: torch.optim.Optimizer) -> None:
        """Have steps captured where nothing speaks against it; again, it does nothing."""
        if self.captured is None and self.unreplayable is None:
            # A checkpoint's rate lies where it was loaded.
            for group in optimizer.param_groups:
                group["lr"] = group["lr"].to(self.device)
            self.capture_step(optimizer)

    def capture_step(self, optimizer: torch.optim.Optimizer, **how: Any) -> None:
        """Have steps captured from here on.

        Args:
            optimizer: of `make_optimizer`; what changes between steps it must hold in tensors.
            how: passed to `CapturedStep`.
        """

        def state() -> list[Tensor]:
            own = [value for kept in optimizer.state.values() for value in kept.values() if isinstance(value, Tensor)]
            sums = [*self.meters["train"].sums(), *self.penalties.values()]
            return [*self.parameters(), *self.buffers(), *own, *sums, *([] if self.finite is None else [self.finite])]

        self.captured = CapturedStep(lambda x, y: self.descend(x, y, optimizer), state, self._seed, **how)

    def stop_if_diverged(self, step: int) -> None:
        """End the run when a loss since the last look was NaN or infinite.

        Raises:
            Diverged: says in which epoch and by which step.
        """
        if self.finite is None:
            return
        if not bool(distributed.everywhere(self.finite) if self.ranks > 1 else self.finite):
            raise Diverged(f"the loss became NaN or infinite in epoch {self.current_epoch + 1}, by step {step + 1}")

    def on_train_epoch_start(self) -> None:
        if self.captured is not None and self.captured.live:
            # What is replayed adds to the tensors that it was captured with.
            self.steps = self.passes = 0
            self.say_progress()
            self.meters["train"].restart()
            for total in self.penalties.values():
                total.zero_()
            if self.finite is not None:
                self.finite.fill_(True)
            return
        super().on_train_epoch_start()
        self.finite = None

    def on_train_epoch_end(self) -> None:
        self.stop_if_diverged(self.steps - 1)
        if self.ranks > 1:
            self.meters["train"].join()
            parts = distributed.gather({name: float(value) for name, value in self.penalties.items()})
            self.penalties = {name: sum(part[name] for part in parts) / self.ranks for name in self.penalties}
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()  # type: ignore[union-attr]

    def make_counter(self) -> OpCounter:
        return OpCounter(self.model)

    # -- optimizer --------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One optimizer group for each distinct set of options that the regularizers ask for."""
        regs: Any = self.regularizers
        return contract.grouped(self.model, self.parameters(), regs, OPTIMIZERS[self.optim.name])

    def make_optimizer(self, in_tensors: bool | None = None) -> torch.optim.Optimizer:
        """The optimizer of all parameters, at the rate of the first step.

        Args:
            in_tensors: whether what changes between steps is kept in tensors on the device, as replayed steps need it;
                None is where steps are to be captured.
        """
        optim, groups = self.optim, self.parameter_groups()
        moving = self.unreplayable is None if in_tensors is None else in_tensors
        lr: Any = torch.tensor(optim.lr, device=self.device) if moving else optim.lr
        how: dict[str, Any] = {"fused": True} if moving else {}
        for group in groups if moving else ():
            if "lr" in group:
                group["lr"] = torch.as_tensor(group["lr"], device=self.device)
        # Without a regularizer nothing decays: AdamW's own default is 0.01.
        if optim.name is Optimizer.sgd:
            return torch.optim.SGD(groups, lr=lr, momentum=optim.momentum, weight_decay=0.0, **how)
        how |= {"capturable": True} if moving else {}
        betas: Any = tuple(optim.betas)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=0.0, **how)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer()
        if self.optim.schedule is Schedule.constant:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: cosine(e, self.epochs))
        return [optimizer], [scheduler]


def cosine(epoch: int, epochs: int) -> float:
    """Factor of the learning rate, from 1 at epoch 0 towards 0 at the end (CosineAnnealingLR, stepped per epoch)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(epoch, epochs) / epochs))
