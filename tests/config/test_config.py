"""Composition: what a budget, a recipe and the command line make of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Literal, get_type_hints

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from torch import nn

from bench.config.component import build, component_name, settings
from bench.config.compose import compose, compose_all, given, loader, read_config, settle
from bench.config.options import config_dir, groups, options
from bench.errors import BenchError
from bench.models.base import Spec
from bench.models.sew import Connect, SEWResNet
from bench.registry import MODELS, REGULARIZERS, Registry
from bench.regularizers.base import Regularizer

ROOT = Path(__file__).parents[2]

# The small networks, and the papers'.
SMALL = {
    "cnn": {"channels": 32},
    "sew": {"channels": 16},
    "convmixer": {"width": 64, "depth": 4, "kernel": 5, "patch": 2},
}
FULL = {
    "cnn": {"channels": 128},
    "sew": {"channels": 64},
    "convmixer": {"width": 256, "depth": 8, "kernel": 9, "patch": 1},
}


def test_nothing_asked_for_is_quick_sew_on_digits() -> None:
    cfg = compose()
    assert (cfg.budget, cfg.data.name, cfg.neuron.name, cfg.time_steps, cfg.seed) == ("quick", "digits", "if", 4, 0)
    assert component_name(MODELS, cfg.model) == "sew"
    assert list(cfg.reg) == ["none"]
    assert cfg.force is False


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("budget", ["smoke", "quick", "cpu", "paper"])
def test_a_budget_sets_the_size_of_each_network(budget: str, model: str) -> None:
    cfg = compose([f"budget={budget}", f"model={model}", "data=cifar10"])
    wanted = (FULL if budget == "paper" else SMALL)[model]
    assert {key: cfg.model[key] for key in wanted} == wanted
    assert cfg.budget == budget
    trainer = cfg.trainer
    if budget == "smoke":
        assert (trainer.batch_size, trainer.limit_train_batches, trainer.limit_test_batches) == (8, 4, 2)
    if budget == "quick":
        assert trainer.max_train_images == 10_000
    if budget == "paper":
        assert (cfg.optim.name, cfg.optim.lr, cfg.optim.momentum, cfg.optim.schedule) == ("sgd", 0.1, 0.9, "cosine")
        assert (trainer.epochs, trainer.batch_size) == (100, 50)
        assert trainer.max_train_images is None
        assert trainer.limit_train_batches is None


def test_quick_trains_longer_on_the_few_digits() -> None:
    assert compose(["data=digits"]).trainer.epochs > compose(["data=mnist"]).trainer.epochs
    assert compose(["data=digits", "trainer.epochs=1"]).trainer.epochs == 1


def test_a_named_optimizer_wins_over_the_recipe_and_the_command_line_over_all() -> None:
    sgd = compose(["optim=sgd"]).optim
    assert (sgd.name, sgd.lr) == ("sgd", 0.1)
    adamw = compose(["budget=paper", "optim=adamw"]).optim
    assert (adamw.name, adamw.lr < 0.1) == ("adamw", True)
    assert compose(["optim.lr=0.5", "optim=sgd"]).optim.lr == 0.5


def test_a_size_goes_with_any_budget() -> None:
    """The networks of a budget are a choice of its own."""
    assert compose(["model=cnn", "budget=cpu"]).model.channels == 32
    assert compose(["model=cnn", "budget=cpu", "size=full"]).model.channels == 128
    assert compose(["model=cnn", "budget=paper", "size=small"]).model.channels == 32


def test_every_option_of_every_group_composes() -> None:
    for group in groups():
        for name in options(group):
            if group in ("recipe", "sizes", "network"):
                compose([f"model={name.split('_', 1)[-1] if group != 'network' else name}", f"{group}={name}"])
            elif group != "experiment":
                compose([f"{group}={name}"])


def test_records_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_RUNS", raising=False)
    assert compose().runs == "runs"
    monkeypatch.setenv("BENCH_RUNS", "/elsewhere")
    assert compose().runs == "/elsewhere"


# -- regularizers as a list ---------------------------------------------------------------------------


def test_regularizers_compose_each_under_its_name() -> None:
    cfg = compose(["reg=[weight_decay,spikepen]", "reg.spikepen.weight=0.3"])
    assert list(cfg.reg) == ["weight_decay", "spikepen"]
    assert cfg.reg.spikepen.weight == 0.3


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("[]", ["none"]),
        ("none", ["none"]),
        ("[none]", ["none"]),
        ("[none,spikepen]", ["spikepen"]),
        ("spikepen", ["spikepen"]),
    ],
)
def test_the_same_regularizers_have_one_form(given: str, meant: list[str]) -> None:
    reg = compose([f"reg={given}"]).reg
    assert reg == compose([f"reg=[{','.join(meant)}]"]).reg
    assert list(reg) == meant


# -- the contract of everything registered ------------------------------------------------------------


def components() -> list[Any]:
    """(group, name, class) of every network and regularizer."""
    pairs = [("model", MODELS), ("reg", REGULARIZERS)]
    return [pytest.param(g, name, cls, id=f"{g}={name}") for g, registry in pairs for name, cls in registry.items()]


def values(kind: Any) -> tuple[str, Any, str]:
    """For a type: a value as written, the same in Python, and one of another type."""
    if getattr(kind, "__origin__", None) is list:
        written, meant, wrong = values(kind.__args__[0])
        return f"[{written}]", [meant], f"[{wrong}]"
    for part in getattr(kind, "__args__", (kind,)):
        if part is not kind and part is not type(None):
            return values(part)
    if isinstance(kind, type) and issubclass(kind, Enum):
        last = list(kind)[-1]
        return last.name, last, "nonsense"
    return {
        int: ("3", 3, "1.5"),
        float: ("0.25", 0.25, "abc"),
        bool: ("true", True, "abc"),
        str: ("text", "text", "[1]"),
    }[kind]


@pytest.mark.parametrize(("group", "name", "cls"), components())
def test_every_argument_can_be_set_and_rejects_a_wrong_type(group: str, name: str, cls: type) -> None:
    where = "model" if group == "model" else f"reg.{name}"
    hints = {key: kind for key, kind in get_type_hints(cls.__init__).items() if key not in ("spec", "return")}
    good = {key: values(kind) for key, kind in hints.items()}
    chosen = [f"{group}={name}", "budget=paper"]
    cfg = compose([*chosen, *(f"{where}.{key}={written}" for key, (written, _, _) in good.items())])
    node = OmegaConf.to_container(OmegaConf.select(cfg, where))
    assert isinstance(node, dict)
    assert {key: node[key] for key in hints} == {key: meant for key, (_, meant, _) in good.items()}
    assert set(node) == {*hints, "_target_"}
    for key, (_, _, wrong) in good.items():
        with pytest.raises(BenchError, match=rf"^{where}\.{key}(\[0\])? is .*{wrong.strip('[]')}"):
            compose([*chosen, f"{where}.{key}={wrong}"])
    with pytest.raises(BenchError, match=f"^{where} has no setting 'nonsense'"):
        compose([*chosen, f"{where}.nonsense=1"])


@pytest.mark.parametrize(("group", "name", "cls"), components())
def test_every_default_is_the_constructors(group: str, name: str, cls: type) -> None:
    cfg = compose([f"{group}={name}", "budget=paper"])
    if group == "model":
        built = build(MODELS, cfg.model, spec=Spec((1, 32, 32), 10, neuron=settings(cfg.neuron)))
    else:
        built = build(REGULARIZERS, cfg.reg[name])
    assert type(built) is cls


def test_build_passes_what_was_set() -> None:
    cfg = compose(["model=sew", "model.cnf=IAND", "model.depth=2", "reg=spikepen", "reg.spikepen.layer_weights=[1,2]"])
    model = build(MODELS, cfg.model, spec=Spec((1, 8, 8), 10))
    assert isinstance(model, SEWResNet)
    assert len(model.stages) == 2
    assert next(m.cnf for m in model.modules() if hasattr(m, "cnf")) is Connect.IAND
    weights = build(REGULARIZERS, cfg.reg.spikepen).layer_weights
    assert weights == [1.0, 2.0]
    assert type(weights) is list


def test_build_calls_nothing_that_is_not_registered(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    node = OmegaConf.create({"_target_": "pathlib.Path.touch", "self": str(trap)})
    with pytest.raises(BenchError, match=r"'pathlib\.Path\.touch', which is no registered model"):
        build(MODELS, node)
    assert not trap.exists()


# -- schemas of what users bring ----------------------------------------------------------------------


class Level(StrEnum):
    """Choices."""

    low = "low"
    high = "high"


class Typed(Regularizer):
    """All types that can be checked."""

    def __init__(
        self,
        needed: float,
        level: Level = Level.low,
        table: dict[str, float] | None = None,
        sizes: list[int] = [1, 2],  # noqa: B006
        label: str | None = None,
    ) -> None:
        super().__init__()
        self.needed, self.level, self.table, self.sizes = needed, level, table, sizes


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register a class for the length of a test."""

    def put(registry: Registry, name: str, cls: type) -> None:
        for known in ("_items", "_brought"):
            monkeypatch.setattr(registry, known, dict(getattr(registry, known)))
        registry.register(name)(cls)

    yield put
    monkeypatch.undo()
    for group, name in (("model", "mine"), ("reg", "mine")):
        ConfigStore.instance().repo[group].pop(f"{name}.yaml", None)


def test_an_argument_without_default_must_be_given(add: Any) -> None:
    add(REGULARIZERS, "mine", Typed)
    with pytest.raises(BenchError, match=r"^reg\.mine\.needed has no default: give reg\.mine\.needed=VALUE"):
        compose(["reg=mine"])
    built = build(REGULARIZERS, compose(["reg=mine", "reg.mine.needed=2", "reg.mine.level=high"]).reg.mine)
    assert (built.needed, built.level, built.sizes) == (2.0, Level.high, [1, 2])
    with pytest.raises(BenchError, match=r"level is 'hihg', which is no choice. Did you mean 'high'"):
        compose(["reg=mine", "reg.mine.needed=2", "reg.mine.level=hihg"])


def test_a_type_that_cannot_be_checked_is_refused(add: Any) -> None:
    def init(self: Any, how: Literal["a", "b"] = "a") -> None: ...

    add(REGULARIZERS, "mine", type("Bad", (Regularizer,), {"__init__": init}))
    with pytest.raises(BenchError, match=r"regularizer 'mine' has an argument that cannot be checked .*StrEnum"):
        compose()


def test_an_argument_without_type_is_refused(add: Any) -> None:
    def init(self, strength=1.0):  # type: ignore[no-untyped-def]
        pass

    add(REGULARIZERS, "mine", type("Bad", (Regularizer,), {"__init__": init}))
    with pytest.raises(BenchError, match=r"regularizer 'mine': its argument 'strength=1\.0' needs"):
        compose()


@pytest.mark.parametrize("budget", ["smoke", "quick", "cpu", "paper"])
def test_a_network_without_recipe_has_every_budget(add: Any, budget: str) -> None:
    class Mine(nn.Module):
        def __init__(self, spec: Spec, units: int = 5) -> None:
            super().__init__()

    # Its hints are looked up in this module, where Spec is.
    add(MODELS, "mine", Mine)
    cfg = compose(["model=mine", f"budget={budget}"])
    assert cfg.model.units == 5
    assert cfg.optim.lr > 0
    assert cfg.trainer.epochs > 0


PLUGIN = '''
"""A regularizer of a user."""
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("mine")
class Mine(Regularizer):
    """Mine: does nothing, well.

    Source: me (2024), eq. 1.
    """

    def __init__(self, pull: float = 0.5) -> None:
        super().__init__()
'''


def test_a_file_in_bench_plugins_is_an_option_with_types(tmp_path: Path) -> None:
    """A process of its own: plugins are loaded once."""
    (tmp_path / "my_reg.py").write_text(PLUGIN)
    calls = [
        "run reg=mine reg.mine.pull=2 --cfg job -p reg",
        "run reg=mine reg.mine.pull=x",
        "list regs",
    ]
    code = f"from bench.__main__ import main\nfor call in {calls!r}: main(call.split())"
    environment = os.environ | {"BENCH_PLUGINS": str(tmp_path / "my_reg.py"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "pull: 2.0\n" in done.stdout
    assert "me (2024), eq. 1" in done.stdout
    assert done.stderr == "error: reg.mine.pull is 'x', it must be a number\n"


def test_the_files_are_found_in_a_wheel_and_in_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert config_dir() == ROOT / "configs"
    (tmp_path / "bench" / "_configs").mkdir(parents=True)
    monkeypatch.setattr("bench.config.options.__file__", str(tmp_path / "bench" / "config" / "options.py"))
    assert config_dir() == tmp_path / "bench" / "_configs"


def test_values_are_read_off_overrides_as_hydra_reads_them() -> None:
    lines = ['runs="~/x"', "data.root='a b'", 'budget=cpu,"short"', "seed=range(3)", "reg=[a,b]", "init_seed=null"]
    assert given(lines) == {
        "runs": ["~/x"],
        "data.root": ["a b"],
        "budget": ["cpu", "short"],
        "seed": ["0", "1", "2"],
        "reg": ["[a,b]"],
        "init_seed": ["null"],
    }
    with pytest.raises(BenchError, match="cannot read 'runs=~/x': its value needs quotes"):
        given(["runs=~/x"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{path} is damaged: it holds no settings"),
        ("[1]", "{path} is damaged: it holds no settings"),
        ("seed: 1", "{path} is damaged: it lacks the settings of the model or of the regularizers"),
        ("model: 3\nreg: []", "{path} is damaged: it lacks the settings of the model or of the regularizers"),
        ("model: {{}}\nreg: {none: 3}", "{path} "),
        ("model: {}\nreg: {}", "{path}: "),
        ("model: {_target_: bench.nowhere.Net}\nreg: {}", "{path}: _target_ is 'bench.nowhere.Net', which is no "),
        ("\xff", "{path} "),
    ],
)
def test_a_stored_configuration_that_is_damaged_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BenchError) as caught:
        read_config(path)
    assert str(caught.value).startswith(said.format(path=path))
    assert "\n" not in str(caught.value)


def test_many_runs_together_are_what_hydra_makes_of_each_alone() -> None:
    """Regularizers are composed together and taken apart again: none may see that others were there."""
    grid = [
        ["model=cnn", "reg=none"],
        ["model=cnn", "reg=[spikepen,weight_decay]", "reg.spikepen.weight=0.5", "seed=3"],
        ["reg=[weight_decay,spikepen]", "model=cnn"],
        ["model=cnn", "reg=[]"],
        ["model=cnn"],
        ["model=sew", "reg=dropout", "reg.dropout.p=0.3", "budget=cpu", "data=mnist", "optim=sgd"],
        ["reg='spikepen'", "model=sew"],
        ["model=cnn", "reg=[none,dropout]"],
    ]
    found = compose_all(grid)
    for cfg, overrides in zip(found, grid, strict=True):
        with loader():
            alone = settle(hydra.compose("config", overrides))
        assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(alone)
        assert list(cfg.reg) == list(alone.reg)
        assert {k: OmegaConf.get_type(cfg.reg[k]) for k in cfg.reg} == {
            k: OmegaConf.get_type(alone.reg[k]) for k in alone.reg
        }
    with pytest.raises(BenchError, match=r"no regularizer is called 'spikpen'\. Did you mean 'spikepen'"):
        compose_all([["reg=dropout"], ["reg=spikpen"]])
    first, second = compose_all([["reg=dropout"], ["reg=dropout"]])
    first.reg.dropout.p = 0.9
    assert second.reg.dropout.p == 0.1
