"""The Triton kernels against the reference: values and gradients in Triton's interpreter, and that they compile."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.neurons import SPIKES, NeuronConfig, Read
from bench.neurons.reads import SUMS
from bench.ops import reference

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
ALL = frozenset(Read)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def compare(
    kernels: object,
    shape: tuple[int, int, int, int],
    neuron: NeuronConfig,
    *,
    steps: int = 4,
    pool: int = 1,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    strided: bool = False,
    repeat: bool = False,
    norm: bool = True,
    training: bool = True,
    reads: frozenset[Read] = SPIKES,
    scale: float = 1.5,
    shared: str | None = None,
    add: bool = False,
    device: str = "cpu",
) -> int:
    """Fail unless both agree on values and on all gradients; the number of spikes.

    Args:
        shared: the axes of THW that share a dropout's mask, and `spikes` if it is theirs; None drops nothing.
        add: whether small whole numbers, with many ties, are added to the spikes.
    """
    torch.manual_seed(sum(shape) + steps)
    images, channels, height, width = shape
    batch = images if repeat else steps * images
    x = torch.randn(batch, channels, height, width * (2 if strided else 1)) * scale + 0.3
    x = x.to(device, dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    x = x[..., ::2] if strided else x
    vectors = [torch.rand(channels, device=device) + 0.5 for _ in range(4)] if norm else [None] * 4
    out_grad = torch.randn(steps * images, channels, height // pool, width // pool).to(device, dtype)
    spikes_grad = torch.randn(steps * images, channels, height, width).to(device, dtype)
    drops = {}
    if shared is not None:
        key = torch.tensor(-(10**18) + steps, device=device)
        how = "T" in shared, "HW" in shared
        drops["dropped_spikes" if "spikes" in shared else "dropped"] = reference.Dropped(
            key, 20000, *how, 1.4, 0.1, -0.2
        )
    other_path = torch.randint(3, spikes_grad.shape).to(device, dtype)
    results = []
    for module in (reference, kernels):
        given = x.detach().clone(memory_format=torch.preserve_format) if not strided else x.detach()
        given.requires_grad_()
        gamma, beta = (None if v is None else v.clone().requires_grad_() for v in vectors[:2])
        path = other_path.clone().requires_grad_() if add else None
        fired = module.bn_fire(  # type: ignore[attr-defined]
            given, gamma, beta, *vectors[2:], 1e-5, time_steps=steps, neuron=neuron, pool=pool,
            training_stats=training, repeat=repeat, reads=reads, add=path, **drops,
        )  # fmt: skip
        loss = (fired.out * out_grad).sum(dtype=torch.float32)
        draw = torch.Generator().manual_seed(1)
        for read, value in {**fired.sums, Read.potential: fired.potential}.items():
            if value is not None:
                factor = 300.0 if "rate" in read else 1.0
                loss = loss + (value * torch.randn(value.shape, generator=draw).to(device) * factor).sum()
        if fired.spikes is not None and fired.spikes is not fired.out:
            loss = loss + (fired.spikes * spikes_grad).sum(dtype=torch.float32)
        wanted = [leaf for leaf in (given, gamma, beta, path) if leaf is not None]
        results.append((fired, torch.autograd.grad(loss, wanted)))
    (first, grads), (other, own) = results
    for name in ("spikes", "out"):
        a, b = getattr(first, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert torch.equal(a, b), name
            assert b.dtype is dtype
            assert b.is_contiguous(memory_format=torch.channels_last)
    assert first.spike_count.dtype is other.spike_count.dtype is torch.int64
    assert first.spike_count == other.spike_count
    for name in ("mean", "var"):
        a, b = getattr(first, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    assert first.sums.keys() == other.sums.keys() == {read for read in reads if read in SUMS}
    for read, a in first.sums.items():
        assert other.sums[read].dtype is torch.float32
        torch.testing.assert_close(other.sums[read], a.float(), rtol=1e-6, atol=1e-6)
    if Read.potential in reads:
        torch.testing.assert_close(other.potential, first.potential, rtol=1e-5, atol=1e-5)
    for a, b in zip(grads, own, strict=True):
        close(b, a, dtype)
    return int(other.spike_count)


def close(own: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert own.shape == wanted.shape
    assert own.dtype is wanted.dtype
    assert own.isfinite().all()
    # Relative to the largest: a sum over many values is only as exact as they are.
    limit = TOLERANCE[dtype] * max(1.0, float(wanted.abs().max()))
    assert float((own - wanted).abs().max()) <= limit


SOFT = NeuronConfig(v_reset=None)
LIF = NeuronConfig("lif", tau=1.7, v_threshold=0.8, v_reset=-0.2, alpha=3.0)
PLAIN_INPUT = NeuronConfig("lif", decay_input=False, v_reset=None)


def check_all() -> None:
    """What the interpreter goes through, in a process of its own: it is chosen when Triton is imported."""
    from bench.ops import triton_fire as kernels

    odd = (2, 3, 5, 7)
    fired = 0
    for neuron, pool, repeat in itertools.product((NeuronConfig(), SOFT, LIF, PLAIN_INPUT), (1, 2), (False, True)):
        fired += compare(kernels, odd, neuron, pool=pool, repeat=repeat)
    assert fired > 1000
    for steps in (1, 2, 12):
        compare(kernels, odd, NeuronConfig(), steps=steps, pool=2)
    compare(kernels, (1, 2, 2, 2), LIF, steps=16, pool=2)
    for dtype in (torch.bfloat16, torch.float16):
        compare(kernels, odd, NeuronConfig(), dtype=dtype, pool=2)
        compare(kernels, odd, LIF, dtype=dtype, repeat=True)
    compare(kernels, odd, NeuronConfig(), channels_last=False, pool=2)
    compare(kernels, odd, NeuronConfig(), strided=True, pool=2)
    compare(kernels, odd, NeuronConfig(), training=False, pool=2)
    compare(kernels, odd, NeuronConfig(), norm=False)
    compare(kernels, odd, NeuronConfig(), norm=False, pool=2, reads=frozenset())
    compare(kernels, (1, 70, 4, 4), NeuronConfig(), steps=2, pool=2)  # more channels than a tile has
    compare(kernels, (9, 2, 9, 9), NeuronConfig(), steps=1)  # more rows than one tile of the statistics
    compare(kernels, (2, 1, 1, 1), NeuronConfig(), steps=3)
    for shared, pool, repeat in (("", 1, False), ("T", 2, True), ("HW", 2, False)):
        compare(kernels, odd, LIF, pool=pool, repeat=repeat, shared=shared)
    for shared, pool, add in (("spikes", 1, False), ("T spikes", 2, False), ("HW spikes", 2, True)):
        compare(kernels, odd, LIF, steps=5, pool=pool, add=add, shared=shared)
    compare(kernels, odd, NeuronConfig(), pool=1, add=True)
    compare(kernels, odd, SOFT, pool=1, add=True, reads=frozenset())
    compare(kernels, odd, NeuronConfig(), pool=2, add=True, repeat=True)
    compare(kernels, odd, SOFT, pool=2, add=True, reads=frozenset())
    compare(kernels, odd, NeuronConfig(), pool=2, add=True, shared="", dtype=torch.bfloat16)
    compare(kernels, odd, NeuronConfig(), pool=2, reads=ALL)
    compare(kernels, odd, SOFT, repeat=True, reads=ALL)
    compare(kernels, odd, SOFT, pool=2, add=True, shared="", reads=ALL)
    compare(kernels, odd, LIF, steps=3, pool=2, dtype=torch.bfloat16, reads=ALL - {Read.spikes})
    compare(kernels, (1, 70, 2, 2), LIF, steps=1, reads=ALL)
    for read in Read:
        compare(kernels, (2, 3, 2, 3), NeuronConfig(), steps=2, reads=frozenset({read}))
    weight_0(kernels)
    # Never and always: without batch norm, currents far below and far above the threshold.
    assert compare(kernels, odd, NeuronConfig(v_threshold=1e3), norm=False, pool=2) == 0
    assert compare(kernels, odd, NeuronConfig(v_threshold=1e-6), norm=False, scale=0.0, pool=2) == 4 * 2 * 3 * 5 * 7
    many_parts(kernels)


def weight_0(kernels: object) -> None:
    """Gradients of 0 for what is read leave those of the output as they are, bit for bit."""
    x = torch.randn(8, 5, 3, 4)
    for neuron, pool in ((NeuronConfig(), 2), (SOFT, 1)):
        slopes = []
        for reads in (frozenset[Read](), ALL):
            leaf = x.clone().requires_grad_()
            fired = kernels.bn_fire(  # type: ignore[attr-defined]
                leaf, *torch.ones(2, 5), None, None, 1e-5, time_steps=4, neuron=neuron, pool=pool,
                training_stats=True, reads=reads,
            )  # fmt: skip
            read = [value for value in (*fired.sums.values(), fired.potential, fired.spikes) if value is not None]
            total = (fired.out * torch.arange(fired.out.numel()).view(fired.out.shape).sin()).sum()
            slopes.append(torch.autograd.grad(total + sum((0.0 * value).sum() for value in read), leaf)[0])
        assert torch.equal(*slopes)


def many_parts(kernels: object) -> None:
    """Statistics over several parts of several tiles, far from 0."""
    kernels.MOMENT_PARTS = 3  # type: ignore[attr-defined]
    x = (100 + torch.randn(5, 3, 9, 7)).contiguous(memory_format=torch.channels_last)
    mean, var = kernels.moments(x)  # type: ignore[attr-defined]
    exact_var, exact_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert torch.allclose(mean.double(), exact_mean, rtol=1e-6)
    assert torch.allclose(var.double(), exact_var, rtol=1e-4)


def compile_all() -> None:
    """Compile each kernel for two GPUs; Triton brings all that takes, a GPU is not needed."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bench.ops import triton_fire as kernels

    constants = {"T": 4, "POOL": 2, "REPEAT": False, "SOFT": False, "SPIKES": True, "ROWS": 4, "COLUMNS": 64}
    constants |= {"ADD": True, "POTENTIAL": True, "FIXED": False, "CHANNELS": False}
    sizes = dict.fromkeys(("images", "height", "width", "channels"), "i32")
    sizes |= {"lowest": "i32"}
    numbers = dict.fromkeys(("keep", "threshold", "reset", "gain", "offset", "fill", "spike_value", "silence"), "fp32")
    numbers |= {"key": "*i64", "add": "*bf16"}
    forward = {"x": "*bf16", "vectors": "*fp32", "out": "*bf16", "spikes": "*bf16", "count": "*i64"} | sizes | numbers
    forward |= {"potential": "*fp32", "neurons": "*fp32"}
    backward = {"x": "*bf16", "vectors": "*fp32", "g_out": "*bf16", "g_spikes": "*bf16", "sums": "*fp32"}
    backward |= {"parts": "*fp32", "dx": "*bf16", "d_add": "*bf16"} | sizes | numbers | {"alpha": "fp32"}
    backward |= dict.fromkeys(("g_potential", "silent", "firing"), "*fp32")
    backward |= dict.fromkeys(("sum_image", "sum_row", "sum_column"), "i32")
    moments = {"x": "*bf16", "sums": "*fp32"} | dict.fromkeys(("rows", "channels", "parts", "each"), "i32")
    jobs = [(kernels._moments, moments, {"ROWS": 32, "COLUMNS": 64})]
    jobs += [(kernels._forward, forward, constants | {"NEURONS": True, "DROP": drop}) for drop in (1, 2)]
    taken = constants | {"OUT": True, "SUMS": True}
    jobs += [
        (kernels._backward, backward, taken | {"REDUCE": reduce, "REPEAT": repeat, "DROP": 1 + repeat})
        for reduce, repeat in itertools.product((False, True), repeat=2)
    ]
    for kernel, signature, values in jobs:
        names = {**signature, **dict.fromkeys(values, "constexpr")}
        ordered = {name: names[name] for name in kernel.arg_names}
        for capability in (80, 90):
            source = ASTSource(kernel, ordered, constexprs={(kernel.arg_names.index(k),): v for k, v in values.items()})
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
            assert f"sm_{capability}" in made.asm["ptx"]


def run(call: str, **environment: str) -> None:
    """Call a function of this file in a Python of its own."""
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
    code += f"import test_triton_fire as t; t.{call}(); print('done')"
    full = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=full, timeout=900, check=False
    )
    assert done.stdout.endswith("done\n"), done.stderr[-3000:]


def test_values_and_gradients_in_the_interpreter() -> None:
    run("check_all", TRITON_INTERPRET="1")


def test_the_kernels_compile_for_gpus(tmp_path: Path) -> None:
    run("compile_all", TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pool", [1, 2])
def test_on_a_gpu(pool: int, dtype: torch.dtype) -> None:
    from bench.ops import triton_fire as kernels

    for neuron, repeat in itertools.product((NeuronConfig(), SOFT, LIF), (False, True)):
        compare(kernels, (4, 40, 17, 16), neuron, pool=pool, dtype=dtype, repeat=repeat, device="cuda")
