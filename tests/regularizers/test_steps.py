"""Methods that make a step their own or judge other weights, against numbers by hand and plain training."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.regularizers.advtrain import AdversarialTraining, Form
from bench.regularizers.averaging import measure_anew
from bench.regularizers.base import Regularizer
from bench.regularizers.dropout import Dropout
from bench.regularizers.ema import EMA
from bench.regularizers.inputgrad import InputGradient, lead
from bench.regularizers.rdrop import RDrop, disagreement
from bench.regularizers.sam import SAM, climb
from bench.regularizers.stepping import Pass, Step
from bench.regularizers.swa import SWA
from bench.regularizers.weightnorm import WeightNorm


class Affine(nn.Module):
    """Logits (w . x, 0) of images of two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.spec = SimpleNamespace(mean=(0.0,), std=(1.0,))

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(1) @ self.w
        return torch.stack([first, torch.zeros_like(first)], -1)


def step_of(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    def objective(x: Tensor, y: Tensor) -> Pass:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        return Pass(loss, logits, loss, {}, {})

    def backward(total: Tensor) -> None:
        model.zero_grad()
        total.backward()

    return Step(model, x, y, objective, backward)  # type: ignore[arg-type]


IMAGE, LABEL = torch.tensor([[[[0.3, 0.6]]]]), torch.tensor([0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_climbing_by_hand() -> None:
    p, q = nn.Parameter(torch.tensor([2.0, 0.0])), nn.Parameter(torch.tensor([-1.0]))
    p.grad, q.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    moves = climb([p, q], 0.5)
    assert [move.tolist() for move in moves] == [pytest.approx([0.3, 0.0]), pytest.approx([0.4])]
    # | |w| g | = |(6, 0, 4)| = sqrt 52.
    moves = climb([p, q], 0.5, adaptive=True)
    assert moves[0].tolist() == pytest.approx([0.5 * 4 * 3 / math.sqrt(52), 0.0])
    assert moves[1].tolist() == pytest.approx([0.5 * 1 * 4 / math.sqrt(52)])
    p.grad = None
    assert climb([p, q], 1.0)[0].tolist() == [0.0, 0.0]


def test_sam_takes_the_gradient_where_it_climbed_to() -> None:
    model = Affine()
    step = step_of(model, IMAGE, LABEL)
    SAM(rho=0.5).around_step(step)
    assert step.passes == 2
    assert model.w.tolist() == [1.0, -2.0], "and leaves the weights"
    # d loss / d w = -(1 - p) x, so that it climbs by -rho x / |x|.
    x = torch.tensor([0.3, 0.6])
    there = torch.tensor([1.0, -2.0]) - 0.5 * x / x.norm()
    p = sigmoid(float(there @ x))
    assert model.w.grad is not None
    assert model.w.grad.tolist() == pytest.approx((-(1 - p) * x).tolist())
    assert step.told is not None
    assert step.told.loss.item() == pytest.approx(-math.log(sigmoid(0.3 - 1.2)))


def test_two_passes_disagree_by_hand() -> None:
    one, other = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    # p = (3/4, 1/4), q = (1/2, 1/2): (KL + KL) / 2 = 1/2 sum (p - q) ln p/q.
    assert disagreement(one, other).item() == pytest.approx(0.5 * (0.25 * math.log(1.5) - 0.25 * math.log(0.5)))
    assert disagreement(one, one).item() == 0


def test_rdrop_without_masks_is_the_plain_step(net, bench) -> None:
    plain, twice = bench(net(), []), bench(net(), [RDrop(weight=3.0)])
    plain.step()
    twice.step()
    for (name, p), q in zip(plain.model.named_parameters(), twice.model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), name
    for (name, p), q in zip(plain.model.named_buffers(), twice.model.buffers(), strict=True):
        assert torch.equal(p, q), f"{name}: the second pass moves no statistics"


def test_rdrop_draws_agreement(net, bench) -> None:
    """Over the same masks of many steps, two passes of the network that was drawn together agree better."""

    def apart(weight: float) -> float:
        b = bench(net(), [Dropout(p=0.3), RDrop(weight=weight)], lr=0.05).train(40)
        torch.manual_seed(5)
        with torch.no_grad():
            passes = [b.objective(b.x, b.y).logits for _ in range(20)]
        return sum(disagreement(one, other).item() for one, other in zip(passes[::2], passes[1::2], strict=True))

    assert apart(10.0) < apart(0.0)


def test_the_lead_over_the_strongest_wrong_class() -> None:
    logits = torch.tensor([[1.0, 3.0, 0.0], [2.0, -1.0, 5.0]])
    found = lead(logits, torch.tensor([0, 2])).tolist()
    assert found == pytest.approx([sigmoid(1 - 3), sigmoid(5 - 2)])
    soft = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]])
    assert lead(logits, soft).tolist() == pytest.approx(found)


def test_the_input_gradient_by_hand() -> None:
    model = Affine()
    step = step_of(model, IMAGE, LABEL)
    h, weight = 1e-3, 2.0
    InputGradient(weight=weight, h=h).around_step(step)
    # f = sigmoid(w . x), v = sign(w), and w . v = 3: the derivative is 3 p (1 - p).
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.3, 0.6], dtype=torch.float64)
    change = ((w @ (x + h * torch.tensor([1.0, -1.0]))).sigmoid() - (w @ x).sigmoid()) / h
    loss = -(w @ x).sigmoid().log() + weight * change.square()
    (expected,) = torch.autograd.grad(loss, w)
    assert change.item() == pytest.approx(3 * sigmoid(-0.9) * (1 - sigmoid(-0.9)), rel=1e-3)
    assert model.w.grad is not None
    assert model.w.grad.tolist() == pytest.approx(expected.tolist(), rel=1e-2)


def test_fgsm_by_hand() -> None:
    model, seen = Affine(), []
    step = step_of(model, torch.tensor([[[[0.3, 0.95]]]]), LABEL)
    whole = step.forward
    step.forward = lambda x=None, y=None, told=True: (seen.append(x), whole(x, y, told))[1]  # type: ignore[method-assign]
    AdversarialTraining(eps=0.1, steps=1).around_step(step)
    # Against class 0: the first pixel falls, the second rises to white and no further.
    assert [image.detach().flatten().tolist() for image in seen[1:]] == [pytest.approx([0.2, 1.0])]
    assert step.passes == 2


@pytest.mark.parametrize("form", list(Form))
def test_attacked_images_stay_in_the_ball_and_are_worse(form: Form, net) -> None:
    model = net()
    reg = AdversarialTraining(eps=0.05, steps=3, form=form)
    reg.attach(model)
    reg.mean, reg.std = (0.4, 0.5), (0.2, 0.25)
    torch.manual_seed(0)
    pixels = torch.rand(16, 2, 8, 8)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (reg.mean, reg.std))
    x, y = (pixels - mean) / std, torch.randint(3, (16,))

    class Smooth(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2)), x[:, 0, 0, 0]], -1)

    step = step_of(Smooth(), x, y)
    target = None if form is Form.pgd else step.forward(told=False).logits.detach().softmax(-1)
    attacked = reg.attacked(step, target) * std + mean
    assert (attacked - pixels).abs().max().item() <= 0.05 + 1e-6
    assert attacked.min() >= -1e-6
    assert attacked.max() <= 1 + 1e-6
    there = (attacked - mean) / std
    if target is None:
        assert step.forward(there).loss > step.forward(x, told=False).loss
    else:
        assert reg.divergence(step.forward(there).logits, target) > 1e-4


def test_each_form_counts_its_passes() -> None:
    assert AdversarialTraining(steps=4).passes_per_step == 5
    assert AdversarialTraining(steps=4, form=Form.trades).passes_per_step == 6


# Averages.


def averaged(reg: Any, values: list[float]) -> list[float]:
    """The mean of one weight that takes some values, after each."""
    model = nn.Module()
    model.w = nn.Parameter(torch.tensor(0.0))
    reg.attach(model)
    seen = []
    for value in values:
        with torch.no_grad():
            model.w.fill_(value)
        reg.after_step({})
        seen.append(reg.mean0.item())
    return seen


def test_the_moving_average_by_hand() -> None:
    # b = 1/2: the plain mean of the first two, from there on halves.
    assert averaged(EMA(half_life=1.0), [4.0, 8.0, 2.0, 2.0]) == pytest.approx([4.0, 6.0, 4.0, 3.0])
    # A long half-life: the plain mean for a long time.
    assert averaged(EMA(half_life=1000.0), [1.0, 2.0, 6.0]) == pytest.approx([1.0, 1.5, 3.0])


def test_the_average_of_the_last_epochs_by_hand() -> None:
    reg = SWA(last=0.5)
    assert averaged(reg, [5.0, 7.0])[-1] == 0.0, "not begun"
    reg.progress.fill_(0.5)
    model = reg.network[0]
    for value, mean in ((3.0, 3.0), (6.0, 4.5), (0.0, 3.0)):
        with torch.no_grad():
            model.w.fill_(value)
        reg.after_step({})
        assert reg.mean0.item() == pytest.approx(mean)


def test_the_network_is_judged_by_the_mean_and_trains_on_from_its_own(net, bench) -> None:
    b, plain = bench(net(), [EMA(half_life=5.0)]), bench(net(), [])
    b.train(3)
    plain.train(3)
    assert not torch.equal(b.evaluate(), plain.evaluate())
    b.train(3, first=3)
    plain.train(3, first=3)
    assert all(torch.equal(p, q) for p, q in zip(b.model.parameters(), plain.model.parameters(), strict=True))


def test_statistics_are_those_of_the_images(net) -> None:
    model = net()
    x = torch.randn(9, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = model.convs[0].norm
    measure_anew(model, x)
    current = model.convs[0].conv(x)
    assert torch.allclose(norm.running_mean, current.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, current.var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == 0.1
    assert model.training


# What cannot be.


def test_averages_come_after_what_replaces_weights(run_tiny) -> None:
    with pytest.raises(
        BenchError, match=r"reg=ema: a regularizer named after it has replaced \S+\.weight; name it last"
    ):
        run_tiny("reg=[ema,weightnorm]")
    assert run_tiny("reg=[weightnorm,ema]", "reg.ema.half_life=2")["status"] == "finished"


def test_two_methods_cannot_both_own_the_step(run_tiny) -> None:
    with pytest.raises(
        BenchError, match=r"reg=\[rdrop,sam\]: each replaces the step, and only one can; keep one of them"
    ):
        run_tiny("reg=[rdrop,sam]")
    with pytest.raises(BenchError, match=r"reg=\[labelsmooth,tet\]: each replaces the loss, and only one can"):
        run_tiny("reg=[labelsmooth,tet]")
    with pytest.raises(BenchError, match=r"reg=\[swa,ema\]: each replaces the weights that are judged, and only one"):
        run_tiny("reg=[swa,ema]")
    with pytest.raises(BenchError, match=r"reg=\[sam,uselose\]: sam makes several passes a step, and uselose takes"):
        run_tiny("reg=[sam,uselose]")


class Replaces(Regularizer):
    replaces = ("normalization",)


def test_a_part_of_the_training_has_one_owner() -> None:
    from bench.training.together import owners

    norm, plain, off = WeightNorm(), Regularizer(), SAM(rho=0.0)
    assert owners({"weightnorm": norm, "plain": plain, "off": off}) == {"normalization": "weightnorm"}
    with pytest.raises(BenchError, match=r"^reg=\[weightnorm,mine\]: each replaces the normalization, and only"):
        owners({"weightnorm": norm, "mine": Replaces()})
    assert owners({"sam": SAM(), "off": off, "ema": EMA()}) == {"around_step": "sam", "eval_weights": "ema"}


def test_sam_climbs_at_the_end_of_each_interval() -> None:
    model, sam = Affine(), SAM(rho=0.5, interval=3)
    assert sam.passes_per_step == pytest.approx(4 / 3)
    passes = []
    for _ in range(6):
        step = step_of(model, IMAGE, LABEL)
        sam.around_step(step)
        passes.append(step.passes)
    assert passes == [1, 1, 2, 1, 1, 2]
    again = SAM(rho=0.5, interval=3)
    again.load_state_dict(sam.state_dict())
    assert int(again.steps) == 6, "a resumed run climbs where the whole one does"
    with pytest.raises(BenchError, match=r"^reg\.sam\.interval is 0, it must be at least 1$"):
        SAM(interval=0)


def test_a_record_has_the_passes_that_were_counted(run_tiny) -> None:
    assert run_tiny("reg=none")["passes_per_step"] == 1
    # Five steps an epoch, two epochs: of ten steps the third, the sixth and the ninth climb.
    assert run_tiny("reg=sam", "reg.sam.interval=3")["passes_per_step"] == pytest.approx(13 / 10)
    assert run_tiny("reg=advtrain", "reg.advtrain.steps=1", "reg.advtrain.form=trades")["passes_per_step"] == 3


def test_a_step_tells_of_one_pass(net) -> None:
    step = step_of(Affine(), IMAGE, LABEL)
    first = step.forward(told=False)
    assert step.told is None
    second, third = step.forward(), step.forward()
    assert step.told is second
    assert third is not second is not first
    assert step.passes == 3


def test_around_step_is_the_plain_step_by_default() -> None:
    model = Affine()
    Regularizer().around_step(step_of(model, IMAGE, LABEL))
    p = sigmoid(-0.9)
    assert model.w.grad is not None
    assert model.w.grad.tolist() == pytest.approx([-(1 - p) * 0.3, -(1 - p) * 0.6])
