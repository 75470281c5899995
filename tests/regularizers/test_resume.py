"""A run with any method goes on after an interruption as if there had been none, whatever the method keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.registry import REGULARIZERS
from bench.training.task import Task

Run = Callable[..., dict[str, Any]]
NETWORK = {"stochdepth": ("model=sew", "model.depth=2", "model.blocks=1")}
"""Only a network with residual branches can leave some out."""
SETTINGS = {
    # Every third step of five an epoch: the count goes over an epoch's end.
    "sam": ("reg.sam.interval=3",),
    "swa": ("reg.swa.last=0.9",),
    "ema": ("reg.ema.half_life=2",),
    "rdrop": ("reg=[dropout,rdrop]",),
    "uselose": ("reg.uselose.form=literal",),
    "weightnorm": ("reg.weightnorm.mean_only_bn=true", "reg.weightnorm.data_init=true"),
}
"""What makes a method keep something that matters."""


def checkpoint(runs: Path) -> dict[str, Any]:
    (path,) = runs.rglob("last.ckpt")
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_an_interrupted_run_goes_on_bit_for_bit(
    name: str, run_tiny: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Slow: each method is trained twice."""
    overrides = ["trainer.epochs=3", f"reg={name}", *NETWORK.get(name, ("model.depth=2",)), *SETTINGS.get(name, ())]
    whole = run_tiny(*overrides, f"runs={tmp_path / 'whole'}")
    step, made = Task.step, []

    def interrupted(task: Task, *batch: Any) -> None:
        made.append(task.current_epoch)
        if len(made) == 8:
            raise KeyboardInterrupt
        step(task, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(*overrides, f"runs={tmp_path / 'parts'}")
    assert made[-1] == 1, "in the middle of the second epoch"
    parts = run_tiny(*overrides, f"runs={tmp_path / 'parts'}")
    for key in ("train", "test", "layers", "synops_per_image", "gap", "passes_per_step"):
        assert parts[key] == whole[key], key
    ends = [checkpoint(tmp_path / of)["state_dict"] for of in ("whole", "parts")]
    assert ends[0].keys() == ends[1].keys()
    for key, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][key]), key
