"""Methods on weights, branches and potentials, against numbers worked out by hand or by plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.models.sew import Connect
from bench.registry import MODELS
from bench.regularizers.dropconnect import DropConnect
from bench.regularizers.noisyneuron import Noise, NoisyNeuron
from bench.regularizers.orthogonal import Form, Orthogonal, lipschitz, off_orthonormal, towards_orthonormal
from bench.regularizers.stochdepth import DropBranch, StochasticDepth
from bench.regularizers.weightnorm import WeightNorm

W = torch.tensor([[2.0, 0.0], [1.0, -1.0]])


def test_a_step_towards_orthonormal_rows_by_hand() -> None:
    # W W^T = [[4, 2], [2, 2]], W W^T W = [[10, -2], [6, -2]].
    assert towards_orthonormal(W, 0.1).flatten().tolist() == pytest.approx([1.2, 0.2, 0.5, -0.9])
    # More rows than columns: the same by the other product.
    tall = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))[:, :1, :1, :2]
    rows = tall.flatten(1)
    assert torch.allclose(towards_orthonormal(tall, 0.01).flatten(1), 1.01 * rows - 0.01 * rows @ rows.T @ rows)


def test_penalties_on_weights_by_hand() -> None:
    # W W^T - I = [[3, 2], [2, 1]].
    assert off_orthonormal(W).item() == 18
    assert lipschitz(W).item() == 2 + 1
    assert off_orthonormal(torch.eye(3).view(3, 3, 1, 1)).item() == 0


def test_steps_end_in_orthonormal_rows(net) -> None:
    model, reg = net(), Orthogonal(weight=0.05)
    reg.attach(model)
    with torch.no_grad():
        for w in reg.matrices():
            w.div_(w.flatten(1).norm(2))  # within the step's reach
    for _ in range(300):
        reg.after_step({})
    for w in reg.matrices():
        rows = w.detach().flatten(1)
        if rows.shape[0] <= rows.shape[1]:
            assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=0.02)


def test_the_penalty_sums_over_layers(net) -> None:
    model, reg = net(), Orthogonal(weight=0.5, form=Form.frobenius)
    reg.attach(model)
    weights = [m.weight.flatten(1) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    total = sum((w @ w.T - torch.eye(len(w))).square().sum().item() for w in weights)
    assert reg.penalty({})["orthogonal"].item() == pytest.approx(0.5 * total, rel=1e-5)


def test_weights_that_are_made_of_others_are_refused(net) -> None:
    model, reg = net(), Orthogonal()
    reg.attach(model)
    WeightNorm().attach(model)
    with pytest.raises(BenchError, match=r"reg=orthogonal: the weights of \S+ are made of others"):
        reg.after_step({})


def test_masked_weights_keep_their_mean_and_are_drawn_once_a_step(net) -> None:
    model = net()
    plain = [m.weight.detach().clone() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    reg = DropConnect(p=0.25)
    reg.attach(model)
    modules = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(modules) == len(plain) == len(reg.connections)
    torch.manual_seed(0)
    seen = torch.zeros_like(plain[0])
    for _ in range(400):
        reg.batch(torch.zeros(1, 2, 8, 8), torch.zeros(1, dtype=torch.int64))
        first = modules[0].weight.detach().clone()
        assert torch.equal(first, modules[0].weight), "one mask a step, however often a weight is read"
        zero = first == 0
        assert torch.allclose(first[~zero], plain[0][~zero] / 0.75)
        seen += zero
    # A quarter of 400 draws each, with a standard deviation of 8.7.
    assert (seen - 100).abs().max() < 45
    assert abs(seen.mean().item() - 100) < 5
    model.eval()
    assert torch.equal(modules[0].weight, plain[0])


def test_only_linear_layers_are_masked_if_asked(net) -> None:
    model, reg = net(), DropConnect(p=0.5, only_linear=True)
    reg.attach(model)
    assert len(reg.connections) == 1
    assert nn.utils.parametrize.is_parametrized(model.head)


def test_a_branch_is_left_out_for_all_time_steps_of_an_image() -> None:
    branch = DropBranch(0.5, time_steps=3)
    torch.manual_seed(0)
    x = torch.ones(3 * 40, 2, 1, 1)
    kept = branch(x).view(3, 40, 2)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])
    assert torch.equal(kept[..., 0], kept[..., 1])
    assert 8 < kept[0, :, 0].sum() < 32
    branch.eval()
    assert branch(x).unique().tolist() == [0.5]


@pytest.mark.parametrize("arch", ["sew", "convmixer"])
def test_later_blocks_are_left_out_more_often(arch: str, net) -> None:
    model = net(arch)
    spec = model.spec
    knobs = {"channels": 4, "depth": 2, "blocks": 2} if arch == "sew" else {"width": 4, "depth": 4, "kernel": 3}
    model = MODELS.get(arch)(spec, **knobs)
    StochasticDepth(p=0.4).attach(model)
    chances = [m.p for _, layer in model.spiking_layers() for m in layer.spikes]
    assert chances == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_branch_that_is_left_out_leaves_the_blocks_input(net) -> None:
    model = net("sew")
    StochasticDepth(p=1.0).attach(model)
    seen: list[torch.Tensor] = []
    block = model.stages[0][0]
    block.register_forward_hook(lambda _, inputs, out: seen.extend([inputs[0], out]))
    model(torch.randn(3, 2, 8, 8))
    into, out = seen
    assert torch.equal(model.pool(into), out)


def test_networks_without_branches_are_refused(net) -> None:
    with pytest.raises(BenchError, match="reg=stochdepth leaves out residual branches, and CNN adds none"):
        StochasticDepth().attach(net("cnn"))
    spec = net("sew").spec
    other = MODELS.get("sew")(spec, channels=4, depth=1, blocks=1, cnf=Connect.AND)
    with pytest.raises(BenchError, match="SEWResNet adds none"):
        StochasticDepth().attach(other)


def test_noise_has_its_deviation_and_ends_with_training(net) -> None:
    model = net()
    NoisyNeuron(sigma=0.3).attach(model)
    (_, layer), *_ = model.spiking_layers()
    (noise,) = layer.current
    torch.manual_seed(0)
    drawn = noise(torch.zeros(20_000))
    assert drawn.mean().abs() < 0.01
    assert drawn.std().item() == pytest.approx(0.3, rel=0.03)
    model.eval()
    assert noise(torch.zeros(4)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("channels_last", [False, True])
def test_noise_is_normal_in_either_layout(channels_last: bool) -> None:
    """Mean 0, standard deviation sigma, kurtosis 3, and no two channels or rows alike."""
    torch.manual_seed(0)
    x = torch.zeros(8, 16, 20, 20)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    noise = Noise(0.5)(x)
    assert noise.stride() == x.stride()
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert (noise / 0.5).pow(4).mean().item() == pytest.approx(3, rel=0.1)
    for axis in range(4):
        rows = noise.transpose(0, axis).flatten(1)
        assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.15
    assert torch.equal(Noise(0.5).eval()(x), x)
