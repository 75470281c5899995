"""The depthwise convolution's values and gradients against the library's in float64, and what it leaves to that."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bench.ops import depthwise as ops
from bench.ops import native
from tests.ops.convolutions import assert_within, gradients, graph, run

# Largest error by largest value. A bfloat16 has 8 bits: half a unit in the last place is 2^-9 of the number,
# twice that of the largest number when it sits just above a power of two. Sums of both are float32.
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These shapes are too small for two; the tests that are about threads set their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compiled() -> None:
    if native.variant("depthwise", torch.float32) is None:
        pytest.skip(f"no compiled kernel: {native.why('depthwise')}")


def inputs(
    batch: int, channels: int, height: int, width: int, kernel: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and the output's gradient; normal numbers, so that a wrong neighbour shows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    x, dy = normal(batch, channels, height, width), normal(batch, channels, height, width)
    return (
        x.contiguous(memory_format=torch.channels_last),
        normal(channels, 1, kernel, kernel),
        normal(channels),
        dy.contiguous(memory_format=torch.channels_last),
    )


def exact(x: Tensor, weight: Tensor, bias: Tensor | None, dy: Tensor) -> list[Tensor]:
    """The same by the library in float64, from the very numbers given."""

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    bias = None if bias is None else bias.double()
    return gradients(convolve, x.double(), weight.double(), bias, dy.double())


def assert_close(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    assert_within(found, expected, [ROUNDING[dtype]] * 4)


SHAPES = [
    (3, 16, 8, 8),
    (1, 64, 16, 16),
    (2, 5, 7, 20),  # fewer channels than a register, H != W
    (2, 37, 9, 17),  # a last block of 5 channels; 17 columns leave one behind the tile
    (1, 2, 1, 1),
    (2, 3, 2, 3),  # smaller than most kernels
    (1, 17, 1, 40),
    (1, 16, 33, 1),
]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", ops.DTYPES, ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kernel", ops.KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_values_and_gradients_are_the_librarys(
    shape: tuple[int, int, int, int], kernel: int, dtype: torch.dtype
) -> None:
    x, weight, bias, dy = inputs(*shape, kernel, dtype)
    found = gradients(ops.depthwise_conv2d, x, weight, bias, dy)
    assert all(tensor.dtype == dtype for tensor in found)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert "Depthwise" in type(ops.depthwise_conv2d(x, weight.requires_grad_(), bias).grad_fn).__name__
    assert_close(found, exact(x, weight, bias, dy), dtype)


@pytest.mark.usefixtures("compiled")
@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(2, 50), st.integers(1, 35), st.integers(1, 35)),
    kernel=st.sampled_from(ops.KERNELS),
    dtype=st.sampled_from(ops.DTYPES),
    with_bias=st.booleans(),
    layout=st.sampled_from(["channels_last", "contiguous", "cut"]),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_layout(
    shape: tuple[int, int, int, int],
    kernel: int,
    dtype: torch.dtype,
    with_bias: bool,
    layout: str,
    seed: int,
) -> None:
    x, weight, bias, dy = inputs(*shape, kernel, dtype, seed)
    if layout == "contiguous":
        x, dy = x.contiguous(), dy.contiguous()
    elif layout == "cut":  # every other column of something wider, which starts at no round address
        x, dy = (F.pad(t.repeat_interleave(2, -1), (1, 2))[..., 1:-2:2] for t in (x, dy))
    used = bias if with_bias else None
    assert_close(gradients(ops.depthwise_conv2d, x, weight, used, dy), exact(x, weight, used, dy), dtype)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(1, 2, 5, 5), (5, 20, 6, 6)], ids=["idle", "uneven"])
def test_threads_share_the_work(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    """Three threads on one block of channels, and on ten."""
    torch.set_num_threads(3)
    x, weight, bias, dy = inputs(*shape, 5, dtype)
    assert_close(gradients(ops.depthwise_conv2d, x, weight, bias, dy), exact(x, weight, bias, dy), dtype)


@pytest.mark.usefixtures("compiled")
def test_spikes_give_exact_sums() -> None:
    """Spikes by weights that are multiples of 1/8: every sum is a small binary number, so any rounding shows."""
    x, weight, bias, dy = (t.float() for t in inputs(4, 32, 12, 12, 9, torch.float32))
    x, dy = (x > 1).float(), dy.round()
    weight, bias = (weight * 8).round() / 8, (bias * 8).round() / 8
    for found, expected in zip(
        gradients(ops.depthwise_conv2d, x, weight, bias, dy), exact(x, weight, bias, dy), strict=True
    ):
        assert torch.equal(found.double(), expected)


@pytest.mark.usefixtures("compiled")
def test_same_bits_every_time() -> None:
    torch.set_num_threads(2)
    x, weight, bias, dy = inputs(9, 40, 11, 11, 5, torch.bfloat16)
    first, second = (gradients(ops.depthwise_conv2d, x, weight, bias, dy) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_nan_and_infinity_reach_their_window_and_no_other_channel(dtype: torch.dtype) -> None:
    x, weight, bias, _ = inputs(1, 20, 12, 12, 3, dtype)
    x[0, 3, 5, 5], x[0, 7, 2, 2] = float("nan"), float("inf")
    y = ops.depthwise_conv2d(x, weight, bias)[0]
    at_least, at_most = torch.zeros(2, 20, 12, 12, dtype=torch.bool)
    at_least[3, 4:7, 4:7] = at_least[7, 1:4, 1:4] = True
    beside = 0 if dtype == torch.float32 else 1  # the zero that fills up a pair of bfloat16 taps
    at_most[3, 4:7, 4 - beside : 7] = at_most[7, 1:4, 1 - beside : 4] = True
    assert (at_least <= ~y.isfinite()).all()
    assert (~y.isfinite() <= at_most).all()
    assert y[3, 4:7, 4:7].isnan().all()


@pytest.mark.usefixtures("compiled")
def test_only_the_wanted_gradients_are_computed() -> None:
    x, weight, bias, dy = inputs(2, 16, 6, 6, 5, torch.float32)
    expected = dict(zip("ywb", exact(x, weight, bias, dy)[1:], strict=True))
    for wanted in ("y", "w", "b", "yw", "yb", "wb"):
        leaves = {
            name: tensor.detach().clone().requires_grad_(name in wanted)
            for name, tensor in zip("ywb", (x, weight, bias), strict=True)
        }
        ops.depthwise_conv2d(*leaves.values()).backward(dy)
        for name, leaf in leaves.items():
            assert (leaf.grad is not None) == (name in wanted)
            if leaf.grad is not None:
                torch.testing.assert_close(leaf.grad.double(), expected[name], rtol=1e-5, atol=1e-4)


def test_a_broadcast_gradient() -> None:
    """The gradient of a sum has stride 0 everywhere."""
    x, weight, bias, dy = inputs(2, 16, 6, 6, 5, torch.float32)
    x.requires_grad_()
    ops.depthwise_conv2d(x, weight, bias).sum().backward()
    assert x.grad is not None
    assert_close([x.grad], [exact(x.detach(), weight, bias, torch.ones_like(dy))[1]], torch.float32)


def test_autocast_rounds_as_the_library_does() -> None:
    x, weight, bias, dy = inputs(2, 24, 10, 10, 7, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(ops.depthwise_conv2d, x, weight, bias, dy.bfloat16())
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    rounded = [tensor.bfloat16() for tensor in (x, weight, bias, dy)]
    assert_close(found, exact(*rounded), torch.bfloat16)


def test_parametrized_weight_and_no_bias() -> None:
    torch.manual_seed(0)
    conv = parametrizations.weight_norm(nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False))
    assert ops.supported(conv)
    x = torch.randn(3, 24, 9, 9)
    parameters = list(conv.parameters())
    own = torch.autograd.grad(ops.depthwise(conv, x).square().sum(), parameters)
    library = torch.autograd.grad(conv(x).square().sum(), parameters)
    for a, b in zip(own, library, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3 * b.abs().max().item())


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, True),
        ({"padding": "same"}, True),
        ({"bias": False}, True),
        ({"kernel_size": 4}, False),
        ({"kernel_size": 13, "padding": 6}, False),
        ({"kernel_size": 1, "padding": 0}, False),
        ({"kernel_size": (5, 3)}, False),
        ({"stride": 2}, False),
        ({"padding": 1}, False),
        ({"dilation": 2}, False),
        ({"groups": 4}, False),
        ({"out_channels": 16}, False),
        ({"padding_mode": "circular"}, False),
    ],
    ids=str,
)
def test_supported(change: dict[str, object], answer: bool) -> None:
    settings = {"in_channels": 8, "out_channels": 8, "kernel_size": 5, "padding": 2, "groups": 8, **change}
    assert ops.supported(nn.Conv2d(**settings)) is answer  # type: ignore[arg-type]


def test_a_forward_of_its_own_is_not_supported() -> None:
    class Other(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    arguments = {"kernel_size": 3, "padding": 1, "groups": 8}
    assert not ops.supported(Other(8, 8, **arguments))
    conv = nn.Conv2d(8, 8, **arguments)
    assert ops.supported(conv)
    conv.forward = lambda x: x  # type: ignore[method-assign]
    assert not ops.supported(conv)
    assert not ops.supported(nn.Linear(2, 2))


def test_hooks_are_called_around_the_kernel(compiled: None) -> None:
    """As use-it-or-lose-it's, which counts what comes in and changes the weights before they are used."""
    conv, called = nn.Conv2d(8, 8, 3, padding=1, groups=8), []

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        called.append("before")
        with torch.no_grad():
            conv.weight.mul_(2)
        return (args[0] + 1,)

    conv.register_forward_pre_hook(before)
    conv.register_forward_hook(lambda module, args, out: called.append("after") or out * 3)
    conv.register_full_backward_hook(lambda *_: called.append("backward"))
    x = inputs(2, 8, 6, 6, 3, torch.float32)[0].requires_grad_()
    expected = 3 * F.conv2d(x + 1, 2 * conv.weight, conv.bias, padding=1, groups=8)
    out = ops.depthwise(conv, x)
    torch.testing.assert_close(out, expected)
    assert "Convolution" not in "".join(type(node).__name__ for node in graph(out))
    out.sum().backward()
    assert called == ["before", "after", "backward"]
    assert "forward" not in vars(conv)


def library_answers(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the library's node is in the graph."""
    return "Convolution" in type(ops.depthwise_conv2d(x, weight.requires_grad_(), bias).grad_fn).__name__


def test_the_library_answers_for_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, _ = inputs(2, 8, 6, 6, 5, torch.float32)
    assert library_answers(x.double(), weight.double(), bias.double())
    assert library_answers(x[:0], weight, bias)
    assert library_answers(*(tensor.to("meta") for tensor in (x, weight, bias)))
    expected = F.conv2d(x, weight, bias, padding=2, groups=8)
    assert torch.equal(ops.depthwise_conv2d(x, weight, bias, "reference"), expected)
    monkeypatch.setattr(ops, "_library", lambda dtype: None)
    assert ops.choose(torch.device("cpu")) == "reference"
    assert library_answers(x, weight, bias)
    assert torch.equal(ops.depthwise_conv2d(x, weight, bias, "compiled"), expected)


def test_mixed_dtypes_are_refused_as_the_library_refuses_them() -> None:
    x, weight, bias, _ = inputs(2, 8, 6, 6, 5, torch.float32)
    with pytest.raises(RuntimeError, match="type"):
        ops.depthwise_conv2d(x.bfloat16(), weight, bias)


def test_a_flop_counter_sees_the_convolution() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x, weight, bias, _ = inputs(2, 8, 6, 6, 5, torch.float32)
    with FlopCounterMode(display=False) as counter:
        ops.depthwise_conv2d(x, weight, bias)
    assert counter.get_total_flops() == 2 * (2 * 8 * 6 * 6) * 25


@pytest.mark.usefixtures("compiled")
def test_without_avx512_bf16() -> None:
    """The source's other branches, built for an older processor, give the same numbers."""
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("the processor to pretend is an x86")
    script = """
from itertools import product
import torch
from bench.ops import native
plain = native.load
native.load = lambda name, *flags: plain(name, *flags, "-mno-avx512f")
from tests.ops import test_depthwise as t
for shape, kernel, dtype in product(t.SHAPES, (3, 7, 11), t.ops.DTYPES):
    x, weight, bias, dy = t.inputs(*shape, kernel, dtype)
    t.assert_close(t.gradients(t.ops.depthwise_conv2d, x, weight, bias, dy), t.exact(x, weight, bias, dy), dtype)
assert not native.why("depthwise"), native.why("depthwise")
print("same")
"""
    assert "same" in run(script)


def test_triton_in_its_interpreter() -> None:
    """Triton's kernels on tiny shapes, with blocks that are cut by every border.

    Its interpreter cuts a bfloat16's last bits off where a GPU rounds, which doubles the error.
    """
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    script = """
import torch
from tests.ops import test_depthwise as t
from bench.ops import triton_depthwise as own
t.ROUNDING[torch.bfloat16] *= 2
for shape, kernel, dtype in (
    ((2, 5, 6, 7), 3, torch.float32),
    ((1, 3, 4, 3), 5, torch.bfloat16),
    ((1, 2, 5, 4), 9, torch.float16),
    ((1, 70, 1, 2), 3, torch.float32),
    ((1, 2, 3, 37), 3, torch.float32),
    ((1, 2, 3, 2), 11, torch.float32),
):
    x, weight, bias, dy = t.inputs(*shape, kernel, dtype)
    y, dx = own.correlate(x, weight, bias), own.correlate(dy, weight, None, mirror=True)
    assert y.is_contiguous(memory_format=torch.channels_last)
    t.assert_close([y, dx, *own.weight_gradient(x, dy, kernel)], t.exact(x, weight, bias, dy), dtype)
print("same")
"""
    assert "same" in run(script, TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kernel", ops.KERNELS)
@pytest.mark.parametrize("shape", [*SHAPES, (20, 96, 32, 32)], ids=lambda shape: "x".join(map(str, shape)))
def test_triton_on_a_gpu(shape: tuple[int, int, int, int], kernel: int, dtype: torch.dtype) -> None:
    x, weight, bias, dy = (tensor.cuda() for tensor in inputs(*shape, kernel, dtype))
    assert ops.choose(x.device) == "triton"
    assert_close(gradients(ops.depthwise_conv2d, x, weight, bias, dy), exact(x, weight, bias, dy), dtype)
