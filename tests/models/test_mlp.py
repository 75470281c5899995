"""The fully connected network: its Poisson inputs, and what use-it-or-lose-it does to its first layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.activity import OpCounter, activity_of
from bench.config.schema import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.models.base import Spec
from bench.models.mlp import MLP, Encoding, poisson
from bench.regularizers.uselose import Form, UseItOrLoseIt
from bench.training.task import Task

SPEC = Spec((1, 6, 6), 3, time_steps=10)


def test_a_pixel_is_a_rate() -> None:
    pixels = torch.tensor([[0.0, 0.25, 0.5, 1.0]])
    spikes = poisson(pixels, 20_000, rate=0.8, draw=torch.Generator().manual_seed(0))
    assert spikes.shape == (20_000, 1, 4)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    # Four standard deviations of a mean of 20,000 draws.
    assert spikes.mean((0, 1)).tolist() == pytest.approx([0.0, 0.2, 0.4, 0.8], abs=0.015)
    assert spikes[..., 0].sum() == 0
    # Independent from step to step: P(two in a row) is the square.
    assert (spikes[1:, 0, 2] * spikes[:-1, 0, 2]).mean().item() == pytest.approx(0.16, abs=0.015)


def test_the_gradient_passes_a_spike_as_its_probability() -> None:
    pixels = torch.tensor([[0.3, 0.9]], requires_grad=True)
    poisson(pixels, 4, rate=0.5).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.tolist() == [[2.0, 2.0]]  # 4 steps of rate 0.5


@pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0,)), ((0.31,), (0.17,))])
def test_black_stays_silent_under_any_normalization(mean: tuple[float], std: tuple[float]) -> None:
    net = MLP(replace(SPEC, mean=mean, std=std), [4], Encoding.poisson)
    pixels = torch.zeros(64, 1, 6, 6)
    pixels[:, :, 2:4, 2:4] = torch.linspace(0.2, 1, 64).view(-1, 1, 1, 1)
    for mode in (True, False):
        net.train(mode)
        spikes = net.encode((pixels - mean[0]) / std[0]).unflatten(-1, (6, 6))
        assert spikes[..., :2, :].sum() + spikes[..., 4:, :].sum() == 0
        assert spikes[..., 2:4, 2:4].mean().item() == pytest.approx(0.6, abs=0.05)
        # The brightest image is white: its inputs fire at every step.
        assert spikes[:, -1, 2:4, 2:4].mean().item() == pytest.approx(1.0, abs=0.02)


def test_training_draws_from_the_global_generator_and_evaluation_from_none() -> None:
    net, x = MLP(SPEC, [4], Encoding.poisson), torch.full((8, 1, 6, 6), 0.5)

    def spikes(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return net.encode(x)

    assert torch.equal(spikes(0), spikes(0))
    assert not torch.equal(spikes(0), spikes(1))
    net.eval()
    assert torch.equal(spikes(0), spikes(1))
    state = torch.get_rng_state()
    net.encode(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_bias_silence_in_is_silence_out() -> None:
    for bias, silent in ((False, True), (True, False)):
        torch.manual_seed(0)
        net = MLP(replace(SPEC, time_steps=40), [50, 30], Encoding.poisson, bias=bias)
        net(torch.zeros(2, 1, 6, 6))
        fired = sum(int(layer.spikes.count_nonzero()) for layer in activity_of(net).values())
        assert (fired == 0) is silent


def test_an_excitatory_start_has_no_negative_weights() -> None:
    torch.manual_seed(0)
    plain = MLP(SPEC, [8, 4])
    torch.manual_seed(0)
    net = MLP(SPEC, [8, 4], excitatory=True)
    assert torch.equal(net.linears[0].weight, plain.linears[0].weight.abs())  # type: ignore[arg-type,operator]
    assert torch.equal(net.linears[1].weight, plain.linears[1].weight)  # type: ignore[arg-type]


def test_input_spikes_are_synaptic_operations() -> None:
    """White images at full rate: 36 inputs x 10 steps x 4 neurons, then the head's events; directly they are MACs."""
    for encoding, synops, macs in ((Encoding.poisson, 36 * 10 * 4, 0), (Encoding.direct, 0, 36 * 4)):
        net = MLP(SPEC, [4], encoding).eval()
        net.head.weight.data.zero_()
        counter = OpCounter(net)
        with counter.attached():
            features = net.features(torch.ones(5, 1, 6, 6))
        counter.batch(features)
        found = counter.per_image()
        fired = int(features.count_nonzero()) / 5 * 3
        assert found["synops_per_image"] == pytest.approx(synops + fired)
        assert found["macs_per_image"] == macs


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"hidden": []}, "model.hidden is"),
        ({"hidden": [8, 0]}, "model.hidden is 0, it must be at least 1"),
        ({"rate": 0.0}, r"model.rate is 0, it must lie in \(0, 1\]"),
        ({"rate": 1.5}, "model.rate is 1.5"),
    ],
)
def test_knobs_out_of_range_get_one_line(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        MLP(SPEC, **knobs)


def digits_with_a_border(count: int = 32) -> tuple[Tensor, Tensor]:
    """Images whose outermost frame of pixels is black, three classes of bright bars."""
    draw = torch.Generator().manual_seed(3)
    y = torch.randint(3, (count,), generator=draw)
    x = 0.1 * torch.rand(count, 1, 6, 6, generator=draw)
    for image, label in zip(x, y.tolist(), strict=True):
        image[0, 1 + label : 3 + label, :] += 0.8
    frame = torch.ones(6, 6, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    x[:, 0, frame] = 0.0
    return x, y


@pytest.mark.parametrize("form", [Form.literal, Form.effective])
def test_weights_behind_silent_pixels_are_pruned(form: Form) -> None:
    """The paper's figure 2: after training and the flush, the silent border has no weight, the middle keeps its own."""
    torch.manual_seed(0)
    reg = UseItOrLoseIt(k_p=1.0, tau=4.0, r0=0.01, form=form)
    net = MLP(replace(SPEC, mean=(0.2,), std=(0.3,)), [12], Encoding.poisson)
    task = Task(net, {"uselose": reg}, OptimConfig(Optimizer.adamw, 0.01), seed=0, epochs=1)
    x, y = digits_with_a_border()
    normalized = (x - 0.2) / 0.3
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.01, weight_decay=0.0)
    net.train()
    task.on_train_epoch_start()
    for _ in range(40):
        task.step(normalized, y, optimizer)
    net.eval()
    reg.bake(net)
    weight = net.linears[0].weight.detach().unflatten(1, (6, 6)).abs().amax(0)
    silent = (x == 0).all(0)[0]
    assert int(silent.sum()) == 20
    # exp(-(40 / 4)^2) of what they were.
    assert weight[silent].max() < 1e-30
    # Weights start at up to 1/6: what is used at every step stays of that size.
    assert weight[~silent].min() > 0.05
