"""A loop of one's own with handles trains as a run does, on the suite's networks and on plain ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

import bench
from bench.config.schema import OptimConfig, Optimizer, Schedule
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.seeds import seed_everything
from bench.training.task import Task

SHAPE = (1, 8, 8)


def network(name: str = "cnn", **arguments: Any) -> SpikingNetwork:
    torch.manual_seed(3)
    arguments = {"channels": 4, "depth": 2, **arguments} if name == "cnn" else {"channels": 4, **arguments}
    return bench.create_model(name, image_shape=SHAPE if name == "cnn" else (1, 32, 32), num_classes=5, **arguments)


def batch(seed: int, model: SpikingNetwork) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(6, *model.spec.image_shape, generator=drawn), torch.randint(5, (6,), generator=drawn)


class Plain(nn.Module):
    """A network as SpikingJelly's tutorial writes it, in multi-step mode: `[T, N, C, H, W]` to `[N, classes]`."""

    def __init__(self, per_step: bool = False) -> None:
        super().__init__()
        kept: dict[str, Any] = {"surrogate_function": surrogate.ATan(alpha=2.0), "detach_reset": True}
        self.net = nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.IFNode(**kept), layer.MaxPool2d(2),
            layer.Flatten(), layer.Linear(4 * 16, 12), neuron.LIFNode(**kept), layer.Linear(12, 5),
        )  # fmt: skip
        functional.set_step_mode(self, "m")
        self.per_step = per_step

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if self.per_step else logits.mean(0)


def plain(per_step: bool = False) -> tuple[Plain, Tensor, Tensor]:
    torch.manual_seed(2)
    made = Plain(per_step)
    made.net[5].weight.data *= 6
    return made, 3 * torch.rand(3, 6, *SHAPE), torch.randint(5, (6,))


# Masks of a run come from keys that it derives; here they come from torch's generator.
KEYED = ("alpha_dropout", "dropout", "dropout2d", "feature_dropout")


@pytest.mark.parametrize("name", [name for name in REGULARIZERS.names() if name not in KEYED])
def test_handles_train_as_a_run_does(name: str) -> None:
    """Three steps of every method by a task and by a loop with a handle: the same weights to the last bit."""
    kind = "sew" if name == "stochdepth" else "cnn"
    reg = REGULARIZERS.get(name)()
    model = network(kind)
    own = copy.deepcopy(model)
    optim = OptimConfig(name=Optimizer.sgd, lr=0.05, momentum=0.9, schedule=Schedule.constant)
    images = batch(9, model)[0]
    task = Task(model, {name: reg}, optim, seed=1, epochs=1, images=lambda: images)
    seed_everything(1, "initialize")
    reg.initialize(task.model, images)
    task.on_train_epoch_start()
    optimizer = task.make_optimizer()
    for step in range(3):
        task.step(*batch(step, model), optimizer)

    handle = bench.attach(own, name)
    seed_everything(1, "initialize")
    handle.initialize(images)
    mine = torch.optim.SGD(handle.param_groups(), lr=0.05, momentum=0.9, weight_decay=0.0)
    for step in range(3):
        seed_everything(1, "step", 0, step)
        handle.backward(*batch(step, own))
        mine.step()
        handle.after_step(mine)
    trained, expected = own.state_dict(), model.state_dict()
    assert trained.keys() == expected.keys()
    assert all(torch.equal(trained[key], expected[key]) for key in expected), name


def half_mean_square(spikes: list[Tensor]) -> Tensor:
    """1 / (2 K N) sum S^2 of each layer, K its neurons times its time steps, N the images, summed over layers."""
    return torch.stack([(fired * fired).sum() / (2 * fired.numel()) for fired in spikes]).sum()


def test_a_penalty_is_added_by_hand() -> None:
    """`loss + handle.penalty()` has the gradient of nandan2022's eq. 3.1, computed from the spikes themselves."""
    model = network(time_steps=3)
    own = copy.deepcopy(model)
    x, y = batch(0, model)
    handle = bench.attach(model, "spikepen", weight=0.7)
    (F.cross_entropy(model(x), y) + handle.penalty()).backward()
    logits = own(x)
    by_hand = 0.7 * half_mean_square([each.fired for _, each in own.spiking_layers() if each.fired is not None])
    assert by_hand > 0
    torch.testing.assert_close(handle.penalty(), by_hand)
    (F.cross_entropy(logits, y) + by_hand).backward()
    for a, b in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_several_handles_on_one_network() -> None:
    model = network()
    x, y = batch(0, model)
    first = bench.attach(model, "spikepen", weight=0.5)
    second = bench.attach(model, "membrane")
    model(x)
    alone = first.penalty().item(), second.penalty().item()
    assert min(alone) > 0
    told = second.backward(x, y)
    assert told.total.item() == pytest.approx(told.loss.item() + sum(alone), rel=1e-5)
    assert set(told.penalties) == {"spikepen", "membrane"}
    second.detach()
    told = first.backward(x, y)
    assert told.total.item() == pytest.approx(told.loss.item() + alone[0], rel=1e-5)
    with pytest.raises(BenchError, match="attached to no network any more"):
        second.penalty()
    with pytest.raises(BenchError, match="'spikepen' is attached to this network already"):
        bench.attach(model, "spikepen")
    bench.attach(model, "tet")
    with pytest.raises(BenchError, match=r"reg=\[tet,trt\]: each replaces the loss, and only one can"):
        bench.attach(model, "trt")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sam", "makes the step its own"),
        ("mixup", "mixes the batch"),
        ("tet", "replaces the loss"),
        ("weight_decay", "acts through the optimizer"),
    ],
)
def test_what_a_penalty_alone_would_leave_out_is_said(name: str, said: str) -> None:
    model = network()
    handle = bench.attach(model, name)
    model(batch(0, model)[0])
    with pytest.raises(BenchError, match=said):
        handle.penalty()
    if name == "weight_decay":
        handle.param_groups()
        assert handle.penalty() == 0


def test_a_step_of_its_own_needs_the_optimizers_rate() -> None:
    model = network()
    handle = bench.attach(model, "rewire")
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1)
    handle.backward(*batch(0, model))
    optimizer.step()
    with pytest.raises(BenchError, match=r"^'rewire' makes a step of its own at the optimizer's rate: after_step\(opt"):
        handle.after_step()
    handle.after_step(optimizer)


def test_averaged_weights_are_judged_and_baked() -> None:
    """The network that is judged lies between those of its steps, and is what `bake` leaves."""
    model = network()
    x, _ = batch(0, model)
    ema = bench.attach(model, "ema")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen = []
    for step in range(2):
        ema.backward(*batch(step, model))
        optimizer.step()
        ema.after_step()
        seen.append(model.head.weight.detach().clone())
    with ema.eval_weights(x):
        judged = model.head.weight.detach().clone()
    assert torch.equal(model.head.weight, seen[1])
    low, high = torch.minimum(*seen), torch.maximum(*seen)
    assert not torch.equal(judged, seen[1])
    assert bool(((judged >= low - 1e-6) & (judged <= high + 1e-6)).all())
    ema.bake()
    assert torch.equal(model.head.weight, judged)


def test_a_plain_network_is_regularized() -> None:
    """Rates counted by SpikingJelly's own spikes, the penalty from them by hand; its answers stay what they were."""
    made, x, y = plain()
    expected = made(x)
    counts = []
    for node in (made.net[2], made.net[6]):
        node.register_forward_hook(lambda module, args, out: counts.append(out))
    functional.reset_net(made)
    made(x)
    conv, fc = counts
    assert min(conv.sum(), fc.sum()) > 0
    by_hand = half_mean_square([conv, fc])
    functional.reset_net(made)
    handle = bench.attach(made, "spikepen", weight=0.5)
    for _ in range(2):
        # Twice: the second pass starts from rest without a reset of the user's.
        torch.testing.assert_close(made(x), expected)
        torch.testing.assert_close(handle.penalty(), 0.5 * by_hand)
    (F.cross_entropy(made(x), y) + handle.penalty()).backward()
    assert made.net[0].weight.grad.abs().sum() > 0
    before = handle.penalty().item()
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
    for _ in range(10):
        optimizer.zero_grad()
        made(x)
        handle.penalty().backward()
        optimizer.step()
    made(x)
    assert handle.penalty().item() < 0.5 * before


@pytest.mark.parametrize("name", ["membrane", "dropconnect", "sam", "ema", "noisyneuron", "labelsmooth", "rdrop"])
def test_other_methods_on_a_plain_network(name: str) -> None:
    made, x, y = plain(per_step=name == "labelsmooth")
    handle = bench.attach(made, name)
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1)
    losses = []
    for _ in range(15):
        losses.append(handle.backward(x, y).loss.item())
        optimizer.step()
        handle.after_step()
    assert losses[-1] < losses[0]
    handle.bake()


def test_dropout_on_a_plain_network_needs_its_steps() -> None:
    made, x, _ = plain()
    with pytest.raises(BenchError, match="give time_steps=T"):
        bench.attach(made, "dropout", p=0.5)
    made, x, _ = plain()
    bench.attach(made, "dropout", p=0.5, time_steps=3)
    made.train()
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weightnorm", "'weightnorm' finds nothing in a Plain that it could act on"),
        ("uselose", "does not say its image shape"),
        ("stochdepth", "adds none"),
        ("tet", "the network must give .T, N, classes., and gave .6, 5."),
    ],
)
def test_what_does_not_fit_a_plain_network_is_a_line(name: str, said: str) -> None:
    made, x, y = plain()
    with pytest.raises(BenchError, match=said) as caught:
        bench.attach(made, name).backward(x, y)
    assert "\n" not in str(caught.value)


def test_networks_that_cannot_be_regularized_are_a_line() -> None:
    single = nn.Sequential(nn.Linear(3, 4), neuron.IFNode(), nn.Linear(4, 2))
    with pytest.raises(BenchError, match=r"single-step mode.*step_mode='m'"):
        bench.attach(single, "spikepen")
    with pytest.raises(BenchError, match="has no spiking layer"):
        bench.attach(nn.Linear(3, 4), "spikepen")


def test_bad_names_are_a_line() -> None:
    model = network()
    with pytest.raises(BenchError, match=r"no regularizer is called 'spikpen'\. Did you mean 'spikepen'"):
        bench.attach(model, "spikpen")
    with pytest.raises(BenchError, match=r"'spikepen' has no argument 'wieght'\. Did you mean 'weight'"):
        bench.attach(model, "spikepen", wieght=1.0)
    with pytest.raises(BenchError, match=r"'spikepen': weight is 'much', it must be a number"):
        bench.attach(model, "spikepen", weight="much")
    with pytest.raises(BenchError, match=r"reg\.spikepen\.weight is -1"):
        bench.attach(model, "spikepen", weight=-1)
    handle = bench.attach(model, "spikepen")
    with pytest.raises(BenchError, match="call the network first"):
        handle.penalty()
    handle.progress = 0.25
    assert handle.progress == 0.25
    with pytest.raises(BenchError, match="must lie in"):
        handle.progress = 2
