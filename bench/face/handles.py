"""Regularizers in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.activity import Activity, activity_of
from bench.config.component import build
from bench.config.compose import named_component
from bench.errors import BenchError
from bench.face.foreign import Foreign
from bench.models.base import SpikingNetwork
from bench.neurons import SPIKES, Read
from bench.registry import REGULARIZERS
from bench.regularizers.base import HOOKS, Regularizer
from bench.regularizers.stepping import Pass, Step
from bench.training import contract
from bench.training.together import owners

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits `[N, classes]` and labels `[N]` to a scalar."""

ATTRIBUTE = "_bench_attached"
"""Of a network, with what is attached to it."""


class Attached:
    """What is attached to one network.

    Attributes:
        model: the network, or what a plain one is seen as.
        handles: in the order in which they were attached.
        told: the activity of the pass that the last `backward` told; None where a loop of one's own makes the passes.
    """

    def __init__(self, model: SpikingNetwork) -> None:
        self.model = model
        self.handles: list[Handle] = []
        self.told: Activity | None = None

    def keep_reads(self) -> None:
        """Have the layers keep what the handles read, and the spikes where none does."""
        reads = frozenset[Read]().union(*(handle.reads for handle in self.handles)) if self.handles else SPIKES
        for _, layer in self.model.spiking_layers():
            layer.reads = reads


def attached_to(network: nn.Module, time_steps: int | None = None) -> Attached:
    """What is attached to a network; nothing at first.

    Args:
        network: the suite's or a plain one.
        time_steps: T of a plain one, where it is known.

    Raises:
        BenchError: it has no spiking layers, or one that the suite can neither reset nor count.
    """
    own: Attached | None = network.__dict__.get(ATTRIBUTE)
    if own is None:
        own = Attached(network if isinstance(network, SpikingNetwork) else Foreign(network, time_steps))
        # Not by nn.Module's own way of setting: what is seen of a plain network holds it as a part.
        network.__dict__[ATTRIBUTE] = own
    return own


def attach(network: nn.Module, name: str, *, time_steps: int | None = None, **arguments: Any) -> Handle:
    """Put a regularizer on a network that is trained by a loop of one's own.

    Works on networks of `bench.create_model` and on plain ones of SpikingJelly's neurons in multi-step mode, whose
    nodes are put into spiking layers in place (so parameters of a node, PLIF's, get `.neuron` into their names). From
    then on each pass starts from rest. Attach before the optimizer is made: some methods change parameters.

    A method whose whole effect is a penalty, a dropout or the like takes two lines in a loop; for all others, such as
    `sam`, `mixup` or `tet`, `backward` makes the step, and asking for their penalty says so.

    Args:
        network: on its device.
        name: one of `bench.list_regularizers()`.
        time_steps: T of a plain network, for the methods that need it before the first pass.
        arguments: of the regularizer, as `bench list regs` has them.

    Returns:
        The handle, with `penalty`, `backward`, `after_step`, `param_groups`, `eval_weights`, `bake`, `detach`.

    Raises:
        BenchError: no such regularizer or argument (names the nearest), a network it does not fit, or one in which it
            would do nothing.

    Examples:
        >>> import bench, torch
        >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
        >>> spikepen = bench.attach(network, "spikepen", weight=0.1)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> x, y = torch.rand(5, 1, 8, 8), torch.arange(5)
        >>> loss = torch.nn.functional.cross_entropy(network(x), y) + spikepen.penalty()
        >>> loss.backward()
        >>> optimizer.step()
        >>> spikepen.after_step()
    """
    node = named_component(REGULARIZERS, name, arguments)
    own = attached_to(network, time_steps)
    if any(handle.name == name for handle in own.handles):
        raise BenchError(f"'{name}' is attached to this network already; detach or bake it first")
    reg: Regularizer = build(REGULARIZERS, node)
    if own.model is network and own.model.learning != "gradient":
        raise BenchError(
            f"a {type(network).__name__} learns by a rule of its own, which takes no regularizer: bench run"
        )
    owners({**{handle.name: handle.reg for handle in own.handles}, name: reg})
    before = structure(network)
    parameter = next(network.parameters(), None)
    if parameter is not None:
        reg.to(parameter.device)
    reg.attach(own.model)
    changed = structure(network) != before
    if (
        not changed
        and not reg.off
        and not any(reg.acts(hook) for hook in HOOKS if hook not in AT_START)
        and name != "none"
    ):
        raise BenchError(f"'{name}' finds nothing in a {type(network).__name__} that it could act on")
    handle = Handle(name, reg, own, changed)
    own.handles.append(handle)
    own.keep_reads()
    return handle


AT_START = ("attach", "initialize")
"""Hooks that leave something behind only where they change modules, which `attach` sees."""

BY_BACKWARD = {
    "batch": "mixes the batch", "loss": "replaces the loss", "around_step": "makes the step its own",
}  # fmt: skip


def structure(network: nn.Module) -> list[Any]:
    """What tells whether a method has changed a network: modules, parameters, hooks."""
    return [
        (name, type(module), len(module._forward_pre_hooks), len(module._forward_hooks), tuple(module._parameters))
        for name, module in network.named_modules()
    ]


class Handle:
    """A regularizer on a network, for one's own loop; `attach` makes it.

    Attributes:
        name: of the regularizer.
        reg: the regularizer itself.
        reads: what it reads of the spiking layers.
    """

    def __init__(self, name: str, reg: Regularizer, attached: Attached, changed: bool) -> None:
        self.name, self.reg = name, reg
        self.reads = contract.reads(name, reg, attached.model)
        self._attached: Attached | None = attached
        self._changed = changed
        self._grouped = False

    @property
    def attached(self) -> Attached:
        """What the network has attached to it.

        Raises:
            BenchError: this is not any more.
        """
        if self._attached is None:
            raise BenchError(f"'{self.name}' is attached to no network any more")
        return self._attached

    @property
    def model(self) -> SpikingNetwork:
        """The network; a plain one as it is seen by regularizers."""
        return self.attached.model

    @property
    def progress(self) -> float:
        """The share of the training that is done, in [0, 1], which some methods' strength follows: yours to set."""
        return float(self.reg.progress)

    @progress.setter
    def progress(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise BenchError(f"progress is {share}, and must lie in [0, 1]")
        self.reg.progress.fill_(share)

    # -- a step of one's own -------------------------------------------------------------------------

    def penalty(self) -> Tensor:
        """The sum of the method's penalties on the last forward pass, a scalar with its graph, to be added to the loss.

        Raises:
            BenchError: there was no pass, or the method acts in a way that adding this would leave out: says which call
                it takes.

        Examples:
            >>> import bench, torch
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
            >>> spikepen = bench.attach(network, "spikepen", weight=0.1)
            >>> logits = network(torch.ones(1, 1, 8, 8))
            >>> spikepen.penalty().requires_grad
            True
        """
        for hook, what in BY_BACKWARD.items():
            if self.reg.acts(hook):
                raise BenchError(
                    f"'{self.name}' {what}, so adding a penalty is not enough: "
                    "let `handle.backward(x, y)` make the gradients"
                )
        if self.reg.acts("param_groups") and not self._grouped:
            raise BenchError(f"'{self.name}' acts through the optimizer: make it from `handle.param_groups()`")
        self.attached.told = None
        return sum(self._terms(self._activity()).values(), self._zero())

    def backward(self, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> Pass:
        """The gradients of a training step, in place of `loss.backward()`, for whatever is attached to the network.

        Batches are mixed, the loss is replaced, penalties are added and further passes are made, as each method wants
        it; gradients from before are overwritten. Then come `optimizer.step()` and every handle's `after_step()`.

        Args:
            x: the network's input; normalized images `[N, C, H, W]` for the suite's.
            y: labels `[N]`.
            loss: of the task, unless a method replaces it.

        Returns:
            The pass that is to be reported: `total`, `logits`, `loss`, `penalties`, `activity`.

        Raises:
            BenchError: a method's hook does not fit the network.

        Examples:
            >>> import bench, torch
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
            >>> sam = bench.attach(network, "sam")
            >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
            >>> told = sam.backward(torch.rand(5, 1, 8, 8), torch.arange(5))
            >>> optimizer.step()
            >>> told.logits.shape
            torch.Size([5, 10])
        """
        own, model = self.attached, self.model
        for handle in own.handles:
            if handle.reg.acts("batch"):
                mixed = handle.reg.batch(x, y)
                # The axes of a plain network's input are its own.
                plain = isinstance(model, Foreign)
                x, y = mixed if plain else contract.images_and_labels(handle.name, mixed, x, model.spec.classes)
        parameters = [*model.parameters(), *(p for handle in own.handles for p in handle.reg.parameters())]

        def backward(total: Tensor) -> None:
            for parameter in parameters:
                parameter.grad = None
            total.backward()

        def objective(images: Tensor, labels: Tensor) -> Pass:
            return self._objective(images, labels, loss)

        step = Step(model, x, y, objective, backward)
        stepping = [handle.reg for handle in own.handles if handle.reg.acts("around_step")]
        if stepping:
            stepping[0].around_step(step)
        else:
            backward(step.forward().total)
        if step.told is None:
            raise BenchError(f"regularizer {type(stepping[0]).__name__}: its around_step tells of no pass")
        own.told = step.told.activity
        return step.told

    def _objective(self, x: Tensor, y: Tensor, loss: Loss) -> Pass:
        """A forward pass with everything that is attached."""
        own, model = self.attached, self.model
        # As a run's steps have them: the kernels want the channels last.
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        replacing = next((handle for handle in own.handles if handle.reg.acts("loss")), None)
        if replacing is None:
            made = model(x)
            logits = made.mean(0) if made.ndim == 3 else made
            value = loss(logits.float(), y)
        else:
            logits_t = model(x) if isinstance(model, Foreign) else model.by_step(x)
            if logits_t.ndim != 3:
                raise BenchError(
                    f"'{replacing.name}' sees the logits of each time step: the network must give [T, N, classes], "
                    f"and gave {list(logits_t.shape)}"
                )
            logits = model.read(logits_t)
            value = contract.loss(replacing.name, replacing.reg.loss(logits_t, y), logits_t)
        total, penalties, activity = value, dict[str, Tensor](), activity_of(model)
        for handle in own.handles:
            for name, term in handle._terms(activity).items():
                total = total + term
                penalties[name] = penalties.get(name, 0.0) + term
        return Pass(total, logits, value, penalties, activity)

    def after_step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Let the method update its own state; after the optimizer's step, before the next pass.

        Args:
            optimizer: of the step, for methods that make a step of their own at its rate (`rewire`).

        Raises:
            BenchError: the method needs the optimizer's rate, and there is no optimizer.
        """
        if optimizer is not None:
            self.reg.tell_rate(optimizer)
        elif self.reg.needs_rate:
            raise BenchError(f"'{self.name}' makes a step of its own at the optimizer's rate: after_step(optimizer)")
        told = self.attached.told
        self.reg.after_step(self._shown(self._activity() if told is None else told))

    # -- around the loop -----------------------------------------------------------------------------

    def param_groups(self) -> list[dict[str, Any]]:
        """All parameters of the network and of what is attached to it, in groups with the options that methods ask for:
        what an optimizer is made from.

        Examples:
            >>> import bench, torch
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
            >>> decay = bench.attach(network, "weight_decay", weight=0.01)
            >>> torch.optim.SGD(decay.param_groups(), lr=0.1).param_groups[0]["weight_decay"]
            0.01
        """
        own = self.attached
        regs = {handle.name: handle.reg for handle in own.handles}
        parameters = [*own.model.parameters(), *(p for reg in regs.values() for p in reg.parameters())]
        for handle in own.handles:
            handle._grouped = True
        return contract.grouped(own.model, parameters, regs, torch.optim.SGD)

    def initialize(self, images: Tensor) -> None:
        """A data-dependent start, where the method has one; before the first step.

        Args:
            images: normalized training images `[N, C, H, W]`, some hundreds.
        """
        self.reg.initialize(self.model, images)

    def eval_weights(self, images: Tensor) -> AbstractContextManager[None]:
        """A context in which the network has the weights to be judged by (`ema`, `swa`); nothing changes for others.

        Args:
            images: normalized training images `[N, C, H, W]`, for statistics of batch norm.
        """
        return self.reg.eval_weights(self.model, images)

    def bake(self) -> None:
        """Fold what the method did into plain weights, after training, and let go of the network.

        Examples:
            >>> import bench
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
            >>> weightnorm = bench.attach(network, "weightnorm")
            >>> weightnorm.bake()
            >>> sorted(name for name, _ in network.named_parameters())[:2]
            ['convs.0.conv.bias', 'convs.0.conv.weight']
        """
        self.reg.bake(self.model)
        self._let_go()

    def detach(self) -> None:
        """Take the method off the network; only what has left its modules alone can be.

        Raises:
            BenchError: it has changed them.
        """
        if self._changed:
            raise BenchError(
                f"'{self.name}' has changed the network's modules and cannot be taken off; bake() folds it in"
            )
        self._let_go()

    def _let_go(self) -> None:
        own = self.attached
        own.handles.remove(self)
        own.keep_reads()
        self._attached = None

    # -- what it sees --------------------------------------------------------------------------------

    def _activity(self) -> Activity:
        """The activity of the last pass.

        Raises:
            BenchError: there was none.
        """
        activity = activity_of(self.model)
        if self.reads and not activity:
            raise BenchError(f"'{self.name}' reads spikes, and there was no forward pass: call the network first")
        return activity

    def _shown(self, activity: Activity) -> Activity:
        return {layer: entry.shown_to(self.name, self.reads) for layer, entry in activity.items()}

    def _terms(self, activity: Activity) -> dict[str, Tensor]:
        device = self._zero().device
        if self.reg.progress.device != device:
            self.reg.to(device)
        if not contract.asks_penalty(self.reg, self.reads, activity):
            return {}
        return contract.penalties(self.name, self.reg.penalty(self._shown(activity)))

    def _zero(self) -> Tensor:
        parameter = next(self.model.parameters(), None)
        return torch.zeros((), device=None if parameter is None else parameter.device)

    def __repr__(self) -> str:
        return f"<bench: {self.name} on a {type(self.model).__name__}>" if self._attached else f"<bench: {self.name}>"
