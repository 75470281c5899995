"""Temporal batch norms and batch norm of the potential, against numbers by hand, plain torch and SpikingJelly's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer as sj
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import Spec
from bench.neurons import NeuronConfig, Read, Spiking
from bench.ops import Backend, ConvNorm, explain, fire_block, using
from bench.regularizers.averaging import measure_anew
from bench.regularizers.ema import EMA
from bench.regularizers.mpbn import ChannelThresholds, MembranePotentialBatchNorm, PotentialNorm, folded
from bench.regularizers.stepping import momentum
from bench.regularizers.temporalbn import (
    BatchNormThroughTime,
    Form,
    TemporalBatchNorm,
    TemporalEffectiveBatchNorm,
)
from bench.regularizers.weightnorm import WeightNorm
from bench.training.together import owners

T, N, C = 3, 5, 4
ODD = (T * N, C, 3, 7)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def vary(module: nn.Module) -> None:
    """Give every parameter and every running statistic a value of its own."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator, dtype=torch.float64))


def gradients(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out, inputs, noise(*out.shape, seed=9)))


# Temporal effective batch norm.


def test_tebn_by_hand() -> None:
    norm = TemporalEffectiveBatchNorm(nn.BatchNorm2d(1, eps=1e-15), time_steps=2).double()
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([1.0, 3.0]))
        norm.norm.weight.fill_(2.0)
        norm.norm.bias.fill_(1.0)
    x = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64).view(4, 1, 1, 1)  # steps {1, 3} and {5, 7}
    # Mean 4 and variance 5 over both steps: p (2 (x - 4) / sqrt 5 + 1).
    root = 5**0.5
    wanted = [1 - 6 / root, 1 - 2 / root, 3 + 6 / root, 3 + 18 / root]
    assert norm(x).flatten().tolist() == pytest.approx(wanted)
    assert norm.norm.running_mean.item() == pytest.approx(0.4)
    assert norm.norm.running_var.item() == pytest.approx(0.9 + 0.1 * 20 / 3)  # unbiased


@pytest.mark.parametrize("training", [True, False])
def test_tebn_is_spikingjellys(training: bool) -> None:
    stock = sj.TemporalEffectiveBatchNorm2d(T, C).double()
    ours = TemporalEffectiveBatchNorm(nn.BatchNorm2d(C), T).double()
    vary(stock)
    own = {"scale": "scale"} | {f"norm.{k}": k for k in ("weight", "bias", "running_mean", "running_var")}
    state = stock.state_dict()
    ours.load_state_dict({k: state[v] for k, v in own.items()} | {"norm.num_batches_tracked": torch.tensor(0)})
    x = noise(*ODD).requires_grad_()
    stock.train(training)
    ours.train(training)
    a, b = ours(x), stock(x.unflatten(0, (T, N))).flatten(0, 1)
    torch.testing.assert_close(a, b)
    mine = gradients(a, x, ours.scale, ours.norm.weight, ours.norm.bias)
    theirs = gradients(b, x, stock.scale, stock.weight, stock.bias)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(ours.norm.running_var, stock.running_var)


def test_tebn_keeps_small_changes_of_its_scale_in_bfloat16() -> None:
    norm = TemporalEffectiveBatchNorm(nn.BatchNorm2d(1), 2).eval()
    x = torch.full((2, 1, 64, 64), 200.0, dtype=torch.bfloat16)
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([1.003, 1.003]))  # bfloat16 knows 1 and 1.0078
    assert norm(x).dtype is torch.bfloat16
    # 200.6 is rounded to 201, 200 stays.
    assert norm(x).float().unique().tolist() == [201.0]


# Batch norm through time.


def test_bntt_by_hand() -> None:
    norm = BatchNormThroughTime(nn.BatchNorm2d(1, eps=1e-15), time_steps=2).double()
    with torch.no_grad():
        norm.norms[1].weight.fill_(10.0)
    x = torch.tensor([1.0, 3.0, 5.0, 9.0], dtype=torch.float64).view(4, 1, 1, 1)
    # Means 2 and 7, deviations 1 and 2; no shift.
    assert norm(x).flatten().tolist() == pytest.approx([-1.0, 1.0, -10.0, 10.0])
    assert [n.running_mean.item() for n in norm.norms] == pytest.approx([0.2, 0.7])
    assert [n.running_var.item() for n in norm.norms] == pytest.approx([0.9 + 0.1 * 2, 0.9 + 0.1 * 8])
    assert [key for key, _ in norm.named_parameters()] == ["norms.0.weight", "norms.1.weight"]
    norm.eval()
    y = norm(torch.ones(4, 1, 1, 1, dtype=torch.float64)).flatten().tolist()
    assert y == pytest.approx([0.8 / 1.1**0.5] * 2 + [3 / 1.7**0.5] * 2)


@pytest.mark.parametrize("training", [True, False])
def test_bntt_is_spikingjellys(training: bool) -> None:
    stock = sj.BatchNormThroughTime2d(T, C, step_mode="m").double()
    ours = BatchNormThroughTime(nn.BatchNorm2d(C), T).double()
    vary(stock)
    ours.load_state_dict({k.replace("bn_list", "norms"): v for k, v in stock.state_dict().items()})
    x = noise(*ODD).requires_grad_()
    stock.train(training)
    ours.train(training)
    a, b = ours(x), stock(x.unflatten(0, (T, N))).flatten(0, 1)
    torch.testing.assert_close(a, b)
    weights = [[n.weight for n in norms] for norms in (ours.norms, stock.bn_list)]
    torch.testing.assert_close(gradients(a, x, *weights[0]), gradients(b, x, *weights[1]))
    for mine, theirs in zip(ours.norms, stock.bn_list, strict=True):
        torch.testing.assert_close(mine.running_mean, theirs.running_mean)
        torch.testing.assert_close(mine.running_var, theirs.running_var)


def test_bntt_keeps_the_replaced_norms_constants() -> None:
    norm = BatchNormThroughTime(nn.BatchNorm2d(C, eps=0.25, momentum=0.5), T)
    assert [(n.eps, n.momentum, n.num_features) for n in norm.norms] == [(0.25, 0.5, C)] * T


@pytest.mark.parametrize("kind", [TemporalEffectiveBatchNorm, BatchNormThroughTime])
@pytest.mark.parametrize("training", [True, False])
def test_the_static_stem_is_the_same_image_at_every_step(kind: Any, training: bool) -> None:
    stem, whole = (kind(nn.BatchNorm2d(C), T).double() for _ in range(2))
    for norm in (stem, whole):
        vary(norm)
        norm.train(training)
    x = noise(N, C, 3, 7).requires_grad_()
    a, b = stem(x, repeat=True), whole(x.repeat(T, 1, 1, 1))
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(gradients(a, x), gradients(b, x))
    statistics = [[v for k, v in n.named_buffers() if k.endswith("running_mean")] for n in (stem, whole)]
    torch.testing.assert_close(statistics[0], statistics[1])


# In a network.


@pytest.mark.parametrize("backend", [Backend.auto, Backend.reference])
@pytest.mark.parametrize("form", [Form.tebn, Form.bntt])
@pytest.mark.parametrize("arch", ["cnn", "sew", "convmixer"])
def test_every_norm_meets_each_step_with_its_own(arch: str, form: Form, backend: Backend, net) -> None:
    """Steps that differ in p or g alone differ in their currents; the stem's too."""
    model = net(arch, time_steps=T)
    TemporalBatchNorm(form=form).attach(model)
    norms = [block.norm for block in model.modules() if isinstance(block, ConvNorm)]
    kind = TemporalEffectiveBatchNorm if form is Form.tebn else BatchNormThroughTime
    assert norms
    assert all(isinstance(norm, kind) for norm in norms)
    with torch.no_grad():
        for norm in norms:
            # The last step alone has any current.
            for step in range(T - 1):
                if form is Form.tebn:
                    norm.scale[step] = 0.0
                else:
                    norm.norms[step].weight.zero_()
    with using(backend):
        model.features(torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    for name, layer in model.spiking_layers():
        assert layer.fired is not None
        assert not layer.fired[:-1].any(), name
    assert next(layer for _, layer in model.spiking_layers()).fired[-1].any()  # type: ignore[index]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("repeat", [True, False])
def test_kernels_and_reference_agree(form: Form, repeat: bool, net) -> None:
    model = net(time_steps=T)
    TemporalBatchNorm(form=form).attach(model)
    first = {}
    for backend in (Backend.auto, Backend.reference):
        own = copy.deepcopy(model)
        block, spiking = own.convs[0], own.spikings[0]
        vary(block.norm)
        x = torch.randn(5 if repeat else T * 5, 2, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with using(backend):
            out = fire_block(block, spiking, x, own.pool, repeat=repeat)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
        # The neuron alone stays with the kernels, or the norm too.
        assert explain(own) is None
        first[backend] = [out, x.grad, *(p.grad for p in block.norm.parameters())]
    assert len(first[Backend.auto]) == {Form.tdbn: 4, Form.tebn: 5, Form.bntt: 2 + T}[form]
    for a, b in zip(*first.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_tdbn_is_spikingjellys_in_the_suites_own_norm(net) -> None:
    model = net(time_steps=T)  # of threshold 1/2
    TemporalBatchNorm(form=Form.tdbn, alpha=0.7).attach(model)
    for block in model.convs:
        assert type(block.norm) is nn.BatchNorm2d
        assert block.norm.weight.tolist() == pytest.approx([0.35] * C)
    stock = sj.ThresholdDependentBatchNorm2d(0.7, 0.5, C).double()
    x = noise(*ODD)
    torch.testing.assert_close(model.convs[1].norm.double()(x), stock(x.unflatten(0, (T, N))).flatten(0, 1))


def test_tdbn_of_threshold_1_is_the_baseline_and_says_so(net, bench) -> None:
    def at(threshold: float) -> Any:
        model = net()
        model.spec = Spec((2, 8, 8), 3, 2, NeuronConfig(v_threshold=threshold))
        return bench(model, [TemporalBatchNorm(form=Form.tdbn)])

    assert at(1.0).regs[0].had_effect() is False
    assert at(0.5).regs[0].had_effect() is None
    plain = bench(net(), [])
    assert torch.equal(at(1.0).evaluate(), plain.evaluate())
    assert TemporalBatchNorm(form=Form.tebn).had_effect() is None


@pytest.mark.parametrize("form", [Form.tebn, Form.bntt])
def test_one_step_is_refused(form: Form, net) -> None:
    with pytest.raises(BenchError, match=r"^reg=temporalbn compares time steps, and time_steps is 1: it needs 2 or m"):
        TemporalBatchNorm(form=form).attach(net(time_steps=1))
    TemporalBatchNorm(form=Form.tdbn).attach(net(time_steps=1))


def test_a_network_without_batch_norm_is_refused(net) -> None:
    model = net()
    WeightNorm().attach(model)
    with pytest.raises(BenchError, match=r"^reg=temporalbn replaces batch norm behind convolutions, and CNN has none$"):
        TemporalBatchNorm().attach(model)
    with pytest.raises(BenchError, match=r"^reg=temporalbn reads thresholds, and neuron=relu has none"):
        TemporalBatchNorm(form=Form.tdbn).attach(net(neuron="relu"))
    with pytest.raises(BenchError, match=r"^reg\.temporalbn\.alpha is 0"):
        TemporalBatchNorm(alpha=0.0)


@pytest.mark.parametrize("order", [1, -1])
def test_only_one_replaces_the_norm(order: int) -> None:
    both = [("weightnorm", WeightNorm()), ("temporalbn", TemporalBatchNorm())][::order]
    with pytest.raises(BenchError, match=rf"^reg=\[{both[0][0]},{both[1][0]}\]: each replaces the normalization"):
        owners(dict(both))
    owners({"weightnorm": WeightNorm(), "mpbn": MembranePotentialBatchNorm()})


# Batch norm of the potential.


def steps_by_hand(
    x: Tensor, threshold: float, g: Tensor, b: Tensor, statistics: tuple[Tensor, Tensor] | None, soft: bool
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Spikes of IF neurons of `[T, N, C, ...]` currents with a normalized potential, one by one; each step's mean and
    unbiased variance."""
    u, spikes, seen = torch.zeros_like(x[0]), [], []
    axes = (0, *range(2, u.ndim))
    shape = (1, -1, *[1] * (u.ndim - 2))
    for current in x:
        u = u + current
        mean, var = (u.mean(axes), u.var(axes, unbiased=False)) if statistics is None else statistics
        seen.append((u.mean(axes), u.var(axes, unbiased=True)))
        normed = g.view(shape) * (u - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() + b.view(shape)
        spikes.append((normed >= threshold).to(u))
        u = u - threshold * spikes[-1] if soft else torch.where(normed >= threshold, torch.zeros_like(u), u)
    return torch.stack(spikes), seen


def spiking_with_norm(threshold: float, soft: bool, seed: int = 0, name: str = "if") -> Spiking:
    layer = Spiking(NeuronConfig(name, v_threshold=threshold, v_reset=None if soft else 0.0), T)
    layer.trigger = PotentialNorm(nn.BatchNorm2d(C), threshold, T)
    generator = torch.Generator().manual_seed(seed)
    layer.double()
    with torch.no_grad():
        layer.trigger.norm.weight.normal_(generator=generator)
        layer.trigger.norm.bias.normal_(generator=generator)
        layer.trigger.norm.running_mean.normal_(generator=generator)
        layer.trigger.norm.running_var.uniform_(0.2, 3.0, generator=generator)
    return layer


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), threshold=st.sampled_from([0.3, 1.0, 2.5]), soft=st.booleans(), training=st.booleans())
def test_mpbn_step_by_step(seed: int, threshold: float, soft: bool, training: bool) -> None:
    layer = spiking_with_norm(threshold, soft, seed).train(training)
    norm = layer.trigger.norm
    x = 2 * noise(*ODD, seed=seed)
    before = norm.running_mean.clone(), norm.running_var.clone()
    wanted, seen = steps_by_hand(
        x.unflatten(0, (T, N)), threshold, norm.weight.detach(), norm.bias.detach(), None if training else before, soft
    )
    layer.reads = frozenset({Read.spikes, Read.potential})
    assert torch.equal(layer(x), wanted.flatten(0, 1))
    # Potentials are those before the norm.
    assert layer.potential is not None
    torch.testing.assert_close(layer.potential[0], x[:N])
    if training:
        # T updates of a tenth leave 0.9^T of the old; the steps weigh alike.
        for place, (old, new) in enumerate(zip(before, (norm.running_mean, norm.running_var), strict=True)):
            mean = torch.stack([step[place] for step in seen]).mean(0)
            torch.testing.assert_close(new, 0.9**T * old + (1 - 0.9**T) * mean)
    else:
        assert torch.equal(norm.running_mean, before[0])
    assert norm.momentum == 0.1


def test_mpbns_gradient_flows_through_the_batch_statistics() -> None:
    """One step: autograd through the statistics, with ATan's slope at the normalized potential."""
    layer = Spiking(NeuronConfig(), 1)
    layer.trigger = PotentialNorm(nn.BatchNorm2d(C), 1.0, 1)
    layer.double()
    x = noise(N, C, 3, 7).requires_grad_()
    upstream = noise(N, C, 3, 7, seed=1)
    (mine,) = torch.autograd.grad(layer(x), x, upstream)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    normed = (x - mean) / (var + 1e-5).sqrt()
    slope = 1 / (1 + (torch.pi * (normed.detach() - 1)).square())  # alpha 2
    (theirs,) = torch.autograd.grad(normed, x, slope * upstream)
    torch.testing.assert_close(mine, theirs)
    # What goes back has no mean, as behind any batch norm.
    torch.testing.assert_close(mine.sum((0, 2, 3)), torch.zeros(C, dtype=torch.float64), atol=1e-12, rtol=0)


def test_thresholds_by_hand() -> None:
    trigger = PotentialNorm(nn.BatchNorm2d(4, eps=0.0), 1.0, T).double()
    with torch.no_grad():
        trigger.norm.weight.copy_(torch.tensor([2.0, -2.0, 0.0, 0.0]))
        trigger.norm.bias.copy_(torch.tensor([0.5, 0.5, 0.5, 1.0]))
        trigger.norm.running_mean.fill_(3.0)
        trigger.norm.running_var.fill_(4.0)
    thresholds = folded(trigger)
    # (1 - 0.5) 2 / 2 + 3, and with g < 0 as far below the mean; with g = 0 and b < V never, with b >= V always.
    assert thresholds.threshold.tolist() == [3.5, 2.5, float("inf"), -float("inf")]
    u = torch.tensor([3.4, 3.5, 2.5, 2.6, -9.0, 9.0], dtype=torch.float64).view(6, 1).expand(6, 4)
    fires = thresholds(u, 0) >= 0
    assert fires[:, 0].tolist() == [False, True, False, False, False, True]
    assert fires[:, 1].tolist() == [False, False, True, False, True, False]
    assert not fires[:, 2].any()
    assert fires[:, 3].all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), soft=st.booleans(), name=st.sampled_from(["if", "lif", "plif"]))
def test_folded_thresholds_give_the_same_spikes_and_gradients(seed: int, soft: bool, name: str) -> None:
    layer = spiking_with_norm(0.5, soft, seed, name).eval()
    x = (2 * noise(*ODD, seed=seed)).requires_grad_()
    spikes = layer(x)
    assume(bool(spikes.any()))
    by_norm = gradients(spikes, x)
    layer.trigger = folded(layer.trigger)  # type: ignore[arg-type]
    layer.forget()
    again = layer(x)
    assert torch.equal(spikes, again)
    torch.testing.assert_close(gradients(again, x), by_norm)


def test_a_channel_that_never_fires_has_finite_gradients() -> None:
    layer = Spiking(NeuronConfig(), T)
    layer.trigger = ChannelThresholds(torch.tensor([torch.inf, -torch.inf]), torch.ones(2))
    x = torch.randn(T * N, 2, 3, 3).requires_grad_()
    out = layer(x)
    out.sum().backward()
    assert not out[:, 0].any()
    assert out[:, 1].all()
    assert not x.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("arch", ["cnn", "sew", "convmixer"])
def test_bake_leaves_thresholds_that_fire_alike(arch: str, net, bench) -> None:
    reg = MembranePotentialBatchNorm()
    b = bench(net(arch), [reg]).train(3)
    b.model.double()
    b.x = b.x.double()
    with torch.no_grad():
        for _, layer in b.model.spiking_layers():
            assert isinstance(layer.trigger, PotentialNorm)
            layer.trigger.norm.weight[0] *= -1
    before = b.evaluate()
    reg.bake(b.model)
    assert all(isinstance(layer.trigger, ChannelThresholds) for _, layer in b.model.spiking_layers())
    torch.testing.assert_close(b.evaluate(), before, rtol=1e-12, atol=1e-12)
    assert {"no plain threshold"} == {layer.kernel_note.obstacle for _, layer in b.model.spiking_layers()}


def test_mpbn_has_a_norm_of_each_layers_channels(net, bench) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    MembranePotentialBatchNorm(gain=0.3).attach(model)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    for _, layer in model.spiking_layers():
        assert isinstance(layer.trigger.norm, nn.BatchNorm2d)
        assert layer.trigger.norm.weight.tolist() == pytest.approx([0.3] * C)
        assert layer.trigger.threshold == 0.5


def test_mpbn_goes_on_where_the_network_remembers(net, bench) -> None:
    b = bench(net(time_steps=4), [MembranePotentialBatchNorm()]).train(2)
    whole = b.model.eval()
    half = copy.deepcopy(whole)
    half.time_steps = 2
    for _, layer in half.spiking_layers():
        layer.time_steps = 2
    with torch.no_grad(), half.remembering():
        half.forget()
        parts = [half.features(b.x) for _ in range(2)]
        whole.forget()
        assert torch.equal(torch.cat(parts), whole.features(b.x))


def test_mpbn_on_fully_connected_layers() -> None:
    from bench.registry import MODELS

    torch.manual_seed(0)
    spec = Spec((1, 4, 4), 3, T, NeuronConfig())
    model = MODELS.get("mlp")(spec, hidden=[7])
    MembranePotentialBatchNorm().attach(model)
    x = torch.randn(6, 1, 4, 4)
    model.features(x)
    layer = model.spikings[0]
    current = model.linears[0](x.flatten(1)).expand(T, 6, 7)
    wanted, _ = steps_by_hand(current.double(), 1.0, torch.ones(7), torch.zeros(7), None, soft=False)
    assert torch.equal(layer.fired.double(), wanted)


def test_what_mpbn_does_not_know_is_refused(net) -> None:
    from bench.registry import MODELS

    with pytest.raises(BenchError, match=r"^reg=mpbn reads potentials, and neuron=relu has none"):
        MembranePotentialBatchNorm().attach(net(neuron="relu"))
    srm = MODELS.get("srm")(Spec((1, 4, 4), 3, 4, NeuronConfig()), hidden=5)
    with pytest.raises(BenchError, match=r"^reg=mpbn knows .* hidden of SRM is a ResponseNeuron$"):
        MembranePotentialBatchNorm().attach(srm)
    with pytest.raises(BenchError, match=r"^reg\.mpbn\.gain is 0"):
        MembranePotentialBatchNorm(gain=0.0)


# Beside what moves statistics.


@pytest.mark.parametrize("reg", [TemporalBatchNorm(), TemporalBatchNorm(Form.bntt), MembranePotentialBatchNorm()])
def test_a_pass_that_is_not_told_moves_no_statistics(reg: Any, net) -> None:
    model = net(time_steps=T)
    reg.attach(model)
    x = torch.randn(6, 2, 8, 8)
    before = copy.deepcopy(model.state_dict())
    with momentum(model, 0.0):
        model.features(x)
    model.forget()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.features(x)
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert any(key.endswith("running_mean") for key in moved)


def test_statistics_are_measured_anew_for_each_step(net) -> None:
    model = net(time_steps=T)
    TemporalBatchNorm(form=Form.bntt).attach(model)
    x = torch.randn(9, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    model.convs[1].conv.register_forward_hook(lambda _, __, out: seen.append(out))
    measure_anew(model, x)
    stem = model.convs[0].conv(x)
    for norm in model.convs[0].norm.norms:
        torch.testing.assert_close(norm.running_mean, stem.mean((0, 2, 3)))
    for norm, step in zip(model.convs[1].norm.norms, seen[0].unflatten(0, (T, 9)), strict=True):
        torch.testing.assert_close(norm.running_mean, step.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, step.var((0, 2, 3)))


def test_the_potentials_statistics_are_measured_anew_over_all_steps(net) -> None:
    model = net(time_steps=T)
    MembranePotentialBatchNorm().attach(model)
    layer = model.spikings[1]
    layer.reads = frozenset({Read.spikes, Read.potential})
    kept: list[Tensor] = []
    layer.register_forward_hook(lambda *_: kept.append(layer.potential))
    measure_anew(model, torch.randn(9, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    norm = layer.trigger.norm
    torch.testing.assert_close(norm.running_mean, kept[0].mean((1, 3, 4)).mean(0))
    torch.testing.assert_close(norm.running_var, kept[0].var((1, 3, 4)).mean(0))
    assert norm.momentum == 0.1


@pytest.mark.parametrize("make", [TemporalBatchNorm, lambda: TemporalBatchNorm(Form.bntt), MembranePotentialBatchNorm])
def test_averaged_weights_have_their_statistics(make: Any, net, bench) -> None:
    b = bench(net(), [make(), EMA(half_life=2.0)]).train(4)
    answers = b.evaluate()
    own = bench(net(), [make()], started=True)
    own.model.load_state_dict(b.model.state_dict())
    for parameter, mean in zip(own.model.parameters(), b.regs[1].means(), strict=True):
        parameter.data.copy_(mean)
    measure_anew(own.model, b.x)
    torch.testing.assert_close(answers, own.evaluate())
    for reg in reversed(b.regs):
        reg.bake(b.model)
    torch.testing.assert_close(b.evaluate(), answers, rtol=1e-4, atol=1e-5)


def test_an_average_comes_after_what_adds_parameters(net, bench) -> None:
    with pytest.raises(BenchError, match=r"^reg=ema: a regularizer named after it has added spikings.* name it last$"):
        bench(net(), [EMA(), MembranePotentialBatchNorm()]).train(1)
