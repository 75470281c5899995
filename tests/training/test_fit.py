"""A run that the device's memory is too small for: one line with the batch size that fits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import EnvironmentFault
from bench.models.cnn import CNN

Run = Callable[..., dict[str, Any]]


def memory_for(monkeypatch: pytest.MonkeyPatch, training: int, evaluating: int) -> None:
    """A device whose memory holds so many images, or fewer."""
    features = CNN.features

    def limited(self: CNN, x: Tensor) -> Tensor:
        if len(x) > (training if self.training else evaluating):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return features(self, x)

    monkeypatch.setattr(CNN, "features", limited)


@pytest.mark.parametrize(
    ("training", "evaluating", "said"),
    [
        (5, 100, "4 does"),
        (3, 100, "2 does"),
        (1, 100, "1 does"),
        (0, 100, "no batch size does, not even one image a device"),
        # An evaluation takes eight batches at a time: of 30 images all, at batch 2 sixteen.
        (100, 20, "2 does"),
        (100, 0, "no batch size does, not even one image a device"),
    ],
)
def test_the_batch_that_would_fit(
    run_tiny: Run, monkeypatch: pytest.MonkeyPatch, training: int, evaluating: int, said: str
) -> None:
    with monkeypatch.context() as patch:
        memory_for(patch, training, evaluating)
        with pytest.raises(
            EnvironmentFault, match=rf"^trainer.batch_size=8 does not fit into the .*; {said}$"
        ) as caught:
            run_tiny("reg=[dropout,weight_decay]", "optim.clip=1")
    assert caught.value.code == 1
    assert not list(Path(os.environ["BENCH_RUNS"]).rglob("result.json"))


def test_the_size_that_was_named_does_fit(run_tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(monkeypatch, training=5, evaluating=20)
    batch = 8
    for _ in range(3):
        try:
            result = run_tiny(f"trainer.batch_size={batch}")
            break
        except EnvironmentFault as fault:
            batch = int(re.search(r"; (\d+) does$", str(fault))[1])  # type: ignore[index]
    assert (result["status"], batch) == ("finished", 2)


def test_a_probe_leaves_nothing_behind(run_tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the fault the same run, with room, gives what it would have given at first."""
    with monkeypatch.context() as patch:
        memory_for(patch, 5, 100)
        with pytest.raises(EnvironmentFault):
            run_tiny("reg=dropout")
    second = run_tiny("reg=dropout")
    third = run_tiny("reg=dropout", "force=true")
    for key in ("train", "test", "layers"):
        assert second[key] == third[key]


def test_out_of_memory_on_the_command_line(bench: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path) -> None:
    plugin = tmp_path / "large.py"
    plugin.write_text("""
import torch
from bench.models.cnn import CNN
from bench.registry import MODELS

@MODELS.register("large")
class Large(CNN):
    "A network with room for five images."
    def features(self, x):
        if self.training and len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().features(x)
""")
    run = [line.replace("model=cnn", "model=large") for line in tiny]
    done = bench("run", *run, env={"BENCH_PLUGINS": str(plugin)}, timeout=300)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr == "error: trainer.batch_size=8 does not fit into the memory of this machine; 4 does\n"
