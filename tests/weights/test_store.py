"""What a run leaves of its network is that network: built again elsewhere, without its data, it answers the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.config.component import settings
from bench.config.compose import compose
from bench.data import prepare
from bench.errors import BenchError
from bench.registry import REGULARIZERS
from bench.training.run import run
from bench.training.setup import make_task
from bench.training.task import Task
from bench.weights import store
from bench.weights.about import rebuild

ROOT = Path(__file__).resolve().parents[2]
RunTiny = Callable[..., dict[str, Any]]


def batches(cfg: Any) -> Any:
    """The splits of a run."""
    return prepare(settings(cfg.data), seed=cfg.seed, batch_size=cfg.trainer.batch_size)


def weights_of(result: dict[str, Any]) -> Path:
    return Path(os.environ["BENCH_RUNS"]) / result["run_id"] / "model.safetensors"


def judged(task: Any, images: Tensor) -> Tensor:
    """The logits of a task as its run's last test had them, of the network as it is trained."""
    task.eval()
    task.judge()
    with torch.no_grad():
        features, _ = task.forward_t(images)
        logits = task.model.logits(features)
    task.judged()
    return logits


# What leaves traces in a network or in how it is judged: each way of baking, and norms, dropouts that act in eval mode.
TRACES = (
    ("reg=none",),
    ("reg=[weightnorm,ema]", "reg.weightnorm.mean_only_bn=true", "reg.weightnorm.data_init=true"),
    ("reg=[uselose,dropout]", "reg.uselose.form=effective", "reg.dropout.scaling=test", "reg.dropout.p=0.3"),
    ("reg=uselose", "reg.uselose.form=literal", "reg.uselose.k_p=100"),
    ("reg=[dropconnect,swa]",),
    ("reg=[spikepen,noisyneuron]", "neuron=plif"),
    ("reg=stochdepth", "reg.stochdepth.p=0.5", "model=sew", "model.channels=4"),
)


@pytest.mark.parametrize("overrides", TRACES, ids=lambda given: given[0])
def test_a_loaded_network_answers_as_the_trained_one(
    overrides: tuple[str, ...], shared_data: Path, tiny: tuple[str, ...]
) -> None:
    """To the last bit: from the file of weights, and from the checkpoint with its regularizers not folded in."""
    own = [given for given in tiny if not ("model=sew" in overrides and given.startswith("model"))]
    cfg = compose([*own, f"data.root={shared_data}", *overrides, "trainer.precision=fp32"])
    result = run(cfg)
    splits = batches(cfg)
    images = next(iter(splits.test))[0]
    task = make_task(cfg, splits)
    state = torch.load(weights_of(result).parent / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    task.load_state_dict(state)
    expected = judged(task, images)
    loaded = store.load(result["run_id"])
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), expected, rtol=1e-5, atol=1e-5)
    weights_of(result).unlink()
    with torch.no_grad():
        torch.testing.assert_close(store.load(result["run_id"])(images), expected, rtol=1e-5, atol=1e-5)


def test_the_loaded_network_scores_what_the_record_says(
    run_tiny: RunTiny, shared_data: Path, tiny: tuple[str, ...]
) -> None:
    """`predict` on the data set's own images gives the record's accuracy and spike rate."""
    result = run_tiny("reg=spikepen", "optim.lr=0.01", "trainer.epochs=6")
    cfg = compose([*tiny, f"data.root={shared_data}"])
    splits = batches(cfg)
    stored, labels = splits.test.stored
    network = store.load(result["run_id"])
    seen = network.predict(stored)
    assert 100 * (seen.classes == labels).double().mean().item() == pytest.approx(result["test"]["acc"])
    neurons = sum(layer["neurons"] for layer in result["layers"])
    rate = seen.spikes.sum().item() / (neurons * result["time_steps"] * len(stored))  # type: ignore[union-attr]
    assert rate == pytest.approx(result["test"]["spike_rate"])
    assert seen.labels == tuple(splits.dataset.classes[answer] for answer in seen.classes.tolist())
    torch.testing.assert_close(seen.by_step[-1], seen.probabilities, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_every_regularizer_leaves_a_network_that_can_be_built_again(
    name: str, shared_data: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """Built, attached, stepped and folded in; then built from the file alone, with the same logits."""
    model = ("model=sew", "model.channels=4") if name == "stochdepth" else tiny[:3]
    cfg = compose([*model, *tiny[3:], f"data.root={shared_data}", f"reg={name}", "trainer.precision=fp32"])
    splits = batches(cfg)
    task = make_task(cfg, splits)
    assert isinstance(task, Task)
    images = splits.train_clean.sample(24, 0)
    for reg in task.regs:
        reg.initialize(task.model, images)
    task.on_train_epoch_start()
    optimizer = task.make_optimizer()
    for x, y in list(splits.train)[:2]:
        task.step(x, y, optimizer)
    task.eval()
    task.judge()
    task.judged()
    for reg in task.regs:
        reg.bake(task.model)
    with torch.no_grad():
        expected = task.model(images)
    assert task.about is not None
    store.write_weights(tmp_path / "model.safetensors", task.model, task.about)
    with torch.no_grad():
        assert torch.equal(store.load(tmp_path)(images), expected)


def test_a_network_is_loaded_without_its_data_elsewhere(run_tiny: RunTiny, tmp_path: Path) -> None:
    """In another process and folder, where there are no data, and nothing may be unpickled."""
    result = run_tiny("reg=weightnorm", "model.depth=2")
    moved = tmp_path / "elsewhere"
    shutil.copytree(weights_of(result).parent, moved / "run")
    shutil.rmtree(moved / "run" / "checkpoints")
    code = (
        "import pickle, bench, numpy\n"
        "def refuse(*_, **__): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        "network = bench.load('run')\n"
        "print(network.predict(numpy.zeros((1, 32, 32), 'uint8')).labels, network.about['data'])"
    )
    (moved / "empty").mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_DATA": str(moved / "empty")}
    done = subprocess.run([sys.executable, "-c", code], cwd=moved, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("digits\n")
    assert not any((moved / "empty").iterdir())


def test_a_task_is_loaded_from_its_checkpoint_alone(
    run_tiny: RunTiny, shared_data: Path, tiny: tuple[str, ...]
) -> None:
    result = run_tiny("reg=[spikepen,weightnorm]", "reg.spikepen.weight=0.3", "optim.lr=0.02", "seed=3")
    path = weights_of(result).parent / "checkpoints" / "last.ckpt"
    task = Task.load_from_checkpoint(path)
    assert list(task.regularizers) == ["spikepen", "weightnorm"]
    assert (task.regs[0].weight, task.optim.lr, task.seed, task.epochs) == (0.3, 0.02, 3, 2)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert state.keys() == task.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())
    assert Task.load_from_checkpoint(path, epochs=7).epochs == 7


def test_a_checkpoint_from_before_needs_its_data(run_tiny: RunTiny, tmp_path: Path) -> None:
    """A finished run of before keeps its record; its network is loaded as long as the data are there."""
    result = run_tiny()
    expected = load_file(weights_of(result))
    folder = weights_of(result).parent
    (folder / "model.safetensors").unlink()
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    del checkpoint["hyper_parameters"]
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    own = store.load(folder).state_dict()
    assert all(torch.equal(own[name], value) for name, value in expected.items())
    with pytest.raises(BenchError, match=r"does not say what it is of; `bench\.load`"):
        Task.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    config = (folder / "config.yaml").read_text()
    start = config.index("root:")
    end = config.index("\n", start)
    (folder / "config.yaml").write_text(f"{config[:start]}root: {tmp_path / 'nowhere'}{config[end:]}")
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("name: digits", "name: mnist"))
    with pytest.raises(
        BenchError, match="was trained before runs kept their weights, and its checkpoint needs its data"
    ):
        store.load(folder)
    assert run_tiny()["run_id"] == result["run_id"], "a finished run without weights is skipped as before"
    assert not (folder / "model.safetensors").exists()


def test_what_stands_in_the_file(run_tiny: RunTiny) -> None:
    result = run_tiny("reg=spikepen", "neuron=lif")
    with safe_open(weights_of(result), framework="pt") as file:
        said = json.loads(file.metadata()["snn-bench"])
    assert said["model"] == {"name": "cnn", "args": {"channels": 4, "depth": 3}}
    assert said["neuron"]["name"] == "lif"
    assert (said["time_steps"], said["image_shape"], said["classes"]) == (2, [1, 32, 32], [str(n) for n in range(10)])
    assert said["run_id"] == result["run_id"]
    tensors = load_file(weights_of(result))
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    # The weights of this network, counted by hand: three convolutions of 4 channels, their norms, and the head.
    weights = 4 * 9 + 2 * 4 * 4 * 9 + 3 * 4 + 3 * 8 + (4 * 4 * 4) * 10 + 10
    assert sum(t.numel() for name, t in tensors.items() if "running" not in name and "tracked" not in name) == weights
    card = (weights_of(result).parent / "model.md").read_text()
    assert f"{result['test']['acc']:.2f} %" in card
    assert result["data_checksum"] in card


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("later", "is of format 99, written by snn-bench 9.9.9; this is"),
        ("stranger", "does not say what network its weights are of"),
        ("shape", "the weights do not fit their network: it has another shape of 'head.bias'"),
        ("lacking", "the weights do not fit their network: it lacks 'head.bias'"),
        ("unknown", "its network cannot be built here: no model is called 'cnnn'. Did you mean 'cnn'"),
        ("argument", "model 'cnn' has no argument 'chanels'. Did you mean 'channels'?"),
        ("garbage", "is damaged"),
        ("partial", "does not say the network's mean"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(break_it: str, said: str, run_tiny: RunTiny, tmp_path: Path) -> None:
    path = weights_of(run_tiny())
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["snn-bench"])
    if break_it == "later":
        about |= {"format": 99, "suite": "9.9.9"}
    elif break_it == "shape":
        tensors["head.bias"] = torch.zeros(3)
    elif break_it == "lacking":
        del tensors["head.bias"]
    elif break_it == "unknown":
        about["model"]["name"] = "cnnn"
    elif break_it == "argument":
        about["model"]["args"]["chanels"] = about["model"]["args"].pop("channels")
    elif break_it == "partial":
        del about["mean"]
    target = tmp_path / "model.safetensors"
    save_file(tensors, target, None if break_it == "stranger" else {"snn-bench": json.dumps(about)})
    if break_it == "garbage":
        target.write_bytes(target.read_bytes()[:100])
    with pytest.raises(BenchError) as caught:
        store.load(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_without_weights_and_a_name_that_is_none(run_tiny: RunTiny, tmp_path: Path) -> None:
    result = run_tiny()
    with pytest.raises(BenchError, match=f"Did you mean '{result['run_id'][:10]}"):
        store.load(result["run_id"][:-2] + "xx")
    folder = weights_of(result).parent
    shutil.rmtree(folder / "checkpoints")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BenchError, match=r"has a record but no model\.safetensors.*force=true"):
        store.load(folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BenchError, match="holds neither"):
        store.load(tmp_path / "nothing")


def test_forcing_a_run_clears_its_weights(run_tiny: RunTiny) -> None:
    path = weights_of(run_tiny())
    before = path.read_bytes()
    path.write_bytes(b"old")
    run_tiny("force=true")
    assert path.read_bytes() == before


def test_building_a_network_again_draws_nothing_from_the_global_generators(run_tiny: RunTiny) -> None:
    path = weights_of(run_tiny())
    said, _ = store.read_weights(path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rebuild(said, "here")
    assert torch.equal(torch.rand(3), expected)


def test_a_network_of_local_learning_is_loaded(shared_data: Path) -> None:
    cfg = compose(["budget=smoke", "model=diehl_cook", "model.neurons=20", "model.present=50", "model.pause=20",
                   "logger=none", f"data.root={shared_data}", "reg=uselose", "data.limit=20",
                   "data.test_limit=20"])  # fmt: skip
    result = run(cfg)
    splits = batches(cfg)
    images = splits.test.stored[0][:6]
    folder = weights_of(result).parent
    network = store.load(folder)
    seen = network.predict(images, batch_size=6)
    task = make_task(cfg, splits)
    task.load_state_dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    features, activity = task.forward_t(next(iter(splits.test))[0][:6])
    assert torch.equal(task.model.logits(features).argmax(1), seen.classes)
    assert seen.spikes is not None
    assert seen.spikes.sum() == sum(int(layer.count) for layer in activity.values())  # type: ignore[arg-type]
