"""The methods that replace the loss, against numbers worked out by hand or by plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.regularizers.labelsmooth import Form as Unsure
from bench.regularizers.labelsmooth import LabelSmoothing, unsure_loss
from bench.regularizers.selfdistill import Form, SelfDistillation, extreme_steps_loss, right_steps_loss
from bench.regularizers.targets import class_weights, per_step_cross_entropy
from bench.regularizers.tet import TET, tet_loss
from bench.regularizers.trt import TRT, decayed_weights

LN2, LN3 = math.log(2), math.log(3)
# Two time steps, one image, two classes: softmax (1/2, 1/2), then (3/4, 1/4); the label is class 0.
LOGITS = torch.tensor([[[0.0, 0.0]], [[LN3, 0.0]]])
LABEL = torch.tensor([0])
SOFT = torch.tensor([[0.25, 0.75]])


def test_labels_are_rows_of_weights() -> None:
    assert class_weights(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert class_weights(SOFT, 2) is not None
    assert class_weights(SOFT, 2).tolist() == SOFT.tolist()


def test_every_step_has_its_cross_entropy() -> None:
    # -ln 1/2 and -ln 3/4.
    assert per_step_cross_entropy(LOGITS, LABEL).item() == pytest.approx((LN2 + math.log(4 / 3)) / 2)
    # 1/4 ln 2 + 3/4 ln 2, and 1/4 ln 4/3 + 3/4 ln 4.
    second = 0.25 * math.log(4 / 3) + 0.75 * math.log(4)
    assert per_step_cross_entropy(LOGITS, SOFT).item() == pytest.approx((LN2 + second) / 2)


def test_tet_by_hand() -> None:
    loss = (LN2 + math.log(4 / 3)) / 2
    pull = (1 + 1 + (LN3 - 1) ** 2 + 1) / 4
    assert tet_loss(LOGITS, LABEL, 0.0).item() == pytest.approx(loss)
    assert tet_loss(LOGITS, LABEL, 0.2, 1.0).item() == pytest.approx(0.8 * loss + 0.2 * pull)
    assert TET(0.2).loss(LOGITS, LABEL).item() == pytest.approx(0.8 * loss + 0.2 * pull)
    # The task's own loss is that of the mean logits: softmax (sqrt 3, 1) / (1 + sqrt 3).
    assert loss > math.log(1 + 1 / math.sqrt(3))


def test_smoothed_labels_are_torchs() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    y = torch.tensor([0, 3, 1, 1, 2])
    theirs = nn.functional.cross_entropy(logits, y, label_smoothing=0.3)
    assert unsure_loss(logits, y, 0.3).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_confidence_and_logits_by_hand() -> None:
    logits = torch.tensor([[LN3, 0.0]])
    loss = math.log(4 / 3)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert unsure_loss(logits, LABEL, 0.5, Unsure.confidence).item() == pytest.approx(loss - 0.5 * entropy, abs=1e-6)
    assert unsure_loss(logits, LABEL, 0.5, Unsure.logits).item() == pytest.approx(loss + 0.5 * LN3**2)


def test_smoothing_judges_the_mean_or_each_step() -> None:
    each = [unsure_loss(logits, LABEL, 0.1).item() for logits in LOGITS]
    assert LabelSmoothing(per_step=True).loss(LOGITS, LABEL).item() == pytest.approx(sum(each) / 2)
    mean = unsure_loss(LOGITS.mean(0), LABEL, 0.1).item()
    assert LabelSmoothing().loss(LOGITS, LABEL).item() == pytest.approx(mean)
    assert mean != pytest.approx(sum(each) / 2)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize("strong", [True, False])
def test_the_surest_and_the_least_sure_step_by_hand(strong: bool) -> None:
    # At temperature 2 the second step's softmax is (sqrt 3, 1) / (1 + sqrt 3).
    root = math.sqrt(3)
    weak, sure = [0.5, 0.5], [root / (1 + root), 1 / (1 + root)]
    taught = kl(sure, weak) if strong else kl(weak, sure)
    loss = math.log(1 + 1 / root)
    found = extreme_steps_loss(LOGITS, LABEL, 0.5, 2.0, strong).item()
    assert found == pytest.approx(loss + 0.5 * 4 * taught)


def test_the_teacher_learns_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    plain = LOGITS.clone().requires_grad_()
    nn.functional.cross_entropy(plain.mean(0), LABEL).backward()
    extreme_steps_loss(logits, LABEL, 1.0, 2.0, strong_teaches=True).backward()
    assert logits.grad is not None
    assert plain.grad is not None
    assert torch.allclose(logits.grad[1], plain.grad[1])
    # The weak step is drawn towards the strong one: class 0 up.
    assert logits.grad[0, 0, 0] < plain.grad[0, 0, 0]


def test_the_surest_step_is_the_batchs() -> None:
    """By the mean over images of the largest probability: .6 and .8 are less sure than .5 and .99."""

    def of(*probabilities: float) -> Tensor:
        return torch.tensor([[math.log(p / (1 - p)), 0.0] for p in probabilities])

    logits, y = torch.stack([of(0.6, 0.8), of(0.5, 0.99)]), torch.tensor([0, 0])
    found = extreme_steps_loss(logits, y, 1.0, 1.0, strong_teaches=True).item()
    loss = nn.functional.cross_entropy(logits.mean(0), y).item()
    taught = (kl([0.5, 0.5], [0.6, 0.4]) + kl([0.99, 0.01], [0.8, 0.2])) / 2
    assert found == pytest.approx(loss + taught, rel=1e-5)


def test_the_right_steps_teach_all() -> None:
    # The first image is right at steps 0 and 2 (logits 1 and 3 ahead, mean 2), the second at no step.
    ahead = torch.tensor([[1.0, -1.0], [-2.0, -1.0], [3.0, -4.0]])
    logits = torch.stack([ahead, torch.zeros_like(ahead)], -1)
    y = torch.tensor([0, 0])

    def two(margin: float) -> list[float]:
        share = 1 / (1 + math.exp(-margin / 3))
        return [share, 1 - share]

    taught = sum(kl(two(2.0), two(margin)) for margin in (1.0, -2.0, 3.0)) / 6
    plain = per_step_cross_entropy(logits, y).item()
    assert right_steps_loss(logits, y, 0.0, 3.0).item() == pytest.approx(plain)
    assert right_steps_loss(logits, y, 2.0, 3.0).item() == pytest.approx(plain + 2 * 9 * taught, rel=1e-5)


def test_each_form_has_its_authors_temperature() -> None:
    assert SelfDistillation().temperature == 2
    assert SelfDistillation(form=Form.right).temperature == 3
    assert SelfDistillation(form=Form.right, temperature=1.5).temperature == 1.5


def test_one_time_step_teaches_nobody(net) -> None:
    with pytest.raises(BenchError, match="reg=selfdistill compares time steps, and time_steps is 1: it needs 2"):
        SelfDistillation().attach(net(time_steps=1))


def test_weights_pay_less_the_later_the_step() -> None:
    w = torch.tensor([2.0, -1.0, 0.0])
    # At t = 0 their squares; at t = 1, with e^(ln 3) - 1 = 2: 4 / (1 + 2 * 2) + 1 / (1 + 2 * 1), but for epsilon.
    assert decayed_weights(w, 1, LN3).item() == pytest.approx(5)
    assert decayed_weights(w, 2, LN3).item() == pytest.approx((5 + 4 / 5 + 1 / 3) / 2, rel=1e-4)
    assert decayed_weights(w, 4, 0.0).item() == pytest.approx(5)


def test_trt_by_hand(net) -> None:
    loss = (LN2 + math.log(4 / 3)) / 2
    squares = (1 + 0 + (LN3 - 1) ** 2 + 0) / 4
    assert TRT(mse=0.2).loss(LOGITS, LABEL).item() == pytest.approx(0.8 * loss + 0.2 * squares)
    model, reg = net(), TRT(weight=0.5, decay=0.0)
    reg.attach(model)
    named = {name: p for name, p in model.named_parameters() if "bias" not in name}
    assert any(p.ndim == 1 for p in named.values()), "batch norm's scales too"
    total = sum(p.square().sum().item() for p in named.values())
    assert reg.penalty({})["trt"].item() == pytest.approx(0.5 * total, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TET(weight=1.5), r"reg\.tet\.weight is 1\.5, it must lie in \[0, 1\]"),
        (lambda: TET(target=math.nan), r"reg\.tet\.target is nan, it must"),
        (lambda: LabelSmoothing(weight=1.5), r"reg\.labelsmooth\.weight is 1\.5, it must lie in \[0, 1\]"),
        (lambda: SelfDistillation(temperature=0.0), r"reg\.selfdistill\.temperature is 0, it must be"),
        (lambda: TRT(decay=math.inf), r"reg\.trt\.decay is inf, it must be"),
        (lambda: TRT(mse=-0.1), r"reg\.trt\.mse is -0\.1, it must lie in \[0, 1\]"),
    ],
)
def test_numbers_have_ranges(make, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        make()
    assert LabelSmoothing(weight=1.5, form=Unsure.logits).weight == 1.5
