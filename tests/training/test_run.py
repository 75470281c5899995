"""One run from configuration to record: the record, skipping, resuming, diverging, and what goes wrong on disk."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bench.errors import BenchError, EnvironmentFault
from bench.records.provenance import NUMERICS
from bench.records.schema import SCHEMA, validate

Run = Callable[..., dict[str, Any]]
Bench = Callable[..., subprocess.CompletedProcess[str]]

# What a clock or a machine decides; everything else in a record must repeat.
INCIDENTAL = {"train_images_per_s", "seconds", "peak_memory_bytes", "started", "finished"}


def scientific(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in INCIDENTAL}


def folder_of(result: dict[str, Any]) -> Path:
    return Path(os.environ["BENCH_RUNS"]) / result["run_id"]


def test_a_record_holds_what_the_schema_says(run_tiny: Run) -> None:
    result = run_tiny("reg=[weight_decay,spikepen]", "reg.spikepen.weight=0.5", "data.val_fraction=0.2", "seed=3")
    folder = folder_of(result)
    assert json.loads((folder / "result.json").read_text()) == result
    assert list(result) == list(SCHEMA)
    assert result["run_id"].startswith("digits-cnn-weight_decay+spikepen-s3-")
    assert (result["train_images"], result["test_images"], result["classes"]) == (40, 30, 10)
    assert (result["epochs"], result["batch_size"], result["seed"], result["time_steps"]) == (2, 8, 3, 2)
    assert result["strength"] is None, "two strengths are no one number"
    assert result["regs"]["spikepen"]["weight"] == 0.5
    assert result["weight_decay"] == result["regs"]["weight_decay"]["weight"]
    assert result["val"] is not None
    assert result["gap"] == pytest.approx(result["train"]["acc_eval"] - result["test"]["acc"])
    assert [layer["neurons"] for layer in result["layers"]] == [4 * 32 * 32, 4 * 16 * 16, 4 * 8 * 8]
    spikes = sum(layer["neurons"] * layer["spike_rate"] for layer in result["layers"])
    assert result["test"]["spike_rate"] == pytest.approx(spikes / (4 * (32**2 + 16**2 + 8**2)))
    mean = sum(layer["spike_rate"] for layer in result["layers"]) / 3
    assert result["test"]["spike_rate_layer_mean"] == pytest.approx(mean)
    # 1 -> 4, 4 -> 4, 4 -> 4 channels of 3x3 with bias, three batch norms, 4 * 4 * 4 features to 10 classes.
    assert result["params"] == (9 * 4 + 4) + 2 * (36 * 4 + 4) + 3 * 8 + (64 * 10 + 10)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[1]["lr"] == pytest.approx(rows[0]["lr"] / 2), "half way of a cosine"
    assert rows[-1]["train"]["acc"] == result["train"]["acc"]
    assert result["test_best_epoch"]["acc"] == max(row["test"]["acc"] for row in rows)
    assert rows[0]["penalties"]["spikepen"] > 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["reg"]["spikepen"]["weight"] == 0.5
    env = json.loads((folder / "env.json").read_text())
    assert env["data_copy"] == "embedded"
    assert env["versions"]["torch"] == torch.__version__.split("+")[0] or env["versions"]["torch"] == torch.__version__


def test_the_penalty_in_the_metrics_is_the_one_of_the_rates(run_tiny: Run) -> None:
    """Equation 3.1: weight times the sum over layers of half the layer's spike rate."""
    result = run_tiny("reg=spikepen", "reg.spikepen.weight=0.7")
    row = json.loads((folder_of(result) / "metrics.jsonl").read_text().splitlines()[0])
    assert row["penalties"]["spikepen"] == pytest.approx(0.7 * sum(row["layers"].values()) / 2, rel=1e-5)
    assert result["strength"] == 0.7


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["reg=[spikepen,weight_decay]", "reg.spikepen.weight=0"], ["spikepen"]),
        (["reg=[dropout,spikepen]", "reg.dropout.p=0", "reg.spikepen.weight=0.1"], ["dropout"]),
        (["reg=weightnorm"], []),
        # A strength above 0 that float32 cannot tell from none.
        (["reg=uselose", "reg.uselose.k_p=1e-12"], ["uselose"]),
        (["reg=uselose", "reg.uselose.r0=1"], []),
        (["reg=none"], []),
    ],
)
def test_a_regularizer_that_changed_nothing_is_named(
    run_tiny: Run, capsys: pytest.CaptureFixture[str], words: list[str], idle: list[str]
) -> None:
    result = run_tiny(*words)
    assert result["no_effect"] == idle
    said = capsys.readouterr().out
    assert all(f"{name} changed nothing in this run" in said for name in idle)
    assert ("changed nothing" in said) == bool(idle)


def test_a_finished_run_of_other_numerics_says_so(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_tiny()
    path = folder_of(result) / "result.json"
    assert result["numerics"] == NUMERICS
    path.write_text(json.dumps({**result, "numerics": NUMERICS - 1}))
    capsys.readouterr()
    run_tiny()
    assert f"(computed by numerics {NUMERICS - 1}; today's are {NUMERICS}); force=true" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_record_and_another_does_not(run_tiny: Run) -> None:
    first = run_tiny("reg=[dropout,uselose]")
    again = run_tiny("reg=[dropout,uselose]", "force=true")
    assert scientific(first) == scientific(again)
    other = run_tiny("reg=[dropout,uselose]", "seed=1")
    assert other["train"]["loss"] != first["train"]["loss"]


def test_strength_zero_is_the_baseline(run_tiny: Run) -> None:
    figures = ("train", "test", "gap", "layers", "synops_per_image", "params")
    baseline = run_tiny("reg=none")
    for name in ("spikepen.weight", "weight_decay.weight", "dropout.p", "uselose.k_p"):
        result = run_tiny(f"reg={name.split('.')[0]}", f"reg.{name}=0")
        assert [result[key] for key in figures] == [baseline[key] for key in figures], name


def test_a_finished_run_is_skipped_and_forced_again(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_tiny()
    stamp = (folder_of(first) / "result.json").stat().st_mtime_ns
    assert run_tiny() == first
    assert "is finished" in capsys.readouterr().out
    assert (folder_of(first) / "result.json").stat().st_mtime_ns == stamp
    again = run_tiny("force=true")
    assert scientific(again) == scientific(first)
    assert (folder_of(first) / "result.json").stat().st_mtime_ns != stamp
    assert len((folder_of(first) / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_finished_run_is_named_with_its_accuracy_in_two_digits(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder_of(run_tiny()) / "result.json"
    result = json.loads(path.read_text())
    result["test"]["acc"] = 100 / 3
    path.write_text(json.dumps(result))
    capsys.readouterr()
    run_tiny()
    assert capsys.readouterr().out.endswith(" is finished: test 33.33 %; force=true runs it again\n")


@pytest.mark.parametrize("named", ["BENCH_RUNS", "runs"])
def test_a_tilde_is_the_home(run_tiny: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str) -> None:
    """conftest.py sets the home."""
    monkeypatch.chdir(tmp_path)
    overrides = [] if named == "BENCH_RUNS" else ['runs="~/snn"']
    if named == "BENCH_RUNS":
        monkeypatch.setenv("BENCH_RUNS", "~/snn")
    result = run_tiny(*overrides)
    assert (tmp_path / "home" / "snn" / result["run_id"] / "result.json").is_file()
    assert not (tmp_path / "~").exists()
    assert run_tiny(*overrides) == result


def test_a_home_of_nobody_is_one_line(run_tiny: Run) -> None:
    with pytest.raises(BenchError, match=r"^the folder of the runs, ~no-such-user/snn: there is no home of that user$"):
        run_tiny('runs="~no-such-user/snn"')


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.betas=[0.9]", "optim.betas is [0.9], it must be two numbers in [0, 1)"),
        ("optim.betas=[0.9,0.99,0.999]", "optim.betas is [0.9, 0.99, 0.999], it must be two numbers in [0, 1)"),
        ("optim.betas=[1.0,.999]", "optim.betas is [1.0, 0.999], it must be two numbers in [0, 1)"),
        ("optim.betas=[-0.1,.999]", "optim.betas is [-0.1, 0.999], it must be two numbers in [0, 1)"),
        ("optim.betas=[nan,.999]", "optim.betas is [nan, 0.999], it must be finite"),
        ("neuron.tau=nan", "neuron.tau is nan, it must be finite"),
        ("neuron.v_threshold=inf", "neuron.v_threshold is inf, it must be finite"),
        ("neuron.v_reset=-inf", "neuron.v_reset is -inf, it must be finite"),
        ("neuron.alpha=nan", "neuron.alpha is nan, it must be finite"),
    ],
)
def test_a_number_out_of_range_is_one_line(run_tiny: Run, override: str, said: str) -> None:
    """The neuron's also where it passes them over: a network of IF neurons has no tau."""
    with pytest.raises(BenchError) as refused:
        run_tiny(override)
    assert str(refused.value) == said


def test_a_single_value_is_nothing_to_normalize_by(bench: Bench) -> None:
    """The digits are padded to 32 x 32: one patch of that size leaves one pixel, patches of 16 leave four."""
    net = ("model=convmixer", "model.width=4", "model.depth=1", "logger=none", "data.limit=10", "data.test_limit=10")
    small = (*net, "trainer.batch_size=1", "trainer.epochs=1")
    done = bench("run", *small, "model.patch=32")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(
        "error: model.stem.norm normalizes each channel over a batch, which here is a single "
    )
    assert "raise trainer.batch_size" in done.stderr
    assert not Path(os.environ["BENCH_RUNS"]).exists()
    assert bench("run", *small, "model.patch=16").returncode == 0
    assert bench("run", *small, "model.patch=32", "trainer.batch_size=2").returncode == 0


def test_what_changes_no_number_changes_no_identity(run_tiny: Run, tmp_path: Path) -> None:
    first = run_tiny()
    assert run_tiny("logger.project=other", "trainer.accelerator=cpu")["run_id"] == first["run_id"]
    assert run_tiny("optim.momentum=0.8")["run_id"] != first["run_id"]


def test_limited_steps_are_what_the_record_counts(run_tiny: Run) -> None:
    """Two steps of 8 and one evaluation batch of 8 * 8, of a set that is sorted by class."""
    limits = (
        "trainer.limit_train_batches=2",
        "trainer.limit_test_batches=1",
        "data.limit=null",
        "data.test_limit=null",
    )
    result = run_tiny(*limits)
    assert (result["train_images"], result["test_images"]) == (16, 64)
    row = json.loads((folder_of(result) / "metrics.jsonl").read_text().splitlines()[0])
    assert row["images"] == 16


def test_relu_twin_has_no_spikes(run_tiny: Run) -> None:
    result = run_tiny("neuron=relu", "reg=spikepen")
    assert result["time_steps"] == 1
    assert result["test"]["spike_rate"] is None
    assert result["synops_per_image"] is None
    assert result["macs_per_image"] > 0
    assert result["layers"] == []


def test_a_diverged_run_has_a_record_that_says_so(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # Weight norm in place of batch norm: that would bring any weights' output back to 1.
    explosive = ("reg=weightnorm", "optim=sgd", "optim.lr=1e38", "trainer.epochs=3")
    result = run_tiny(*explosive)
    assert result["status"] == "diverged"
    assert "NaN or infinite in epoch" in result["status_reason"]
    assert result["test"]["acc"] is None
    validate(json.loads((folder_of(result) / "result.json").read_text()))
    assert "diverged" in capsys.readouterr().out
    assert run_tiny(*explosive) == result, "it is skipped like any other"
    assert f"is finished: it diverged ({result['status_reason']}); force=true" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_silent_layer_is_warned_of_once(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_tiny("neuron.v_threshold=1000")
    out = capsys.readouterr().out
    assert out.count("warning: no spike in") == 1
    assert "spikings.0, spikings.1, spikings.2" in out


def test_gradient_clipping_bounds_the_step(run_tiny: Run) -> None:
    """With a clip near 0 SGD moves nowhere: the loss of both epochs is that of the start, but for batch norm."""
    free = run_tiny("optim=sgd", "optim.lr=0.5")
    held = run_tiny("optim=sgd", "optim.lr=0.5", "optim.clip=1e-9")
    assert abs(held["train"]["loss"] - 2.3) < 0.5
    assert free["train"]["loss"] != held["train"]["loss"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("time_steps=0", "time_steps is 0, it must be at least 1"),
        ("trainer.epochs=0", "trainer.epochs is 0"),
        ("trainer.batch_size=-1", "trainer.batch_size is -1"),
        ("optim.lr=0", "optim.lr is 0, it must be above 0"),
        ("optim.lr=nan", "optim.lr is nan"),
        ("optim.clip=-1", "optim.clip is -1"),
        ("optim.momentum=1", "optim.momentum is 1"),
        ("trainer.accelerator=gpu", "torch sees no CUDA GPU"),
        ("reg.none=1", "reg.none"),
        ("model.depth=7", "model.depth=7 halves the image 7 times"),
    ],
)
def test_numbers_that_make_no_sense(run_tiny: Run, override: str, message: str) -> None:
    if "gpu" in override and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(BenchError, match=message):
        run_tiny(override)
    assert not Path(os.environ["BENCH_RUNS"]).exists(), "nothing half-written"


def test_two_processes_on_one_run(run_tiny: Run) -> None:
    result = run_tiny()
    before = sorted(p.name for p in folder_of(result).iterdir())
    with (folder_of(result) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentFault, match="another process is at work on"):
            run_tiny("force=true")
    assert sorted(p.name for p in folder_of(result).iterdir()) == before


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_result_cut_in_half(run_tiny: Run, keep: float) -> None:
    result = run_tiny()
    path = folder_of(result) / "result.json"
    half = path.read_text()[: int(len(path.read_text()) * keep)]
    path.write_text(half)
    with pytest.raises(BenchError, match=r"result.json.* is damaged .*force=true runs it again") as caught:
        run_tiny()
    assert str(caught.value).count(str(path)) == 1
    assert path.read_text() == half
    assert scientific(run_tiny("force=true")) == scientific(result)


def test_a_record_of_another_schema(run_tiny: Run) -> None:
    result = run_tiny()
    path = folder_of(result) / "result.json"
    path.write_text(json.dumps({**result, "schema_version": 99}))
    with pytest.raises(BenchError, match="schema_version is 99, this suite reads 1 to 3"):
        run_tiny()


def interrupt(result: dict[str, Any]) -> Path:
    """Make a finished run look as if it had been killed right before its record."""
    (folder_of(result) / "result.json").unlink()
    return folder_of(result)


def test_a_run_killed_before_its_record_only_evaluates_again(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_tiny()
    folder = interrupt(result)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tra')
    capsys.readouterr()
    assert scientific(run_tiny()) == scientific(result)
    out = capsys.readouterr().out
    assert "goes on after epoch 2 of 2" in out
    assert "epoch 1/2" not in out


@pytest.mark.parametrize("content", ["[]", "{}", '{"started"', "\u20ac"])
def test_a_damaged_env_json_of_a_run_to_continue(run_tiny: Run, content: str) -> None:
    folder = interrupt(run_tiny())
    (folder / "env.json").write_text(content, encoding="utf-16")
    with pytest.raises(BenchError, match=r"env.json is damaged.*force=true runs it again|env.json is damaged"):
        run_tiny()
    (folder / "env.json").write_text(content)
    with pytest.raises(BenchError, match=r"env.json is damaged"):
        run_tiny()
    assert run_tiny("force=true")["status"] == "finished"


@pytest.mark.parametrize("line", [b"[]\n", b"\xff\xfe\n", b"3\n"])
def test_a_damaged_line_of_metrics_is_told(run_tiny: Run, line: bytes) -> None:
    folder = interrupt(run_tiny())
    whole = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(line + whole)
    with pytest.raises(BenchError, match=r"metrics.jsonl has 0 epochs, its checkpoint has 2; force=true"):
        run_tiny()
    (folder / "metrics.jsonl").write_bytes(whole + line)
    assert run_tiny()["status"] == "finished"


def test_a_damaged_checkpoint(run_tiny: Run) -> None:
    folder = interrupt(run_tiny())
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BenchError, match=r"last.ckpt is damaged .*; force=true"):
        run_tiny()
    assert path.stat().st_size == 2000


def test_a_checkpoint_that_would_run_code(run_tiny: Run, tmp_path: Path) -> None:
    folder = interrupt(run_tiny())

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"state_dict": {}, "run_id": folder.name, "evil": Evil()}, folder / "checkpoints" / "last.ckpt")
    with pytest.raises(BenchError, match="is damaged"):
        run_tiny()
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_another_run_and_of_another_network(run_tiny: Run) -> None:
    other = run_tiny("model.channels=5")
    folder = interrupt(run_tiny())
    path = folder / "checkpoints" / "last.ckpt"
    foreign = torch.load(folder_of(other) / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(foreign, path)
    with pytest.raises(BenchError, match=f"belongs to the run {other['run_id']}".replace("+", r"\+")):
        run_tiny()
    torch.save({**foreign, "run_id": folder.name}, path)
    with pytest.raises(BenchError, match=r"of another network: 'model.convs.0.conv.weight' does not fit"):
        run_tiny()


def test_a_config_cut_in_half(run_tiny: Run) -> None:
    folder = interrupt(run_tiny())
    path = folder / "config.yaml"
    path.write_text(path.read_text()[:150])
    with pytest.raises(BenchError, match=r"config.yaml is damaged"):
        run_tiny()
    assert len(path.read_text()) == 150


def test_a_run_goes_on_though_the_suite_has_a_new_setting(run_tiny: Run) -> None:
    whole = run_tiny()
    folder = interrupt(whole)
    path = folder / "config.yaml"
    assert "init_seed: null\n" in path.read_text()
    path.write_text(path.read_text().replace("init_seed: null\n", ""))
    assert run_tiny()["run_id"] == whole["run_id"]
    assert "init_seed: null\n" in path.read_text()


def test_metrics_shorter_than_the_checkpoint(run_tiny: Run) -> None:
    folder = interrupt(run_tiny())
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(BenchError, match="has 1 epochs, its checkpoint has 2"):
        run_tiny()


def test_an_output_folder_that_cannot_be_written(run_tiny: Run, tmp_path: Path) -> None:
    """A file in the way: root, as in a container, may write to read-only folders."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match=r"cannot be written.*runs=DIR"):
        run_tiny(f"runs={tmp_path / 'file'}")


def test_a_full_disk_leaves_the_last_checkpoint(bench: Bench, run_tiny: Run, tiny: tuple[str, ...]) -> None:
    """The operating system refuses files above a limit, as it does when the disk is full."""
    size = (folder_of(run_tiny()) / "checkpoints" / "last.ckpt").stat().st_size
    failed = bench("run", *tiny, "seed=1", largest_file=size // 2)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "last.ckpt could not be written" in failed.stderr
    assert not list(Path(os.environ["BENCH_RUNS"]).glob("*-s1-*/checkpoints/*"))


KILLER = """
import os, signal
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("killer")
class Killer(Regularizer):
    "Kills the process at one step of the run, when asked to."
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", __import__("torch").zeros(()))
    def after_step(self, activity):
        self.steps += 1
        if self.steps == float(os.environ.get("KILL_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_in_a_late_epoch_and_started_again(bench: Bench, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Bit for bit the uninterrupted run, through masks, decay clocks, augmentation, order and schedule."""
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILLER)
    overrides = [*tiny, "reg=[dropout,uselose,weightnorm,killer]", "reg.weightnorm.data_init=true"]
    overrides += ["trainer.epochs=4", "data.mixup=0.2", "data.val_fraction=0.2", "logger=wandb"]

    def go(runs: str, **env: str) -> subprocess.CompletedProcess[str]:
        env |= {"BENCH_RUNS": str(tmp_path / runs), "BENCH_PLUGINS": str(plugin), "WANDB_MODE": "offline"}
        return bench("run", *overrides, env=env)

    whole = go("whole")
    assert whole.returncode == 0, whole.stderr
    killed = go("killed", KILL_AT="18")  # five steps an epoch: in the middle of the fourth
    assert killed.returncode == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("result.json"))
    resumed = go("killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "goes on after epoch 3 of 4" in resumed.stdout
    assert "epoch 4/4" in resumed.stdout
    assert "epoch 3/4" not in resumed.stdout
    first, second = (json.loads(next((tmp_path / r).rglob("result.json")).read_text()) for r in ("whole", "killed"))
    assert scientific(first) == scientific(second)
    lines = [next((tmp_path / r).rglob("metrics.jsonl")).read_text().splitlines() for r in ("whole", "killed")]
    for a, b in zip(*(map(json.loads, part) for part in lines), strict=True):
        for row in (a, b):
            del row["seconds"], row["images_per_s"]
        assert a == b
    # W&B: one history, with the epochs from before the kill in it.
    wandb = next((tmp_path / "killed").rglob("wandb"))
    assert len(list(wandb.glob("offline-run-*"))) == 1
    log = next(wandb.rglob("*.wandb"))
    shown = subprocess.run(
        [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", log], capture_output=True
    )
    history = [line for line in shown.stdout.decode().splitlines() if '"history"' in line]
    assert sum("test/acc" in line for line in history) == 4, shown.stdout[:2000]
