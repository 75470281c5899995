"""The ranges of numbers: what each check lets through and says, and that every family of settings has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.config.compose import compose
from bench.config.limits import check_limits
from bench.data import DataConfig
from bench.data.splits import prepare
from bench.errors import BenchError
from bench.models.base import Spec
from bench.models.diehl_cook import DiehlCook
from bench.models.diet import Diet
from bench.models.mlp import MLP, Encoding
from bench.models.srm import SRM
from bench.neurons import NeuronConfig, make_neuron
from bench.probes._noise_sets import blurred
from bench.probes.adversarial import AdversarialProbe
from bench.probes.noise import NoiseProbe
from bench.probes.ranking import RankingProbe
from bench.ranges import Numbers, is_finite
from bench.registry import REGULARIZERS
from bench.regularizers import base
from bench.speed.settings import number

NO_NUMBERS = (math.nan, math.inf, -math.inf)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def said(check: Callable[..., Any], /, *arguments: Any, **named: Any) -> str:
    """The line that refuses; empty where nothing is refused."""
    try:
        check(*arguments, **named)
    except BenchError as error:
        return str(error)
    return ""


# -- what is let through --------------------------------------------------------------------------


@given(st.data(), st.floats(-1e300, 1e300))
def test_at_least_lets_through_the_bound_and_what_is_above(data: st.DataObject, least: float) -> None:
    check = Numbers().at_least
    assert not said(check, least, x=least)
    assert not said(check, least, x=data.draw(st.floats(least, allow_infinity=False)))
    assert said(check, least, x=data.draw(st.floats(max_value=least, exclude_max=True, allow_infinity=False)))


@given(st.data(), st.floats(-1e300, 1e300))
def test_above_leaves_out_the_bound(data: st.DataObject, bound: float) -> None:
    check = Numbers().above
    assert said(check, bound, x=bound)
    assert said(check, bound, x=data.draw(st.floats(max_value=bound, allow_infinity=False)))
    assert not said(check, bound, x=data.draw(st.floats(bound, exclude_min=True, allow_infinity=False)))


@given(st.data(), st.integers(-9, 9), st.integers(1, 9), st.sampled_from("[("), st.sampled_from("])"))
def test_within_has_the_ends_that_its_brackets_say(
    data: st.DataObject, low: int, width: int, left: str, right: str
) -> None:
    high = low + width
    interval = f"{left}{low}, {high}{right}"
    check = Numbers().within
    assert not said(check, interval, x=data.draw(st.floats(low, high, exclude_min=True, exclude_max=True)))
    assert bool(said(check, interval, x=float(low))) is (left == "(")
    assert bool(said(check, interval, x=float(high))) is (right == ")")
    assert said(check, interval, x=data.draw(st.floats(max_value=low, exclude_max=True)))
    assert said(check, interval, x=data.draw(st.floats(high, exclude_min=True)))


@given(st.sampled_from(NO_NUMBERS), FINITE, st.booleans())
def test_nothing_lets_nan_or_infinity_through(value: float, bound: float, finite: bool) -> None:
    numbers = Numbers("a.", finite=finite)
    for check in (numbers.at_least, numbers.above):
        assert said(check, bound, b=value).startswith(f"a.b is {value:g}, it must be a finite number")
    assert said(numbers.within, "[-1, 1]", b=value) == f"a.b is {value:g}, it must lie in [-1, 1]"
    assert said(numbers.check, "b", value, True, "be even") == f"a.b is {value:g}, it must be finite"
    assert said(numbers.check, "b", [0.0, value], True, "be even") == f"a.b is {[0.0, value]}, it must be finite"
    assert not is_finite(value)


@given(FINITE, FINITE)
def test_a_rule_of_its_own_decides_over_finite_numbers(value: float, other: float) -> None:
    numbers = Numbers("a.")
    assert not said(numbers.check, "b", value, True, "be even")
    assert said(numbers.check, "b", value, False, "be even") == f"a.b is {value:g}, it must be even"
    assert said(numbers.check, "b", [value, other], False, "be even") == f"a.b is {[value, other]}, it must be even"


def test_settings_left_alone_are_not_looked_at() -> None:
    numbers = Numbers()
    for line in (
        said(numbers.at_least, 1, a=None),
        said(numbers.above, 1, a=None),
        said(numbers.within, "[0, 1]", a=None),
        said(numbers.check, "a", None, False, "be even"),
    ):
        assert line == ""


def test_whole_numbers_of_any_size_are_finite() -> None:
    """One that no float can hold is not compared as a float."""
    assert not said(Numbers().at_least, 1, a=10**400)
    assert said(Numbers().at_least, 1, a=-(10**400)) == f"a is -1{'0' * 400}, it must be at least 1"


# -- what is said ---------------------------------------------------------------------------------


def test_the_first_number_out_of_range_is_named() -> None:
    assert said(Numbers("model.").at_least, 1, width=3, depth=0, kernel=-1) == "model.depth is 0, it must be at least 1"


@pytest.mark.parametrize("name", ["self", "reg", "least", "bound", "unit", "interval", "why"])
def test_a_setting_may_have_any_name(name: str) -> None:
    """Those of the checks' own arguments too: a regularizer's author chooses freely."""
    for check in (base.nonnegative, base.positive, base.probability):
        assert said(check, "mine", **{name: -1.0}).startswith(f"reg.mine.{name} is -1, it must ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            said(Numbers("reg.r.", finite=True).at_least, 0, p=-1.0),
            "reg.r.p is -1, it must be a finite number, 0 or more",
        ),
        (said(Numbers("reg.r.", finite=True).above, 0, p=0.0), "reg.r.p is 0, it must be a finite number above 0"),
        (said(Numbers("neuron.").above, 1, " time step", tau=0.5), "neuron.tau is 0.5, it must be above 1 time step"),
        (said(Numbers().above, 0, " pixels", s=math.inf), "s is inf, it must be a finite number above 0 pixels"),
        (said(Numbers().within, "(0, 1]", ": it is a chance", p=2.0), "p is 2, it must lie in (0, 1]: it is a chance"),
        (said(Numbers("", "{key}={exact} must {wanted}").within, "[0, 1)", f=1.0), "f=1.0 must lie in [0, 1)"),
        (said(Numbers("", "{key} has {value}, it must {wanted}").above, 0, f=-2.0), "f has -2, it must be above 0"),
        (said(Numbers().at_least, 1, lr=0.123456789), "lr is 0.123457, it must be at least 1"),
    ],
)
def test_messages_by_hand(line: str, expected: str) -> None:
    assert line == expected


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (base.nonnegative, "reg.mine.x is {}, it must be a finite number, 0 or more"),
        (base.positive, "reg.mine.x is {}, it must be a finite number above 0"),
        (base.probability, "reg.mine.x is {}, it must lie in [0, 1]"),
    ],
)
@pytest.mark.parametrize("value", [-0.5, *NO_NUMBERS])
def test_what_regularizers_import(check: Callable[..., None], message: str, value: float) -> None:
    assert said(check, "mine", fine=0.5, x=value) == message.format(f"{value:g}")


# -- every family ---------------------------------------------------------------------------------

SPEC = Spec((1, 8, 8), 3, 4)


def reg(name: str) -> Callable[..., Any]:
    return lambda **arguments: REGULARIZERS.get(name)(**arguments)


def neuron(**numbers: float) -> Any:
    return make_neuron(NeuronConfig("lif", **numbers))


def diehl_cook(**numbers: float) -> Any:
    return DiehlCook(Spec((1, 8, 8), 3, neuron=NeuronConfig("lif")), **numbers)


def data(**numbers: Any) -> Any:
    return prepare(DataConfig(name="digits", **numbers), seed=0, batch_size=8)


def optim(**numbers: float) -> None:
    ((key, value),) = numbers.items()
    cfg = compose([])
    OmegaConf.update(cfg, f"optim.{key}", value)
    check_limits(cfg)


FAMILIES: list[tuple[str, str, Callable[..., Any]]] = [
    *(("neuron", name, neuron) for name in ("v_threshold", "v_reset", "alpha", "tau")),
    ("model", "rate", lambda rate: MLP(SPEC, encoding=Encoding.poisson, rate=rate)),
    ("model", "tau", lambda tau: SRM(SPEC, hidden=8, tau=tau)),
    *(
        ("model", name, lambda **knobs: Diet(SPEC, convs=[4], hidden=[8], **knobs))
        for name in ("leak", "percentile", "threshold_scale", "damping", "twin_lr")
    ),
    *(
        ("model", name, diehl_cook)
        for name in ("dt", "rate", "present", "pause", "delay_in", "delay_ei", "delay_ie")
    ),
    *((f"reg.{name}", "p", reg(name)) for name in ("dropout", "dropout2d", "feature_dropout", "alpha_dropout")),
    ("reg.weight_decay", "weight", reg("weight_decay")),
    ("reg.spikepen", "weight", reg("spikepen")),
    ("reg.spikepen", "layer_weights", lambda layer_weights: reg("spikepen")(layer_weights=[1.0, layer_weights])),
    *(("reg.uselose", name, reg("uselose")) for name in ("k_p", "tau", "r0", "weight")),
    ("noise", "sigma", NoiseProbe),
    ("noise", "sigma", lambda sigma: blurred(torch.zeros(1, 1, 4, 4), sigma)),
    ("adversarial", "eps", lambda eps: AdversarialProbe(eps=[0.1, eps])),
    ("adversarial", "step", AdversarialProbe),
    ("ranking", "persistence", RankingProbe),
    ("data", "val_fraction", data),
    ("data", "mixup", data),
    *(("optim", name, optim) for name in ("lr", "clip", "momentum")),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(("family", "name", "make"), FAMILIES, ids=lambda part: part if isinstance(part, str) else "")
def test_every_family_refuses_what_is_no_number(family: str, name: str, make: Callable[..., Any], value: float) -> None:
    with pytest.raises(BenchError) as caught:
        make(**{name: value})
    line = str(caught.value)
    assert line.startswith(f"{family}.{name}")
    assert f"{value:g}" in line
    assert any(wanted in line for wanted in ("must be a finite number", "must be finite", "must lie in")), line
    assert "\n" not in line


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_of_pixels_are_numbers(shared_data: Path, name: str, value: float) -> None:
    line = said(data, root=str(shared_data), **{name: [value]})
    assert line == f"data.{name}=[{value:g}] must be finite"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_comparison_ends(text: str) -> None:
    assert said(number, "seconds", text) == f"seconds is {text}, it must be a finite number, 0 or more"
