"""A registered class as typed settings, and back: its schema, its name, an instance."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, make_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    OmegaConfBaseException,
)

from bench.errors import BenchError, first_line
from bench.registry import Registry


@dataclass
class Component:
    """A registered class and its arguments; every option of `model=` and `reg=` is a subclass made from a signature."""

    _target_: str = MISSING


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
