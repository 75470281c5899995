"""Replayed training steps: they do what steps by themselves do, and nothing is replayed that would not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import ops
from bench.config.schema import OptimConfig, Optimizer
from bench.models.base import Spec
from bench.models.cnn import CNN
from bench.models.convmixer import ConvMixer
from bench.models.sew import SEWResNet
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.training.graph import CapturedStep
from bench.training.progress import Reporter
from bench.training.recorder import Recorder
from bench.training.task import Task

from .tape import capture

STEPS = 7
Net = Callable[[Spec], Any]
NETS: dict[str, Net] = {
    "cnn": lambda spec: CNN(spec, channels=6, depth=2),
    "sew": lambda spec: SEWResNet(spec, channels=6, depth=2, blocks=1),
    "convmixer": lambda spec: ConvMixer(spec, width=6, depth=1, kernel=3, patch=2),
}


@pytest.fixture(autouse=True)
def _plain_kernels() -> Any:
    """The tape sees torch's operations, not those of compiled kernels."""
    with ops.using(ops.Backend.reference):
        yield


def make_task(
    net: Net = NETS["cnn"],
    regs: dict[str, Regularizer] | None = None,
    optim: str = "sgd",
    clip: float | None = None,
    **how: Any,
) -> Task:
    torch.manual_seed(0)
    model = net(Spec((1, 8, 8), 3, 3)).to(memory_format=torch.channels_last)
    config = OptimConfig(name=Optimizer[optim], lr=0.1 if optim == "sgd" else 0.01, clip=clip)
    task = Task(model, regs or {}, config, seed=5, epochs=2, **how)
    task.on_train_epoch_start()
    return task


def batches(count: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 1, 8, 8, generator=draw), torch.randint(3, (6,), generator=draw)) for _ in range(2 * count)]


def train(task: Task, replay: bool, rates: tuple[float, float] = (1.0, 0.3)) -> dict[str, Any]:
    """Two epochs, the second at another rate; all that is left of them."""
    optimizer = task.make_optimizer(in_tensors=True)
    started = optimizer.param_groups[0]["lr"].clone()
    if replay:
        task.capture_step(optimizer, capture=capture)
    lines = []
    for epoch, factor in enumerate(rates):
        task.on_train_epoch_start()
        for group in optimizer.param_groups:
            group["lr"].copy_(started * factor)
        for x, y in batches()[epoch * STEPS : (epoch + 1) * STEPS]:
            task.step(x, y, optimizer)
        meter = task.meters["train"]
        lines.append((meter.summary(), meter.rates.rates(), {k: float(v) for k, v in task.penalties.items()}))
    if replay:
        assert task.captured is not None
    return {"lines": lines, "state": copy.deepcopy(task.state_dict()), "task": task}


def assert_same(make: Callable[[], Task]) -> Task:
    """Bit for bit: weights, statistics, clocks, accuracies, losses, rates, penalties. The replayed task."""
    plain, replayed = train(make(), False), train(make(), True)
    assert replayed["task"].captured.fault is None
    assert replayed["task"].captured.live
    assert plain["lines"] == replayed["lines"]
    for name, value in plain["state"].items():
        assert torch.equal(value, replayed["state"][name]), name
    fresh = make().state_dict()
    assert any(not torch.equal(fresh[name], value) for name, value in plain["state"].items() if "weight" in name)
    return replayed["task"]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_replayed_steps_are_steps(net: str, optim: str) -> None:
    """At another rate in the second epoch too: it is read where the captured step reads it."""
    assert_same(lambda: make_task(NETS[net], optim=optim))


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "dropout": [{"p": 0.3}, {"p": 0.3, "at": "spikes", "mask": "fixed"}],
    "uselose": [{"k_p": 5.0}, {"k_p": 5.0, "form": "literal"}, {"k_p": 5.0, "form": "penalty"}],
    "weightnorm": [{}, {"mean_only_bn": True}],
    "weight_decay": [{"weight": 0.1}],
    "spikepen": [{"weight": 1.0}],
}
CASES = [
    (name, options)
    for name in REGULARIZERS.names()
    if REGULARIZERS.get(name).replayable
    for options in SETTINGS.get(name, [{}])
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_regularizer_that_says_so_is_replayable(name: str, options: dict[str, Any]) -> None:
    """What its hooks do is in the captured step: penalties, masks that are drawn anew, clocks, decayed weights."""
    net = NETS["sew" if name == "stochdepth" else "cnn"]
    assert_same(lambda: make_task(net, {name: REGULARIZERS.get(name)(**options)}, clip=1.0))


def test_the_papers_regularizers_say_so() -> None:
    dropouts = {"dropout", "dropout2d", "feature_dropout", "alpha_dropout"}
    assert {name for name, _ in CASES} >= dropouts | {"none", "weight_decay", "spikepen", "weightnorm", "uselose"}


class Annealed(Regularizer):
    """A weight that Python lowers at each step."""

    replayable = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = 8.0

    def penalty(self, activity: Any) -> dict[str, Tensor]:
        self.weight /= 2
        return {"annealed": self.weight * sum(layer.spikes.mean() for layer in activity.values())}


class Looking(Regularizer):
    """Reads a rate from Python."""

    replayable = True

    def penalty(self, activity: Any) -> dict[str, Tensor]:
        rates = [layer.spikes.mean() for layer in activity.values()]
        return {"looking": sum(rate for rate in rates if rate.item() > 0.1) + 0.0 * rates[0]}


class Rebinding(Regularizer):
    """Keeps a running mean in a tensor that each step makes anew."""

    replayable = True
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def after_step(self, activity: Any) -> None:
        self.mean = 0.9 * self.mean + 0.1 * next(iter(activity.values())).spikes.detach().mean()


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Annealed, "a replayed step does not do what a step by itself does"),
        (Looking, "a step cannot be recorded: operation not permitted when stream is capturing"),
        (Rebinding, "a replayed step does not do what a step by itself does"),
    ],
)
def test_what_cannot_be_replayed_is_not(kind: type[Regularizer], fault: str) -> None:
    """Though it says it can: the run goes on step by step, with the numbers that it would have had."""

    plain, tried = (train(make_task(regs={"x": kind()}), replay) for replay in (False, True))
    assert tried["task"].captured.fault == fault
    assert not tried["task"].captured.live
    if kind is not Annealed:  # whose Python has counted the step that was captured
        assert plain["lines"] == tried["lines"]
        assert all(torch.equal(value, tried["state"][name]) for name, value in plain["state"].items())


def test_a_capture_that_does_nothing_is_found_out() -> None:
    task = make_task()
    optimizer = task.make_optimizer(in_tensors=True)
    task.capture_step(optimizer, capture=lambda work: lambda: None)
    for x, y in batches()[:STEPS]:
        task.step(x, y, optimizer)
    assert task.captured is not None
    assert task.captured.fault == "a replayed step does not do what a step by itself does"
    plain = make_task()
    optimizer = plain.make_optimizer(in_tensors=True)
    for x, y in batches()[:STEPS]:
        plain.step(x, y, optimizer)
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in plain.state_dict().items())
    assert plain.meters["train"].summary() == task.meters["train"].summary()


def test_a_batch_of_another_size_goes_by_itself() -> None:
    seen: list[int] = []
    total = torch.zeros(())

    def step(x: Tensor, y: Tensor) -> None:
        seen.append(len(x))
        total.add_(x.sum())

    captured = CapturedStep(step, lambda: [total], lambda: None, capture=capture)
    x, y = torch.ones(4), torch.zeros(4, dtype=torch.int64)
    for _ in range(5):
        captured.run(x, y)
    # Three to warm up, one by itself and the one that is captured; the fifth is replayed.
    assert seen == [4] * 5
    captured.run(2 * x, y)
    captured.run(torch.ones(3), y[:3])
    assert seen == [4] * 5 + [3]
    assert float(total) == 5 * 4 + 8 + 3


def test_where_there_is_no_gpu_nothing_is_captured() -> None:
    task = make_task()
    task.replay_if_able(task.make_optimizer())
    assert task.captured is None
    assert task.unreplayable == "no GPU"
    assert isinstance(task.make_optimizer().param_groups[0]["lr"], float)


def test_why_nothing_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "device", torch.device("cuda"))
    task = make_task(regs={"own": Regularizer(), "none": REGULARIZERS.get("none")()})
    assert task.unreplayable == "own does not say that it is replayable"
    task = make_task()
    assert task.unreplayable is None
    task = make_task(replays=False)
    assert task.unreplayable == "trainer.cuda_graph=false"


def test_why_nothing_is_captured_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter, task = Reporter(1), make_task(regs={"own": Regularizer()})
    for device in ("cpu", "cuda", "cuda"):
        monkeypatch.setattr(Task, "device", torch.device(device))
        reporter._tell_of_replays(task)
    assert capsys.readouterr().out == "no CUDA graph: own does not say that it is replayable\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("net", NETS)
def test_on_a_gpu(net: str) -> None:
    task = make_task(NETS[net], {"dropout": REGULARIZERS.get("dropout")(p=0.2)}).cuda()
    optimizer = task.make_optimizer()
    task.replay_if_able(optimizer)
    for x, y in batches():
        task.step(x.cuda(), y.cuda(), optimizer)
    assert task.captured is not None
    assert task.captured.fault is None
    assert task.captured.live


@pytest.fixture
def gpu_like(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Runs take their device for one that replays steps, and a tape is what does it."""
    monkeypatch.setattr(Task, "unreplayable", None)
    monkeypatch.setattr("bench.training.task.CapturedStep", partial(CapturedStep, capture=capture))
    return monkeypatch


RUN = ("ops=reference", "trainer.epochs=3", "trainer.precision=bf16", "reg=[dropout,uselose]", "reg.dropout.p=0.2")


def metrics(result: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / result["run_id"] / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_s")} for row in rows]


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_a_whole_run_replayed(
    gpu_like: pytest.MonkeyPatch, run_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], optim: str
) -> None:
    """Through Lightning, with a rate that falls, in bf16, two regularizers: the numbers of a run that replays nothing;
    stopped after the second epoch and gone on with, the same again."""

    def refuse(work: Callable[[], None]) -> Any:
        raise RuntimeError("out of graphs\nand more")

    said = {}
    results = {}
    for name, how in (("plain", refuse), ("replayed", capture)):
        gpu_like.setattr("bench.training.task.CapturedStep", partial(CapturedStep, capture=how))
        results[name] = run_tiny(*RUN, f"optim.name={optim}", f"runs={tmp_path / name}")
        said[name] = capsys.readouterr().out
    assert "no CUDA graph: a step cannot be recorded: out of graphs\n" in said["plain"]
    assert said["replayed"].count("steps are replayed from a CUDA graph") == 1
    plain, replayed = (metrics(results[name], tmp_path / name) for name in ("plain", "replayed"))
    assert plain == replayed
    # A cosine over three epochs from 0.002.
    assert [row["lr"] for row in plain] == pytest.approx([0.002, 0.0015, 0.0005], rel=1e-6)

    save = Recorder.save

    def stop(self: Recorder, trainer: Any) -> None:
        save(self, trainer)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    gpu_like.setattr(Recorder, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(*RUN, f"optim.name={optim}", f"runs={tmp_path / 'stopped'}")
    gpu_like.setattr(Recorder, "save", save)
    result = run_tiny(*RUN, f"optim.name={optim}", f"runs={tmp_path / 'stopped'}")
    assert metrics(result, tmp_path / "stopped") == plain
    assert result["test"] == results["plain"]["test"]
