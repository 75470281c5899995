"""Which kernels a machine and a layer get, what is said when they don't, and that networks don't notice."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import ops
from bench.activity import activity_of
from bench.errors import BenchError
from bench.models.base import Spec
from bench.models.cnn import CNN
from bench.neurons import SPIKES, NeuronConfig, Read, Spiking
from bench.neurons.reads import channel_means
from bench.ops import Backend, ConvNorm, compiled, native
from bench.registry import MODELS, REGULARIZERS
from bench.regularizers.masking import At, Mask, StepDropout
from bench.regularizers.weightnorm import MeanOnlyBatchNorm

needs_compiler = pytest.mark.skipif(compiled.fault() is not None, reason="no C++ compiler")
ROOT = Path(__file__).resolve().parents[2]


class Block(nn.Module):
    """conv - BN - IF - max pool 2 through `fire_block`, perhaps with a residual path."""

    def __init__(self, neuron: NeuronConfig | None = None, repeat: bool = False, add: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.spiking = ConvNorm(5, 12, 3), Spiking(neuron or NeuronConfig(), 4)
        nn.init.uniform_(self.conv.norm.weight, 0.5, 2.0)
        nn.init.uniform_(self.conv.norm.bias)
        self.pool: nn.MaxPool2d | None = nn.MaxPool2d(2)
        self.repeat = repeat
        self.path = nn.Parameter(torch.randint(3, (12, 12, 7, 8)).float()) if add else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.fire_block(self.conv, self.spiking, x, self.pool, self.repeat, self.path)


def both(change: Callable[[Block], Any] = lambda block: None, **options: Any) -> tuple[Block, Block]:
    """The block after one training step's forward and backward with either backend."""
    blocks = []
    for backend in (Backend.compiled, Backend.reference):
        block = Block(**options)
        change(block)
        torch.manual_seed(4)
        x = torch.randn(3 if block.repeat else 12, 5, 7, 8)
        with ops.using(backend):
            out = block(x)
        passed_on = block.spiking.sums.get(Read.channel_outputs, torch.zeros(()))
        (out.square().sum() + 0.1 * block.spiking.fired.sum() + 50 * passed_on.square().sum()).backward()
        block.out = out
        blocks.append(block)
    return blocks[0], blocks[1]


def assert_same(fast: Block, slow: Block) -> None:
    assert torch.equal(fast.out, slow.out)
    assert fast.spiking.sums.keys() == slow.spiking.sums.keys()
    for read, value in fast.spiking.sums.items():
        torch.testing.assert_close(value, slow.spiking.sums[read])
        if read is Read.channel_outputs:
            torch.testing.assert_close(value, fast.out.unflatten(0, (4, -1)).mean((0, 3, 4)))
            assert torch.equal(channel_means(fast.out, 4), value)
    assert torch.equal(fast.spiking.fired, slow.spiking.fired)
    assert 0.02 < fast.spiking.fired.mean() < 0.98
    for (name, own), other in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if name == "conv.conv.bias":
            continue  # its gradient before batch norm is 0, up to rounding
        assert torch.allclose(own.grad, other.grad, rtol=1e-4, atol=1e-5 * other.grad.abs().max().item()), name
    for (name, own), other in zip(fast.named_buffers(), slow.buffers(), strict=True):
        assert torch.allclose(own, other, rtol=1e-5, atol=1e-6), name


CHANGES: dict[str, tuple[Callable[[Block], Any], str | None]] = {
    "nothing": (lambda b: None, None),
    "eval": (lambda b: b.eval(), None),
    "no norm": (lambda b: setattr(b.conv, "norm", nn.Identity()), None),
    "another norm": (lambda b: setattr(b.conv, "norm", MeanOnlyBatchNorm(12)), None),
    "norm without affine": (lambda b: setattr(b.conv, "norm", nn.BatchNorm2d(12, affine=False)), None),
    "frozen norm": (lambda b: b.conv.norm.eval(), None),
    "scaled current": (lambda b: b.spiking.current.append(Halve()), None),
    "scaled spikes": (lambda b: b.spiking.spikes.append(Halve()), None),
    "no pooling": (lambda b: setattr(b, "pool", None), None),
    "mean": (lambda b: setattr(b, "pool", nn.AvgPool2d(2)), None),
    "mean of another size": (lambda b: setattr(b, "pool", nn.AvgPool2d(3, stride=2, padding=1)), None),
    "outputs": (lambda b: setattr(b.spiking, "reads", SPIKES | {Read.channel_outputs}), None),
    "outputs and no pooling": (lambda b: without_pooling(b), None),
    "outputs by a mean": (lambda b: by_mean(b), None),
    "outputs behind a change": (lambda b: behind_a_change(b), None),
    "outputs by a hook": (lambda b: by_hook(b), "a hook"),
    "potential": (lambda b: setattr(b.spiking, "reads", SPIKES | {Read.potential}), None),
    "hook": (lambda b: b.spiking.register_forward_hook(lambda *a: None), "a hook"),
    "hook on the norm": (lambda b: b.conv.norm.register_forward_pre_hook(lambda *a: None), "a hook"),
    "other pooling": (lambda b: setattr(b, "pool", nn.MaxPool2d(3)), "the pooling"),
    "double": (lambda b: b.conv.register_forward_hook(lambda m, a, y: y.double()), "a hook"),
}


def reads_outputs(block: Block) -> Block:
    block.spiking.reads = SPIKES | {Read.channel_outputs}
    return block


def without_pooling(block: Block) -> None:
    reads_outputs(block).pool = None


def by_mean(block: Block) -> None:
    reads_outputs(block).pool = nn.AvgPool2d(2)


def behind_a_change(block: Block) -> None:
    reads_outputs(block).spiking.spikes.append(Halve())


def by_hook(block: Block) -> None:
    reads_outputs(block).spiking.register_forward_hook(lambda *a: None)


class Halve(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


@needs_compiler
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_block_equals_its_modules(change: str, repeat: bool, add: bool) -> None:
    do, reason = CHANGES[change]
    fast, slow = both(do, repeat=repeat, add=add)
    assert_same(fast, slow)
    assert fast.spiking.kernel_note.obstacle == reason
    assert slow.spiking.kernel_note.obstacle is None
    assert ops.explain(fast) == (reason and f"1 of 1 layers use the reference: {reason}")


@needs_compiler
@pytest.mark.parametrize(
    ("neuron", "reason"),
    [
        (NeuronConfig("lif", tau=3.0), None),
        (NeuronConfig("plif"), "neuron plif"),
        (NeuronConfig(detach_reset=False), "detach_reset=false"),
    ],
)
def test_neurons(neuron: NeuronConfig, reason: str | None) -> None:
    fast, slow = both(neuron=neuron)
    assert_same(fast, slow)
    assert fast.spiking.kernel_note.obstacle == reason


@needs_compiler
def test_float64_takes_the_reference() -> None:
    block = Block().double()
    block(torch.randn(12, 5, 7, 8, dtype=torch.float64))
    assert block.spiking.kernel_note.obstacle == "float64 on cpu"
    assert block.conv.norm.num_batches_tracked == 1


@needs_compiler
def test_a_layer_that_remembers_goes_on_from_the_potential() -> None:
    fast, slow = both()
    fast.spiking.remembers = slow.spiking.remembers = True
    for repeat in range(3):
        outs = []
        for block, backend in ((fast, Backend.compiled), (slow, Backend.reference)):
            torch.manual_seed(repeat)
            with ops.using(backend), torch.no_grad():
                outs.append(block.eval()(torch.randn(12, 5, 7, 8)))
        assert torch.equal(*outs)
        assert fast.spiking.kernel_note.obstacle == "it goes on from a potential"
    fast.spiking.forget()
    fast(torch.randn(12, 5, 7, 8))
    assert fast.spiking.kernel_note.obstacle is None


@needs_compiler
def test_forgetting_lets_go_of_the_current_and_keeps_the_reason() -> None:
    """A pass that goes on would need the current; the reason is asked for after a step's reset."""
    block, currents = Block(), list[weakref.ref[Tensor]]()
    block.conv.conv.register_forward_hook(lambda module, inputs, out: currents.append(weakref.ref(out)))
    with torch.no_grad():
        block(torch.randn(12, 5, 7, 8))
        assert currents[0]() is not None
        block.spiking.forget()
        assert currents[0]() is None
        block.pool = nn.MaxPool2d(3)
        block(torch.randn(12, 5, 7, 8))
    block.spiking.forget()
    assert ops.explain(block) == "1 of 1 layers use the reference: the pooling"


@pytest.mark.parametrize("backend", [Backend.auto, Backend.reference])
def test_layers_whose_spikes_nobody_reads_count_them(backend: Backend) -> None:
    full, lean = Block(), Block()
    lean.spiking.reads = frozenset()
    x = torch.randn(12, 5, 7, 8)
    with ops.using(backend):
        assert torch.equal(full(x), lean(x))
        assert lean.spiking.fired is None
        assert lean.spiking.count == full.spiking.fired.sum()
        assert lean.spiking.shape == full.spiking.fired.shape == (4, 3, 12, 7, 8)


@needs_compiler
def test_layers_whose_spikes_nobody_reads_cannot_go_on() -> None:
    block = Block()
    block.spiking.reads, block.spiking.remembers = frozenset(), True
    block(torch.randn(12, 5, 7, 8))
    with pytest.raises(RuntimeError, match="without forget"):
        block(torch.randn(12, 5, 7, 8))


@needs_compiler
@pytest.mark.parametrize("name", ["cnn", "sew", "convmixer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_networks_run_fused(name: str, dtype: torch.dtype) -> None:
    knobs: dict[str, Any] = {"width": 8, "depth": 2, "kernel": 3} if name == "convmixer" else {"channels": 8}
    net = MODELS.get(name)(Spec((3, 32, 32), 10), **knobs).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = net(torch.randn(2, 3, 32, 32)).float().square().sum()
    loss.backward()
    assert ops.explain(net) is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert {a.spikes.dtype for a in activity_of(net).values()} == {dtype}


@needs_compiler
@pytest.mark.parametrize("name", ["dropout", "dropout2d", "feature_dropout", "alpha_dropout"])
@pytest.mark.parametrize("mask", list(Mask))
@pytest.mark.parametrize("places", [(At.current,), (At.spikes,), (At.current, At.spikes)], ids=str)
def test_dropout_draws_the_same_inside_the_kernels(
    name: str, mask: Mask, places: tuple[At, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are the same bits whoever draws them; one dropout of a layer is done by the kernel."""
    torch.manual_seed(0)
    nets = [CNN(Spec((3, 16, 16), 10), channels=20, depth=2)]
    nets.append(copy.deepcopy(nets[0]))
    outs, called, plain = [], list[Backend](), StepDropout.forward

    def forward(gate: StepDropout, x: Tensor) -> Tensor:
        called.append(ops.asked())
        return plain(gate, x)

    monkeypatch.setattr(StepDropout, "forward", forward)
    for net, backend in zip(nets, (Backend.compiled, Backend.reference), strict=True):
        for at in places:
            REGULARIZERS.get(name)(0.3, mask=mask, at=at).attach(net)
        for training in (True, False):
            net.train(training)
            torch.manual_seed(1)
            with ops.using(backend):
                outs.append(net(torch.ones(2, 3, 16, 16)))
    assert torch.allclose(outs[0], outs[2], atol=1e-4)
    assert torch.allclose(outs[1], outs[3], atol=1e-4)
    # Of two the second is done by itself, and in training alone.
    assert called.count(Backend.compiled) == (2 if len(places) > 1 else 0)
    assert called.count(Backend.reference) == 4 * len(places)


# -- choice ---------------------------------------------------------------------------------------


def test_reference_is_always_there() -> None:
    assert ops.resolve(Backend.reference, "cpu") == (Backend.reference, None)
    assert ops.resolve(Backend.reference, "cuda") == (Backend.reference, None)


@needs_compiler
def test_auto_is_compiled_on_a_cpu() -> None:
    assert ops.resolve(Backend.auto, "cpu") == (Backend.compiled, None)


def test_triton_without_a_gpu() -> None:
    with pytest.raises(BenchError, match="ops=triton needs a CUDA GPU") as error:
        ops.resolve(Backend.triton, "cpu")
    assert error.value.code == 2


def test_compiled_kernels_are_for_the_cpu() -> None:
    backend, reason = ops.resolve(Backend.compiled, "cuda")
    assert backend is Backend.reference
    assert "for the CPU" in reason


def in_a_process(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), **env}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CHOICE = """
import torch
from bench import ops
from bench.models.base import Spec
from bench.models.cnn import CNN
print(*ops.resolve(ops.Backend.auto, "cpu"), sep=": ")
CNN(Spec((1, 8, 8), 3), channels=4, depth=2)(torch.randn(2, 1, 8, 8)).sum().backward()
"""


def test_without_a_compiler(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = in_a_process(CHOICE, PATH=str(tmp_path / "empty"), XDG_CACHE_HOME=str(tmp_path))
    assert said == "reference: the compiled kernels can't be built: no C++ compiler (g++, c++ or clang++) in PATH\n"


def test_with_a_compiler_that_fails(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "g++"
    fake.write_text("#!/bin/sh\necho 'fire.cpp:1: error: no such flag' >&2\nexit 1\n")
    fake.chmod(0o755)
    said = in_a_process(CHOICE, PATH=f"{fake.parent}:/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert said == "reference: the compiled kernels can't be built: g++ failed: fire.cpp:1: error: no such flag\n"


@needs_compiler
def test_with_a_compiler_that_fails_at_one_kernel(tmp_path: Path) -> None:
    """Its layers go back to the reference, and say why."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "g++"
    compiler = next(path for path in map(shutil.which, native.COMPILERS) if path)
    fails = "*fire.cpp*) echo 'out of memory: error' >&2; exit 1;;"
    fake.write_text(f'#!/bin/sh\ncase "$*" in {fails} esac\nexec {compiler} "$@"\n')
    fake.chmod(0o755)
    code = CHOICE.replace("CNN(Spec", "model = CNN(Spec").replace("(torch.randn", "\nmodel(torch.randn")
    said = in_a_process(
        code + "print(ops.explain(model))", PATH=f"{fake.parent}:/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path)
    )
    assert said.splitlines() == [
        "compiled: None",
        "2 of 2 layers use the reference: its kernel can't be built: g++ failed: out of memory: error",
    ]


def test_with_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = in_a_process(CHOICE, PATH="/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert said.startswith("reference: the compiled kernels can't be built: ")
    assert said.count("\n") == 1


@needs_compiler
def test_built_once_and_by_several_processes_at_a_time(tmp_path: Path) -> None:
    code = "import torch; from bench.ops import compiled; assert compiled.fault() is None, compiled.fault()"
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path)}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(2)]
    assert [p.wait() for p in processes] == [0, 0]
    (built,) = (tmp_path / "snn-bench" / "ops").iterdir()
    stamp = built.stat().st_mtime_ns
    in_a_process(code, **env)
    assert built.stat().st_mtime_ns == stamp


def test_unknown_source() -> None:
    assert native.load("no-such-kernel") is None
    assert native.why("no-such-kernel") is not None


def test_unknown_dtype() -> None:
    assert native.variant("fire", torch.int32, steps=0, soft=0, drop=0) is None
    assert native.why("fire") == "there are none for torch.int32"


@needs_compiler
def test_shapes_that_torch_refuses() -> None:
    block = Block()
    with pytest.raises(RuntimeError, match="too small"):
        block(torch.randn(4, 5, 1, 4))
    block = Block(NeuronConfig(), repeat=True)
    block.pool = None
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        block(torch.randn(1, 5, 1, 1))
