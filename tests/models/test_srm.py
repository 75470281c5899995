"""The spike response network: its closed form against a simulation step by step, its spikes, its slots, its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from bench.activity import OpCounter, activity_of
from bench.config.compose import compose
from bench.config.schema import OptimConfig, Optimizer
from bench.errors import BenchError
from bench.models.base import Spec
from bench.models.srm import SRM, DelayedSynapses, ResponseNeuron, kernel, spike_times, spike_trains
from bench.neurons import SPIKES, NeuronConfig, Read
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.regularizers.masking import SELU_FLOOR
from bench.training.task import Task

T = 12
DROPOUTS = ["dropout", "dropout2d", "feature_dropout", "alpha_dropout"]


def network(time_steps: int = T, neuron: str = "if", **knobs: Any) -> SRM:
    """A small network whose hidden neurons fire on some of the images and steps, the same at each call."""
    torch.manual_seed(0)
    spec = Spec((1, 5, 5), 3, time_steps, NeuronConfig(neuron), mean=(0.3,), std=(0.2,))
    return SRM(spec, hidden=20, **knobs)


def images(count: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalized images, a third of their pixels black."""
    draw = torch.Generator().manual_seed(1)
    pixels = torch.rand(count, 1, 5, 5, generator=draw, dtype=dtype)
    pixels[torch.rand(count, 1, 5, 5, generator=draw) < 0.33] = 0
    return (pixels - 0.3) / 0.2


# -- kernel and synapses --------------------------------------------------------------------------


def test_kernel_by_hand() -> None:
    """With tau 4 the peak of 1 is at age 4; at 2 it is e^0.5 / 2, at 8 it is 2 / e; nothing comes early."""
    age = torch.tensor([-1000.0, -3.0, 0.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    expected = [0.0, 0.0, 0.0, math.exp(0.5) / 2, 1.0, 2 / math.e]
    assert kernel(age, 4.0).tolist() == pytest.approx(expected, abs=1e-12)


def test_two_inputs_by_hand() -> None:
    """Pixels 1 and 0.6 fire at steps 0 and 2; tau 2, delays 0 and 1.

    sigma(1 .. 5) = 0.824361, 1, 0.909796, 0.735759, 0.557825, and
    v(t) = sigma(t) - 0.5 sigma(t - 1) + 2 sigma(t - 2) + 0.25 sigma(t - 3).
    """
    synapses = DelayedSynapses(2, 1, [0, 1], 2.0, 6).double()
    with torch.no_grad():
        synapses.weight.copy_(torch.tensor([[1.0, -0.5, 2.0, 0.25]]))
    trains = spike_trains(spike_times(torch.tensor([[1.0, 0.6]], dtype=torch.float64), 6), 6)
    v = synapses(trains.unsqueeze(-1).expand(6, 1, 2, 2).flatten(2))
    expected = [0.0, 0.824361, 0.587820, 2.058517, 2.486951, 2.259538]
    assert v.flatten().tolist() == pytest.approx(expected, abs=2e-6)


def simulate(net: SRM, pixels: np.ndarray, multi: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image, one step after the other, one synapse after the other.

    Each synapse is a second-order filter: a spike that arrives adds e / tau to its current u, and from step to step
    y <- q (y + u), u <- q u with q = exp(-1 / tau). That leaves y = (a / tau) exp(1 - a / tau) at age a.

    Args:
        net: in float64.
        pixels: `[C]`.
        multi: whether hidden neurons recover.

    Returns:
        Hidden potentials before firing `[T, H]`, hidden spikes `[T, H]`, the output's potentials `[T, classes]`.
    """
    steps, delays, tau = net.time_steps, DELAYS, TAU
    q, kick, threshold = math.exp(-1 / tau), math.e / tau, 1.0

    class Layer:
        def __init__(self, weight: Tensor) -> None:
            self.weight = weight.detach().numpy().reshape(len(weight), -1, len(delays))
            self.u, self.y = np.zeros(self.weight.shape[1:]), np.zeros(self.weight.shape[1:])
            self.queue: list[tuple[int, int, int]] = []

        def step(self, t: int, spikes: np.ndarray) -> np.ndarray:
            self.y, self.u = q * (self.y + self.u), q * self.u
            self.queue += [(t + d, i, k) for i in np.flatnonzero(spikes) for k, d in enumerate(delays)]
            for arrival, i, k in self.queue:
                if arrival == t:
                    self.u[i, k] += kick
            return (self.weight * self.y).sum((1, 2))

    first, second = Layer(net.synapses.weight), Layer(net.head.weight)
    at = [None if x == 0 else round((1 - x) * (steps - 1)) for x in pixels]
    fired, recovery = np.zeros(len(net.synapses.weight), bool), np.zeros(len(net.synapses.weight))
    potentials, spikes, out = [], [], []
    for t in range(steps):
        v = first.step(t, np.array([when == t for when in at])) - recovery
        now = (v >= threshold) & (multi | ~fired)
        fired |= now
        recovery = (recovery + now * threshold) * q if multi else recovery
        potentials.append(v)
        spikes.append(now)
        out.append(second.step(t, now))
    return np.array(potentials), np.array(spikes), np.array(out)


DELAYS, TAU = [0, 2, 3], 2.5


@pytest.mark.parametrize("spikes", ["first", "multi"])
def test_closed_form_is_the_simulation(spikes: str) -> None:
    net = network(tau=TAU, delays=DELAYS, spikes=spikes).double()
    net.hidden.reads = SPIKES | {Read.potential}
    x = images(dtype=torch.float64)
    features = net.features(x)
    logits_t = net.head(features)
    v, fired = activity_of(net)["hidden"].potential, activity_of(net)["hidden"].spikes
    most = 0
    for n, pixels in enumerate(net.spec.pixels(x).flatten(1).numpy()):
        pixels = np.where(pixels < 1e-6, 0, pixels)
        expected_v, expected_fired, expected_out = simulate(net, pixels, spikes == "multi")
        np.testing.assert_allclose(v[:, n].detach().numpy(), expected_v, atol=1e-10)
        np.testing.assert_array_equal(fired[:, n].detach().numpy(), expected_fired)
        np.testing.assert_allclose(logits_t[:, n].detach().numpy(), expected_out, atol=1e-10)
        np.testing.assert_allclose(net.read(logits_t)[n].detach().numpy(), expected_out.max(0), atol=1e-10)
        most = max(most, int(expected_fired.sum(0).max()))
    assert most == 1 if spikes == "first" else most > 1
    assert torch.equal(net.logits(features), net.read(logits_t))


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 20),
    tau=st.floats(0.2, 10),
    delays=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    at=st.integers(0, 19),
)
def test_a_spike_is_answered_after_each_delay_and_never_before(steps: int, tau: float, delays: list, at: int) -> None:
    synapses = DelayedSynapses(1, 1, delays, tau, steps)
    train = torch.zeros(steps, 1, len(delays), dtype=torch.float64)
    train[at % steps] = 1
    y = synapses.postsynaptic(train)[:, 0]
    for k, delay in enumerate(delays):
        for t in range(steps):
            age = t - at % steps - delay
            assert y[t, k].item() == pytest.approx(max(age, 0) / tau * math.exp(1 - age / tau) if age > 0 else 0)


# -- encoding -------------------------------------------------------------------------------------


def test_bright_pixels_fire_early_and_black_ones_never() -> None:
    """T = 16: (1 - x) 15 is 0, 0.15, 7.5 - 0.3, 14.94, and a quarter of an intensity level is black."""
    pixels = torch.tensor([[1.0, 0.99, 0.52, 1 / 255, 0.25 / 255, 0.0, 1.2, -0.1]])
    trains = spike_trains(spike_times(pixels, 16), 16)
    when = [row.nonzero().flatten().tolist() for row in trains[:, 0].T]
    assert when == [[0], [0], [7], [15], [], [], [0], []]


def test_normalized_black_stays_silent() -> None:
    net = network()
    black = (torch.zeros(2, 1, 5, 5) - 0.3) / 0.2
    assert net.encode(black).sum() == 0
    # No bias: silence in is silence out.
    assert net(black).abs().max() == 0
    assert activity_of(net)["hidden"].spikes.sum() == 0


def test_the_gradient_of_a_spike_train_is_what_a_shift_would_change() -> None:
    """Spike at 2 of 5 steps: a step later it leaves what step 1 weighs and gains what step 3 does, over 2 steps."""
    times = torch.tensor([[2.3, 5.0]], requires_grad=True)
    weight = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]).view(5, 1, 1)
    (spike_trains(times, 5)[..., :1] * weight).sum().backward()
    assert times.grad is not None
    assert times.grad.tolist() == [[(1000 - 10) / 2, 0.0]]


def test_attacks_on_the_image_get_a_gradient_where_pixels_are_not_black() -> None:
    net, x = network(), images(2).requires_grad_()
    net(x).square().sum().backward()
    assert x.grad is not None
    black = net.spec.pixels(x.detach()) < 1e-6
    assert (x.grad[black] == 0).all()
    assert (x.grad[~black] != 0).float().mean() > 0.5


# -- spikes ---------------------------------------------------------------------------------------


def step(x: Tensor) -> Tensor:
    """A step with the gradient 1."""
    return (x >= 0).to(x.dtype) + x - x.detach()


def test_first_spike_only_by_hand() -> None:
    v = torch.tensor([0.5, 1.2, 0.3, 1.5]).view(4, 1, 1).requires_grad_()
    neuron = ResponseNeuron(step, 1.0, None, True)
    out = neuron(v)
    assert out.flatten().tolist() == [0, 1, 0, 0]
    out.sum().backward()
    assert v.grad is not None
    # What comes after the spike cannot change it.
    assert v.grad.flatten().tolist() == [1, 1, 0, 0]
    # It has fired: until it is reset, it is silent.
    assert neuron(v).sum() == 0
    neuron.reset()
    assert neuron(v).sum() == 1


def test_refractory_term_by_hand() -> None:
    """Decay 1/2 a step: 1.5 fires; 1.2 - 0.5, 1.2 - 0.25 do not; 1.2 - 0.125 = 1.075 does."""
    neuron = ResponseNeuron(step, 1.0, 1 / math.log(2), True)
    neuron.store_v_seq = True
    v = torch.tensor([1.5, 1.2, 1.2, 1.2]).view(4, 1, 1)
    assert neuron(v).flatten().tolist() == [1, 0, 0, 1]
    assert neuron.v_seq is not None
    assert neuron.v_seq.flatten().tolist() == pytest.approx([1.5, 0.7, 0.95, 1.075])


@pytest.mark.parametrize("detach", [True, False])
def test_detach_reset_decides_about_the_gradient_through_the_refractory_term(detach: bool) -> None:
    v = torch.tensor([1.5, 1.2]).view(2, 1, 1).requires_grad_()
    ResponseNeuron(step, 1.0, 1 / math.log(2), detach)(v)[1].sum().backward()
    assert v.grad is not None
    # dS_1/dv_0 = -(threshold x decay) dS_0/dv_0 = -0.5
    assert v.grad.flatten().tolist() == pytest.approx([0.0 if detach else -0.5, 1.0])


@pytest.mark.parametrize("spikes", ["first", "multi"])
def test_gradients_in_float64_on_a_smooth_surrogate(spikes: str) -> None:
    torch.manual_seed(0)
    spec = Spec((1, 2, 2), 2, 6, NeuronConfig(detach_reset=False))
    net = SRM(spec, hidden=3, tau=2.0, delays=[0, 1], spikes=spikes).double()  # type: ignore[arg-type]
    net.hidden.neuron.surrogate = torch.nn.Sigmoid()
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    names = ["synapses.weight", "head.weight"]
    weights = [net.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def logits(*values: Tensor) -> Tensor:
        net.forget()
        return functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(logits, weights)
    logits(*weights).sum().backward()
    assert all(bool((w.grad != 0).any()) for w in weights)


# -- regularizers ---------------------------------------------------------------------------------


def pattern(name: str, at: str, mask: str, **arguments: Any) -> tuple[Tensor, Tensor]:
    """What a dropout of p = 1/2 got in a training pass, and which of it went: `[T, N, C, K]` each."""
    net = network().train()
    REGULARIZERS.get(name)(p=0.5, at=at, mask=mask, **arguments).attach(net)
    slot = net.hidden.current if at == "current" else net.hidden.spikes
    seen: list[tuple[Tensor, Tensor]] = []
    slot[-1].register_forward_hook(lambda _, x, y: seen.append((x[0].detach(), y.detach())))
    net(images())
    ((x, y),) = seen
    alpha = name == "alpha_dropout" or (name == "feature_dropout" and not arguments)
    a = (0.5 * (1 + 0.5 * SELU_FLOOR**2)) ** -0.5
    # What is dropped is 0, or alpha' behind the affine map.
    gone = (y - (a * SELU_FLOOR - a * 0.5 * SELU_FLOOR)).abs() < 1e-6 if alpha else (y == 0) & (x != 0)
    return (part.unflatten(0, (T, -1)) for part in (x, gone))  # type: ignore[return-value]


@pytest.mark.parametrize("mask", ["per_step", "fixed"])
@pytest.mark.parametrize("at", ["current", "spikes"])
@pytest.mark.parametrize("name", DROPOUTS)
def test_a_channel_is_a_unit_and_an_element_one_of_its_synapses(name: str, at: str, mask: str) -> None:
    x, gone = pattern(name, at, mask)
    units = 25 if at == "current" else 20
    assert x.shape == (T, 6, units, 3)
    if at == "spikes":
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert (x == x[..., :1]).all()
    # Only what is not 0 shows whether zeros took its place.
    alive = torch.ones_like(x, dtype=torch.bool) if "alpha" in name or "feature" in name else x != 0
    both = alive[..., 0] & alive[..., 1]
    alike = (gone[..., 0] == gone[..., 1])[both].float().mean().item()
    assert alike == 1 if name in ("dropout2d", "feature_dropout") else 0.05 < alike < 0.95
    assert 0.3 < gone[alive].float().mean().item() < 0.7
    again = alive[:-1] & alive[1:]
    if again.any():
        kept = (gone[:-1] == gone[1:])[again].float().mean().item()
        assert kept == 1 if mask == "fixed" else 0.25 < kept < 0.75
    elif at == "current":
        pytest.fail("potentials last longer than a step")


def by_hand(name: str, at: str, count: int) -> SRM:
    """The network of `test_two_inputs_by_hand` in training, after a pass of `count` equal images under p = 1/2.

    Its potential is v(0 .. 5) = 0, .824361, .587820, 2.058517, 2.486951, 2.259538.
    """
    spec = Spec((1, 1, 2), 3, 6, NeuronConfig("if"), mean=(0.0,), std=(1.0,))
    net = SRM(spec, hidden=1, tau=2.0, delays=[0, 1]).double().train()
    with torch.no_grad():
        net.synapses.weight.copy_(torch.tensor([[1.0, -0.5, 2.0, 0.25]]))
    net.hidden.reads = SPIKES | {Read.potential}
    torch.manual_seed(0)
    REGULARIZERS.get(name)(p=0.5, at=at).attach(net)
    net.sent = net.features(torch.tensor([1.0, 0.6], dtype=torch.float64).expand(count, 1, 1, 2))
    return net


V = [0.0, 0.824361, 0.587820, 2.058517, 2.486951, 2.259538]


@pytest.mark.parametrize("name", DROPOUTS)
def test_weighted_masks_the_weighted_sum_in_front_of_the_threshold(name: str) -> None:
    """Each step of each image has 2 v or 0, for alpha' a v + b or -b, and fires once it is 1: with 2 v at the first
    step from 1 on that is kept, with 0.88641 v + 0.77920 as well: 1.50993, 1.30026, 2.60390 and so on."""
    net = by_hand(name, "weighted", 64)
    potential = net.hidden.potential
    assert potential is not None
    assert potential.shape == (6, 64, 1)
    alpha = name in ("feature_dropout", "alpha_dropout")
    kept = torch.tensor([0.88641 * v + 0.77920 if alpha else 2 * v for v in V], dtype=torch.float64).view(6, 1, 1)
    gone = -0.77920 if alpha else 0.0
    is_kept, is_gone = ((potential - value).abs() < 3e-5 for value in (kept, gone))
    assert (is_kept | is_gone).all()
    for step in range(1, 6):
        assert 0 < int(is_kept[step].sum()) < 64
    for n in range(64):
        steps = [t for t in range(1, 6) if is_kept[t, n, 0]]
        fired = net.hidden.fired[:, n, 0].nonzero().flatten().tolist()
        assert fired == steps[:1]


def test_eq_5_masks_what_the_neuron_emits() -> None:
    """Without a mask in front of it the potential is v, which reaches 1 at step 3; the head gets that spike twofold
    through both synapses, or through none."""
    net = by_hand("dropout2d", "spikes", 64)
    assert net.hidden.potential[:, 0, 0].tolist() == pytest.approx(V, abs=2e-6)
    assert net.hidden.fired[:, :, 0].nonzero()[:, 0].tolist() == [3] * 64
    assert (net.sent[[0, 1, 2, 4, 5]] == 0).all()
    arrived = {tuple(pair) for pair in net.sent[3].tolist()}
    assert arrived == {(0.0, 0.0), (2.0, 2.0)}
    # dropout's elements are the synapses.
    one_by_one = {tuple(pair) for pair in by_hand("dropout", "spikes", 64).sent[3].tolist()}
    assert one_by_one == {(0.0, 0.0), (2.0, 2.0), (0.0, 2.0), (2.0, 0.0)}


def test_on_the_weighted_sum_the_four_dropouts_are_two() -> None:
    potentials = {name: by_hand(name, "weighted", 16).hidden.potential for name in DROPOUTS}
    assert torch.equal(potentials["dropout"], potentials["dropout2d"])
    assert torch.equal(potentials["feature_dropout"], potentials["alpha_dropout"])


def test_what_the_four_dropouts_put_there() -> None:
    """p = 1/2: kept values doubled, as they are, or a x + b with b = 0.77920, a = 0.88642."""
    torch.manual_seed(0)
    x = torch.full((T * 6, 25, 3), 0.5)
    found = {}
    for name, arguments in [*((name, {}) for name in DROPOUTS), ("feature_dropout", {"fill": "zero"})]:
        net = network().train()
        REGULARIZERS.get(name)(p=0.5, **arguments).attach(net)
        found[name, bool(arguments)] = sorted(round(value, 4) for value in net.hidden.current(x).unique().tolist())
    alpha = [-0.7792, round(0.5 * 0.88642 + 0.77920, 4)]
    assert found["dropout", False] == found["dropout2d", False] == [0.0, 1.0]
    assert found["feature_dropout", True] == [0.0, 0.5]
    assert found["feature_dropout", False] == pytest.approx(alpha, abs=2e-4)
    assert found["alpha_dropout", False] == pytest.approx(alpha, abs=2e-4)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_every_regularizer_trains_it(name: str) -> None:
    regs: dict[str, Regularizer] = {name: REGULARIZERS.get(name)()}
    try:
        task = Task(network(), regs, OptimConfig(Optimizer.adamw, 0.01), seed=0, epochs=1)
    except BenchError as error:
        if not str(error).startswith(f"reg={name} "):
            raise
        return  # it needs what this network does not have, and says so
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    total, logits, _, _, activity = task.objective(images(), y)
    total.backward()
    assert logits.shape == (6, 3)
    assert list(activity) == ["hidden"]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.model.parameters())
    assert any(bool((p.grad != 0).any()) for p in task.model.parameters() if p.grad is not None)


# -- in a run -------------------------------------------------------------------------------------


class PerStep(Regularizer):
    """A loss on logits per step that keeps what it saw."""

    def loss(self, logits_t: Tensor, y: Tensor) -> Tensor:
        self.seen = logits_t
        return logits_t.square().mean()


def test_the_task_reads_out_the_largest_potential() -> None:
    net = network().double()
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    for regs in ({}, {"per_step": PerStep()}):
        task = Task(net, regs, OptimConfig(Optimizer.adamw, 0.01), seed=0, epochs=1)
        features, _ = task.forward_t(images(dtype=torch.float64))
        logits, _ = task.logits_and_loss(features, y)
        torch.testing.assert_close(logits, net.head(features).amax(0))
    assert regs["per_step"].seen.shape == (T, 6, 3)


def test_synops_are_spikes_times_synapses_times_neurons() -> None:
    net = network().eval()
    x = images()
    counter = OpCounter(net)
    with counter.attached():
        counter.batch(net.features(x))
    pixels = int((net.spec.pixels(x) > 1e-6).sum())
    spikes = int(net.hidden.fired.count_nonzero())
    assert spikes > 0
    # Three delays: 20 neurons behind each pixel, 3 outputs behind each hidden neuron.
    found = counter.per_image()
    assert found["synops_per_image"] == pytest.approx((pixels * 3 * 20 + spikes * 3 * 3) / 6)
    assert found["macs_per_image"] == 0
    assert found["synops_nonbinary_per_image"] == 0


def test_its_twin_multiplies() -> None:
    net = network(neuron="relu").eval()
    counter = OpCounter(net)
    with counter.attached():
        counter.batch(net.features(images()))
    assert counter.per_image()["macs_per_image"] == 25 * 3 * 20 + 20 * 3 * 3


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"hidden": 0}, r"model\.hidden is 0"),
        ({"tau": 0.0}, r"model\.tau is 0, it must be above 0"),
        ({"tau": float("nan")}, r"model\.tau is nan"),
        ({"delays": []}, r"model\.delays is \[\]"),
        ({"delays": [0, -2]}, r"model\.delays has -2"),
        ({"neuron": "lif"}, r"neuron=lif means nothing; take if, or relu"),
    ],
)
def test_knobs_that_do_not_fit(knobs: dict[str, Any], message: str) -> None:
    spec = Spec((1, 5, 5), 3, T, NeuronConfig(knobs.pop("neuron", "if")))
    with pytest.raises(BenchError, match=message):
        SRM(spec, **knobs)


def test_a_negative_delay_on_the_command_line(bench: Callable[..., Any], tmp_path: Path) -> None:
    done = bench("run", "model=srm", "model.delays=[0,-1]", "budget=smoke", "logger=none", f"runs={tmp_path / 'r'}")
    assert done.returncode == 2
    assert done.stderr.strip() == ("error: model.delays has -1, a spike cannot arrive before it was sent: 0 or more")
    assert not (tmp_path / "r").exists()


def test_a_run_records_its_hidden_neurons(shared_data: Path, tmp_path: Path) -> None:
    from bench.training.run import run

    tiny = ["data.limit=60", "data.test_limit=30", "trainer.batch_size=8", "trainer.epochs=2", "logger=none"]
    result = run(compose(["model=srm", *tiny, f"data.root={shared_data}", "reg=spikepen", f"runs={tmp_path}"]))
    assert result["time_steps"] == 16
    (layer,) = result["layers"]
    assert (layer["name"], layer["neurons"]) == ("hidden", 128)
    # First spike only: 1 in 16 at most.
    assert 0 < layer["spike_rate"] <= 1 / 16
    assert layer["saturated"] == 0
    assert result["synops_per_image"] > 0
    assert result["macs_per_image"] == 0
