"""What every registered regularizer promises, plugins included: nothing here knows one by name but the pairs."""

from __future__ import annotations

import copy
import inspect
import re
import types
import typing
from enum import Enum, StrEnum
from typing import Any

import pytest
import torch
from torch import nn

from bench.activity import Activity, LayerActivity
from bench.errors import BenchError
from bench.families import Family
from bench.neurons import Read
from bench.neurons.reads import channel_means
from bench.ops import Backend, explain, using
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.training import contract

NAMES = REGULARIZERS.names()
NETWORKS = ["cnn", "sew", "convmixer"]


def arguments(cls: type[Regularizer]) -> dict[str, tuple[Any, Any]]:
    """Constructor argument -> (type, default)."""
    hints = typing.get_type_hints(cls.__init__)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return {p.name: (hints.get(p.name), p.default) for p in parameters}


def variants(cls: type[Regularizer]) -> list[dict[str, Any]]:
    """The defaults, and each other value of each choice alone."""
    found: list[dict[str, Any]] = [{}]
    for name, (kind, default) in arguments(cls).items():
        kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else [kind]
        choices = [value for part in kinds if inspect.isclass(part) and issubclass(part, Enum) for value in part]
        values = [not default] if kind is bool else choices
        found += [{name: value} for value in values if value != default]
    return found


VARIANTS = [
    pytest.param(name, kwargs, id="-".join([name, *(f"{k}={v}" for k, v in kwargs.items())]))
    for name in NAMES
    for kwargs in variants(REGULARIZERS.get(name))
]
WITH_STRENGTH = [name for name in NAMES if REGULARIZERS.get(name).strength is not None]
every_variant = pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
every_name = pytest.mark.parametrize("name", NAMES)


def make(name: str, **kwargs: Any) -> Regularizer:
    return REGULARIZERS.get(name)(**kwargs)


def takes(name: str, kwargs: dict[str, Any], model: Any) -> bool:
    """Whether a method works on a network; if it does not, it says so in a line."""
    try:
        reg = make(name, **kwargs)
        reg.attach(model)
        contract.reads(name, reg, model)
    except BenchError as error:
        if not re.match(rf"^reg={name} [^\n]+$", str(error)):
            raise
        return False
    return True


def home(name: str, kwargs: dict[str, Any], net: Any) -> Any:
    """The first network that a method works on."""
    return net(next(arch for arch in NETWORKS if takes(name, kwargs, net(arch))))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- its face -------------------------------------------------------------------------------------


@every_name
def test_constructor_is_a_configuration(name: str) -> None:
    allowed = {int, float, bool, str, type(None)}
    for argument, (kind, default) in arguments(REGULARIZERS.get(name)).items():
        assert default is not inspect.Parameter.empty, f"{argument} has no default"
        for part in typing.get_args(kind) if isinstance(kind, types.UnionType) else [kind]:
            if typing.get_origin(part) is list:
                assert typing.get_args(part)[0] in allowed
            elif inspect.isclass(part) and issubclass(part, Enum):
                # Hydra matches the member's name, records hold its value.
                assert issubclass(part, StrEnum)
                assert all(member.name == member.value for member in part)
            else:
                assert part in allowed, f"{argument}: {part}"


@every_name
def test_docstring_says_what_it_is_and_cites_its_source(name: str) -> None:
    cls = REGULARIZERS.get(name)
    doc = inspect.getdoc(cls) or ""
    assert doc.splitlines()[0].endswith(".")
    assert re.search(r"Source: .*\beqs?\. \d", doc, re.DOTALL), "cite the source with an equation number"
    for argument in arguments(cls):
        assert re.search(rf"^ +{argument}: ", doc, re.MULTILINE), f"{argument} is not described"


@pytest.mark.parametrize("name", WITH_STRENGTH)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_strength_is_one_line_that_names_the_key(name: str, value: float) -> None:
    strength = REGULARIZERS.get(name).strength
    with pytest.raises(BenchError, match=rf"^reg\.{name}\.{strength} is \S+, it must [^\n]+$"):
        make(name, **{strength: value})


@every_name
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_is_nan_or_infinite(name: str, value: float) -> None:
    cls = REGULARIZERS.get(name)
    for argument, (kind, _) in arguments(cls).items():
        for part in typing.get_args(kind) if isinstance(kind, types.UnionType) else [kind]:
            if part is float or typing.get_origin(part) is list:
                with pytest.raises(BenchError, match=rf"^reg\.{name}\.{argument} is [^\n]+$"):
                    cls(**{argument: value if part is float else [value]})


# -- what it computes -----------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("arch", NETWORKS)
def test_strength_zero_is_the_baseline_bit_for_bit(name: str, kwargs: dict[str, Any], arch: str, net, bench) -> None:
    strength = REGULARIZERS.get(name).strength
    if strength is None or (kwargs and arch != "cnn") or not takes(name, kwargs, net(arch)):
        return
    plain = bench(net(arch), []).train(3)
    off = bench(net(arch), [make(name, **{**kwargs, strength: 0.0})]).train(3)
    assert torch.equal(plain.logits, off.logits)
    assert torch.equal(plain.loss, off.loss)
    for (a, p), (b, q) in zip(plain.model.named_parameters(), off.model.named_parameters(), strict=True):
        assert a == b
        assert torch.equal(p.grad, q.grad), a
    assert same(plain.model.state_dict(), off.model.state_dict())
    assert torch.equal(plain.evaluate(), off.evaluate())
    assert explain(off.model) == explain(plain.model)


@every_variant
@pytest.mark.parametrize("arch", NETWORKS)
def test_who_only_reads_changes_no_kernel(name: str, kwargs: dict[str, Any], arch: str, net, bench) -> None:
    reg = make(name, **kwargs)
    changes = ("attach", "initialize", "bake")
    if any(getattr(type(reg), hook) is not getattr(Regularizer, hook) for hook in changes):
        return
    plain, on = bench(net(arch), []).train(1), bench(net(arch), [reg]).train(1)
    assert explain(on.model) == explain(plain.model)


@every_variant
def test_passes_are_those_that_it_declares(name: str, kwargs: dict[str, Any], net, bench) -> None:
    reg = make(name, **kwargs)
    trained = bench(home(name, kwargs, net), [reg])
    # As many steps as make a whole number of passes: of an interval of k, k.
    steps = next(k for k in range(1, 101) if abs(k * reg.passes_per_step - round(k * reg.passes_per_step)) < 1e-9)
    trained.train(steps)
    assert trained.passes == pytest.approx(steps * reg.passes_per_step)


@every_name
def test_it_has_a_family(name: str) -> None:
    cls = REGULARIZERS.get(name)
    # A plugin may be of none.
    suite = cls.__module__.startswith("bench.")
    assert cls.family is None if name == "none" else isinstance(cls.family, Family) or not suite
    declaration = REGULARIZERS.declaration(name)
    # Read from the source, without an import.
    read = declaration.attribute("family")
    assert (read.name if read else None) == (cls.family.name if cls.family else None)
    assert declaration.attribute("strength") == cls.strength
    assert declaration.attribute("passes_per_step") == cls.passes_per_step


@every_variant
def test_what_it_declares_is_what_it_reads(name: str, kwargs: dict[str, Any], net, bench, monkeypatch) -> None:
    """Whatever is declared is kept in every step, so that what no hook looks at costs time and memory for nothing."""
    reg = make(name, **kwargs)
    trained = bench(home(name, kwargs, net), [reg])
    looked: set[Read] = set()
    read = LayerActivity._read

    def noted(layer: LayerActivity, what: Read) -> torch.Tensor:
        if layer.reader == type(reg).__name__:
            looked.add(what)
        return read(layer, what)

    def heard(x: torch.Tensor, time_steps: int) -> torch.Tensor:
        if hasattr(x, "channel_means"):
            looked.add(Read.channel_outputs)
        return channel_means(x, time_steps)

    monkeypatch.setattr(LayerActivity, "_read", noted)
    monkeypatch.setattr("bench.regularizers.uselose.channel_means", heard)
    trained.train(2)
    assert looked == trained.reads[0]


class ReadsAll(Regularizer):
    """Reads everything, and at strength 0 takes no other way than at any other."""

    strength = "weight"
    reads = tuple(Read)

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = weight

    def penalty(self, activity: Activity) -> dict[str, torch.Tensor]:
        terms = [getattr(layer, read).float().square().mean() for layer in activity.values() for read in Read]
        return {"all": self.weight * torch.stack(terms).sum()}


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("neuron", ["if", "lif"])
@pytest.mark.parametrize("backend", [Backend.auto, Backend.reference])
def test_strength_zero_needs_no_help(arch: str, neuron: str, backend: Backend, net, bench) -> None:
    """Whatever a regularizer reads, the network goes through the same kernels to the same bits."""
    with using(backend):
        plain, off, on = (bench(net(arch, neuron), regs).train(3) for regs in ([], [ReadsAll(0.0)], [ReadsAll(1.0)]))
        assert explain(plain.model) == explain(off.model)
        assert same(plain.model.state_dict(), off.model.state_dict())
        assert torch.equal(plain.loss, off.loss)
        assert not same(plain.model.state_dict(), on.model.state_dict())


@every_variant
@pytest.mark.parametrize("offset", [-1e3, 1e3], ids=["silent", "saturated"])
def test_finite_on_silent_and_on_saturated_networks(
    name: str, kwargs: dict[str, Any], offset: float, net, bench
) -> None:
    model = home(name, kwargs, net)
    for _, layer in model.spiking_layers():
        layer.register_forward_pre_hook(lambda _, x: (x[0] + offset,))
    b = bench(model, [make(name, **kwargs)]).train(3)
    assert torch.isfinite(b.loss)
    for key, parameter in b.everything.named_parameters():
        assert torch.isfinite(parameter).all(), key
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key
    assert torch.isfinite(b.evaluate()).all()


@pytest.mark.parametrize("name", WITH_STRENGTH)
@pytest.mark.parametrize("value", [1.0, 1e6])
def test_finite_at_extreme_strength(name: str, value: float, net, bench) -> None:
    try:
        reg = make(name, **{REGULARIZERS.get(name).strength: value})
    except BenchError:
        return  # out of its range, and it says so
    b = bench(home(name, {}, net), [reg])
    b.step()
    assert torch.isfinite(b.loss)
    assert all(torch.isfinite(p.grad).all() for p in b.everything.parameters() if p.grad is not None)


@every_variant
@pytest.mark.parametrize("arch", NETWORKS)
def test_every_weight_has_a_gradient(name: str, kwargs: dict[str, Any], arch: str, net, bench) -> None:
    if (kwargs and arch != "cnn") or not takes(name, kwargs, net(arch)):
        return
    b = bench(net(arch), [make(name, **kwargs)])
    b.step()
    for key, parameter in b.everything.named_parameters():
        # Biases before a norm have none but rounding.
        if parameter.ndim > 1:
            assert parameter.grad.abs().sum() > 0, key
    for value in b.penalties.values():
        assert value.ndim == 0
        assert value.dtype == torch.float32
    b.optimizer.zero_grad()
    if b.forward(task_loss=False) > 0:
        assert gradient(b).norm() > 0


@every_variant
def test_identity_in_eval_mode_if_it_says_so(name: str, kwargs: dict[str, Any], net, bench) -> None:
    reg = make(name, **kwargs)
    if not reg.identity_in_eval:
        return
    b = bench(home(name, kwargs, net), [reg]).train(3)
    plain = bench(home(name, kwargs, net), [])
    answers = b.evaluate()
    # Weights that it made of others are plain ones again.
    reg.bake(b.model)
    plain.model.load_state_dict({k: b.model.state_dict()[k] for k in plain.model.state_dict()})
    assert torch.equal(answers, plain.evaluate())


@every_variant
def test_an_evaluation_repeats_and_changes_no_training(name: str, kwargs: dict[str, Any], net, bench) -> None:
    b = bench(home(name, kwargs, net), [make(name, **kwargs)]).train(2)
    before = {k: v.clone() for k, v in b.model.state_dict().items()}
    assert torch.equal(b.evaluate(), b.evaluate())
    assert same(before, b.model.state_dict())
    b.train(2, first=2)
    plain = bench(home(name, kwargs, net), [make(name, **kwargs)]).train(4)
    assert torch.equal(b.evaluate(), plain.evaluate())
    assert same(b.everything.state_dict(), plain.everything.state_dict())


@every_variant
def test_state_survives_a_checkpoint(name: str, kwargs: dict[str, Any], net, bench, tmp_path) -> None:
    b = bench(home(name, kwargs, net), [make(name, **kwargs)]).train(3)
    torch.save([b.everything.state_dict(), b.optimizer.state_dict()], tmp_path / "last.ckpt")
    b.train(2, first=3)
    again = bench(home(name, kwargs, net), [make(name, **kwargs)], started=True)
    state, optimizer = torch.load(tmp_path / "last.ckpt", weights_only=True)
    again.everything.load_state_dict(state)
    again.optimizer.load_state_dict(optimizer)
    again.train(2, first=3)
    assert torch.equal(b.logits, again.logits)
    assert same(b.everything.state_dict(), again.everything.state_dict())
    # Nothing is stored twice (shared storage would be).
    stored = [v.data_ptr() for v in b.everything.state_dict().values() if v.numel()]
    assert len(stored) == len(set(stored))


@every_variant
def test_same_seed_same_numbers(name: str, kwargs: dict[str, Any], net, bench) -> None:
    a, b = (bench(home(name, kwargs, net), [make(name, **kwargs)]).train(3) for _ in range(2))
    assert same(a.everything.state_dict(), b.everything.state_dict())


@every_variant
def test_penalty_falls_when_optimised(name: str, kwargs: dict[str, Any], net, bench) -> None:
    b = bench(home(name, kwargs, net), [make(name, **kwargs)])
    before = b.forward(task_loss=False).item()
    if before == 0:
        return
    # Steps of the same length, whatever the coefficient.
    for group in b.optimizer.param_groups:
        group.update(lr=0.05 / gradient(b).norm().item(), momentum=0.0)
    for _ in range(20):
        b.step(task_loss=False)
    assert b.loss.item() < before


def gradient(b: Any) -> torch.Tensor:
    """All gradients of the last forward pass in one vector."""
    parameters = [p for p in b.everything.parameters() if p.requires_grad]
    found = torch.autograd.grad(b.forward(task_loss=False), parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


# -- where it works -------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("neuron", ["if", "lif", "plif", "relu"])
@pytest.mark.parametrize("time_steps", [1, 3])
def test_any_neuron_any_number_of_steps(
    name: str, kwargs: dict[str, Any], neuron: str, time_steps: int, net, bench
) -> None:
    """All of them, or one line that says what is missing."""
    if kwargs and time_steps != 1:
        return
    models = [net(arch, neuron, time_steps) for arch in NETWORKS]
    able = [model for model in models if takes(name, kwargs, model)]
    if not able:
        assert time_steps == 1 or neuron == "relu"
        return
    b = bench(net(NETWORKS[models.index(able[0])], neuron, time_steps), [make(name, **kwargs)]).train(2)
    assert torch.isfinite(b.loss)
    assert torch.isfinite(b.evaluate()).all()


@every_variant
def test_mixed_precision(name: str, kwargs: dict[str, Any], net, bench) -> None:
    b = bench(home(name, kwargs, net), [make(name, **kwargs)])
    with torch.autocast("cpu", torch.bfloat16):
        b.train(2)
        assert torch.isfinite(b.evaluate()).all()
    assert torch.isfinite(b.loss)
    for key, value in b.everything.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), key
        assert torch.isfinite(value).all(), key
    for key, parameter in b.everything.named_parameters():
        if parameter.ndim > 1:
            assert parameter.grad.abs().sum() > 0, key


@every_variant
def test_bake_leaves_the_network_as_it_was_in_eval_mode(name: str, kwargs: dict[str, Any], net, bench) -> None:
    reg = make(name, **kwargs)
    b = bench(home(name, kwargs, net), [reg]).train(3)
    reg.bake(b.model)
    before = b.evaluate()
    reg.bake(b.model)  # a second time changes nothing
    assert torch.equal(before, b.evaluate())
    assert not any(isinstance(m, nn.utils.parametrize.ParametrizationList) for m in b.model.modules())


PAIRS = [
    (["weight_decay", "spikepen"], {}),
    (["weightnorm", "uselose"], {}),
    (["uselose", "weightnorm"], {}),
    (["weightnorm", "uselose"], {"form": "literal"}),
    (["uselose", "weightnorm"], {"form": "literal"}),
    (["uselose", "weightnorm"], {"form": "penalty"}),
    (["dropout", "uselose"], {}),
    (["weight_decay", "weightnorm", "dropout", "uselose", "spikepen"], {}),
]


@pytest.mark.parametrize(("names", "uselose"), PAIRS, ids=lambda v: "+".join(v) if isinstance(v, list) else None)
@pytest.mark.parametrize("arch", NETWORKS)
def test_they_compose(names: list[str], uselose: dict[str, Any], arch: str, net, bench) -> None:
    def regs() -> list[Regularizer]:
        return [make(n, **(uselose if n == "uselose" else {})) for n in names]

    b = bench(net(arch), regs()).train(3)
    assert torch.isfinite(b.loss)
    again = bench(net(arch), regs(), started=True)
    again.everything.load_state_dict(b.everything.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(b.optimizer.state_dict()))
    b.train(1, first=3)
    again.train(1, first=3)
    assert same(b.everything.state_dict(), again.everything.state_dict())
    frozen = b.evaluate()
    literal = uselose.get("form") == "literal"
    for reg in b.regs:
        reg.bake(b.model)
    assert not any(isinstance(m, nn.utils.parametrize.ParametrizationList) for m in b.model.modules())
    # The literal form's bake writes what is pending; all others leave the function as it was.
    if not literal:
        torch.testing.assert_close(b.evaluate(), frozen, rtol=1e-4, atol=1e-5)
