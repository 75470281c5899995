"""Each network against one built from plain SpikingJelly layers: weights, logits, gradients, layer by layer."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Spec
from bench.models.cnn import CNN
from bench.models.convmixer import ConvMixer
from bench.models.sew import Connect, SEWResNet
from bench.neurons import NeuronConfig, Spiking
from bench.ops import ConvNorm

T, N = 4, 3


def node(kind: str = "if") -> nn.Module:
    shared = {"surrogate_function": surrogate.ATan(alpha=2.0), "detach_reset": True, "step_mode": "m"}
    if kind == "if":
        return neuron.IFNode(v_threshold=1.0, v_reset=0.0, **shared)
    if kind == "lif":
        return neuron.LIFNode(tau=2.0, **shared)
    return neuron.ParametricLIFNode(init_tau=2.0, **shared)


def conv_bn_if(inputs: int, outputs: int, kernel: int, kind: str, **options: int) -> list[nn.Module]:
    options.setdefault("padding", kernel // 2)
    return [
        layer.Conv2d(inputs, outputs, kernel, step_mode="m", **options),
        layer.BatchNorm2d(outputs, step_mode="m"),
        node(kind),
    ]


class PlainCNN(nn.Module):
    """{c3-BN-IF-MP2} x depth on the image repeated T times: no static stem, no folded time."""

    def __init__(self, channels: int, depth: int, kind: str) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for i in range(depth):
            self.body.extend(conv_bn_if(3 if i == 0 else channels, channels, 3, kind))
            self.body.append(layer.MaxPool2d(2, step_mode="m"))
        self.fc = layer.Linear(channels * (32 >> depth) ** 2, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).flatten(2)).mean(0)


class PlainSEWBlock(nn.Module):
    def __init__(self, channels: int, cnf: str, kind: str) -> None:
        super().__init__()
        self.cnf = cnf
        self.a = nn.Sequential(*conv_bn_if(channels, channels, 3, kind))
        self.b = nn.Sequential(*conv_bn_if(channels, channels, 3, kind))

    def forward(self, s: Tensor) -> Tensor:
        a = self.b(self.a(s))
        return {"ADD": a + s, "AND": a * s, "IAND": s - a * s}[self.cnf]


class PlainSEW(nn.Module):
    def __init__(self, channels: int, depth: int, cnf: str, kind: str) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn_if(3, channels, 3, kind))
        for _ in range(depth):
            self.body.extend([PlainSEWBlock(channels, cnf, kind), PlainSEWBlock(channels, cnf, kind)])
            self.body.append(layer.MaxPool2d(2, step_mode="m"))
        self.fc = layer.Linear(channels * (32 >> depth) ** 2, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).flatten(2)).mean(0)


class PlainMixerBlock(nn.Module):
    def __init__(self, width: int, kernel: int, kind: str) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(*conv_bn_if(width, width, kernel, kind, groups=width))
        self.pointwise = nn.Sequential(*conv_bn_if(width, width, 1, kind))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x) + x)


class PlainMixer(nn.Module):
    def __init__(self, width: int, depth: int, kernel: int, patch: int, kind: str) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn_if(3, width, patch, kind, stride=patch, padding=0))
        self.body.extend(PlainMixerBlock(width, kernel, kind) for _ in range(depth))
        self.fc = layer.Linear(width, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((3, 4))).mean(0)


def pair(name: str, kind: str = "if") -> tuple[nn.Module, nn.Module]:
    """Our network and the plain one, with the same weights (both list their layers in the same order)."""
    torch.manual_seed(0)
    spec = Spec((3, 32, 32), 10, T, NeuronConfig(kind))
    ours, plain = {
        "cnn": lambda: (CNN(spec, channels=8, depth=3), PlainCNN(8, 3, kind)),
        "sew-ADD": lambda: (SEWResNet(spec, 6, depth=2, cnf=Connect.ADD), PlainSEW(6, 2, "ADD", kind)),
        "sew-AND": lambda: (SEWResNet(spec, 6, depth=2, cnf=Connect.AND), PlainSEW(6, 2, "AND", kind)),
        "sew-IAND": lambda: (SEWResNet(spec, 6, depth=2, cnf=Connect.IAND), PlainSEW(6, 2, "IAND", kind)),
        "convmixer": lambda: (ConvMixer(spec, 8, 2, 5, 2), PlainMixer(8, 2, 5, 2, kind)),
    }[name]()
    for kinds in (nn.Conv2d, nn.BatchNorm2d, nn.Linear, neuron.BaseNode):
        mine = [m for m in ours.modules() if isinstance(m, kinds)]
        theirs = [m for m in plain.modules() if isinstance(m, kinds)]
        assert len(mine) == len(theirs) > 0
        for source, target in zip(mine, theirs, strict=True):
            # Larger than the default: a third of the neurons must fire in the last layer too.
            if isinstance(source, nn.BatchNorm2d):
                nn.init.uniform_(source.weight, 0.5, 2.0)
                nn.init.uniform_(source.bias, 0.0, 1.0)
            target.load_state_dict(source.state_dict())
    return ours, plain


NETWORKS = ["cnn", "sew-ADD", "sew-AND", "sew-IAND", "convmixer"]


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("name", NETWORKS)
def test_end_to_end_in_float64(name: str, kind: str) -> None:
    ours, plain = (net.double() for net in pair(name, kind))
    x = torch.randn(N, 3, 32, 32, dtype=torch.float64)
    y = torch.tensor([1, 5, 7])
    mine, theirs = ours(x), plain(x.expand(T, -1, -1, -1, -1))
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-9)
    F.cross_entropy(mine, y).backward()
    F.cross_entropy(theirs, y).backward()
    for kinds in (nn.Conv2d, nn.BatchNorm2d, nn.Linear, neuron.ParametricLIFNode):
        for a, b in zip(
            (p for m in ours.modules() if isinstance(m, kinds) for p in m.parameters()),
            (p for m in plain.modules() if isinstance(m, kinds) for p in m.parameters()),
            strict=True,
        ):
            assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-9)
            # A conv bias before batch norm has no gradient; every other must have one, or nothing was compared.
            assert a.ndim == 1 or a.grad.abs().max() > 0
    functional.reset_net(plain)
    ours.forget()
    ours.eval()
    plain.eval()
    # The stem's batch norm saw each image once here and T times there: its unbiased running variance
    # differs by that count, and by nothing else.
    first, other = (next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)) for net in (ours, plain))
    other.running_var.copy_(first.running_var)
    assert torch.allclose(ours(x), plain(x.expand(T, -1, -1, -1, -1)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_layer_by_layer_in_float32(name: str) -> None:
    """Every layer of ours on the input it got, against SpikingJelly's on the same input and gradient."""
    ours, plain = pair(name)
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda m, args, out: seen.append((m, args[0].detach(), out.detach())))
        for module in ours.modules()
        if isinstance(module, ConvNorm | Spiking | nn.MaxPool2d | nn.Linear)
    ]
    ours(torch.randn(N, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    convs = iter([m for m in plain.modules() if isinstance(m, nn.Conv2d)])
    norms = iter([m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)])
    plain_convs = {id(m): (next(convs), next(norms)) for m in ours.modules() if isinstance(m, ConvNorm)}
    ours.forget()
    fired = 0
    for module, x, out in seen:
        time = T if len(x) == T * N else 1
        if isinstance(module, ConvNorm):
            conv, norm = plain_convs[id(module)]
            reference = lambda s, conv=conv, norm=norm: norm(conv(s))  # noqa: E731
        elif isinstance(module, Spiking):
            module.forget()
            reference = node()
            fired += int(out.sum())
        elif isinstance(module, nn.MaxPool2d):
            reference = layer.MaxPool2d(2, step_mode="m")
        else:
            reference = plain.fc
        mine_in, their_in = x.clone().requires_grad_(), x.clone().requires_grad_()
        mine, theirs = module(mine_in), reference(their_in.unflatten(0, (time, -1))).flatten(0, 1)
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-5), module
        grad = torch.randn_like(mine)
        mine.backward(grad)
        theirs.backward(grad)
        assert torch.allclose(mine_in.grad, their_in.grad, rtol=1e-5, atol=1e-5), module
    assert fired > 1000


def test_stem_running_statistics_differ_only_by_the_count_of_images() -> None:
    ours, plain = pair("cnn")
    x = torch.randn(N, 3, 32, 32)
    ours(x)
    plain(x.expand(T, -1, -1, -1, -1))
    first = ours.convs[0].norm
    other = next(m for m in plain.modules() if isinstance(m, nn.BatchNorm2d))
    assert torch.allclose(first.running_mean, other.running_mean, atol=1e-6)
    n = N * 32 * 32
    biased = (first.running_var - 0.9) / 0.1 * (n - 1) / n
    assert torch.allclose(biased, (other.running_var - 0.9) / 0.1 * (T * n - 1) / (T * n), rtol=1e-3)
