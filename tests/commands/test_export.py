"""`bench export` and `submit --weights`: networks that leave the machine, and are the same elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import bench as face
from bench.__main__ import main
from bench.commands import export, submit
from bench.errors import BenchError, EnvironmentFault

Bench = Callable[..., subprocess.CompletedProcess[str]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(run_tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """A real run, as if from a clean commit."""
    path = tmp_path / "runs" / str(run_tiny("reg=spikepen")["run_id"])
    for name in ("result.json", "env.json"):
        content = json.loads((path / name).read_text()) | {"commit": COMMIT}
        if name == "env.json":
            content |= {"dirty": False, "uncommitted": [], "plugins": {}}
        (path / name).write_text(json.dumps(content))
    return path


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    x = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        return torch.equal(one(x), other(x))


def test_a_folder_for_the_hub(bench: Bench, run: Path, tmp_path: Path) -> None:
    target = tmp_path / "hub"
    done = bench("export", run.name, "--hub", str(target))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert same(face.load(target), face.load(run))
    result = json.loads((run / "result.json").read_text())
    card = ModelCard.load(target / "README.md")
    (accuracy, *_) = [each for each in card.data.eval_results if each.metric_type == "accuracy"]
    assert accuracy.metric_value == result["test"]["acc"]
    assert accuracy.dataset_name == "digits"
    assert card.data.license == "mit"
    for said in ("SynOps", "pJ", result["data_checksum"], COMMIT, "Licence"):
        assert said in card.text
    # Whoever saves the weights anew loses what they say of themselves: config.json has it too.
    save_file(load_file(target / "model.safetensors"), target / "model.safetensors")
    assert same(face.load(target), face.load(run))
    again = bench("export", run.name, "--hub", str(target))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr


def test_a_run_from_before_is_exported_from_its_checkpoint(run: Path, tmp_path: Path) -> None:
    expected = face.load(run)
    (run / "model.safetensors").unlink()
    assert main(["export", str(run), "--hub", str(tmp_path / "hub")]) == 0
    assert same(face.load(tmp_path / "hub"), expected)


def test_an_entry_of_the_zoo(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", run.name, "--zoo", "tiny/cnn/spikepen"]) == 0
    entry = tmp_path / "reports" / "weights" / "tiny" / "cnn" / "spikepen"
    assert sorted(path.name for path in entry.iterdir()) == ["model.md", "model.safetensors"]
    assert 'bench.load("tiny/cnn/spikepen")' in (entry / "model.md").read_text()
    assert same(face.load("tiny/cnn/spikepen"), face.load(run))
    with pytest.raises(BenchError, match="Did you mean 'tiny/cnn/spikepen'"):
        face.load("tiny/cnn/spikpen")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "export where? Give --nir FILE, --onnx FILE, --hub DIR or --zoo NAME"),
        (("--hub", "a", "--zoo", "tiny/cnn/spikepen"), "one of the two"),
        (("--zoo", "cnn"), "an entry is called WORKLOAD/MODEL/REG"),
        (("--zoo", "../cnn/spikepen"), "an entry is called WORKLOAD/MODEL/REG"),
        (("--zoo", "tiny/sew/spikepen"), "the run's network is cnn, not sew"),
        (("--zoo", "tiny/cnn/none"), "the run's regularizer is spikepen, not none"),
    ],
)
def test_bad_targets_are_a_line(
    words: tuple[str, ...], said: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", run.name, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "reports").exists()


def test_what_nobody_could_repeat_is_not_for_the_zoo(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = json.loads((run / "env.json").read_text())
    (run / "env.json").write_text(json.dumps(env | {"dirty": True}))
    with pytest.raises(BenchError, match="tracked files differed from the commit"):
        export.main([run.name, "--zoo", "tiny/cnn/spikepen"])
    (run / "env.json").write_text(json.dumps(env))
    monkeypatch.setattr(submit, "LARGEST", 1000)
    with pytest.raises(BenchError, match="MB, the zoo takes at most"):
        export.main([run.name, "--zoo", "tiny/cnn/spikepen"])
    assert not (tmp_path / "reports" / "weights" / "tiny" / "cnn" / "spikepen").exists()
    (run / "result.json").unlink()
    with pytest.raises(BenchError, match="has no outcome"):
        export.main([run.name, "--hub", "hub"])


def test_weights_go_along_where_they_are_asked_for(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "records"
    said: list[str] = []
    submit.submit([run], records, said.append)
    assert not (records / run.name / "model.safetensors").exists()
    submit.submit([run], records, said.append, weights=True)
    assert said[-1].endswith("MB beside it")
    assert same(face.load(records / run.name), face.load(run))
    shutil.rmtree(records)
    monkeypatch.setattr(submit, "LARGEST", 1000)
    submit.submit([run], records, said.append, weights=True)
    assert "stay here" in said[-1]
    assert not (records / run.name / "model.safetensors").exists()
    (run / "model.safetensors").unlink()
    submit.submit([run], records, said.append, weights=True)
    assert said[-1] == f"{run.name}: it has no weights to go along"


def test_a_time_step_as_nir(bench: Bench, run_tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    nir = pytest.importorskip("nir")
    name = str(run_tiny("model.pool=avg")["run_id"])
    target = tmp_path / "out" / "net.nir"
    done = bench("export", name, "--nir", str(target))
    assert done.returncode == 0, done.stderr
    assert "by their mean over 2 steps" in done.stdout
    graph = nir.read(target)
    assert graph.metadata["run"] == name
    assert (graph.metadata["network"], graph.metadata["time_steps"]) == ("cnn", 2)
    again = bench("export", name, "--nir", str(target))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr


def test_a_time_step_as_onnx_gives_the_run_s_answers(
    bench: Bench, run_tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Run step by step by ONNX Runtime from rest, the mean of its outputs is what `bench.load` answers."""
    onnxruntime = pytest.importorskip("onnxruntime")
    name = str(run_tiny()["run_id"])
    target = tmp_path / "net.onnx"
    done = bench("export", name, "--onnx", str(target))
    assert done.returncode == 0, done.stderr
    network = face.load(name)
    pixels = torch.randint(256, (3, *network.spec.image_shape), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(str(target))
    image, *states = session.get_inputs()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (network.spec.mean, network.spec.std))
    feed = {image.name: ((pixels / 255 - mean) / std).numpy()}
    said = session.get_modelmeta().custom_metadata_map
    for state in states:
        rest = float(said[state.name[:-1] + "rest"])
        feed[state.name] = np.full((3, *state.shape[1:]), rest, np.float32)
    outputs = []
    for _ in range(network.time_steps):
        names = [each.name for each in session.get_outputs()]
        got = dict(zip(names, session.run(None, feed), strict=True))
        outputs.append(torch.from_numpy(got["logits"]))
        feed |= {state.name: got[f"{state.name}_next"] for state in states}
    probabilities = torch.stack(outputs).mean(0).softmax(1)
    torch.testing.assert_close(probabilities, network.predict(pixels).probabilities, rtol=1e-3, atol=1e-4)


def test_what_a_format_cannot_say_is_a_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nir")
    target = tmp_path / "net.nir"
    assert main(["export", run.name, "--nir", str(target)]) == 2
    error = capsys.readouterr().err
    assert "train with model.pool=avg" in error
    assert error.count("\n") == 1
    assert not target.exists()


@pytest.mark.parametrize("format", ["nir", "onnx"])
def test_a_missing_extra_is_a_line(format: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, format, None)
    with pytest.raises(BenchError, match=r"not installed: pip install 'snn-bench\[export\]'"):
        export.main([run.name, f"--{format}", str(tmp_path / "net")])


def test_a_file_where_none_can_be(run_tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("nir")
    name = str(run_tiny("model.pool=avg")["run_id"])
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="could not be written"):
        export.main([name, "--nir", str(tmp_path / "file" / "net.nir")])
