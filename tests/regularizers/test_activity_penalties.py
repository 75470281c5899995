"""Penalties on rates, SynOps and potentials, against numbers worked out by hand or by the suite's own counter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.activity import LayerActivity, OpCounter
from bench.errors import BenchError
from bench.neurons import Read
from bench.regularizers.margin import Form as MarginForm
from bench.regularizers.margin import Margin, gaussian_mass, hinge_margin
from bench.regularizers.membrane import Form as MembraneForm
from bench.regularizers.membrane import Membrane, im_loss, rmp_loss
from bench.regularizers.ratebounds import Population, RateBounds, lower_bound, upper_bound
from bench.regularizers.synops import Form, SynOps, synops_of_spikes

# T = 2, one image, two channels of two neurons: counts [[2, 0], [1, 1]].
SPIKES = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0], [0.0, 1.0]]]])


def layer(spikes: Tensor = SPIKES, potential: Tensor | None = None) -> LayerActivity:
    return LayerActivity(spikes, potential)


# Rates.


def test_bounds_by_hand() -> None:
    counts = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    assert lower_bound(counts, 1.5).item() == pytest.approx((0 + 1.5**2 + 2 * 0.25) / 4)
    assert lower_bound(counts, 1.5, 1).item() == pytest.approx((0 + 1.5 + 2 * 0.5) / 4)
    assert upper_bound(counts, 0.5).item() == pytest.approx((1.5**2 + 0 + 2 * 0.25) / 4)


@pytest.mark.parametrize(
    ("population", "upper"),
    [
        # Counts 2, 0, 1, 1 over the bound of 0.5: 1.5, 0, 0.5, 0.5.
        (Population.neuron, (1.5**2 + 2 * 0.25) / 4),
        # Both channels have a mean of 1, and so has the layer.
        (Population.channel, 0.25),
        (Population.layer, 0.25),
    ],
)
def test_rate_bounds_by_hand(population: Population, upper: float) -> None:
    reg = RateBounds(weight=2.0, lower=0.1, upper=0.25, lower_weight=3.0, population=population)
    # The lower bound of 0.2 spikes: one neuron of four lacks them.
    found = reg.penalty({"a": layer(), "b": layer(torch.zeros_like(SPIKES))})["ratebounds"].item()
    assert found == pytest.approx(2 * (upper + 3 * 0.04 / 4 + 3 * 0.04))


def test_images_are_bounded_one_by_one() -> None:
    two = torch.cat([torch.ones(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)], 1)
    reg = RateBounds(weight=1.0, lower=0.0, upper=0.5)
    # Two spikes a neuron on the first image, none on the second: their mean would be on the bound of one.
    assert reg.penalty({"a": layer(two)})["ratebounds"].item() == pytest.approx(0.5)


def test_targets_and_norms_are_settings() -> None:
    target = RateBounds(weight=1.0, lower=0.25, upper=0.25, population=Population.neuron)
    counts = torch.tensor([2.0, 0.0, 1.0, 1.0])
    assert target.penalty({"a": layer()})["ratebounds"].item() == pytest.approx((counts - 0.5).square().mean().item())
    norm = RateBounds(weight=1.0, lower=0.0, upper=0.0, order=1, population=Population.neuron)
    assert norm.penalty({"a": layer()})["ratebounds"].item() == pytest.approx(1.0)


def test_only_what_is_needed_is_read() -> None:
    assert set(RateBounds().reads) == {Read.neuron_counts, Read.channel_rates}
    assert set(RateBounds(lower=0.0).reads) == {Read.channel_rates}
    assert set(RateBounds(population=Population.neuron).reads) == {Read.neuron_counts}


# SynOps.


@pytest.mark.parametrize("arch", ["cnn", "sew", "convmixer"])
def test_fan_out_and_spikes_give_the_counters_synops(arch: str, net) -> None:
    """All spikes times what each causes are the SynOps that the counter finds; sums of spikes count by their value."""
    model = net(arch)
    images = torch.randn(20, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fan, spikes = synops_of_spikes(model, images)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    counter = OpCounter(model)
    model.train()
    with counter.attached(), torch.no_grad():
        model.forget()
        counter.batch(model.features(images))
    measured = counter.per_image()["synops_per_image"]
    assert measured is not None
    total = (fan * spikes).sum().item()
    if arch == "cnn":
        assert total == pytest.approx(measured, rel=1e-5)
    else:
        # Sums above 1 are one event of the counter's, and a pooled or averaged input is less than one.
        assert total == pytest.approx(measured, rel=0.35)


def test_synops_by_hand(net) -> None:
    reg = SynOps(weight=2.0, share=0.5)
    reg.attach(net())
    reg.fan.copy_(torch.tensor([10.0, 4.0]))
    reg.start.copy_(torch.tensor([20.0, 8.0]))
    # Four spikes of one image each: 40 + 16 SynOps, twice those at the start.
    activity = {"a": layer(), "b": layer()}
    assert reg.penalty(activity)["synops"].item() == pytest.approx(2 * (56 / 14 - 1) ** 2)
    reg.form = Form.plain
    assert reg.penalty(activity)["synops"].item() == pytest.approx(2 * 2)
    reg.form = Form.bound
    assert reg.penalty(activity)["synops"].item() == pytest.approx(2 * (3**2 + 3**2))
    reg.form, reg.synops = Form.target, 28.0
    assert reg.penalty(activity)["synops"].item() == pytest.approx(2 * 1)


def test_a_target_is_met_from_above_and_from_below(net, bench) -> None:
    for share in (0.5, 1.5):
        b = bench(net(), [SynOps(weight=1.0, share=share)], lr=0.02)
        b.forward(task_loss=False)
        start = b.penalties["synops"].item()
        for _ in range(60):
            b.step(task_loss=False)
        assert b.penalties["synops"].item() < 0.2 * start


# Potentials.


def test_potentials_by_hand() -> None:
    u = torch.tensor([0.2, -0.5, 0.9, 1.5])
    # At a threshold of 1/2: distances to the spikes 0, 0, 1, 1.
    assert rmp_loss(u, 0.5).item() == pytest.approx((0.2**2 + 0.5**2 + 0.1**2 + 0.5**2) / 4)
    assert rmp_loss(u, 0.5, 1.0).item() == pytest.approx(1.3 / 4)
    assert rmp_loss(2 * u, 1.0).item() == pytest.approx(rmp_loss(u, 0.5).item())
    assert im_loss(u, 1.0).item() == pytest.approx((2.1 / 4 - 1) ** 2)


def test_membrane_joins_layers(net) -> None:
    u, v = torch.full((1, 1, 2), 0.6), torch.full((1, 1, 2), 2.0)
    activity = {"a": layer(torch.zeros(1, 1, 2), u), "b": layer(torch.ones(1, 1, 2), v)}
    reg = Membrane(weight=3.0)
    reg.threshold = 1.0
    assert reg.penalty(activity)["membrane"].item() == pytest.approx(3 * (0.09 + 0.0) / 2)
    reg = Membrane(weight=3.0, form=MembraneForm.im)
    assert reg.penalty(activity)["membrane"].item() == pytest.approx(3 * (0.16 + 1.0))
    model = net()
    reg.attach(model)
    assert reg.threshold == 0.5


def test_margins_by_hand() -> None:
    u = torch.tensor([0.8, 1.3, 0.0, 1.0])
    assert hinge_margin(u, 1.0, 0.5).item() == pytest.approx((0.3 + 0.2 + 0 + 0.5) / 4)
    # One channel, potentials 1 above and 1 below the threshold: mean 0, deviation 1.
    pair = torch.tensor([2.0, 0.0]).view(1, 2, 1)
    assert gaussian_mass(pair, 1.0, 1.0).item() == pytest.approx(math.erf(1 / math.sqrt(2)), abs=1e-6)
    # And one whose mean is 1 higher: Phi(2) - Phi(0).
    assert gaussian_mass(pair + 1, 1.0, 1.0).item() == pytest.approx(math.erf(2 / math.sqrt(2)) / 2, abs=1e-6)
    # Channels and time steps are averaged, not mixed.
    both = torch.cat([pair, pair + 1], 2)
    assert gaussian_mass(both, 1.0, 1.0).item() == pytest.approx(
        (math.erf(1 / math.sqrt(2)) + math.erf(2 / math.sqrt(2)) / 2) / 2, abs=1e-6
    )


def test_the_hinge_rises_over_the_training(net) -> None:
    u = torch.full((1, 1, 2), 1.0)
    reg = Margin(weight=2.0, margin=0.5)
    for progress, share in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        reg.progress.fill_(progress)
        found = reg.penalty({"a": layer(torch.zeros(1, 1, 2), u)})["margin"].item()
        assert found == pytest.approx(2 * share * 0.5, abs=1e-6)
    flat = Margin(weight=2.0, margin=0.5, form=MarginForm.gaussian)
    assert flat.penalty({"a": layer(torch.zeros(1, 1, 2), u)})["margin"].item() == pytest.approx(2.0)


def test_the_margin_is_where_the_surrogates_slope_is_half(net) -> None:
    model, reg = net(), Margin()
    reg.attach(model)
    alpha = model.spec.neuron.alpha

    def slope(x: float) -> float:
        return alpha / 2 / (1 + (math.pi / 2 * alpha * x) ** 2)

    assert slope(reg.width) == pytest.approx(slope(0) / 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RateBounds(lower=0.3), r"reg\.ratebounds\.lower is 0\.3, it must not be above upper, which is 0\.1"),
        (lambda: RateBounds(order=3), r"reg\.ratebounds\.order is 3, it must be 1 or 2"),
        (lambda: SynOps(share=0.0), r"reg\.synops\.share is 0, it must be"),
        (lambda: SynOps(synops=math.nan), r"reg\.synops\.synops is nan, it must be"),
        (lambda: Membrane(order=0.0), r"reg\.membrane\.order is 0, it must be"),
        (lambda: Margin(margin=0.0), r"reg\.margin\.margin is 0, it must be"),
    ],
)
def test_numbers_have_ranges(make, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        make()


@pytest.mark.parametrize("make", [SynOps, Membrane, Margin])
def test_the_relu_twin_has_none_of_that(make, net) -> None:
    with pytest.raises(BenchError, match=r"reg=\w+ reads \w+, and neuron=relu has none: choose if, lif or plif"):
        make().attach(net(neuron="relu"))
