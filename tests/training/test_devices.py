"""One run over several devices, on the CPU: equal to one process, equal between processes; faults."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import ops
from bench.config.component import settings
from bench.config.compose import compose, read_config, settle
from bench.data import prepare
from bench.errors import BenchError, EnvironmentFault
from bench.records.identity import run_id, science
from bench.registry import REGULARIZERS
from bench.training.launcher import fault
from bench.training.setup import make_task

PATIENCE = 300  # seconds: three processes that import Lightning, on a machine that may be busy
Bench = Callable[..., subprocess.CompletedProcess[str]]
Together = Callable[[str, int], list[Any]]

# One optimizer step through the Trainer: batch norm in eval mode, everything in float64.
STEP = """
import lightning as L
from torch import nn
from bench.training import distributed, fit, setup
from bench import ops
from bench.config.compose import compose
from bench.config.component import settings
from bench.data import prepare
from bench.data.batches import Chunks
from bench.records.identity import science
from bench.training.task import Task

class Exact(Task):
    def on_train_start(self):
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def step(self, x, y, optimizer):
        super().step(x.double(), y, optimizer)
        # Lightning clears them before it evaluates.
        self.gradients = {name: p.grad.clone() for name, p in self.model.named_parameters()}

    def logits_and_loss(self, features, y):
        logits = self.model.head(features.mean(0))
        return logits, nn.functional.cross_entropy(logits, y)

    def evaluation_step(self, batch, split):
        super().evaluation_step((batch[0].double(), batch[1]), split)

def train(overrides, steps, kind=Task, double=False):
    cfg = compose(overrides)
    run = setup.settle_run(cfg, science(cfg))
    splits = prepare(settings(cfg.data), seed=cfg.seed, batch_size=cfg.trainer.batch_size)
    splits.train.take_share(distributed.rank(), distributed.ranks())
    setup.Task = kind
    task = setup.make_task(cfg, splits)
    if double:
        ops.set_backend(ops.Backend.reference)
        task.double()
    trainer = fit.make_trainer(run, [L.Callback()])
    trainer.fit(task, Chunks(splits.train, steps), [splits.test])
    return task
"""
BASE = (
    "model=cnn model.channels=4 model.depth=2 time_steps=2 logger=none trainer.precision=fp32 trainer.accelerator=cpu"
)


def test_averaged_gradients_are_those_of_the_joined_batch(together: Together, shared_data: Path) -> None:
    """Cross-entropy, and the spike penalty on top, in float64, of a plain loop over the whole batch."""
    overrides = [*BASE.split(), "data.limit=24", "data.test_limit=10", "trainer.batch_size=8", "trainer.epochs=1"]
    overrides += ["optim=sgd"]
    code = (
        STEP
        + f"""
regs = ["reg=none"], ["reg=spikepen", "reg.spikepen.weight=0.7"]
found = [train([*{overrides!r}, *reg], 1, Exact, double=True).gradients for reg in regs]
"""
    )
    cfg = compose([*overrides, f"data.root={shared_data}"])
    splits = prepare(settings(cfg.data), seed=0, batch_size=8)
    model = make_task(cfg, splits).model.double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x, y = next(iter(splits.train))
    with ops.using(ops.Backend.reference):
        logits = model(x.double().contiguous(memory_format=torch.channels_last))
    fired: list[Tensor] = [layer.fired for _, layer in model.spiking_layers()]
    loss = F.cross_entropy(logits, y)
    # Equation 3.1 of the thesis: half the mean of the squares, summed over layers.
    penalty = 0.7 * sum(0.5 * spikes.square().mean() for spikes in fired)
    parameters = dict(model.named_parameters())
    wanted = [
        torch.autograd.grad(loss, list(parameters.values()), retain_graph=True),
        torch.autograd.grad(loss + penalty, list(parameters.values())),
    ]
    first, second = together(code, 2)
    # The suite's penalty is float32.
    for gradients, others, expected, tolerance in zip(first, second, wanted, (1e-12, 1e-7), strict=True):
        for (name, gradient), value in zip(gradients.items(), expected, strict=True):
            assert torch.equal(gradient, others[name])
            torch.testing.assert_close(gradient, value, rtol=tolerance, atol=tolerance / 10)
    assert not torch.equal(first[0]["convs.0.conv.weight"], first[1]["convs.0.conv.weight"])
    assert float(first[0]["convs.0.conv.weight"].abs().max()) > 1e-3


@pytest.mark.slow
def test_devices_keep_the_same_parameters(together: Together) -> None:
    """Every registered regularizer and the forms of use-it-or-lose-it, ten steps; slow, as each is trained."""
    # Only a network with residual branches can leave some out.
    sew = ["model=sew", "model.depth=2", "model.blocks=1"]
    names = [[f"reg={name}", *(sew if name == "stochdepth" else ())] for name in REGULARIZERS.names()]
    names += [["reg=uselose", f"reg.uselose.form={form}"] for form in ("literal", "penalty")]
    # Parameters written in the forward pass, and an optimizer whose decay reads them.
    names += [["reg=[uselose,weightnorm,weight_decay]", "reg.uselose.form=literal", "optim=sgd"]]
    names += [["reg=weightnorm", "reg.weightnorm.mean_only_bn=true", "reg.weightnorm.data_init=true"]]
    small = [*BASE.split(), "data.limit=40", "data.test_limit=10", "trainer.batch_size=8", "trainer.epochs=2"]
    code = (
        STEP
        + f"""
found = []
for reg in {names!r}:
    task = train([*{small!r}, *reg], None)
    found.append({{**task.state_dict()}})
"""
    )
    for reg, *states in zip(names, *together(code, 2), strict=True):
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name]), (reg, name)
            assert torch.isfinite(value).all(), (reg, name)


def test_masks_differ_between_devices(together: Together) -> None:
    """Dropout on two devices that see the same images would else drop the same."""
    code = (
        STEP
        + """
from bench.ops import masks
from bench.regularizers.masking import StepDropout
drawn, draw = [], StepDropout.draw
def noting(self, device):
    drawn.append(draw(self, device))
    return drawn[-1]
StepDropout.draw = noting
small = ["data.limit=16", "data.test_limit=10", "trainer.batch_size=8", "trainer.epochs=1"]
train([*BASE.split(), *small, "reg=dropout"], 2)
found = [masks.keep((4, 8, 16), d.key.cpu(), d.lowest, fixed=False, channels=False) for d in drawn]
""".replace("BASE", repr(BASE))
    )
    first, second = together(code, 2)
    assert len(first) == len(second) == 4
    for a, b in zip(first, second, strict=True):
        assert 0.4 < float((a == b).float().mean()) < 0.9, "0.82 of two independent masks with p = 0.1 agree"


FROZEN = ("reg=weightnorm", "optim=sgd", "optim.lr=1e-30", "data.val_fraction=0.2", "data.crop=2")


@pytest.mark.slow
def test_a_record_of_two_devices(bench: Bench, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """A network that does not change: all counts are those of one process, none twice and none left out. Slow: two runs
    by the command line."""
    results, rows = {}, {}
    for devices in (1, 2):
        runs = tmp_path / str(devices)
        command = ["run", *tiny, *FROZEN, f"trainer.devices={devices}", "data.limit=100", "trainer.precision=fp32"]
        done = bench(*command, env={"BENCH_RUNS": str(runs)}, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("epoch 2/2") == 1
        (folder,) = runs.iterdir()
        results[devices] = json.loads((folder / "result.json").read_text())
        rows[devices] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert json.loads((folder / "env.json").read_text())["devices"] == devices
    one, two = results[1], results[2]
    assert one["run_id"] == two["run_id"]
    for split in ("train", "val", "test"):
        # A batch's loss is a float32 mean: of eight images, or of four on each device.
        assert two[split] == pytest.approx(one[split], rel=1e-6)
    assert [row["images"] for row in rows[2]] == [row["images"] for row in rows[1]] == [96, 96]
    for key in ("synops_per_image", "macs_per_image", "energy_uj"):
        assert two[key] == pytest.approx(one[key], rel=1e-12)
    assert two["layers"] == one["layers"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("trainer.devices=3", "trainer.batch_size=8 is not to be shared equally by 3 devices; 6 or 9 is"),
        ("trainer.devices=16", "trainer.batch_size=8 is not to be shared equally by 16 devices; 16 is"),
        ("trainer.devices=0", "trainer.devices is 0, it must be at least 1"),
        ("trainer.sync_batchnorm=true", "trainer.sync_batchnorm is for several devices"),
    ],
)
def test_settings_that_do_not_fit(run_tiny: Callable[..., Any], overrides: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=re.escape(message)) as caught:
        run_tiny(*overrides.split())
    assert caught.value.code == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("trainer.sync_batchnorm=true trainer.accelerator=cpu", "trainer.sync_batchnorm needs GPUs"),
        # Ten images make one batch of ten: the batch size that was asked for would do.
        (
            "trainer.batch_size=12 data.limit=10 trainer.devices=4",
            "a batch of 10 images is not to be shared equally by 4",
        ),
    ],
)
def test_what_only_the_processes_find_out(
    bench: Bench, tiny: tuple[str, ...], tmp_path: Path, overrides: str, message: str
) -> None:
    """One line, told once though each process finds it. Slow: they import Lightning before."""
    done = bench("run", *tiny, "trainer.devices=2", *overrides.split(), timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


CULPRIT = """
import os, signal
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("culprit")
class Culprit(Regularizer):
    "Kills the second process at one step of the run, or fails there, when asked to."
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", __import__("torch").zeros(()))
    def after_step(self, activity):
        self.steps += 1
        if self.steps == float(os.environ.get("AT", -1)) and os.environ.get("LOCAL_RANK") == "1":
            if os.environ["HOW"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("a bug")
"""


@pytest.mark.slow
def test_a_process_that_dies(bench: Bench, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Killed or failing in the second epoch: one line, no hang; then on, bit for bit, to the uninterrupted run's end.
    Slow: four runs by the command line."""
    plugin = tmp_path / "culprit.py"
    plugin.write_text(CULPRIT)
    overrides = ["run", *tiny, "reg=[dropout,uselose,culprit]", "trainer.devices=2"]

    def go(runs: str, **env: str) -> subprocess.CompletedProcess[str]:
        env |= {"BENCH_RUNS": str(tmp_path / runs), "BENCH_PLUGINS": str(plugin)}
        return bench(*overrides, env=env, timeout=PATIENCE)

    on = "; the same command goes on after the last finished epoch\n"
    killed = go("cut", HOW="kill", AT="8")
    assert (killed.returncode, killed.stderr) == (1, f"error: the process of device 1 was killed (SIGKILL){on}")
    failed = go("cut", HOW="fail", AT="8")
    assert failed.returncode == 1
    assert "goes on after epoch 1 of 2" in failed.stdout
    assert failed.stderr.endswith(f"error: device 1: ValueError: a bug{on}")
    assert failed.stderr.count("Traceback") == 1
    assert not list((tmp_path / "cut").rglob("result.json"))
    resumed, whole = go("cut"), go("whole")
    assert (resumed.returncode, whole.returncode) == (0, 0), resumed.stderr + whole.stderr
    states = [next((tmp_path / runs).rglob("last.ckpt")) for runs in ("cut", "whole")]
    cut, uncut = (torch.load(path, weights_only=True)["state_dict"] for path in states)
    for name, value in uncut.items():
        assert torch.equal(cut[name], value), name


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(tiny: tuple[str, ...], shared_data: Path, tmp_path: Path) -> None:
    """Exit status 130, how to go on, and nobody left. Slow: a run by the command line."""
    env = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "bench", "run", *tiny, "trainer.devices=2", "trainer.epochs=500"]
    # Whoever runs the tests in the background of a script hands down an ignored SIGINT.
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    signal.signal(signal.SIGINT, was)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; the same command goes on after the last finished epoch"
    assert "Traceback" not in err
    time.sleep(0.5)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.slow
def test_divergence_on_two_devices(bench: Bench, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """A record that says so, as of one process. Slow: a run by the command line."""
    explosive = ("reg=weightnorm", "optim=sgd", "optim.lr=1e38", "trainer.epochs=3", "trainer.devices=2")
    done = bench("run", *tiny, *explosive, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(next((tmp_path / "runs").rglob("result.json")).read_text())
    assert result["status"] == "diverged"
    assert re.fullmatch(r"the loss became NaN or infinite in epoch 1, by step \d", result["status_reason"])


def test_the_first_failure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tell(rank: int, **told: Any) -> None:
        (tmp_path / f"fault-{rank}.json").write_text(json.dumps({"rank": rank, "traceback": None, "code": 1, **told}))

    tell(0, line="RuntimeError: connection closed by peer", traceback="Traceback 0\n", time=2.0)
    killed = fault(tmp_path, [1, -9])
    assert isinstance(killed, EnvironmentFault)
    assert str(killed).startswith("the process of device 1 was killed (SIGKILL); the same command")
    tell(1, line="ValueError: x", traceback="Traceback 1\n", time=1.0)
    assert str(fault(tmp_path, [1, 1])).startswith("device 1: ValueError: x; the same command")
    assert capsys.readouterr().err == "Traceback 1\n"
    tell(1, line="model.depth=7 halves", code=2, time=3.0)
    assert (str(fault(tmp_path, [1, 2])), fault(tmp_path, [1, 2]).code) == ("model.depth=7 halves", 2)
    assert capsys.readouterr().err == ""


def test_the_processes_get_the_same_run(tiny: tuple[str, ...], shared_data: Path, tmp_path: Path) -> None:
    """Devices are no part of a run's identity, and what a process reads back is the configuration that was sent."""
    from omegaconf import OmegaConf

    cfg = compose([*tiny, f"data.root={shared_data}", "reg=[uselose,spikepen]", "neuron=lif"])
    shared = compose([*tiny, f"data.root={shared_data}", "reg=[uselose,spikepen]", "neuron=lif", "trainer.devices=2"])
    assert run_id(science(shared)) == run_id(science(cfg))
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(shared, resolve=True))
    assert settle(read_config(path)) == shared
    # As it was before runs could have several devices.
    fixed = compose(["model=cnn", "trainer.precision=fp32", f"data.root={shared_data}", "data.limit=40"])
    assert run_id(science(fixed)) == "digits-cnn-none-s0-1228697f"
