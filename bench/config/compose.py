"""From overrides, or from a stored file, to the checked configuration of a run."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from bench.config.component import component_name, schema
from bench.config.explain import ending_in, explained, instead, known, of_several, shown, unknown
from bench.config.options import config_dir, config_dirs, groups, options, register_configs
from bench.config.schema import Config
from bench.errors import BenchError, first_line, nearest
from bench.registry import MODELS, REGULARIZERS, Registry


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
    named = set(groups())
    composed, chosen = [], dict[Choice, DictConfig]()
    with explained(), loader():
        jobs = []
        for overrides in grid:
            check(overrides, named)
            # Hydra too sets single values once it has composed the options.
            lines = [line for line in overrides if line.partition("=")[0] in named]
            jobs.append((choice(lines), [line for line in overrides if line not in lines]))
        together = compose_together(dict.fromkeys(options_ for options_, _ in jobs))
        for options_, lines in jobs:
            if options_ not in chosen:
                chosen[options_] = picked(together[options_], options_)
            cfg = copy.deepcopy(chosen[options_])
            values = parsed(lines)
            for value in values:
                if value.is_sweep_override():
                    raise BenchError(of_several(str(value.input_line)))
            ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
            composed.append(settle(cfg))
    return composed


class Choice(NamedTuple):
    """The options that a run names.

    Attributes:
        others: as they stand on the command line, all but the regularizers.
        regs: the regularizers; None where they are among the others, to be read by Hydra.
    """

    others: tuple[str, ...]
    regs: tuple[str, ...] | None


def choice(lines: Sequence[str]) -> Choice:
    """The options that some lines of a run name, its regularizers apart where each is composed by itself alone."""
    own = [line for line in lines if line.partition("=")[0] == "reg"]
    # A file of the user's may set anything beside its regularizer.
    if len(own) != 1 or any((folder / "reg").exists() for folder in config_dirs()):
        return Choice(tuple(lines), None)
    (override,) = parsed(own)
    value = override.value()
    if override.is_sweep_override() or not isinstance(value, str | list):
        return Choice(tuple(lines), None)
    regs = tuple(map(str, value)) if isinstance(value, list) else (str(value),)
    return Choice(tuple(line for line in lines if line not in own), regs)


def compose_together(choices: Iterable[Choice]) -> dict[Choice, DictConfig]:
    """For each choice, a configuration with at least its regularizers, for `picked`.

    Composing takes Hydra a fifth of a second, and a regularizer's settings depend on nothing else: those that are
    chosen beside the same other options are composed together.
    """
    wanted = dict.fromkeys(choices)
    regs: dict[tuple[str, ...], dict[str, None]] = {}
    for others, own in wanted:
        if own is not None:
            regs.setdefault(others, {}).update(dict.fromkeys(own))
    several = {others: hydra.compose("config", [*others, f"reg=[{','.join(own)}]"]) for others, own in regs.items()}
    return {
        choice: hydra.compose("config", list(choice.others)) if choice.regs is None else several[choice.others]
        for choice in wanted
    }


def picked(cfg: DictConfig, options_: Choice) -> DictConfig:
    """Of a configuration with many regularizers, a copy with those of one choice, in its order."""
    if options_.regs is None:
        return cfg
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        nodes = {name: cfg.reg.pop(name) for name in list(cfg.reg)}
        for name in options_.regs:
            cfg.reg[name] = nodes[name]
    return cfg


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


def read_config(path: Path) -> DictConfig:
    """A run's configuration from its `config.yaml`, typed as when it was composed; later settings get their defaults.

    Raises:
        BenchError: it is damaged, or names a component that is not registered.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({first_line(error)})") from error
    if not isinstance(plain, dict):
        raise BenchError(f"{path} is damaged: it holds no settings")
    model, regs = plain.pop("model", None), plain.pop("reg", None)
    if not isinstance(model, dict) or not isinstance(regs, dict) or not all(isinstance(r, dict) for r in regs.values()):
        raise BenchError(f"{path} is damaged: it lacks the settings of the model or of the regularizers")
    try:
        with explained():
            typed = {
                "model": typed_component(MODELS, model),
                "reg": {name: typed_component(REGULARIZERS, node) for name, node in regs.items()},
            }
            cfg = OmegaConf.merge(OmegaConf.structured(Config), plain, typed)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
    assert isinstance(cfg, DictConfig)
    return cfg


def typed_component(registry: Registry, node: dict[str, Any]) -> Any:
    """A stored component over the schema of its class."""
    name = component_name(registry, OmegaConf.create(node))
    return OmegaConf.merge(OmegaConf.structured(schema(registry, name)), node)


def named_component(registry: Registry, name: str, arguments: Mapping[str, Any]) -> DictConfig:
    """A registered class with some of its settings, the others at their defaults, as `build` takes it.

    Args:
        registry: where it is registered.
        name: under which name.
        arguments: settings of its constructor by name; a choice may be a member of its Enum or its name.

    Raises:
        BenchError: no such class or setting, naming the nearest, a value of the wrong type, or one that is missing.
    """
    known, who = [argument.name for argument in registry.declaration(name).arguments], f"{registry.kind} '{name}'"
    for key in arguments:
        if key not in known:
            raise BenchError(f"{who} has no argument '{key}'. {nearest(key, known) if known else 'It has none.'}")
    # By its name: an Enum that was imported is another than the one that was read from the source.
    plain = {key: value.value if isinstance(value, Enum) else value for key, value in arguments.items()}
    try:
        with explained():
            node = OmegaConf.merge(OmegaConf.structured(schema(registry, name)), plain)
            OmegaConf.to_container(node, throw_on_missing=True)
    except BenchError as error:
        raise BenchError(f"{who}: {error}") from error
    assert isinstance(node, DictConfig)
    return node


def given(overrides: Sequence[str]) -> dict[str, list[str]]:
    """What overrides set, by key: one value, or those of a sweep, without the quotes that Hydra takes off.

    For what reads settings that it does not compose: which runs they stand for, in which folder.

    Raises:
        BenchError: Hydra cannot read one.
    """
    with explained():
        return {override.key_or_group: list(map(_text, _values(override))) for override in parsed(overrides)}


def parsed(overrides: Iterable[str]) -> list[Override]:
    """Overrides as Hydra reads them, each line once in a process: a grid's runs share most of theirs.

    Raises:
        OverrideParseException: Hydra cannot read one.
    """
    return [_parsed(line) for line in overrides]


@cache
def _parsed(line: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([line])
    return override


def _values(override: Override) -> Iterable[Any]:
    return override.sweep_iterator() if override.is_sweep_override() else [override._value]


def _text(value: Any) -> str:
    return value.text if isinstance(value, QuotedString) else Override._get_value_element_as_str(value)


def check(overrides: Sequence[str], named: Collection[str] | None = None) -> None:
    """Refuse overrides that Hydra would take in another sense, or not notice.

    Args:
        overrides: of one run.
        named: what `groups` has, for those who check many runs; else it is asked.

    Raises:
        BenchError: something is to be added or deleted, a group is no name, or an optional file does not exist.
    """
    named = groups() if named is None else named
    for override in parsed(overrides):
        key, value, line = override.key_or_group, override.value(), override.input_line
        if key == "hydra.searchpath":
            raise BenchError(f"'{line}': the folder of your own files is named by --config-dir DIR")
        if override.is_hydra_override() or override.is_sweep_override():
            continue
        if override.is_add() or override.is_force_add() or override.is_delete():
            hint = "the settings are fixed; to change one write key=value"
            raise BenchError(f"'{line}' would add or delete a setting: {hint}")
        if key.startswith("experiment."):
            raise BenchError(f"'{line}': an experiment's file is as it is; seed=, budget= and settings can be given")
        if key not in named or isinstance(value, dict):
            continue
        if isinstance(value, list) and key not in LISTED:
            each = f"{key}={','.join(map(str, value))}"
            raise BenchError(f"'{line}': only {' and '.join(LISTED)} take a list; to run each, write {each} -m")
        names = value if isinstance(value, list) else [value]
        for i, name in enumerate(names):
            if not isinstance(name, str):
                settings = [f"{full}={name}" for full in ending_in(OmegaConf.structured(Config), key) if full != key]
                hint = f"{instead(settings)} " if settings else ""
                raise BenchError(f"{key} is {shown(name)}, it must be a name. {hint}{known(key)}")
            if name in names[:i]:
                raise BenchError(f"{line} names '{name}' twice")
            if key in OPTIONAL and name not in options(key):
                raise unknown(key, name)


LISTED = ("reg", "logger")
"""Groups of which several options go together."""

# Groups whose missing files Hydra passes over.
OPTIONAL = {"network", "sizes", "recipe", "epochs"}
