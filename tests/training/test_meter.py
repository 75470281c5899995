"""The meter of a pass against numbers worked out by hand, and the meters of two ranks against one that saw all."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from bench.activity import LayerActivity
from bench.training import distributed
from bench.training.meter import Meter

Batch = tuple[Tensor, Tensor, Tensor, dict[str, LayerActivity]]


def batch(answers: list[int], labels: list[int], loss: float, *spikes: Tensor) -> Batch:
    """Logits that answer so, labels, the batch's mean loss, and its spikes by layer."""
    logits = torch.nn.functional.one_hot(torch.tensor(answers), 3).float()
    activity = {name: LayerActivity(layer) for name, layer in zip("ab", spikes, strict=False)}
    return logits, torch.tensor(labels), torch.tensor(loss), activity


# 2 steps; layer a has 4 neurons, layer b one. Spikes: 6 of 24 and 6 of 6, then 2 of 8 and 0 of 2.
THREE = batch([0, 1, 2], [0, 1, 0], 1.0, torch.eye(4)[:1].expand(2, 3, 4), torch.ones(2, 3, 1))
ONE = batch([1], [1], 5.0, torch.eye(4)[1:2].expand(2, 1, 4), torch.zeros(2, 1, 1))


def test_a_pass_by_hand() -> None:
    """Batches count by their images: 3 of 4 right, a loss of (3 x 1 + 5) / 4, 14 spikes of 32 + 8."""
    meter = Meter()
    meter.update(*THREE)
    meter.update(*ONE)
    assert meter.images == 4
    assert meter.summary() == {
        "acc": 75.0, "loss": 2.0, "spike_rate": 14 / 40, "spike_rate_layer_mean": (8 / 32 + 6 / 8) / 2
    }  # fmt: skip


def test_soft_labels_count_by_their_largest_share() -> None:
    logits, _, loss, _ = THREE
    meter = Meter()
    meter.update(logits, torch.tensor([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7]]), loss, {})
    assert meter.summary() == {
        "acc": pytest.approx(200 / 3), "loss": 1.0, "spike_rate": None, "spike_rate_layer_mean": None
    }  # fmt: skip


def test_a_network_that_never_answers_has_no_accuracy_and_one_without_a_loss_none() -> None:
    meter = Meter()
    meter.update(None, THREE[1], None, THREE[3])
    assert meter.summary() == {
        "acc": None, "loss": None, "spike_rate": 12 / 30, "spike_rate_layer_mean": (6 / 24 + 1) / 2
    }  # fmt: skip


def test_a_meter_begins_anew_in_the_same_tensors() -> None:
    meter = Meter()
    meter.update(*THREE)
    sums = meter.sums()
    meter.restart()
    assert (meter.images, meter.rates.images) == (0, 0)
    assert [float(value) for value in sums] == [0.0] * 4
    meter.update(*ONE)
    assert [float(value) for value in sums] == [1.0, 5.0, 2.0, 0.0]
    # A replayed step adds to the sums unseen: two more batches like it are three images.
    for _ in range(2):
        meter.update(*ONE)
    meter.count(3)
    assert meter.summary()["spike_rate"] == 6 / 30


def test_images_seen_unseen_are_no_opportunities_for_spikes_without_layers() -> None:
    meter = Meter()
    meter.update(*THREE[:3], {})
    meter.count(3)
    assert (meter.images, meter.rates.images) == (3, 0)


def state(meter: Meter) -> tuple:
    """All that a meter knows, as plain numbers."""
    rates = meter.rates
    return (
        meter.summary(), meter.images, rates.images, rates.layers(),
        *({name: kept.tolist() for name, kept in masks.items()} for masks in (rates.ever, rates.always)),
    )  # fmt: skip


@pytest.mark.parametrize("empty", [None, 0, 1], ids=["both saw images", "rank 0 saw none", "rank 1 saw none"])
def test_joined_meters_are_one_that_saw_all(empty: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ranks gather is put in by hand; layer a's neurons 0 and 1 fire, each on one rank alone."""
    seen = [batches if rank != empty else [] for rank, batches in enumerate([[THREE], [ONE]])]
    whole = Meter(per_neuron=True)
    for one in itertools.chain(*seen):
        whole.update(*one)
    own: list[Meter] = []
    for batches in seen:
        meter = Meter(per_neuron=True)
        for one in batches:
            meter.update(*one)
        own.append(meter)
    told: list = []
    monkeypatch.setattr(distributed, "gather", lambda value: told.append(value) or [value])
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    for meter in own:
        meter.join()
    for rank, meter in enumerate(own):
        monkeypatch.setattr(distributed, "gather", lambda value: [*told])
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        meter.join()
        assert state(meter) == state(whole)
    dead = {None: 0.5, 0: 0.75, 1: 0.75}[empty]
    assert own[0].rates.layers()[0]["dead"] == dead
