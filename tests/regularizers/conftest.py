"""What the regularizers' tests share: tiny networks and a training step that does what the task does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.activity import Activity, activity_of
from bench.models.base import Spec, SpikingNetwork
from bench.neurons import NeuronConfig, Read
from bench.registry import MODELS
from bench.regularizers.base import Regularizer
from bench.regularizers.stepping import Pass, Step
from bench.training import contract

WIDTHS: dict[str, dict[str, int]] = {
    "cnn": {"channels": 4, "depth": 2},
    "sew": {"channels": 4, "depth": 1, "blocks": 1},
    "convmixer": {"width": 4, "depth": 1, "kernel": 3, "patch": 2},
}


def network(name: str = "cnn", neuron: str = "if", time_steps: int = 2) -> SpikingNetwork:
    """A tiny network for images of 2 x 8 x 8 and 3 classes, the same at each call."""
    torch.manual_seed(0)
    # A low threshold: a network of four channels would else be nearly silent.
    spec = Spec((2, 8, 8), 3, time_steps, NeuronConfig(neuron, v_threshold=0.5))
    return MODELS.get(name)(spec, **WIDTHS[name])


@dataclass
class Bench:
    """A network with its regularizers attached, its optimizer and the batch it sees at every step."""

    model: SpikingNetwork
    regs: list[Regularizer]
    lr: float = 0.05
    started: bool = False
    passes: int = 0
    loss: Tensor = field(init=False)
    logits: Tensor = field(init=False)
    activity: Activity = field(init=False)
    penalties: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(6, 2, 8, 8, generator=generator)
        self.y = torch.randint(3, (6,), generator=generator)
        for reg in self.regs:
            reg.attach(self.model)
        self.reads = [contract.reads(type(reg).__name__, reg, self.model) for reg in self.regs]
        if not self.started:
            torch.manual_seed(2)
            for reg in self.regs:
                reg.initialize(self.model, self.x)
        options: dict[nn.Parameter, dict[str, Any]] = {p: {} for p in self.everything.parameters()}
        for reg in self.regs:
            for group in reg.param_groups(self.model):
                for parameter in group["params"]:
                    options[parameter].update({k: v for k, v in group.items() if k != "params"})
        groups = [{**option, "params": [p]} for p, option in options.items()]
        self.optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9)

    @property
    def everything(self) -> nn.ModuleList:
        """Network and regularizers: what a checkpoint holds."""
        return nn.ModuleList([self.model, *self.regs])

    def forward(self, seed: int = 0, task_loss: bool = True) -> Tensor:
        """The loss of one training forward pass, penalties included."""
        torch.manual_seed(seed)
        x, y = self.x, self.y
        for reg in self.regs:
            x, y = reg.batch(x, y)
        return self.objective(x, y, task_loss).total

    def objective(self, x: Tensor, y: Tensor, task_loss: bool = True) -> Pass:
        """A forward pass of a mixed batch."""
        self.model.forget()
        for _, layer in self.model.spiking_layers():
            layer.reads = frozenset().union(*self.reads)
        features = self.model.features(x)
        self.activity = activity_of(self.model)
        replaced = [r for r in self.regs if r.acts("loss")]
        if replaced:
            logits_t = self.model.head(features)
            self.logits, loss = logits_t.mean(0), replaced[0].loss(logits_t, y)
        else:
            self.logits = self.model.head(features.mean(0))
            loss = F.cross_entropy(self.logits, y)
        self.penalties = {}
        for reg, reads in zip(self.regs, self.reads, strict=True):
            spiking = self.activity if self.model.spec.neuron.name != "relu" else {}
            if contract.asks_penalty(reg, reads, spiking):
                self.penalties.update(reg.penalty(self.shown(reg, reads)))
        self.loss = (loss if task_loss else loss.detach() * 0) + sum(self.penalties.values())
        return Pass(self.loss, self.logits, loss, self.penalties, self.activity)

    def shown(self, reg: Regularizer, reads: frozenset[Read]) -> Activity:
        """The activity with what the regularizer declares to read."""
        return {name: layer.shown_to(type(reg).__name__, reads) for name, layer in self.activity.items()}

    def step(self, seed: int = 0, task_loss: bool = True) -> None:
        """One training step; the gradients stay in the parameters."""
        own = [r for r in self.regs if r.acts("around_step")]
        if own and task_loss:
            torch.manual_seed(seed)
            x, y = self.x, self.y
            for reg in self.regs:
                x, y = reg.batch(x, y)
            step = Step(self.model, x, y, self.objective, self.backward)
            own[0].around_step(step)
            self.passes += step.passes
            assert step.told is not None
            self.loss, self.logits, _, self.penalties, self.activity = step.told
        else:
            self.backward(self.forward(seed, task_loss))
            self.passes += 1
        self.optimizer.step()
        for reg in self.regs:
            reg.tell_rate(self.optimizer)
        for reg, reads in zip(self.regs, self.reads, strict=True):
            reg.after_step(self.shown(reg, reads))
        self.model.forget()

    def backward(self, total: Tensor) -> None:
        """Set the gradients to those of a total."""
        self.optimizer.zero_grad()
        total.backward()

    def train(self, steps: int, first: int = 0) -> Bench:
        """Some steps, seeded by their number."""
        for step in range(first, first + steps):
            self.step(step)
        return self

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Logits in eval mode."""
        self.model.eval()
        with ExitStack() as judged:
            for reg in self.regs:
                judged.enter_context(reg.eval_weights(self.model, self.x))
            self.model.forget()
            logits = self.model(self.x)
        self.model.train()
        return logits


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    # Waking a second thread costs more than these layers take.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def net() -> Callable[..., SpikingNetwork]:
    return network


@pytest.fixture
def bench() -> type[Bench]:
    return Bench
