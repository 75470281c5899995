"""A plugin's hook that returns what it must not is one line: whose hook, what came, what is expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.activity import Activity
from bench.config.schema import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.models.base import Spec, SpikingNetwork
from bench.regularizers.base import Regularizer
from bench.training.task import Task


class Tiny(SpikingNetwork):
    """Two pixels, one layer, three classes."""

    def __init__(self) -> None:
        super().__init__(Spec((1, 1, 2), 3, 4))
        self.fc, self.fire, self.head = nn.Linear(2, 5), self.spiking(), nn.Linear(5, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.fire(self.fc(x.flatten(1)).repeat(self.time_steps, 1, 1))


def task_of(reg: Regularizer, model: SpikingNetwork | None = None, name: Optimizer = Optimizer.sgd) -> Task:
    return Task(Tiny() if model is None else model, {"mine": reg}, OptimConfig(name, 0.1), seed=0, epochs=1)


def step(reg: Regularizer, model: SpikingNetwork | None = None) -> Task:
    task = task_of(reg, model)
    task.on_train_epoch_start()
    optimizer = task.make_optimizer()
    task.step(torch.rand(4, 1, 1, 2), torch.tensor([0, 1, 2, 0]), optimizer)
    return task


def hooked(hook: str, returns: Callable[..., Any]) -> Regularizer:
    """A regularizer one of whose hooks returns what it is told to."""
    return type("Mine", (Regularizer,), {hook: lambda self, *given: returns(*given)})()


BATCHES: list[tuple[Callable[..., Any], str]] = [
    (lambda x, y: x, "a tensor [4, 1, 1, 2] of float32"),
    (lambda x, y: None, "None"),
    (lambda x, y: (x, None), "(a tensor [4, 1, 1, 2] of float32, None)"),
    (lambda x, y: (x, y[:2]), "(a tensor [4, 1, 1, 2] of float32, a tensor [2] of int64)"),
    (lambda x, y: (x, y.float()), "(a tensor [4, 1, 1, 2] of float32, a tensor [4] of float32)"),
    (lambda x, y: (x, F.one_hot(y, 3)), "(a tensor [4, 1, 1, 2] of float32, a tensor [4, 3] of int64)"),
    (lambda x, y: (x.double(), y), "(a tensor [4, 1, 1, 2] of float64, a tensor [4] of int64)"),
    (lambda x, y: (x.flatten(1), y), "(a tensor [4, 2] of float32, a tensor [4] of int64)"),
    (lambda x, y: (x, y, 0.5), "(a tensor [4, 1, 1, 2] of float32, a tensor [4] of int64, a float)"),
]


@pytest.mark.parametrize(("returns", "came"), BATCHES)
def test_batch_returns_images_and_labels(returns: Callable[..., Any], came: str) -> None:
    with pytest.raises(BenchError) as caught:
        step(hooked("batch", returns))
    wanted = "images [N, 1, 1, 2] of float32 and labels, [N] of int64 or [N, 3] of floats"
    assert str(caught.value) == f"regularizer 'mine': its batch returns {came}, it must return {wanted}"


@pytest.mark.parametrize(
    "returns",
    [
        lambda x, y: (x[:2], y[:2]),
        lambda x, y: [x, F.one_hot(y, 3).float()],
        lambda x, y: (x + x.flip(0), (F.one_hot(y, 3) + F.one_hot(y.flip(0), 3)) / 2),
    ],
)
def test_batch_may_drop_images_and_soften_labels(returns: Callable[..., Any]) -> None:
    assert step(hooked("batch", returns)).steps == 1


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (lambda logits, y: 0.5, "its loss returns a float, it must return a scalar tensor of floats"),
        (lambda logits, y: None, "its loss returns None, it must return a scalar tensor of floats"),
        (
            lambda logits, y: F.cross_entropy(logits.mean(0), y, reduction="none"),
            "its loss returns a tensor [4] of float32, it must return a scalar tensor of floats",
        ),
        (lambda logits, y: y.sum(), "its loss returns a tensor [] of int64, it must return a scalar tensor of floats"),
        (lambda logits, y: logits.sum().detach(), "its loss has no gradient, so nothing could be trained by it"),
    ],
)
def test_loss_returns_a_scalar_with_a_gradient(returns: Callable[..., Any], said: str) -> None:
    with pytest.raises(BenchError) as caught:
        step(hooked("loss", returns))
    assert str(caught.value) == f"regularizer 'mine': {said}"


def test_a_loss_of_one_element_is_a_scalar() -> None:
    task = step(hooked("loss", lambda logits, y: logits.square().mean().reshape(1)))
    assert task.meters["train"].summary()["loss"] > 0


def reading(reads: Any, *read: str) -> Regularizer:
    """A regularizer that declares `reads` and whose penalty reads something."""

    def penalty(self: Regularizer, activity: Activity) -> dict[str, Tensor]:
        terms = [getattr(layer, name).float().mean() for layer in activity.values() for name in read]
        return {"mine": torch.stack(terms).sum()} if terms else {}

    return type("Mine", (Regularizer,), {"reads": reads, "penalty": penalty})()


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        (("rates",), "has 'rates'. Did you mean 'rate'"),
        (("rate", 3), "has 3. There are: channel_outputs, channel_rates, neuron_counts, potential, rate, spikes"),
        ("rate", 'is a str, it must be a tuple of names, as ("rate",)'),
        (True, 'is a bool, it must be a tuple of names, as ("rate",)'),
    ],
)
def test_reads_are_names_of_what_can_be_read(reads: Any, said: str) -> None:
    with pytest.raises(BenchError) as caught:
        task_of(reading(reads))
    assert str(caught.value).startswith(f"regularizer 'mine': its reads {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reads", [("rate",), ["rate", "potential"], {"squared_neuron_counts"}, (), None])
def test_what_is_declared_is_kept_and_no_more(reads: Any) -> None:
    task = task_of(reading(reads))
    *_, activity = task.objective(torch.rand(4, 1, 1, 2), torch.tensor([0, 1, 2, 0]))
    (layer,) = activity.values()
    assert set(layer.sums) == {read for read in reads or () if read != "potential"}
    assert (layer.before_reset is not None) == ("potential" in (reads or ()))
    # Who declares nothing reads the spikes.
    assert (layer.kept is not None) == (reads is None)


def test_to_read_what_is_not_declared_is_a_line() -> None:
    with pytest.raises(BenchError) as caught:
        step(reading(("rate",), "rate", "spikes"))
    said = "regularizer 'mine': a hook reads layer.spikes, which it does not declare; add \"spikes\" to its `reads`"
    assert str(caught.value) == said
    assert step(reading(("rate", "spikes"), "rate", "spikes")).penalties["mine"] > 0
    assert step(reading(None, "spikes")).penalties["mine"] > 0


def test_without_a_hook_that_reads_nothing_is_kept() -> None:
    assert task_of(hooked("batch", lambda x, y: (x, y))).reads == frozenset()
    assert task_of(hooked("after_step", lambda activity: None)).reads == {"spikes"}


def test_only_one_regularizer_replaces_the_loss() -> None:
    """With one of them the step descends it; the others' penalties are added."""

    class Three(Regularizer):
        def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
            return 0 * logits_t.sum() + 3.0

    class Half(Regularizer):
        def penalty(self, activity: Activity) -> dict[str, Tensor]:
            return {"half": torch.tensor(0.5)}

    def objective(**regs: Regularizer) -> tuple[float, float]:
        task = Task(Tiny(), regs, OptimConfig(Optimizer.sgd, 0.1), seed=0, epochs=1)
        total, _, loss, penalties, _ = task.objective(torch.rand(4, 1, 1, 2), torch.tensor([0, 1, 2, 0]))
        assert [term.item() for term in penalties.values()] == [0.5]
        return total.item(), loss.item()

    assert objective(a=Half(), b=Three()) == (3.5, 3.0)
    with pytest.raises(BenchError, match=r"^reg=\[a,c\]: each replaces the loss, and only one can"):
        objective(a=Three(), b=Half(), c=Three())


def test_a_loss_is_evaluated_without_a_gradient() -> None:
    task = task_of(hooked("loss", lambda logits, y: logits.square().mean()))
    with torch.no_grad():
        features, _ = task.forward_t(torch.rand(4, 1, 1, 2))
        assert task.logits_and_loss(features, torch.zeros(4, dtype=torch.int64))[1].shape == ()


def test_a_penalty_is_named_by_text() -> None:
    with pytest.raises(BenchError, match=r"'mine': its penalty names a term 1, it must return \{name: scalar\}"):
        step(hooked("penalty", lambda activity: {1: torch.ones(())}))


EXAMPLE = '[{"params": [...], "weight_decay": 0.1}]'
GROUPS: list[tuple[Callable[..., Any], str]] = [
    (lambda m: None, f"its param_groups returns None, it must return {EXAMPLE}"),
    (lambda m: {"params": []}, f"its param_groups returns a dict, it must return {EXAMPLE}"),
    (
        lambda m: [m.fc.weight],
        f"its param_groups has a tensor [5, 2] of float32 among the groups, it must return {EXAMPLE}",
    ),
    (lambda m: [{"lr": 1.0}], f"its param_groups has a group without 'params', it must return {EXAMPLE}"),
    (
        lambda m: [{"params": m.fc.weight}],
        f"its param_groups has a group whose 'params' is a tensor [5, 2] of float32, it must return {EXAMPLE}",
    ),
    (
        lambda m: [{"params": [nn.Parameter(torch.ones(2))]}],
        "its param_groups names a tensor [2] of float32, which is none of the network's parameters that are trained",
    ),
    (
        lambda m: [{"params": ["fc.weight"]}],
        "its param_groups names a str, which is none of the network's parameters that are trained",
    ),
    (
        lambda m: [{"params": [m.fc.weight], "weight_decy": 0.1}],
        "its param_groups sets 'weight_decy'. Did you mean 'weight_decay'?",
    ),
    (
        lambda m: [{"params": [m.fc.weight], "weight_decay": "much"}],
        "its param_groups sets weight_decay to a str, it must be a number",
    ),
]


@pytest.mark.parametrize(("returns", "said"), GROUPS)
def test_param_groups_name_parameters_of_the_network(returns: Callable[..., Any], said: str) -> None:
    with pytest.raises(BenchError) as caught:
        step(hooked("param_groups", returns))
    assert str(caught.value).startswith(f"regularizer 'mine': {said}")


def test_an_option_of_another_optimizer_is_none_of_this_one() -> None:
    reg = hooked("param_groups", lambda model: [{"params": [model.fc.weight], "momentum": 0.5}])
    assert task_of(reg).make_optimizer().param_groups[0]["momentum"] == 0.5
    with pytest.raises(BenchError, match="its param_groups sets 'momentum'"):
        task_of(reg, name=Optimizer.adamw).make_optimizer()


def test_a_group_has_a_rate_of_its_own_in_a_tensor_too() -> None:
    reg = hooked("param_groups", lambda model: [{"params": [model.fc.weight], "lr": 0.5}])
    for moving in (False, True):
        rates = [group["lr"] for group in task_of(reg).make_optimizer(in_tensors=moving).param_groups]
        assert [isinstance(rate, Tensor) for rate in rates] == [moving, moving]
        assert [float(rate) for rate in rates] == pytest.approx([0.5, 0.1])


def test_parameters_may_come_from_a_generator_again_and_again() -> None:
    reg = hooked("param_groups", lambda model: ({"params": p, "weight_decay": 0.5} for p in [model.fc.parameters()]))
    with pytest.raises(BenchError, match="its param_groups returns a generator"):
        step(reg)
    reg = hooked("param_groups", lambda model: [{"params": model.fc.parameters(), "weight_decay": 0.5}])
    task = step(reg)
    for _ in range(2):
        decays = {group["weight_decay"]: len(group["params"]) for group in task.make_optimizer().param_groups}
        assert decays == {0.5: 2, 0.0: 2}


@pytest.mark.parametrize("hook", ["attach", "initialize", "after_step", "bake"])
def test_what_the_other_hooks_return_does_not_matter(hook: str) -> None:
    reg = hooked(hook, lambda *given: 0.5)
    task = step(reg)
    for own in (lambda: reg.initialize(task.model, torch.rand(1, 1, 1, 2)), lambda: reg.bake(task.model)):
        own()


def with_features(returns: Callable[[Tensor], Any]) -> SpikingNetwork:
    network = type("Other", (Tiny,), {"features": lambda self, x: returns(Tiny.features(self, x))})
    return network()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("returns", "came"),
    [
        (lambda x: x.mean(0), "a tensor [4, 5] of float32"),
        (lambda x: x.transpose(1, 2), "a tensor [4, 5, 4] of float32"),
        (lambda x: x[:2], "a tensor [2, 4, 5] of float32"),
        (lambda x: x[..., :3], "a tensor [4, 4, 3] of float32"),
        (lambda x: x[..., None], "a tensor [4, 4, 5, 1] of float32"),
        (lambda x: (x, x), "(a tensor [4, 4, 5] of float32, a tensor [4, 4, 5] of float32)"),
        (lambda x: None, "None"),
    ],
)
def test_features_are_time_steps_images_and_features(returns: Callable[[Tensor], Any], came: str) -> None:
    with pytest.raises(BenchError) as caught:
        step(Regularizer(), with_features(returns))
    wanted = "it must return [T=4, N=4, F=5 as its head takes it]"
    assert str(caught.value) == f"model Other: its features returns {came}, {wanted}"


def test_a_network_without_a_head() -> None:
    model = Tiny()
    del model.head
    with pytest.raises(BenchError, match=r"^model Tiny has no `head`: it must be a linear layer"):
        task_of(Regularizer(), model)


def test_a_head_for_another_number_of_classes() -> None:
    model = Tiny()
    model.head = nn.Linear(5, 2)
    for reg in (Regularizer(), hooked("loss", lambda logits, y: logits.sum())):
        with pytest.raises(BenchError, match=r"its logits are a tensor \[4, 2\] of float32, they must be \[N=4, 3\]"):
            step(reg, model)
