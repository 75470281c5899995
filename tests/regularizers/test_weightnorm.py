"""Weight normalization, mean-only batch norm and the data-dependent start, against numbers worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.errors import BenchError
from bench.ops import ConvNorm
from bench.regularizers.weightnorm import (
    MeanOnlyBatchNorm,
    WeightNorm,
    normalize_weight,
    scale_weight,
    transformations,
)


def test_eq_4_1_and_its_gradients_by_hand() -> None:
    layer = nn.Linear(2, 1, bias=False)
    normalize_weight(layer)
    chain = layer.parametrizations.weight
    with torch.no_grad():
        chain.original0.fill_(10.0)  # g
        chain.original1.copy_(torch.tensor([[3.0, 4.0]]))  # v, of length 5
    assert layer.weight.tolist() == [[6.0, 8.0]]
    layer(torch.tensor([[1.0, 0.0]])).backward()  # dL/dw = (1, 0)
    # Salimans & Kingma, eq. 3: dL/dg = dL/dw . v / 5, dL/dv = g / 5 dL/dw - g dL/dg / 25 v
    torch.testing.assert_close(chain.original0.grad, torch.tensor([[0.6]]))
    torch.testing.assert_close(chain.original1.grad, torch.tensor([[2 - 0.24 * 3, -0.24 * 4]]))


@pytest.mark.parametrize("arch", ["cnn", "sew", "convmixer"])
@pytest.mark.parametrize("mean_only_bn", [False, True])
def test_replaces_every_batch_norm_and_keeps_the_weights(arch: str, mean_only_bn: bool, net) -> None:
    plain, model = net(arch), net(arch)
    WeightNorm(mean_only_bn=mean_only_bn).attach(model)
    found = dict(model.named_modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.values())
    blocks = [name for name, m in plain.named_modules() if isinstance(m, ConvNorm)]
    assert blocks
    for name in blocks:
        before, after = plain.get_submodule(name), found[name]
        assert isinstance(after.norm, MeanOnlyBatchNorm if mean_only_bn else nn.Identity)
        torch.testing.assert_close(after.conv.weight, before.conv.weight)
        assert torch.equal(after.conv.bias, before.conv.bias)


def test_mean_only_batch_norm_by_hand() -> None:
    norm = MeanOnlyBatchNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 10.0]))
    x = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]], [[[5.0, 7.0]], [[6.0, 8.0]]]])  # [B=2, C=2, 1, 2]
    # Means over batch and space: 4 and 6.
    assert norm(x).tolist() == [[[[-6.0, -2.0]], [[9.0, 9.0]]], [[[2.0, 6.0]], [[10.0, 12.0]]]]
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.4, 0.6]))  # momentum 0.1
    norm.eval()
    torch.testing.assert_close(norm(x)[0], torch.tensor([[[1.2, 5.2]], [[14.4, 14.4]]]))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.4, 0.6]))


def test_mean_only_batch_norm_is_batch_norm_without_the_division() -> None:
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 2
    x.requires_grad_()
    stock, ours = nn.BatchNorm2d(3, eps=1e-12).double(), MeanOnlyBatchNorm(3).double()
    deviation = x.detach().var((0, 2, 3), unbiased=False).sqrt().view(1, 3, 1, 1)
    torch.testing.assert_close(ours(x), stock(x) * deviation)
    torch.testing.assert_close(ours.running_mean, stock.running_mean)
    # Salimans & Kingma, eq. 8: the gradient that goes back has its mean subtracted.
    upstream = torch.randn_like(x)
    (back,) = torch.autograd.grad(ours(x), x, upstream)
    torch.testing.assert_close(back, upstream - upstream.mean((0, 2, 3), keepdim=True))


def test_mean_only_batch_norm_keeps_float32_statistics() -> None:
    norm = MeanOnlyBatchNorm(1)
    x = torch.full((64, 1, 16, 16), 1.0, dtype=torch.bfloat16)
    x[0, 0, 0, 0] = 200.0
    out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(norm.running_mean.item(), 0.1 * (1 + 199 / x.numel()))


@pytest.mark.parametrize("arch", ["cnn", "sew", "convmixer"])
@pytest.mark.parametrize("mean_only_bn", [False, True])
def test_data_init_gives_each_channel_mean_0_and_variance_1(arch: str, mean_only_bn: bool, net) -> None:
    model = net(arch, time_steps=3)
    reg = WeightNorm(mean_only_bn=mean_only_bn, data_init=True)
    reg.attach(model)
    images = torch.randn(50, 2, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.7
    reg.initialize(model, images)
    assert model.training
    currents = {}

    def note(module, inputs, output):
        currents[module] = output

    for m in model.modules():
        if isinstance(m, ConvNorm):
            m.register_forward_hook(note)
            v = m.conv.parametrizations.weight.original1
            assert v.std().item() == pytest.approx(0.05, rel=0.5)  # as few as 32 numbers
    model.forget()
    for mode in (model.eval, model.train):
        mode()
        model.forget()
        model(images)
        assert len(currents) == sum(isinstance(m, ConvNorm) for m in model.modules())
        for current in currents.values():
            torch.testing.assert_close(current.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
            variance = current.var((0, 2, 3), unbiased=False)
            # A channel that gets no spikes has none.
            alive = variance > 0
            assert alive.any()
            torch.testing.assert_close(variance[alive], torch.ones(4)[alive], atol=1e-3, rtol=0)


def test_without_data_init_nothing_starts_over(net) -> None:
    model = net()
    reg = WeightNorm()
    reg.attach(model)
    before = copy.deepcopy(model.state_dict())
    reg.initialize(model, torch.randn(4, 2, 8, 8))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_transforms_the_weight_already_acts_once() -> None:
    """A transformation that doubles: the layer's weight stays 2 W, of the normalized W."""

    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 4.0]])
    parametrize.register_parametrization(layer, "weight", Doubled())
    normalize_weight(layer)
    torch.testing.assert_close(layer.weight, torch.tensor([[6.0, 8.0]]))
    torch.testing.assert_close(transformations(layer).original0, torch.tensor([[5.0]]))


def test_scaling_in_place_keeps_the_length_of_v() -> None:
    layer = nn.Conv2d(2, 3, 1, bias=False)
    normalize_weight(layer)
    weight = layer.weight.detach().clone()
    length = layer.parametrizations.weight.original1.detach().flatten(1).norm(dim=1)
    factor = torch.tensor([1.0, 0.25]).view(1, 2, 1, 1)
    scale_weight(layer, factor)
    torch.testing.assert_close(layer.weight, weight * factor)
    torch.testing.assert_close(layer.parametrizations.weight.original1.flatten(1).norm(dim=1), length)
    scale_weight(layer, torch.zeros(1))
    assert torch.equal(layer.weight, torch.zeros_like(weight))
    layer(torch.ones(1, 2, 1, 1)).sum().backward()
    for parameter in layer.parameters():
        assert torch.isfinite(parameter.grad).all()


def test_scaling_in_place_refuses_what_it_does_not_know() -> None:
    layer = nn.Linear(2, 2)
    nn.utils.parametrizations.orthogonal(layer)
    with pytest.raises(BenchError, match="Orthogonal"):
        scale_weight(layer, torch.ones(1))


def test_bake_gives_a_plain_convolution(net, bench) -> None:
    reg = WeightNorm()
    b = bench(net(), [reg]).train(2)
    before = b.evaluate()
    reg.bake(b.model)
    assert "convs.0.conv.weight" in b.model.state_dict()
    assert torch.equal(before, b.evaluate())
