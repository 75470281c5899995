"""Batch norm, neuron and pooling in one: compiled against the reference, against SpikingJelly and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

from bench.neurons import NeuronConfig, Read, Spiking
from bench.ops import compiled, masks, reference
from bench.ops.reference import Dropped, Fired

pytestmark = pytest.mark.skipif(compiled.fault() is not None, reason="no C++ compiler")

MARGIN = 1e-5  # a potential nearer to the threshold may fire in one backend and not in the other
IF, SOFT = NeuronConfig(), NeuronConfig(v_reset=None)
NEURONS = {
    "if": IF,
    "if-soft": SOFT,
    "if-low": NeuronConfig(v_threshold=0.4, v_reset=-0.3, alpha=4.0),
    "lif": NeuronConfig("lif"),
    "lif-undecayed": NeuronConfig("lif", tau=3.0, decay_input=False),
    "lif-soft": NeuronConfig("lif", tau=1.5, v_reset=None),
    "lif-reset": NeuronConfig("lif", tau=3.0, v_reset=-0.5),
}


class Case:
    """An input with gradients for both results, and what the layer learned."""

    def __init__(
        self,
        shape: tuple[int, int, int, int] = (3, 20, 6, 8),
        time_steps: int = 4,
        neuron: NeuronConfig = IF,
        pool: int = 2,
        dtype: torch.dtype = torch.float32,
        repeat: bool = False,
        norm: bool = True,
        training_stats: bool = True,
        mean: float = 0.5,
        seed: int = 0,
        dropout: tuple[str, float, float, float] | None = None,
        add: bool = False,
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        images, channels, height, width = shape
        batch = images if repeat else images * time_steps
        self.x = (torch.randn(batch, channels, height, width, generator=draw) + mean).to(dtype)
        self.learned: list[Tensor | None] = [None] * 4
        if norm:
            gamma, beta, running, var = torch.rand(4, channels, generator=draw)
            self.learned = [gamma + 0.5, beta, running - 0.5, var + 0.5]
        self.options: dict[str, Any] = {
            "time_steps": time_steps,
            "neuron": neuron,
            "pool": pool,
            "repeat": repeat,
            "training_stats": training_stats,
        }
        full = (images * time_steps, channels, height, width)
        if dropout is not None:
            shared, *change = dropout
            key = torch.randint(2**62, (), generator=draw)
            how = "T" in shared, "HW" in shared
            self.options["dropped_spikes" if "spikes" in shared else "dropped"] = Dropped(key, 26214, *how, *change)
        # Sums of spikes, as SEW's ADD has them: many ties.
        self.add = torch.randint(3, full, generator=draw).to(dtype) if add else None
        self.g_spikes = torch.randn(full, generator=draw).to(dtype)
        self.g_out = torch.randn(*full[:2], height // pool, width // pool, generator=draw).to(dtype)

    def run(self, op: Any, into: str = "both") -> tuple[Fired, list[Tensor]]:
        """Results of a backend and the gradients of x, gamma, beta and what is added."""
        learned = [None if v is None else v.clone() for v in self.learned]
        leaves = [
            self.x.detach().clone(memory_format=torch.preserve_format),
            *[v for v in learned[:2] if v is not None],
        ]
        if learned[0] is not None:
            learned[:2] = leaves[1:]
        add = None if self.add is None else self.add.clone()
        leaves += [] if add is None or into == "spikes" else [add]
        for leaf in leaves:
            leaf.requires_grad_()
        fired = op.bn_fire(leaves[0], *learned, 1e-5, **self.options, add=add)
        results = {"spikes": [(fired.spikes, self.g_spikes)], "out": [(fired.out, self.g_out)]}
        results["both"] = results["spikes"] + results["out"]
        tensors, gradients = zip(*results[into], strict=True)
        return fired, list(torch.autograd.grad(tensors, leaves, gradients))

    def margin(self) -> float:
        """How near a potential comes to the threshold."""
        spiking = Spiking(self.options["neuron"], self.options["time_steps"])
        spiking.reads = frozenset({Read.potential})
        y = self.x.float()
        gamma, beta, mean, var = self.learned
        if gamma is not None:
            if self.options["training_stats"]:
                mean = var = None
            y = nn.functional.batch_norm(y, mean, var, gamma, beta, self.options["training_stats"], 0.0, 1e-5)
        if self.options["repeat"]:
            y = y.repeat(self.options["time_steps"], 1, 1, 1)
        if "dropped" in self.options:
            y = self.options["dropped"](y.unflatten(0, (self.options["time_steps"], -1))).flatten(0, 1)
        spiking(y)
        return (spiking.potential - self.options["neuron"].v_threshold).abs().min().item()


def safe(**options: Any) -> Case:
    """A case in which rounding decides no spike: seeds are tried in order."""
    return next(case for seed in range(200) if (case := Case(seed=seed, **options)).margin() > MARGIN)


def assert_same(case: Case, into: str = "both", rtol: float = 1e-5) -> None:
    (expected, wanted), (fired, got) = (case.run(op, into) for op in (reference, compiled))
    assert torch.equal(fired.spikes, expected.spikes)
    assert torch.equal(fired.out, expected.out)
    assert fired.out.dtype is case.x.dtype
    assert fired.spike_count == expected.spike_count == expected.spikes.sum(dtype=torch.float64)
    for own, other in ((fired.mean, expected.mean), (fired.var, expected.var)):
        assert (own is None) == (other is None)
        assert own is None or torch.allclose(own, other, rtol=1e-5, atol=1e-6)
    assert len(got) == len(wanted)
    for own, other in zip(got, wanted, strict=True):
        assert own.dtype is other.dtype
        # A sum's rounding error goes with its largest terms, not with what they cancel to.
        assert torch.allclose(own, other, rtol=rtol, atol=rtol * max(1.0, other.abs().max().item())), (
            own - other
        ).abs()


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("training_stats", [False, True])
def test_compiled_equals_reference(name: str, pool: int, repeat: bool, training_stats: bool) -> None:
    assert_same(safe(neuron=NEURONS[name], pool=pool, repeat=repeat, training_stats=training_stats))


@pytest.mark.parametrize("time_steps", [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("neuron", [IF, SOFT], ids=["hard", "soft"])
def test_any_number_of_steps(time_steps: int, neuron: NeuronConfig) -> None:
    assert_same(safe(time_steps=time_steps, neuron=neuron, shape=(2, 17, 4, 4)))


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 33])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (2, 2), (3, 5), (5, 2), (7, 7)])
def test_odd_shapes(channels: int, height: int, width: int) -> None:
    for pool in (1, 2) if min(height, width) > 1 else (1,):
        assert_same(safe(shape=(2, channels, height, width), pool=pool))


@pytest.mark.parametrize("into", ["spikes", "out", "both"])
@pytest.mark.parametrize("pool", [1, 2])
def test_gradient_from_either_result(into: str, pool: int) -> None:
    assert_same(safe(pool=pool), into)


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("pool", [1, 2])
def test_without_a_norm(pool: int, repeat: bool) -> None:
    assert_same(safe(norm=False, pool=pool, repeat=repeat))


@pytest.mark.parametrize("name", ["if", "if-soft", "lif", "lif-undecayed", "lif-reset"])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_dropout_on_the_way(name: str, pool: int, repeat: bool, norm: bool) -> None:
    """Masks of their own and shared over time or space; kept entries rescaled and moved, dropped ones filled; of the
    current, or of the spikes behind all that is read of them."""
    for shared in ("", "T", "HW", "THW", "spikes", "THW spikes"):
        case = safe(
            neuron=NEURONS[name], pool=pool, repeat=repeat, norm=norm, dropout=(shared, 1.5, 0.1, -0.2),
            shape=(2, 19, 5, 4), time_steps=3 if name == "if" else 4,
        )  # fmt: skip
        assert_same(case)


def kept_of_two(key: Tensor) -> list[bool]:
    """What half a dropout keeps of one entry at two steps."""
    return masks.keep((2, 1, 1), key, 32768, fixed=False, channels=False).flatten().tolist()


def test_dropout_of_spikes_by_hand() -> None:
    """T = 2, IF, currents 1.5 and 1.5: both fire; the first spike is kept as 2 + 0.5, the second is -1. The kept one's
    slope is the gain times the surrogate's at 0.5 above the threshold; the rate knows nothing of all that."""
    key = next(k for k in map(torch.tensor, range(99)) if kept_of_two(k) == [True, False])
    x = torch.full((2, 1, 1, 1), 1.5, requires_grad=True)
    dropped = Dropped(key, 32768, False, False, 2.0, 0.5, -1.0)
    for op in (reference, compiled):
        fired = op.bn_fire(
            x, None, None, None, None, 0.0, time_steps=2, neuron=IF, training_stats=True, dropped_spikes=dropped,
            reads=frozenset({Read.spikes, Read.rate}),
        )  # fmt: skip
        assert fired.out.flatten().tolist() == [2.5, -1.0]
        assert fired.spikes.flatten().tolist() == [1, 1]
        assert fired.sums[Read.rate] == 1
        slope = 1 / (1 + (torch.pi * 0.5) ** 2)
        (g,) = torch.autograd.grad(fired.out.sum(), x, retain_graph=True)
        assert g.flatten().tolist() == pytest.approx([2 * slope, 0])
        (g,) = torch.autograd.grad(fired.sums[Read.rate], x)
        assert g.flatten().tolist() == pytest.approx([slope / 2, slope / 2])


def test_dropout_by_hand() -> None:
    """T = 2, IF, alpha 2, current 0.6 kept and doubled at the first step, dropped to 0 at the second: 1.2 fires, then
    0 does not. At a distance d the surrogate's slope is 1 / (1 + (pi d)^2); a dropped current has no gradient."""
    x = torch.full((2, 1, 1, 1), 0.6, requires_grad=True)
    key = next(k for k in map(torch.tensor, range(99)) if kept_of_two(k) == [True, False])
    dropped = Dropped(key, 32768, False, False, 2.0, 0.0, 0.0)
    options: dict[str, Any] = {"time_steps": 2, "neuron": IF, "training_stats": True, "dropped": dropped}
    for op in (reference, compiled):
        fired = op.bn_fire(x, None, None, None, None, 0.0, **options)
        assert fired.out.flatten().tolist() == [1, 0]
        (g,) = torch.autograd.grad(fired.out[0].sum(), x)
        assert g.flatten().tolist() == pytest.approx([2 / (1 + (torch.pi * 0.2) ** 2), 0])


@pytest.mark.parametrize("name", ["if", "if-soft", "lif"])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("into", ["spikes", "out", "both"])
def test_a_residual_path(name: str, pool: int, repeat: bool, into: str) -> None:
    """Sums with spikes, pooled or not; the spikes themselves and their number are without."""
    for options in (
        {},
        {"dropout": ("T", 1.5, 0.1, -0.2)},
        {"dropout": ("spikes", 1.5, 0.1, -0.2)},
        {"shape": (2, 19, 5, 7), "time_steps": 3},
    ):
        case = safe(neuron=NEURONS[name], pool=pool, repeat=repeat, add=True, **options)
        assert_same(case, into, rtol=2e-5)


def test_pooled_sums_by_hand() -> None:
    """T = 1, no norm, one window: spikes at the threshold 0 1 1 0, to which 2 1 0 2 is added: 2 2 1 2. The first 2 gets
    the gradient: its current, 0, lies 1 below the threshold, where the surrogate's slope is 1 / (1 + pi^2)."""
    x = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]], requires_grad=True)
    add = torch.tensor([[[[2.0, 1.0], [0.0, 2.0]]]], requires_grad=True)
    for op in (reference, compiled):
        fired = op.bn_fire(
            x, None, None, None, None, 0.0, time_steps=1, neuron=IF, pool=2, training_stats=True, add=add
        )
        assert fired.out.flatten().tolist() == [2]
        assert fired.spikes.flatten().tolist() == [0, 1, 1, 0]
        assert fired.spike_count == 2
        g_x, g_add = torch.autograd.grad(fired.out.sum(), [x, add])
        assert g_add.flatten().tolist() == [1, 0, 0, 0]
        assert g_x.flatten().tolist() == pytest.approx([1 / (1 + torch.pi**2), 0, 0, 0])


def test_sums_are_compared_as_they_are_stored() -> None:
    """In bfloat16 257 is 256: behind 256 + 0 it is no larger, and the first of equal sums gets the gradient."""
    x = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]], dtype=torch.bfloat16)
    add = torch.full((1, 1, 2, 2), 256.0, dtype=torch.bfloat16, requires_grad=True)
    for op in (reference, compiled):
        fired = op.bn_fire(
            x, None, None, None, None, 0.0, time_steps=1, neuron=IF, pool=2, training_stats=True, add=add
        )
        (g,) = torch.autograd.grad(fired.out.sum(), add)
        assert fired.out.item() == 256
        assert g.flatten().tolist() == [1, 0, 0, 0]


def test_a_nan_that_is_added_is_the_maximum() -> None:
    x = torch.zeros(1, 16, 2, 2)
    add = torch.zeros(1, 16, 2, 2)
    add[0, 3, 0, 1] = torch.nan
    fired = compiled.bn_fire(
        x, None, None, None, None, 0.0, time_steps=1, neuron=IF, pool=2, training_stats=True, add=add
    )
    assert fired.out[0, :, 0, 0].isnan().nonzero().flatten().tolist() == [3]


def test_layouts() -> None:
    """The same values in any strides give the same; results are channels_last."""
    case = safe()
    _, wanted = case.run(reference)
    wide = torch.zeros(*case.x.shape[:3], 2 * case.x.shape[3])
    wide[..., ::2] = case.x
    dense = case.x
    for x in (dense, dense.contiguous(memory_format=torch.channels_last), wide[..., ::2]):
        leaf = x.detach().requires_grad_()
        fired = compiled.bn_fire(leaf, *case.learned, 1e-5, **case.options)
        assert fired.out.is_contiguous(memory_format=torch.channels_last)
        gradient = case.g_spikes.transpose(2, 3).contiguous().transpose(2, 3)
        (g,) = torch.autograd.grad([fired.spikes, fired.out], leaf, [gradient, case.g_out])
        assert torch.allclose(g, wanted[0], rtol=1e-5, atol=1e-5)


def test_expanded_gradient() -> None:
    """A penalty on the mean gives every spike the same gradient, in a tensor of stride 0."""
    case = safe()
    case.g_spikes = torch.tensor(0.3).expand(case.g_spikes.shape)
    assert_same(case)


@pytest.mark.parametrize(("mean", "rate"), [(-50.0, 0.0), (50.0, 1.0)], ids=["silent", "saturated"])
@pytest.mark.parametrize("pool", [1, 2])
def test_silent_and_saturated(mean: float, rate: float, pool: int) -> None:
    """Ties everywhere: in each window the first value gets the pooled gradient."""
    case = Case(mean=mean, norm=False, pool=pool)
    fired, gradients = case.run(compiled)
    assert fired.spikes.mean() == rate
    assert torch.isfinite(gradients[0]).all()
    assert_same(case)


def test_ties_by_hand() -> None:
    """T = 1, no norm, alpha 2: the surrogate's slope at distance d is 1 / (1 + (pi d)^2).

    Window a is silent at 0: its first value gets 1 / (1 + pi^2). In window b the second and the last
    fire at the threshold: the second gets 1. The last column is in no window.
    """
    x = torch.tensor([[[[0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0]]]], requires_grad=True)
    fired = compiled.bn_fire(x, None, None, None, None, 0.0, time_steps=1, neuron=IF, pool=2, training_stats=True)
    assert fired.out.flatten().tolist() == [0, 1]
    assert fired.spikes.flatten().tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 1, 0]
    assert fired.spike_count == 3
    (g,) = torch.autograd.grad(fired.out.sum(), x)
    silent = 1 / (1 + torch.pi**2)
    expected = torch.tensor([[silent, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    assert torch.allclose(g[0, 0], expected, rtol=1e-6, atol=0)


def test_reset_by_hand() -> None:
    """Current 0.75 at each step, T = 4, no norm. Hard: 0.75, 1.5 (spike), 0.75, 1.5 (spike). Soft: 0.75, 1.5
    (spike, 0.5 left), 1.25 (spike, 0.25 left), 1 (spike)."""
    x = torch.full((1, 1, 1, 1), 0.75, requires_grad=True)
    for config, spikes in ((IF, [0, 1, 0, 1]), (SOFT, [0, 1, 1, 1])):
        options: dict[str, Any] = {"time_steps": 4, "neuron": config, "training_stats": True, "repeat": True}
        fired = compiled.bn_fire(x, None, None, None, None, 0.0, **options)
        assert fired.spikes.flatten().tolist() == spikes


@pytest.mark.parametrize("kind", ["if", "lif"])
@pytest.mark.parametrize("training", [True, False])
def test_both_equal_spikingjelly(kind: str, training: bool) -> None:
    """BatchNorm2d, IFNode or LIFNode and MaxPool2d of SpikingJelly in multi-step mode."""
    case = safe(neuron=NeuronConfig(kind), training_stats=training)
    norm = layer.BatchNorm2d(20, step_mode="m").train(training)
    gamma, beta, mean, var = case.learned
    norm.load_state_dict(
        {
            "weight": gamma,
            "bias": beta,
            "running_mean": mean,
            "running_var": var,
            "num_batches_tracked": torch.tensor(0),
        }
    )
    shared = {"surrogate_function": surrogate.ATan(alpha=2.0), "detach_reset": True, "step_mode": "m"}
    node = neuron.IFNode(**shared) if kind == "if" else neuron.LIFNode(tau=2.0, **shared)
    x = case.x.clone().requires_grad_()
    spikes = node(norm(x.unflatten(0, (4, -1))))
    out = layer.MaxPool2d(2, step_mode="m")(spikes)
    results, gradients = [spikes.flatten(0, 1), out.flatten(0, 1)], [case.g_spikes, case.g_out]
    wanted = torch.autograd.grad(results, [x, norm.weight, norm.bias], gradients)
    for op in (reference, compiled):
        fired, got = case.run(op)
        assert torch.equal(fired.spikes, results[0])
        assert torch.equal(fired.out, results[1])
        for own, other in zip(got, wanted, strict=True):
            assert torch.allclose(own, other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.01), (torch.float16, 0.00125)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_half_precision(dtype: torch.dtype, bound: float, pool: int, repeat: bool, add: bool) -> None:
    """Everything inside is float32: spikes are those of the reference, gradients of x are rounded to 8 bits (11 in
    float16), twice where batch statistics are used (1 % of the largest); those of gamma and beta are not."""
    case = safe(dtype=dtype, pool=pool, repeat=repeat, add=add)
    (expected, wanted), (fired, got) = (case.run(op) for op in (reference, compiled))
    assert fired.spikes.dtype is dtype
    assert torch.equal(fired.spikes, expected.spikes)
    assert torch.equal(fired.out, expected.out)
    largest = wanted[0].abs().max().item()
    assert torch.allclose(got[0].float(), wanted[0].float(), rtol=0, atol=bound * largest)
    # Of the reference, torch adds both gradients of a spike in half precision.
    for own, other in zip(got[1:3], wanted[1:3], strict=True):
        assert torch.allclose(own, other, rtol=bound / 2, atol=bound / 2 * other.abs().max().item())
    if add:
        assert torch.equal(got[3], wanted[3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("add", [False, True])
def test_dropped_spikes_in_half_precision(dtype: torch.dtype, pool: int, add: bool) -> None:
    """What is passed on is what torch makes of a spike in that precision, step by step; ties are those of what is
    stored."""
    case = safe(dtype=dtype, pool=pool, add=add, dropout=("spikes", 1.2341, 0.1234, -0.2345))
    (expected, wanted), (fired, got) = (case.run(op) for op in (reference, compiled))
    assert fired.out.dtype is dtype
    assert torch.equal(fired.out, expected.out)
    assert torch.equal(fired.spikes, expected.spikes)
    largest = wanted[0].abs().max().item()
    assert torch.allclose(got[0].float(), wanted[0].float(), rtol=0, atol=0.02 * largest)
    if add:
        assert torch.equal(got[3], wanted[3])


def test_variance_far_from_zero() -> None:
    """Mean 1000, deviation 1: sums of squares in float32 would have no digit of the variance."""
    x = (torch.randn(8, 5, 6, 6, dtype=torch.float64) + 1000).float()
    ones, zeros = torch.ones(5), torch.zeros(5)
    fired = compiled.bn_fire(x, ones, zeros, None, None, 1e-5, time_steps=4, neuron=IF, training_stats=True)
    assert torch.allclose(fired.mean.double(), x.double().mean((0, 2, 3)), rtol=1e-7)
    assert torch.allclose(fired.var.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-4)


def test_nan_reaches_the_gradient() -> None:
    x = torch.randn(4, 3, 4, 4)
    x[0, 1, 0, 0] = torch.nan
    x.requires_grad_()
    fired = compiled.bn_fire(
        x, torch.ones(3), torch.zeros(3), None, None, 1e-5, time_steps=4, neuron=IF, training_stats=True
    )
    fired.out.sum().backward()
    assert x.grad[:, 1].isnan().all()
    assert x.grad[:, [0, 2]].isfinite().all()


def test_spikes_can_be_left_out() -> None:
    case = safe()
    fired, _ = case.run(compiled)
    for op in (reference, compiled):
        few = op.bn_fire(case.x, *case.learned, 1e-5, **case.options, reads=frozenset())
        assert few.spikes is None
        assert torch.equal(few.out, fired.out)
        assert few.spike_count == fired.spike_count


def test_only_x_and_vectors_are_saved() -> None:
    case = Case(shape=(4, 32, 16, 16), dtype=torch.bfloat16)
    saved: list[int] = []

    def pack(t: Tensor) -> Tensor:
        saved.append(t.numel() * t.element_size())
        return t

    x = case.x.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        compiled.bn_fire(x, *case.learned, 1e-5, **case.options)
    assert sorted(saved) == [4 * 32 * 4, x.numel() * 2]


def test_threads_do_not_change_the_result() -> None:
    case = safe(shape=(3, 20, 5, 7))
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(case.run(compiled))
    finally:
        torch.set_num_threads(before)
    (first, one), (second, other) = runs
    assert torch.equal(first.spikes, second.spikes)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(one, other, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 35), st.integers(1, 6), st.integers(1, 6)),
    time_steps=st.integers(1, 16),
    neuron=st.sampled_from(sorted(NEURONS)),
    pool=st.sampled_from([1, 2]),
    repeat=st.booleans(),
    norm=st.booleans(),
    training_stats=st.booleans(),
    add=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_case(neuron: str, seed: int, **options: Any) -> None:
    images, _, height, width = options["shape"]
    values = images * height * width * (1 if options["repeat"] else options["time_steps"])
    # Batch norm over few values gives variances near 0, whose reciprocal magnifies every rounding.
    assume(values >= 8 or not (options["norm"] and options["training_stats"]))
    assume(min(height, width) >= options["pool"])
    case = Case(neuron=NEURONS[neuron], seed=seed, **options)
    assume(case.margin() > MARGIN)
    assert_same(case, rtol=3e-5)
