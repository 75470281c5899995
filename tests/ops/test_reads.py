"""What is read of a layer, by the compiled kernels: values and gradients against torch in float64, and by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.neurons import NeuronConfig, Read, Spiking
from bench.neurons.reads import SUMS, channel_means, tell_channel_means
from bench.ops import compiled, reference
from bench.ops.reference import Dropped, Fired

pytestmark = pytest.mark.skipif(compiled.fault() is not None, reason="no C++ compiler")

MARGIN = 1e-4  # a potential nearer to the threshold may fire in one of the two and not in the other
IF, SOFT, LIF = NeuronConfig(), NeuronConfig(v_reset=None), NeuronConfig("lif", tau=3.0, v_reset=-0.5)
NEURONS = [IF, SOFT, LIF, NeuronConfig("lif", tau=1.5, v_reset=None), NeuronConfig(v_threshold=0.4, alpha=4.0)]
ALL = frozenset(Read)
WEIGHTS = dict.fromkeys(Read, 1.0) | {read: 300.0 for read in Read if "rate" in read}


class Case:
    """A layer's input; what is read of it is descended with weights of its own, drawn by the seed."""

    def __init__(
        self,
        shape: tuple[int, int, int, int] = (2, 19, 5, 7),
        steps: int = 4,
        neuron: NeuronConfig = IF,
        pool: int = 1,
        repeat: bool = False,
        norm: bool = True,
        add: bool = False,
        drops: str | None = None,
        fixed: bool = False,
        channels: bool = False,
        seed: int = 0,
    ) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.seed = seed
        images, units, height, width = shape
        batch = images if repeat else images * steps
        self.x = torch.randn(batch, units, height, width, generator=self.draw) + 0.4
        self.norm = (torch.rand(2, units, generator=self.draw) + 0.5).unbind() if norm else None
        full = (images * steps, units, height, width)
        self.add = torch.randint(3, full, generator=self.draw).float() if add else None
        self.options: dict[str, Any] = {"time_steps": steps, "neuron": neuron, "pool": pool, "repeat": repeat}
        if drops:
            self.options[drops] = Dropped(torch.tensor(seed), 20000, fixed, channels, 1.4, 0.1, -0.2)

    def fire(self, op: Any, x: Tensor, reads: Iterable[Read]) -> Fired:
        learned = (None,) * 4 if self.norm is None else (*(v.to(torch.float32) for v in self.norm), None, None)
        add = None if self.add is None else self.add.to(x.dtype)
        return op.bn_fire(x, *learned, 1e-5, training_stats=True, add=add, reads=frozenset(reads), **self.options)

    def run(
        self, op: Any, reads: Iterable[Read], dtype: torch.dtype, weight: float = 1.0, out: bool = True
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What was read, by name, and the gradient of x.

        Args:
            op: which kernels.
            reads: what is read.
            dtype: of x.
            weight: of what is read in what is descended.
            out: whether the layer's output is descended too.
        """
        x = self.x.to(dtype).requires_grad_()
        fired = self.fire(op, x, reads)
        found: dict[str, Tensor | None] = {**fired.sums, "spikes": fired.spikes, "potential": fired.potential}
        found = {name: value for name, value in found.items() if value is not None and name in reads}
        draw = torch.Generator().manual_seed(self.seed + 1)
        total = (fired.out * torch.randn(fired.out.shape, generator=draw).to(dtype)).sum() if out else 0.0
        for name in sorted(found):
            factor = torch.randn(found[name].shape, generator=draw) * WEIGHTS[Read(name)] * weight
            total = total + (found[name] * factor).sum()
        (gradient,) = torch.autograd.grad(total, x)
        return {name: value.detach() for name, value in found.items()}, gradient

    def margin(self) -> float:
        """How near a potential comes to the threshold."""
        fired = self.fire(reference, self.x.double(), {Read.potential})
        assert fired.potential is not None
        return (fired.potential - self.options["neuron"].v_threshold).abs().min().item()


def safe(**options: Any) -> Case:
    """A case in which rounding decides no spike: seeds are tried in order."""
    return next(case for seed in range(200) if (case := Case(seed=seed, **options)).margin() > MARGIN)


def assert_same(case: Case, reads: Iterable[Read] = ALL, rtol: float = 2e-5) -> None:
    (wanted, slope), (got, own) = (
        case.run(op, reads, dtype) for op, dtype in ((reference, torch.float64), (compiled, torch.float32))
    )
    assert wanted.keys() == got.keys() == set(reads)
    for name, value in wanted.items():
        assert got[name].dtype is torch.float32
        assert got[name].shape == value.shape
        # A potential adds up the roundings of up to sixteen currents, each the larger by batch norm of few values.
        atol = 1e-4 if name is Read.potential else 1e-5
        torch.testing.assert_close(got[name].double(), value, rtol=1e-5, atol=atol)
    assert torch.allclose(own.double(), slope, rtol=rtol, atol=rtol * max(1.0, slope.abs().max().item()))


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: f"{n.name}{n.v_reset}{n.tau}")
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("repeat", [False, True])
def test_everything_at_once(neuron: NeuronConfig, pool: int, repeat: bool) -> None:
    assert_same(safe(neuron=neuron, pool=pool, repeat=repeat))


@pytest.mark.parametrize("read", Read)
@pytest.mark.parametrize("options", [{}, {"pool": 2, "add": True}, {"repeat": True, "drops": "dropped"}], ids=str)
def test_each_alone(read: Read, options: dict[str, Any]) -> None:
    """With the layer's output, and as all that anything is descended of."""
    case = safe(**options)
    assert_same(case, {read})
    (_, wanted), (_, own) = (
        case.run(op, {read}, dtype, out=False) for op, dtype in ((reference, torch.float64), (compiled, torch.float32))
    )
    assert wanted.abs().max() > 0
    assert torch.allclose(own.double(), wanted, rtol=2e-5, atol=2e-5 * wanted.abs().max().item())


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 35), st.integers(1, 5), st.integers(1, 5)),
    steps=st.integers(1, 16),
    neuron=st.sampled_from(NEURONS),
    pool=st.sampled_from([1, 2]),
    repeat=st.booleans(),
    norm=st.booleans(),
    add=st.booleans(),
    drops=st.sampled_from([None, "dropped", "dropped_spikes"]),
    fixed=st.booleans(),
    channels=st.booleans(),
    reads=st.sets(st.sampled_from(list(Read)), min_size=1),
    seed=st.integers(0, 99),
)
def test_any_case(reads: set[Read], **options: Any) -> None:
    images, _, height, width = options["shape"]
    values = images * height * width * (1 if options["repeat"] else options["steps"])
    # Batch norm over few values gives variances near 0, whose reciprocal magnifies every rounding.
    assume(values >= 8 or not options["norm"])
    assume(min(height, width) >= options["pool"])
    case = Case(**options)
    assume(case.margin() > MARGIN)
    assert_same(case, reads, rtol=1e-4)


@pytest.mark.parametrize("current", [-3.0, 5.0], ids=["silent", "saturated"])
@pytest.mark.parametrize("pool", [1, 2])
def test_silent_and_saturated(current: float, pool: int) -> None:
    case = Case(norm=False, pool=pool)
    case.x = torch.full_like(case.x, current)
    assert_same(case)
    found, _ = case.run(compiled, ALL, torch.float32)
    rate = float(current > 0)
    assert found["rate"] == rate
    assert (found["channel_rates"] == rate).all()
    assert (found["neuron_counts"] == 4 * rate).all()


def test_ties_at_the_threshold() -> None:
    """Currents of 0, 1/2 and 1 at a threshold of 1: potentials reach it exactly, and it is a spike."""
    case = Case(norm=False, pool=2)
    case.x = torch.randint(3, case.x.shape, generator=case.draw) / 2
    fired = case.fire(compiled, case.x, ALL)
    assert (fired.potential == 1).sum() > 100
    assert torch.equal(fired.spikes == 1, fired.potential >= 1)
    assert_same(case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pool", [1, 2])
def test_half_precision(dtype: torch.dtype, pool: int) -> None:
    """Sums and potentials are float32 whatever x is: a sum of ones in bfloat16 stops growing at 256."""
    case = Case(shape=(2, 5, 12, 14), steps=7, pool=pool)
    case.x = case.x.to(dtype)
    (wanted, slope), (got, own) = (case.run(op, ALL, dtype) for op in (reference, compiled))
    assert wanted["channel_rates"].sum() * 7 * 12 * 14 > 256
    for name, value in got.items():
        if name != "spikes":
            assert value.dtype is torch.float32
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-5)
    assert torch.allclose(own.float(), slope.float(), rtol=0, atol=0.02 * slope.abs().max().item())


def surrogate(h: float) -> float:
    """The slope of a spike by its potential, ATan of alpha 2 about a threshold of 1."""
    return 1 / (1 + (math.pi * (h - 1)) ** 2)


def test_by_hand() -> None:
    """T = 2, IF, N = 1, two channels of one neuron; currents 1.5 and 0.5, then 0.25 and 0.25.

    Channel 0 fires at 1.5 and is at 0.25 after its reset; channel 1 is at 0.5 and 0.75 and never fires. What flows
    back through the reset of a spike is nothing.
    """
    x = torch.tensor([[1.5, 0.5], [0.25, 0.25]]).view(2, 2, 1, 1)
    options: dict[str, Any] = {"time_steps": 2, "neuron": IF, "training_stats": True, "reads": ALL}
    sa, sb, sc, sd = (surrogate(h) for h in (1.5, 0.5, 0.25, 0.75))
    slopes = {
        # One of four values fires; each spike's share of the mean is 1 / 4.
        Read.rate: (0.25, [sa / 4, (sb + sd) / 4, sc / 4, sd / 4]),
        Read.squared_rate: (0.25, [2 * sa / 4, 0.0, 0.0, 0.0]),
        # Of the sum of both channels' rates and counts.
        Read.channel_rates: (0.5, [sa / 2, (sb + sd) / 2, sc / 2, sd / 2]),
        Read.squared_channel_rates: (0.5, [sa, 0.0, 0.0, 0.0]),
        Read.neuron_counts: (1.0, [sa, sb + sd, sc, sd]),
        Read.squared_neuron_counts: (1.0, [2 * sa, 0.0, 0.0, 0.0]),
        # Without pooling or a sum, what is passed on are the spikes.
        Read.channel_outputs: (0.5, [sa / 2, (sb + sd) / 2, sc / 2, sd / 2]),
        # Potentials 1.5, 0.5, 0.25, 0.75: the first one's effect ends at its reset, the second's goes on.
        Read.potential: (3.0, [1.0, 2.0, 1.0, 1.0]),
    }
    for op in (reference, compiled):
        for read, (value, wanted) in slopes.items():
            leaf = x.clone().requires_grad_()
            fired = op.bn_fire(leaf, None, None, None, None, 0.0, **options)
            total = (fired.potential if read is Read.potential else fired.sums[read]).sum()
            assert total.item() == pytest.approx(value), read
            (g,) = torch.autograd.grad(total, leaf)
            assert g.flatten().tolist() == pytest.approx(wanted, rel=1e-5), read


def test_what_a_window_passes_on_by_hand() -> None:
    """One window of currents 1.5, 0.5, 1.25 and 0 at T = 1, and 1, 0, 0 and 2 added: sums 2, 0, 1 and 2, the first is
    the maximum. An odd column, which no window has, counts for nothing."""
    x = torch.tensor([[1.5, 0.5, 1.5], [1.25, 0.0, 1.5]]).view(1, 1, 2, 3)
    add = torch.tensor([[1.0, 0.0, 5.0], [0.0, 2.0, 5.0]]).view(1, 1, 2, 3)
    options: dict[str, Any] = {"time_steps": 1, "neuron": IF, "training_stats": True, "pool": 2}
    for op in (reference, compiled):
        leaf, other = x.clone().requires_grad_(), add.clone().requires_grad_()
        reads = frozenset({Read.channel_outputs})
        fired = op.bn_fire(leaf, None, None, None, None, 0.0, reads=reads, add=other, **options)
        assert fired.sums[Read.channel_outputs].tolist() == [[2.0]]
        (2 * fired.sums[Read.channel_outputs].sum()).backward()
        assert leaf.grad.flatten().tolist() == pytest.approx([2 * surrogate(1.5), 0, 0, 0, 0, 0], rel=1e-5)
        assert other.grad.flatten().tolist() == [2.0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("drops", [None, "dropped", "dropped_spikes"])
@pytest.mark.parametrize("told", [False, True])
def test_what_is_added_has_its_share_in_what_is_passed_on(pool: int, drops: str | None, told: bool) -> None:
    """Gradients of x and of what is added, which may know its channels' means from the layer that it comes from."""
    case = safe(pool=pool, drops=drops, add=True)
    assert case.add is not None
    found = {}
    for op, dtype in ((reference, torch.float64), (compiled, torch.float32)):
        x, add = (values.to(dtype).requires_grad_() for values in (case.x, case.add))
        given = add * 1
        if told:
            tell_channel_means(given, channel_means(given, 4))
        learned = () if case.norm is None else case.norm
        fired = op.bn_fire(
            x, *learned, None, None, 1e-5, training_stats=True, add=given, reads=frozenset({Read.channel_outputs}),
            **case.options,
        )  # fmt: skip
        value = fired.sums[Read.channel_outputs]
        torch.testing.assert_close(value, fired.out.unflatten(0, (4, -1)).mean((0, 3, 4)), rtol=1e-5, atol=1e-5)
        draw = torch.Generator().manual_seed(3)
        weights, others = (torch.randn(shape, generator=draw).to(dtype) for shape in (value.shape, fired.out.shape))
        total = (value * weights).sum() * 100 + (fired.out * others).sum()
        found[op] = [g.double() for g in torch.autograd.grad(total, (x, add))]
    for own, wanted in zip(found[compiled], found[reference], strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: f"{n.name}{n.v_reset}{n.tau}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_0_is_the_baseline_bit_for_bit(neuron: NeuronConfig, dtype: torch.dtype) -> None:
    """To read costs no bit: gradients of 0 leave those of the output as they are."""
    for steps in (3, 4):
        for options in (
            {},
            {"pool": 2},
            {"pool": 2, "add": True},
            {"repeat": True},
            {"drops": "dropped"},
            {"drops": "dropped_spikes", "pool": 2},
            {"norm": False},
        ):
            case = Case(neuron=neuron, steps=steps, **options)
            if case.add is not None:
                case.add = case.add.to(dtype)
            _, plain = case.run(compiled, (), dtype)
            _, read = case.run(compiled, ALL, dtype, weight=0.0)
            assert torch.equal(plain, read), options


@pytest.mark.parametrize("reads", [(), (Read.rate,), (Read.channel_rates,), (Read.potential,)])
def test_just_what_is_read_is_computed(reads: tuple[Read, ...]) -> None:
    fired = Case(pool=2).fire(compiled, Case().x, reads)
    assert set(fired.sums) == set(reads) & set(SUMS)
    assert fired.spikes is None
    assert (fired.potential is not None) == (Read.potential in reads)


def test_what_is_read_adds_nothing_to_what_is_saved() -> None:
    case = Case()
    x = case.x.contiguous(memory_format=torch.channels_last).requires_grad_()
    sizes: dict[bool, list[int]] = {}
    for every in (False, True):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=saved: to.append(t.numel()) or t, lambda t: t):
            case.fire(compiled, x, ALL if every else ())
        sizes[every] = saved
    assert sizes[False] == sizes[True]


def test_threads_share_an_image() -> None:
    """More threads than images: rows of one image are counted by several."""
    case = Case(shape=(1, 20, 9, 4), pool=2)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(case.run(compiled, ALL, torch.float32)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in ALL)


def test_gradients_of_a_silent_layer_are_true_ones() -> None:
    """Without a spike a potential is a smooth function of the current: finite differences in float64."""
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def potential(current: Tensor) -> Tensor:
        fired = reference.bn_fire(
            current, None, None, None, None, 0.0, time_steps=3, training_stats=True,
            neuron=NeuronConfig("lif", v_threshold=1e6, tau=3.0), reads=frozenset({Read.potential}),
        )  # fmt: skip
        assert fired.potential is not None
        return fired.potential

    assert torch.autograd.gradcheck(potential, x)


@pytest.mark.parametrize("neuron", [IF, SOFT, LIF])
@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 3, 2)])
def test_plain_layers_give_the_same(neuron: NeuronConfig, shape: tuple[int, ...]) -> None:
    """A spiking layer by SpikingJelly, fully connected or not, in float64: sums by their definition."""
    layer = Spiking(neuron, 4)
    layer.reads = ALL
    layer(torch.randn(shape, dtype=torch.float64) + 0.5)
    assert layer.fired is not None
    assert layer.potential is not None
    spikes = layer.fired
    assert torch.equal(spikes == 1, layer.potential >= neuron.v_threshold)
    counts = torch.zeros(spikes.shape[1:], dtype=torch.float64)
    for step in spikes:
        counts += step
    rates = counts.reshape(3, 5, -1).sum(2) / (4 * math.prod(shape[2:]))
    for prefix in ("", "squared_"):
        torch.testing.assert_close(layer.sums[Read(f"{prefix}neuron_counts")], counts)
        torch.testing.assert_close(layer.sums[Read(f"{prefix}channel_rates")], rates)
        torch.testing.assert_close(layer.sums[Read(f"{prefix}rate")], spikes.sum() / spikes.numel())
    layer.forget()
    assert (layer.sums, layer.fired, layer.potential) == ({}, None, None)


def test_a_potential_that_goes_on() -> None:
    """A layer that remembers: IF with 0.4 a step is at 0.4 and 0.8, then at 1.2 (a spike) and 0.4."""
    layer = Spiking(IF, 2)
    layer.reads, layer.remembers = frozenset({Read.spikes, Read.potential}), True
    for wanted in ([0.4, 0.8], [1.2, 0.4]):
        layer(torch.full((2, 1), 0.4))
        assert layer.potential is not None
        assert layer.potential.flatten().tolist() == pytest.approx(wanted)
