"""The 3 x 3 convolution's values and gradients against the library's in float64, and what it leaves to that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bench import ops
from bench.neurons import NeuronConfig, Spiking
from bench.ops import ConvNorm, native
from bench.ops import winograd as own
from tests.ops.convolutions import assert_within, gradients, graph, run

# Largest error by largest value, of y, dx, dweight and dbias. In bfloat16 what is multiplied is rounded after the
# transform: y has that and its own rounding, 2^-8 in all; a gradient is a difference of larger numbers.
BOUNDS = {torch.float32: [1e-5] * 4, torch.bfloat16: [2**-7, 2**-6, 2**-6, 2**-8]}
DTYPES = pytest.mark.parametrize("dtype", list(BOUNDS), ids=["fp32", "bf16"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These shapes are too small for two; the tests that are about threads set their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compiled() -> None:
    if native.variant("winograd", torch.float32) is None:
        pytest.skip(f"no compiled kernel: {native.why('winograd')}")
    if not has_kernel(torch.float32):
        pytest.skip("no kernel for this processor")


def has_kernel(dtype: torch.dtype) -> bool:
    return own._multiple(dtype) > 0


def inputs(
    batch: int, channels: int, outputs: int, height: int, width: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and the output's gradient; weights are float32 under autocast, and so they are here."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, dy = normal(batch, channels, height, width).to(dtype), normal(batch, outputs, height, width).to(dtype)
    return (
        x.contiguous(memory_format=torch.channels_last),
        normal(outputs, channels, 3, 3) / (3 * channels**0.5),
        normal(outputs),
        dy.contiguous(memory_format=torch.channels_last),
    )


def by_kernel(x: Tensor, weight: Tensor, bias: Tensor | None, dy: Tensor) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype is torch.bfloat16):
        return gradients(own.winograd_conv2d, x, weight, bias, dy)


def exact(x: Tensor, weight: Tensor, bias: Tensor | None, dy: Tensor) -> list[Tensor]:
    """The same by the library in float64, from the very numbers given."""

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1)

    return gradients(convolve, x.double(), weight.double(), None if bias is None else bias.double(), dy.double())


def is_ours(out: Tensor) -> bool:
    names = {type(node).__name__ for node in graph(out)}
    return "_WinogradBackward" in names and not any("Convolution" in name for name in names)


SHAPES = [
    (3, 128, 128, 8, 8),
    (2, 64, 48, 7, 5),  # odd sides: tiles stand out below and to the right
    (1, 16, 16, 2, 2),  # one tile
    (5, 32, 80, 3, 4),  # a last block of one vector; a last pair of tiles that is half
    (4, 16, 96, 9, 20),  # blocks of four and of two vectors
    (1, 48, 112, 14, 14),  # of four and of three
    (2, 16, 32, 100, 2),
]


@pytest.mark.usefixtures("compiled")
@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_values_and_gradients_are_the_librarys(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    x, weight, bias, dy = inputs(*shape, dtype)
    found = by_kernel(x, weight, bias, dy)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    expected = exact(x, weight, bias, dy)
    assert_within(found, expected, BOUNDS[dtype])
    if has_kernel(dtype):
        torch.testing.assert_close(found[3].double(), expected[3], rtol=1e-5, atol=1e-4)  # not rounded
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        assert is_ours(own.winograd_conv2d(x, weight.requires_grad_(), bias)) is has_kernel(dtype)


@pytest.mark.usefixtures("compiled")
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    sides=st.tuples(st.integers(2, 22), st.integers(2, 22)),
    dtype=st.sampled_from(list(BOUNDS)),
    spikes=st.booleans(),
    with_bias=st.booleans(),
    layout=st.sampled_from(["channels_last", "contiguous", "cut"]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_layout(
    batch: int,
    channels: tuple[int, int],
    sides: tuple[int, int],
    dtype: torch.dtype,
    spikes: bool,
    with_bias: bool,
    layout: str,
    threads: int,
    seed: int,
) -> None:
    x, weight, bias, dy = inputs(batch, 16 * channels[0], 16 * channels[1], *sides, dtype, seed)
    x = (x > 0.5).to(dtype) if spikes else x
    if layout == "contiguous":
        x, dy = x.contiguous(), dy.contiguous()
    elif layout == "cut":  # every other column of something wider, which starts at no round address
        x, dy = (F.pad(t.repeat_interleave(2, -1), (1, 2))[..., 1:-2:2] for t in (x, dy))
    used = bias if with_bias else None
    torch.set_num_threads(threads)
    assert_within(by_kernel(x, weight, used, dy), exact(x, weight, used, dy), BOUNDS[dtype])


@pytest.mark.usefixtures("compiled")
@DTYPES
def test_one_spike_puts_down_the_mirrored_taps(dtype: torch.dtype) -> None:
    """By hand: a spike at (3, 2) of channel 5 gives weight[o, 5, 1 - i, 1 - j] at (3 + i, 2 + j)."""
    x = torch.zeros(1, 16, 6, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x[0, 5, 3, 2] = 1
    signs = torch.arange(16).remainder(2) * 2 - 1
    # Multiples of 4 whose halved and quartered sums have 8 bits: nothing is rounded, in bfloat16 neither.
    weight = 4.0 * torch.arange(9).reshape(1, 1, 3, 3) * signs.reshape(16, 1, 1, 1) * torch.ones(16, 16, 1, 1)
    y = by_kernel(x, weight, None, torch.zeros_like(x))[0]
    expected = torch.zeros(1, 16, 6, 6)
    mirrored = torch.tensor([[32.0, 28, 24], [20, 16, 12], [8, 4, 0]])
    expected[0, :, 2:5, 1:4] = mirrored * signs.reshape(16, 1, 1)
    assert torch.equal(y.float(), expected)


@pytest.mark.usefixtures("compiled")
@DTYPES
def test_spikes_give_exact_sums(dtype: torch.dtype) -> None:
    """Counts of spikes by weights whose transform is exact: any rounding but the result's shows."""
    x, weight, bias, _ = inputs(4, 32, 64, 12, 11, torch.float32)
    x = (x * 2).round().clamp(0, 3).to(dtype)
    weight, bias = (weight * 12).round() * 4, bias.round()
    y = by_kernel(x, weight, bias, torch.zeros(4, 64, 12, 11, dtype=dtype))[0]
    assert torch.equal(y, F.conv2d(x.double(), weight.double(), bias.double(), padding=1).to(dtype))


@pytest.mark.usefixtures("compiled")
def test_bf16_is_as_near_as_the_librarys_where_spikes_come_in() -> None:
    if not has_kernel(torch.bfloat16):
        pytest.skip("no bfloat16 kernel on this processor")
    x, weight, bias, dy = inputs(8, 64, 64, 16, 16, torch.bfloat16)
    x = (x > 1).bfloat16()
    expected = exact(x, weight, bias, dy)

    def errors(found: list[Tensor]) -> list[float]:
        return [
            ((a.double() - b).square().mean() / b.square().mean()).sqrt().item()
            for a, b in zip(found, expected, strict=True)
        ]

    with torch.autocast("cpu", torch.bfloat16):
        library = errors(gradients(lambda *tensors: F.conv2d(*tensors, padding=1), x, weight, bias, dy))
    y, dx, dweight, _ = errors(by_kernel(x, weight, bias, dy))
    assert y < library[0]
    assert dx < 2.5 * library[1]
    assert dweight < 2.5 * library[2]


@pytest.mark.usefixtures("compiled")
@DTYPES
def test_same_bits_every_time_with_threads(dtype: torch.dtype) -> None:
    torch.set_num_threads(3)
    x, weight, bias, dy = inputs(9, 32, 48, 11, 11, dtype)
    first, second = (by_kernel(x, weight, bias, dy) for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert_within(first, exact(x, weight, bias, dy), BOUNDS[dtype])


@pytest.mark.usefixtures("compiled")
@DTYPES
def test_nan_and_infinity_reach_their_window_and_no_other_tile(dtype: torch.dtype) -> None:
    for value in (float("nan"), float("inf")):
        x, weight, _, _ = inputs(2, 16, 16, 12, 12, dtype)
        x[0, 3, 5, 5] = value
        y = by_kernel(x, weight, None, torch.zeros_like(x))[0]
        at_least, at_most = torch.zeros(2, 12, 12, dtype=torch.bool), torch.zeros(2, 12, 12, dtype=torch.bool)
        at_least[0, 4:7, 4:7] = at_most[0, 4:8, 4:8] = True
        bad = ~y.isfinite()
        assert bad.all(1)[at_least].all()
        assert not bad.any(1)[~at_most].any()


@pytest.mark.usefixtures("compiled")
def test_only_the_wanted_gradients_are_computed() -> None:
    x, weight, bias, dy = inputs(2, 16, 32, 6, 6, torch.float32)
    expected = dict(zip("xwb", exact(x, weight, bias, dy)[1:], strict=True))
    for wanted in ("x", "w", "b", "xw", "xb", "wb"):
        leaves = {
            name: tensor.detach().clone().requires_grad_(name in wanted)
            for name, tensor in zip("xwb", (x, weight, bias), strict=True)
        }
        own.winograd_conv2d(*leaves.values()).backward(dy)
        for name, leaf in leaves.items():
            assert (leaf.grad is not None) == (name in wanted)
            if leaf.grad is not None:
                torch.testing.assert_close(leaf.grad.double(), expected[name], rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("compiled")
def test_a_broadcast_gradient() -> None:
    """The gradient of a sum has stride 0 everywhere."""
    x, weight, bias, dy = inputs(2, 16, 16, 6, 6, torch.float32)
    x.requires_grad_()
    own.winograd_conv2d(x, weight, bias).sum().backward()
    assert x.grad is not None
    assert_within([x.grad], [exact(x.detach(), weight, bias, torch.ones_like(dy))[1]], [1e-5])


@pytest.mark.usefixtures("compiled")
def test_a_network_takes_it() -> None:
    """A layer of `cnn` goes this way with the kernels, and past them with ops=reference, to the same result."""
    torch.manual_seed(0)
    layer, spiking, x = ConvNorm(32, 32, 3), Spiking(NeuronConfig(), 2), (torch.rand(6, 32, 8, 8) < 0.3).float()
    found = []
    for backend in (ops.Backend.compiled, ops.Backend.reference):
        with ops.using(backend):
            out = ops.fire_block(layer, spiking, x)
        assert is_ours(out) is (backend is ops.Backend.compiled)
        spiking.forget()
        layer.zero_grad()
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        assert layer.conv.weight.grad is not None
        found.append((out.detach(), layer.conv.weight.grad.clone()))
    (spikes, gradient), (expected_spikes, expected_gradient) = found
    assert torch.equal(spikes, expected_spikes)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5 * expected_gradient.abs().max().item())


def test_parametrized_weight_and_no_bias() -> None:
    torch.manual_seed(0)
    conv = parametrizations.weight_norm(nn.Conv2d(32, 16, 3, padding=1, bias=False))
    assert own.supported(conv)
    x = torch.randn(3, 32, 9, 9)
    parameters = list(conv.parameters())
    found = torch.autograd.grad(own.winograd(conv, x).square().sum(), parameters)
    library = torch.autograd.grad(conv(x).square().sum(), parameters)
    for a, b in zip(found, library, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, True),
        ({"padding": "same"}, True),
        ({"bias": False}, True),
        ({"out_channels": 7}, True),
        ({"kernel_size": 5, "padding": 2}, False),
        ({"kernel_size": (3, 1)}, False),
        ({"stride": 2}, False),
        ({"padding": 0}, False),
        ({"dilation": 2, "padding": 2}, False),
        ({"groups": 16}, False),
        ({"padding_mode": "circular"}, False),
    ],
    ids=str,
)
def test_supported(change: dict[str, object], answer: bool) -> None:
    arguments = {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 1, **change}
    assert own.supported(nn.Conv2d(**arguments)) is answer  # type: ignore[arg-type]


@pytest.mark.usefixtures("compiled")
def test_hooks_are_called_around_the_kernel() -> None:
    """As use-it-or-lose-it's, which counts what comes in and changes the weights before they are used."""
    conv, called = nn.Conv2d(16, 16, 3, padding=1), []

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        called.append("before")
        with torch.no_grad():
            conv.weight.mul_(2)
        return (args[0] + 1,)

    conv.register_forward_pre_hook(before)
    conv.register_forward_hook(lambda module, args, out: called.append("after") or out * 3)
    x = inputs(2, 16, 16, 6, 6, torch.float32)[0].requires_grad_()
    expected = 3 * F.conv2d(x + 1, 2 * conv.weight, conv.bias, padding=1)
    out = own.winograd(conv, x)
    torch.testing.assert_close(out, expected)
    assert is_ours(out)
    assert called == ["before", "after"]
    assert "forward" not in vars(conv)


def test_the_library_answers_for_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
        out = own.winograd_conv2d(x, weight.requires_grad_(), bias)
        assert out.is_meta or torch.equal(out, F.conv2d(x, weight, bias, padding=1))
        return "Convolution" in type(out.grad_fn).__name__

    x, weight, bias, _ = inputs(2, 16, 16, 6, 6, torch.float32)
    assert answers(x.double(), weight.double(), bias.double())
    assert answers(x.half(), weight.half(), bias.half())
    assert answers(x[:0], weight, bias)
    assert answers(*(tensor.to("meta") for tensor in (x, weight, bias)))
    assert answers(x[:, :3], weight[:, :3], bias)  # a stem
    assert answers(x, weight[:10], bias[:10])
    assert answers(x[..., :1, :], weight, bias)  # half of each tile would stand out
    assert answers(x[..., :3, :3], weight, bias)
    monkeypatch.setattr(own, "_multiple", lambda dtype: 0)
    assert answers(x, weight, bias)


def test_a_flop_counter_sees_the_convolution() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x, weight, bias, _ = inputs(2, 16, 32, 6, 6, torch.float32)
    with FlopCounterMode(display=False) as counter:
        own.winograd_conv2d(x, weight, bias)
    assert counter.get_total_flops() == 2 * (2 * 32 * 6 * 6) * 9 * 16


@pytest.mark.usefixtures("compiled")
def test_without_avx512() -> None:
    """The source's other branches, built for an older processor, give the same numbers; bfloat16 is the library's."""
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("the processor to pretend is an x86")
    script = """
import torch
from bench.ops import native
plain = native.load
native.load = lambda name, *flags: plain(name, *flags, "-mno-avx512f")
from tests.ops import test_winograd as t
for shape in t.SHAPES:
    x, weight, bias, dy = t.inputs(*shape, torch.float32)
    t.assert_within(t.by_kernel(x, weight, bias, dy), t.exact(x, weight, bias, dy), t.BOUNDS[torch.float32])
assert t.is_ours(t.own.winograd_conv2d(x, weight.requires_grad_(), bias))
assert not t.has_kernel(torch.bfloat16)
print("same")
"""
    assert "same" in run(script)
