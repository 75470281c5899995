"""The training step and the lists of steps, against a plain loop of torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.activity import Activity
from bench.config.component import settings
from bench.config.compose import compose
from bench.data import Splits, prepare
from bench.data.batches import Chunks
from bench.regularizers.masking import StepDropout
from bench.seeds import derive
from bench.training.setup import make_task
from bench.training.task import Task

Run = Callable[..., dict[str, Any]]
STEPS = ("data.limit=104", "trainer.precision=fp32")  # 13 steps of 8: a list of eight and one of five


@pytest.fixture
def build(tiny: tuple[str, ...], shared_data: Path) -> Callable[..., tuple[Task, Splits]]:
    def go(*overrides: str) -> tuple[Task, Splits]:
        cfg = compose([*tiny, f"data.root={shared_data}", *STEPS, *overrides])
        splits = prepare(settings(cfg.data), seed=cfg.seed, batch_size=cfg.trainer.batch_size)
        return make_task(cfg, splits), splits

    return go


@pytest.mark.parametrize("in_tensors", [False, True])
def test_regularizers_know_the_rate_of_the_step(in_tensors: bool, build: Callable[..., tuple[Task, Splits]]) -> None:
    """A number or, for steps that are replayed, a tensor; both as the schedule leaves it."""
    task, splits = build("reg=[rewire,spikepen]", "optim=adamw", "optim.lr=0.01")
    optimizer = task.make_optimizer(in_tensors=in_tensors)
    task.on_train_epoch_start()
    assert [reg.learning_rate.item() for reg in task.regs] == [0, 0]
    for rate, (x, y) in zip((0.01, 0.005), splits.train, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(rate) if in_tensors else rate
        task.step(x, y, optimizer)
        assert [reg.learning_rate.item() for reg in task.regs] == pytest.approx([rate, rate])
    assert "learning_rate" not in "".join(task.state_dict())


def test_lists_of_steps_are_steps(run_tiny: Run, build: Callable[..., tuple[Task, Splits]], tmp_path: Path) -> None:
    """Two epochs through the Trainer give, bit for bit, the weights of a loop that takes batch after batch."""
    reg = (
        "reg=[dropout,weight_decay]",
        "reg.weight_decay.weight=0.1",
        "optim=adamw",
        "optim.lr=0.01",
        "optim.clip=0.5",
    )
    result = run_tiny(*STEPS, *reg)
    task, splits = build(*reg)
    model = copy.deepcopy(task.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    gates = [module for module in model.modules() if isinstance(module, StepDropout)]
    losses, spikes = [], 0.0
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = (0.01, 0.005)[epoch]  # half a cosine of two epochs
        splits.train.set_epoch(epoch)
        for index, (x, y) in enumerate(splits.train):
            for layer, gate in enumerate(gates):
                gate.key = torch.tensor(derive(0, "mask", epoch, index, layer))
            model.forget()
            features = model.features(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(model.head(features.mean(0)), y)
            fired = [layer.fired for _, layer in model.spiking_layers()]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            if epoch == 1:
                losses.append(loss.item())
                spikes += sum(s.sum().item() for s in fired)
    assert index == 12
    folder = next((tmp_path / "runs").iterdir())
    trained = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(trained[f"model.{name}"], value), name
    assert result["train"]["loss"] == pytest.approx(sum(losses) / 13, rel=1e-6)
    assert result["train"]["spike_rate"] == pytest.approx(spikes / (2 * 104 * 4 * (32**2 + 16**2 + 8**2)), rel=1e-6)


def test_masks_follow_from_seed_epoch_step_and_layer(build: Callable[..., tuple[Task, Splits]]) -> None:
    """Whatever was drawn before, and whichever kernels draw: a resumed run has the masks of an uninterrupted one."""

    def masks_of(task: Task, step: int, warm: int) -> list[Tensor]:
        task.train()
        task.on_train_epoch_start()
        task.steps = step
        torch.rand(warm)
        task._seed()
        gates = [module for module in task.model.modules() if isinstance(module, StepDropout)]
        return [gate(torch.ones(16, 4, 3, 3)) for gate in gates for _ in range(2)]

    task, _ = build("reg=dropout", "reg.dropout.p=0.5", "time_steps=4")
    other, _ = build("reg=dropout", "reg.dropout.p=0.5", "time_steps=4", "ops=reference")
    first, again, elsewhere = masks_of(task, 3, 0), masks_of(other, 3, 5), masks_of(task, 4, 0)
    assert len(first) == 6
    for a, b, c in zip(first, again, elsewhere, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert all(not torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_chunks_hand_out_every_batch_once(build: Callable[..., tuple[Task, Splits]]) -> None:
    _, splits = build()
    for limit, sizes in ((None, [8, 5]), (20, [8, 5]), (10, [8, 2]), (8, [8]), (1, [1])):
        chunks = Chunks(splits.train, limit)
        for epoch in (0, 3):
            chunks.sampler.set_epoch(epoch)
            lists = list(chunks)
            splits.train.set_epoch(epoch)
            plain = list(splits.train)[: limit or 13]
            assert [len(part) for part in lists] == sizes
            assert (len(chunks), chunks.steps) == (len(sizes), len(plain))
            for (x, y), (x0, y0) in zip([batch for part in lists for batch in part], plain, strict=True):
                assert torch.equal(x, x0)
                assert torch.equal(y, y0)


def test_a_limit_counts_steps_not_lists(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_tiny(*STEPS, "trainer.limit_train_batches=10", "neuron.v_threshold=1000")
    assert result["train_images"] == 80
    assert "warning: no spike in 10 steps" in capsys.readouterr().out


def test_divergence_names_the_step(run_tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    plain = Task.logits_and_loss

    def once(self: Task, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal seen
        logits, loss = plain(self, features, y)
        seen += self.training
        return logits, loss * float("nan") if seen == 13 + 11 else loss

    monkeypatch.setattr(Task, "logits_and_loss", once)
    result = run_tiny(*STEPS)
    assert result["status_reason"] == "the loss became NaN or infinite in epoch 2, by step 11"


def test_penalties_of_an_epoch_are_means_over_steps(
    run_tiny: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bench.regularizers.spikepen import SpikePenalty

    count = iter(range(1, 27))

    def penalty(self: SpikePenalty, activity: Activity) -> dict[str, Tensor]:
        return {"spikepen": torch.tensor(float(next(count)))}

    monkeypatch.setattr(SpikePenalty, "penalty", penalty)
    run_tiny(*STEPS, "reg=spikepen")
    (lines,) = (tmp_path / "runs").glob("*/metrics.jsonl")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["penalties"]["spikepen"] for row in rows] == [7.0, 20.0]  # means of 1..13 and of 14..26
