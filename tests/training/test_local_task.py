"""Local learning within the suite: the same record, resume bit for bit, what it honours and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch

from bench.config.compose import compose
from bench.config.schema import OptimConfig, Optimizer
from bench.data.batches import Batches
from bench.errors import BenchError
from bench.local.network import Mode
from bench.models.base import Spec
from bench.models.diehl_cook import DiehlCook
from bench.neurons import NeuronConfig
from bench.records.schema import validate
from bench.regularizers.none import NoRegularizer
from bench.regularizers.spikepen import SpikePenalty
from bench.regularizers.uselose import Form, Scope, UseItOrLoseIt
from bench.training.local_task import Decay, LocalTask, decay_of
from bench.training.run import run

LIF = NeuronConfig("lif")
TINY = (
    "budget=smoke",
    "model=diehl_cook",
    "data.classes=[0,1]",
    "data.limit=24",
    "data.test_limit=16",
    "trainer.batch_size=8",
    "logger=none",
)


def make(**knobs: Any) -> DiehlCook:
    torch.manual_seed(0)
    return DiehlCook(Spec((1, 8, 8), 2, neuron=LIF), **{"present": 40.0, "pause": 10.0, **knobs})


def task_of(model: DiehlCook, **regs: Any) -> LocalTask:
    return LocalTask(model, regs, OptimConfig(name=Optimizer.local, lr=1.0), seed=0, epochs=1)


@pytest.mark.parametrize("rate", [63.75, 64.0])
def test_posterized_pixels_fire_at_the_notebooks_rates(rate: float) -> None:
    """A pixel of u fires at u // 4 Hz where white has 63.75 Hz, and at 256/255 of that, as in the notebooks, at 64."""
    shades = torch.tensor([0, 3, 4, 7, 8, 127, 128, 251, 252, 255], dtype=torch.uint8)
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    images.view(-1)[: len(shades)] = shades
    model = DiehlCook(Spec((1, 8, 8), 2, neuron=LIF, mean=(0.13,), std=(0.3,)), rate=rate)
    x, _ = next(iter(Batches(images, torch.zeros(1), 1, mean=[0.13], std=[0.3], posterize=6)))
    found = model.pixels(x)[0, : len(shades)] * model.network.constants.rate
    by_hand = np.array([0, 0, 1, 1, 2, 31, 32, 62, 63, 63]) * (1.0 if rate == 63.75 else 256 / 255)
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


@pytest.fixture
def record(shared_data: Path) -> Callable[..., dict[str, Any]]:
    """record(*overrides): of a tiny run in this process."""
    return lambda *overrides: run(compose([*TINY, f"data.root={shared_data}", *overrides]))


@pytest.mark.parametrize("rule", ["stdp_allltd", "stdp"])
def test_a_run_leaves_the_same_record_as_any_other(record: Callable[..., dict[str, Any]], rule: str) -> None:
    found = record(f"model.rule={rule}", "model.neurons=8")
    validate(found)
    assert (found["model"], found["optimizer"], found["status"]) == ("diehl_cook", "local", "finished")
    assert (found["train_images"], found["test_images"], found["classes"]) == (24, 16, 2)
    assert found["params"] == 32 * 32 * 8
    steps = {"stdp_allltd": 500, "stdp": 100}[rule]
    assert found["time_steps"] == steps, "50 ms at the rule's own dt"
    assert [layer["name"] for layer in found["layers"]] == ["inhibitory", "excitatory"]
    assert all(layer["neurons"] == 8 for layer in found["layers"])
    rates = [layer["spike_rate"] for layer in found["layers"]]
    assert found["test"]["spike_rate"] == pytest.approx(sum(rates) / 2)
    assert 0 < found["test"]["spike_rate"] < 0.05
    assert found["test"]["loss"] is None
    assert found["train"]["loss"] is None
    assert 0 <= found["test"]["acc"] <= 100
    # While an unsupervised network first learns, no neuron has a label.
    assert (found["train"]["acc"] is None) == (rule == "stdp")
    assert found["macs_per_image"] == 0
    assert found["energy_uj"] == pytest.approx(found["synops_per_image"] * 0.9e-6)


def test_an_interrupted_run_goes_on_bit_for_bit(
    record: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three epochs at once, and three of which the third's training is interrupted once."""
    three = ("trainer.epochs=3", "reg=uselose", "reg.uselose.form=literal", "trainer.limit_test_batches=null")
    whole = record(*three, f"runs={tmp_path / 'whole'}")
    learn, calls = LocalTask.learn, []

    def interrupted(self: LocalTask, x: torch.Tensor, y: torch.Tensor) -> None:
        calls.append(self.current_epoch)
        if len(calls) == 8:
            raise KeyboardInterrupt
        learn(self, x, y)

    monkeypatch.setattr(LocalTask, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(*three, f"runs={tmp_path / 'parts'}")
    assert calls[-1] == 2
    parts = record(*three, f"runs={tmp_path / 'parts'}")
    for key in ("train", "test", "layers", "synops_per_image", "gap"):
        assert parts[key] == whole[key], key
    ends = [
        torch.load(tmp_path / of / whole["run_id"] / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for of in ("whole", "parts")
    ]
    assert ends[0].keys() == ends[1].keys()
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def test_supervised_neurons_learn_their_own_class() -> None:
    """Two images with nothing in common: after training each pool answers its own, before it does not."""
    model = make(neurons=4, present=100.0)
    task = task_of(model)
    images = torch.zeros(2, 1, 8, 8)
    images[0, :, :4], images[1, :, 4:] = 1.0, 1.0
    task.eval()
    task.on_train_epoch_start()
    task.trainer = type("Trainer", (), {"current_epoch": 0, "world_size": 1})()  # type: ignore[assignment]
    for _ in range(60):
        task.learn(images, torch.tensor([0, 1]))
    features, _ = task.forward_t(images.repeat(5, 1, 1, 1))
    assert features[0].argmax(1).tolist() == [0, 1] * 5
    weights = model.synapses.weight.view(4, 8, 8)
    own, other = weights[:2, :4].mean() + weights[2:, 4:].mean(), weights[:2, 4:].mean() + weights[2:, :4].mean()
    assert own > 1.5 * other


def test_evaluation_changes_nothing_that_training_uses() -> None:
    task = task_of(make(), uselose=UseItOrLoseIt(form=Form.literal))
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task.forward_t(torch.rand(3, 1, 8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())


def test_what_was_asked_before_changes_no_answer() -> None:
    """An image draws the same input spikes wherever it stands, and a pass starts from rest."""
    task = task_of(make(present=100.0))
    x = torch.rand(3, 1, 8, 8, generator=torch.manual_seed(1))
    alone, activity = task.forward_t(x)
    assert int(activity["excitatory"].count) > 0  # type: ignore[arg-type]
    task.model.forget()
    task.forward_t(x.flip(0))
    task.model.forget()
    assert torch.equal(task.forward_t(x)[0], alone)


def test_silence_is_no_answer() -> None:
    features, activity = task_of(make()).forward_t(torch.zeros(2, 1, 8, 8))
    assert features.tolist() == [[[0.0, 0.0, 1.0]] * 2]
    assert int(activity["excitatory"].count) == 0  # type: ignore[arg-type]


def test_decay_means_the_notebooks_flush_or_the_text() -> None:
    """tau in presentations: k_p / (tau x 5000 steps)^2; `effective` waits for the end."""
    assert decay_of({"none": NoRegularizer()}, 5000) == Decay(0.0, 0.0)
    rate = 2 / (15 * 5000) ** 2
    assert decay_of({"uselose": UseItOrLoseIt(k_p=2.0, tau=15)}, 5000) == Decay(0.0, pytest.approx(rate))
    literal = decay_of({"uselose": UseItOrLoseIt(k_p=2.0, tau=15, form=Form.literal)}, 5000)
    assert literal == Decay(pytest.approx(rate), pytest.approx(rate))


def test_the_flush_prunes_what_was_silent_and_spares_what_was_not() -> None:
    """The upper half fires in every step until 10 ms before the end, the lower half never; tau is a third of the run.

    The first step of the flush finds gaps of 101 and of 500 steps, the 499 others gaps of 1.
    """
    model = make(neurons=2, rate=1e4)
    model.network.constants = replace(model.network.constants, flush_rate=1e4)
    state, image = model.state(), np.zeros(64)
    image[:32] = 1.0
    before = state.w.copy()
    model.present(state, image, Mode(), np.random.default_rng(0))
    tau = 500 / 3
    model.flush(state, 1 / tau**2, np.random.default_rng(1))
    often = math.exp(-499 / tau**2)
    np.testing.assert_allclose(state.w[32:], before[32:] * math.exp(-9) * often, rtol=1e-9)
    np.testing.assert_allclose(state.w[:32], before[:32] * math.exp(-((101 / tau) ** 2)) * often, rtol=1e-9)


@pytest.mark.parametrize(
    ("regs", "message"),
    [
        ({"spikepen": SpikePenalty()}, r"^reg=spikepen needs a gradient, .* it takes reg=none or uselose$"),
        ({"uselose": UseItOrLoseIt(form=Form.penalty)}, r"^reg\.uselose: .* not form=penalty scope=pre$"),
        ({"uselose": UseItOrLoseIt(scope=Scope.synapse)}, r"^reg\.uselose: .* not form=effective scope=synapse$"),
    ],
)
def test_what_local_learning_cannot_honour_is_one_line(regs: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        task_of(make(), **regs)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"rate": 20000.0},
            r"^model\.rate: 20000 Hz is more than one spike in a step of 0\.1 ms; at most 10000 Hz fit$",
        ),
        ({"rate": 0.0}, r"^model\.rate is 0, it must be a finite number above 0$"),
        ({"dt": -0.1}, r"^model\.dt is -0\.1, it must be a finite number above 0$"),
        ({"present": math.inf}, r"^model\.present is inf, it must be a finite number above 0$"),
        ({"delay_ie": -2.0}, r"^model\.delay_ie is -2 ms, it must be 0 or more$"),
        ({"pause": 5.0}, r"^model\.pause is 5 ms, it must be at least 10, the longest delay$"),
        ({"neurons": 0}, r"^model\.neurons is 0, it must be at least 1$"),
        ({"neurons": 5}, r"^model\.neurons=5 cannot be shared equally by 2 classes; 4 or 6 can$"),
        ({"assign": 0}, r"^model\.assign is 0, it must be at least 1$"),
    ],
)
def test_bad_settings_are_one_line(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        make(**knobs)


def test_images_of_several_channels_and_other_neurons_are_one_line() -> None:
    with pytest.raises(BenchError, match=r"^model=diehl_cook takes images of one channel, these have 3$"):
        DiehlCook(Spec((3, 8, 8), 2, neuron=LIF))
    with pytest.raises(BenchError, match=r"^neuron\.name is 'if', but model=diehl_cook has lif of its own kind$"):
        DiehlCook(Spec((1, 8, 8), 2))


def test_rule_and_optimizer_belong_together(shared_data: Path) -> None:
    for wrong in (["model=diehl_cook", "optim=adamw"], ["model=cnn", "optim.name=local"]):
        with pytest.raises(BenchError, match=r"^optim\.name is '(adamw|local)', and this network is trained by "):
            run(compose([f"data.root={shared_data}", "budget=smoke", "logger=none", *wrong]))


def test_its_speed_is_no_matter_of_gradient_steps(shared_data: Path) -> None:
    from bench.speed.command import speed
    from bench.speed.settings import parse

    with pytest.raises(BenchError, match=r"^model=diehl_cook learns without gradients: `bench run` says"):
        speed(parse(["model=diehl_cook", f"data.root={shared_data}"]))


def test_a_refused_run_leaves_nothing_behind(bench: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    done = bench("run", *TINY, "reg=dropout", f"runs={tmp_path / 'runs'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: reg=dropout needs a gradient")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_probes_read_it_like_any_network(
    record: Callable[..., dict[str, Any]], bench: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """noise and decision by the command line; adversarial images need a gradient, and that is said."""
    found = record("reg=uselose", f"runs={tmp_path}", "model.present=100")
    folder = tmp_path / found["run_id"]
    small = ("noise.images=8", "decision.images=10", "decision.thresholds=[1,50]")
    done = bench("eval", str(folder), "probe=noise,decision", *small)
    assert done.returncode == 0, done.stderr
    noise, decision = (json.loads((folder / f"probes/{name}.json").read_text()) for name in ("noise", "decision"))
    assert [row["set"] for row in noise["rows"]] == ["delta", "blurred", "known", "unknown"]
    assert noise["rows"][2]["output_spikes"] > 0
    assert noise["input_weights"]["pixels"] == 32 * 32
    vote, first, far = decision["rows"]
    assert (vote["read_out"], vote["threshold"], first["threshold"], far["threshold"]) == ("vote", None, 1, 50)
    assert first["decided"] >= vote["decided"] > 0 or first["decided"] == vote["decided"]
    assert first["right_ms"] is None or 0 < first["right_ms"] <= 100
    assert (far["decided"], far["acc"], far["p"]) == (0, 0, None)
    refused = bench("eval", str(folder), "probe=adversarial")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "no gradient" in refused.stderr
