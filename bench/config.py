"""The configuration of a run: its schema, its composition by Hydra, and errors that name the nearest right thing."""

from __future__ import annotations

import copy
import inspect
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, make_dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from bench.data import DATASETS, DataConfig
from bench.errors import BenchError, nearest
from bench.neurons import NeuronConfig
from bench.ops import Backend
from bench.registry import MODELS, REGULARIZERS, Registry

# -- schema: choices are Enums, since OmegaConf does not check Literal --------------------------------


class Optimizer(StrEnum):
    """`sgd` with momentum, or `adamw`; `local` for networks with a rule of their own, whose changes the rate scales."""

    sgd = "sgd"
    adamw = "adamw"
    local = "local"


class Schedule(StrEnum):
    """Learning rate over the run: `cosine` to 0 at the end, or `constant`."""

    cosine = "cosine"
    constant = "constant"


class Precision(StrEnum):
    """Numbers of the forward pass: `fp32`, `bf16` (autocast), or `auto`, bf16 where the processor has it."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Accelerator(StrEnum):
    """Where to train: `auto` takes a GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class LoggerName(StrEnum):
    """Weights & Biases, trackio (a dashboard on this machine), or none beside the record."""

    wandb = "wandb"
    trackio = "trackio"
    none = "none"


class WandbMode(StrEnum):
    """`auto` is $WANDB_MODE if set, online if a key exists and the server answers, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Component:
    """A registered class and its arguments; every option of `model=` and `reg=` is a subclass made from a signature."""

    _target_: str = MISSING


@dataclass
class OptimConfig:
    """The optimizer.

    Attributes:
        name: sgd or adamw.
        lr: learning rate of the first step.
        momentum: of sgd.
        betas: of adamw.
        schedule: learning rate over the run.
        clip: largest norm of the whole gradient; null does not clip.
    """

    name: Optimizer = MISSING
    lr: float = MISSING
    momentum: float = 0.9
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    schedule: Schedule = Schedule.cosine
    clip: float | None = None


@dataclass
class TrainerConfig:
    """How long and on what.

    Attributes:
        epochs: passes over the training set.
        batch_size: images a step.
        max_train_images: at most this many training images where data.limit is not set (a budget's cap: unlike
            data.limit, it may exceed what there is).
        precision: of the forward pass.
        accelerator: auto, cpu or gpu.
        devices: how many of them share each batch.
        sync_batchnorm: batch statistics over all of them, GPUs only; else each has its own.
        limit_train_batches: steps an epoch; null is all.
        limit_test_batches: batches of an evaluation, of images drawn by the seed; null is all.
        eval_every: epochs between evaluations.
        cuda_graph: on a GPU, record a step once and replay it, where the regularizers allow it.
    """

    epochs: int = MISSING
    batch_size: int = MISSING
    max_train_images: int | None = None
    precision: Precision = Precision.auto
    accelerator: Accelerator = Accelerator.auto
    devices: int = 1
    sync_batchnorm: bool = False
    limit_train_batches: int | None = None
    limit_test_batches: int | None = None
    eval_every: int = 1
    cuda_graph: bool = True


@dataclass
class LoggerConfig:
    """Where the curves go beside the record.

    Attributes:
        name: wandb, trackio or none.
        mode: of W&B.
        project: of W&B or trackio.
        entity: W&B team or user; null is the key's own.
    """

    name: LoggerName = LoggerName.wandb
    mode: WandbMode = WandbMode.auto
    project: str = "snn-regularizers"
    entity: str | None = None


@dataclass
class Config:
    """One run.

    Attributes:
        budget: smoke, quick, cpu or paper; its file sets what follows from it.
        data: data set and augmentation.
        model: network, one of `bench list models`.
        neuron: the neuron of every spiking layer.
        time_steps: T, how often the network sees an image.
        reg: regularizers by name, from `bench list regs`.
        optim: the optimizer.
        trainer: how long and on what.
        logger: where the curves go beside the record.
        seed: every random number of the run derives from it.
        init_seed: of the weights a network is built with, so that runs of several seeds have one start; null is `seed`.
        force: run again what is finished.
        ops: which kernels; changes numbers only as far as the order of a sum does.
        runs: the folder of the records.
    """

    budget: str = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    model: Component = MISSING
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    time_steps: int = 4
    reg: dict[str, Component] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0
    init_seed: int | None = None
    force: bool = False
    ops: Backend = Backend.auto
    runs: str = "${oc.env:BENCH_RUNS,runs}"
    experiment: Any = None


# What a run gives to a constructor, so that it is no setting.
CONTEXT = {"spec"}


def target(cls: type) -> str:
    """The dotted path of a class, as `_target_` has it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def schema(registry: Registry, name: str) -> type[Component]:
    """The typed settings of a registered class, from its constructor's signature.

    A dataclass of our own rather than hydra-zen's `builds`, which widens `list[float] | None` to Any and so
    lets any value through.

    Raises:
        BenchError: an argument's type is missing or is none that can be checked.
    """
    cls = registry.get(name)
    hints = get_type_hints(cls.__init__)
    fields: list[Any] = [("_target_", str, field(default=target(cls)))]
    for argument in inspect.signature(cls).parameters.values():
        if argument.name in CONTEXT:
            continue
        if argument.name not in hints or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise BenchError(f"{registry.kind} '{name}': its argument '{argument}' needs a name and a type")
        default = MISSING if argument.default is argument.empty else argument.default
        mutable = isinstance(default, list | dict)
        value = field(default_factory=default.copy) if mutable else field(default=default)
        fields.append((argument.name, hints[argument.name], value))
    made = make_dataclass(f"{cls.__name__}Config", fields, bases=(Component,))
    try:
        OmegaConf.structured(made)
    except OmegaConfBaseException as error:
        raise BenchError(
            f"{registry.kind} '{name}' has an argument that cannot be checked ({first_line(error)}); its type may be "
            "int, float, bool, str, a StrEnum, a list or dict of these, or one of these | None"
        ) from error
    return made


def config_dir() -> Path:
    """The folder of the YAML files: `bench/_configs` in a wheel, `configs/` in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_configs"
    return inside if inside.is_dir() else package.parent / "configs"


def register_configs() -> None:
    """Put the schema and an option for everything registered into Hydra's ConfigStore; again does no harm."""
    store = ConfigStore.instance().store
    store(name="base_config", node=Config)
    store(group="data", name="base_data", node=DataConfig)
    for name in DATASETS.names():
        # A data set of a plugin has no file under configs/.
        if not (config_dir() / "data" / f"{name}.yaml").exists():
            store(group="data", name=name, node=DataConfig(name=name))
    for name in MODELS.names():
        store(group="model", name=name, node=schema(MODELS, name))
    for name in REGULARIZERS.names():
        store(group="reg", name=name, package=f"reg.{name}", node=schema(REGULARIZERS, name))


def groups() -> list[str]:
    """What is set by the name of an option: `model`, `reg`, `data`, ..."""
    return sorted({"model", "reg", *(path.name for path in config_dir().iterdir() if path.is_dir())})


def options(group: str) -> list[str]:
    """What a group can be set to."""
    folder = config_dir() / group
    names = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    stored = ConfigStore.instance().repo.get(group, {})
    names |= {name.removesuffix(".yaml") for name in stored}
    return sorted(name for name in names if not name.startswith("base_"))


# -- composition --------------------------------------------------------------------------------------


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of one run, as `python -m bench run` composes it.

    Raises:
        BenchError: an override names nothing that exists, or has a value of the wrong type.
    """
    (cfg,) = compose_all([overrides])
    return cfg


def compose_all(grid: Iterable[Sequence[str]]) -> list[DictConfig]:
    """The configurations of many runs, as `compose` has each; far quicker where they choose the same options.

    Raises:
        BenchError: as `compose`.
    """
    register_configs()
    named, chosen = set(groups()), {}
    composed = []
    with explained(), loader():
        for overrides in grid:
            check(overrides)
            # Hydra too sets single values once it has composed the options.
            options_ = tuple(line for line in overrides if line.partition("=")[0] in named)
            if options_ not in chosen:
                chosen[options_] = hydra.compose("config", list(options_))
            cfg = copy.deepcopy(chosen[options_])
            values = OverridesParser.create().parse_overrides([line for line in overrides if line not in options_])
            for value in values:
                if value.is_sweep_override():
                    raise BenchError(of_several(str(value.input_line)))
            ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
            composed.append(settle(cfg))
    return composed


def loader() -> AbstractContextManager[Any]:
    """Hydra, ready to compose: the running app's, which knows its `--config-dir`, or one for the moment."""
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return hydra.initialize_config_dir(str(config_dir()), version_base="1.3", job_name="bench")


def settle(cfg: DictConfig) -> DictConfig:
    """Give one form to what means the same (`reg=[]` is `reg=none`), in place, and see that all values exist.

    Raises:
        BenchError: a setting without default has no value, a `${...}` leads nowhere, a `_target_` was changed.
    """
    with open_dict(cfg):
        cfg.pop("experiment", None)
    with open_dict(cfg.reg):
        if not cfg.reg:
            cfg.reg["none"] = OmegaConf.structured(schema(REGULARIZERS, "none"))
        elif len(cfg.reg) > 1:
            cfg.reg.pop("none", None)
    with explained():
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    component_name(MODELS, cfg.model)
    for name, node in cfg.reg.items():
        if component_name(REGULARIZERS, node) != name:
            raise BenchError(f"reg.{name}._target_ is '{node._target_}', which is not {name}")
    return cfg


def settings(node: DictConfig) -> Any:
    """A node as an instance of the dataclass that is its schema."""
    return OmegaConf.to_object(node)


def component_name(registry: Registry, node: DictConfig) -> str:
    """The registered name of a node's `_target_`.

    Raises:
        BenchError: nothing registered has that path; arbitrary code is never called.
    """
    paths = {target(cls): name for name, cls in registry.items()}
    if node._target_ not in paths:
        key = node._get_full_key("_target_")
        raise BenchError(f"{key} is '{node._target_}', which is no registered {registry.kind}")
    return paths[node._target_]


def build(registry: Registry, node: DictConfig, **context: Any) -> Any:
    """Construct the registered class of a node.

    Args:
        registry: where to look for it.
        node: `_target_` and its arguments.
        context: further arguments that are no settings (a network's `spec`).
    """
    cls = registry.get(component_name(registry, node))
    arguments: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    del arguments["_target_"]
    return cls(**arguments, **context)


def read_config(path: Path) -> DictConfig:
    """A run's configuration from its `config.yaml`, typed as when it was composed; later settings get their defaults.

    Raises:
        BenchError: it is damaged, or names a component that is not registered.
    """
    try:
        plain = yaml.safe_load(path.read_text())
        model, regs = plain.pop("model"), plain.pop("reg")
    except (OSError, yaml.YAMLError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({type(error).__name__})") from error
    with explained():
        typed = {
            "model": typed_component(MODELS, model),
            "reg": {name: typed_component(REGULARIZERS, node) for name, node in regs.items()},
        }
        cfg = OmegaConf.merge(OmegaConf.structured(Config), plain, typed)
    assert isinstance(cfg, DictConfig)
    return cfg


def typed_component(registry: Registry, node: dict[str, Any]) -> Any:
    """A stored component over the schema of its class."""
    name = component_name(registry, OmegaConf.create(node))
    return OmegaConf.merge(OmegaConf.structured(schema(registry, name)), node)


def check(overrides: Sequence[str]) -> None:
    """Refuse overrides that Hydra would take in another sense, or not notice.

    Raises:
        BenchError: something is to be added or deleted, a group is no name, or an optional file does not exist.
    """
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value, line = override.key_or_group, override.value(), override.input_line
        if override.is_hydra_override() or override.is_sweep_override():
            continue
        if override.is_add() or override.is_force_add() or override.is_delete():
            hint = "the settings are fixed; to change one write key=value"
            raise BenchError(f"'{line}' would add or delete a setting: {hint}")
        if key.startswith("experiment."):
            raise BenchError(f"'{line}': an experiment's file is as it is; seed=, budget= and settings can be given")
        if key not in groups() or isinstance(value, dict):
            continue
        if isinstance(value, list) and key != "reg":
            each = f"{key}={','.join(map(str, value))}"
            raise BenchError(f"'{line}': only reg takes a list; to run each, write {each} -m")
        names = value if isinstance(value, list) else [value]
        for i, name in enumerate(names):
            if not isinstance(name, str):
                raise BenchError(f"{key} is {shown(name)}, it must be a name. {known(key)}")
            if name in names[:i]:
                raise BenchError(f"{line} names '{name}' twice")
            if key in OPTIONAL and name not in options(key):
                raise unknown(key, name)


# Groups whose missing files Hydra passes over.
OPTIONAL = {"recipe", "epochs"}


# -- errors -------------------------------------------------------------------------------------------

KINDS = {"reg": "regularizer", "data": "data set", "optim": "optimizer", "hydra/launcher": "launcher"}
WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@contextmanager
def explained() -> Iterator[None]:
    """Turn Hydra's and OmegaConf's exceptions into one line each.

    Raises:
        BenchError: the line.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise BenchError(explain(error)) from error
    except ValueError as error:
        # Hydra's own checks of its flags; anybody else's ValueError is a bug, whose traceback is wanted.
        frames = traceback.extract_tb(error.__traceback__)
        if f"{os.sep}hydra{os.sep}" not in frames[-1].filename:
            raise
        raise BenchError(first_line(error)) from error


def explain(error: BaseException) -> str:
    """What is wrong and the nearest right thing, in one line."""
    if isinstance(error, OverrideParseException):
        return unreadable(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        if group == "hydra":
            group, _, name = error.missing_cfg_file.rpartition("/")
        return str(unknown(group, name, error.options))
    text = " ".join(str(error).split())
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'", text):
        return of_several(several[1])
    place = f"in configs/{where[1]}.yaml: " if (where := re.match(r"In '(\S+)':", text)) else ""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        # What Hydra proposes next, to add with +, is refused here.
        return text.partition(" To append to your")[0]
    return place + of_setting(cause)


def unreadable(error: OverrideParseException) -> str:
    """An override that Hydra's grammar does not accept."""
    text = error.override
    if "=" not in text:
        found = [f"{group}={text}" for group in groups() if text in options(group)]
        return f"cannot read '{text}': write {' or '.join(found) or 'key=value, as in model=sew'}"
    for opening, closing in ("[]", "{}", "()"):
        if text.count(opening) != text.count(closing):
            return f"cannot read '{text}': a '{opening}' or '{closing}' has no partner"
    return f"cannot read '{text}': {first_line(error)}"


def of_several(override: str) -> str:
    """A sweep without -m."""
    key, _, value = override.partition("=")
    together = f", or write reg=[{value}] to use them together" if key == "reg" else ""
    return f"{override} are several runs: add -m to start them all{together}"


def of_setting(error: OmegaConfBaseException) -> str:
    """A setting that does not exist or has the wrong type."""
    key = error.full_key or ""
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return of_key(error, key)
    if isinstance(error, ValidationError) and error.parent_node is not None:
        return f"{key} is {shown(error.value)}, {wanted(error)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{key} has no default: give {key}=VALUE"
    return f"{key}: {first_line(error)}" if key else first_line(error)


def of_key(error: OmegaConfBaseException, key: str) -> str:
    """A setting that does not exist."""
    parent, _, name = key.rpartition(".")
    node = error.parent_node
    names = [str(k) for k in node if k not in ("_target_", "hydra")] if isinstance(node, DictConfig) else []
    if parent == "reg":
        if name not in REGULARIZERS.names():
            return str(unknown("reg", name))
        chosen = [n for n in names if n != "none"]
        return (
            f"{key} is not there: '{name}' is not among the chosen regularizers ({', '.join(names)}); "
            f"choose it with reg=[{','.join([*chosen, name])}]"
        )
    if not parent:
        return f"no setting is called '{name}'. {nearest(name, {*names, *groups()})}"
    return f"{parent} has no setting '{name}'. " + (nearest(name, names) if names else "It has none.")


def wanted(error: OmegaConfBaseException) -> str:
    """What a setting of the wrong type should have been, as the end of a message."""
    child, parent = error.child_node, error.parent_node
    # An item of a list has no node of its own yet.
    meta: Any = (parent if child is None else child)._metadata
    kind = meta.element_type if child is None else meta.ref_type
    null = " or null" if child is not None and child._is_optional() else ""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"which is no choice. {nearest(str(error.value), [member.name for member in kind])}"
    if kind in WANTED:
        return f"it must be {WANTED[kind]}{null}"
    if OmegaConf.is_list(child):
        return f"it must be a list like [1,2]{null}"
    if OmegaConf.is_dict(child):
        return f"but it holds settings: set one of them, {error.full_key}.NAME=VALUE"
    return f"which does not fit: {error.msg or first_line(error)}"


def unknown(group: str, name: str, names: Sequence[str] | None = None) -> BenchError:
    """No option of a group has that name."""
    names = options(group) or names
    hint = nearest(name, names) if names else "There are none."
    return BenchError(f"no {KINDS.get(group, group)} is called '{name}'. {hint}")


def known(group: str) -> str:
    """All options of a group, as the end of a message."""
    return f"There are: {', '.join(options(group))}." if options(group) else "There are none."


def shown(value: Any) -> str:
    """A value as one would write it on the command line."""
    if isinstance(value, Enum):
        return repr(value.name)
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
