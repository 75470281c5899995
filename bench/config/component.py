"""A registered class as typed settings, and back: its schema, its name, an instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    OmegaConfBaseException,
)

from bench.declarations import REQUIRED, Declaration
from bench.errors import BenchError, first_line
from bench.registry import Registry, may_be, plugin_module


@dataclass
class Component:
    """A registered class and its arguments; every option of `model=` and `reg=` is a subclass made from a signature."""

    _target_: str = MISSING


def schema(registry: Registry, name: str) -> type[Component]:
    """The typed settings of a registered class, from its constructor's signature.

    A dataclass of our own rather than hydra-zen's `builds`, which widens `list[float] | None` to Any and so
    lets any value through.

    Raises:
        BenchError: an argument's type is missing or is none that can be checked.
    """
    return _schema(registry.kind, registry.declaration(name))


@cache
def _schema(kind: str, declaration: Declaration) -> type[Component]:
    fields: list[Any] = [("_target_", str, field(default=declaration.target))]
    for argument in declaration.arguments:
        if argument.kind is None or argument.stars:
            raise BenchError(f"{kind} '{declaration.name}': its argument '{argument}' needs a name and a type")
        if not _checkable(argument.kind):
            raise BenchError(_uncheckable(kind, declaration, str(argument)))
        default = MISSING if argument.default is REQUIRED else argument.default
        mutable = isinstance(default, list | dict)
        fields.append(
            (argument.name, argument.kind, field(default_factory=default.copy) if mutable else field(default=default))
        )
    try:
        made = make_dataclass(f"{declaration.qualname}Config", fields, bases=(Component,))
        OmegaConf.structured(made)
    except (OmegaConfBaseException, TypeError, ValueError) as error:  # a default that no dataclass can have, too
        raise BenchError(_uncheckable(kind, declaration, first_line(error))) from error
    return made


def _uncheckable(kind: str, declaration: Declaration, reason: str) -> str:
    return (
        f"{kind} '{declaration.name}' has an argument that cannot be checked ({reason}); its type may "
        "be int, float, bool, str, a StrEnum, a list or dict of these, or one of these | None"
    )


def _checkable(hint: Any) -> bool:
    """Whether records can hold the values of an annotation: OmegaConf takes paths and bytes, JSON does not."""
    parts = get_args(hint)
    if parts:
        return all(map(_checkable, parts))
    return hint is not Any and not (isinstance(hint, type) and issubclass(hint, PurePath | bytes))


def settings(node: DictConfig) -> Any:
    """A node as an instance of the dataclass that is its schema."""
    return OmegaConf.to_object(node)


def component_name(registry: Registry, node: DictConfig) -> str:
    """The registered name of a node's `_target_`.

    Raises:
        BenchError: nothing registered has that path; arbitrary code is never called.
    """
    target, declarations = str(node._target_), registry.declarations()
    for declaration in declarations:
        if declaration.target == target:
            return declaration.name
    moved = [declaration for declaration in declarations if may_be(target, declaration)]
    if len(moved) == 1:
        return moved[0].name
    said = f"{node._get_full_key('_target_')} is '{target}', which is no registered {registry.kind}"
    if moved:
        raise BenchError(f"{said}: it may be {' or '.join(other.place for other in moved)}; name one in $BENCH_PLUGINS")
    if plugin_module(target):
        said += ": it is of no module of the suite's, so $BENCH_PLUGINS must name the plugin's file or module"
    raise BenchError(said)


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
    choices = {choice.__name__: choice for hint in get_type_hints(cls.__init__).values() for choice in _enums(hint)}
    return cls(**{name: _imported(value, choices) for name, value in arguments.items()}, **context)


def _enums(hint: Any) -> list[type[Enum]]:
    """The Enums in an annotation."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [hint]
    return [choice for part in get_args(hint) for choice in _enums(part)]


def _imported(value: Any, choices: Mapping[str, type[Enum]]) -> Any:
    """A value whose choices are members of the class' own Enums: those read from its source are not the same."""
    if isinstance(value, Enum):
        return choices[type(value).__name__][value.name]
    if isinstance(value, list):
        return [_imported(item, choices) for item in value]
    return {key: _imported(item, choices) for key, item in value.items()} if isinstance(value, dict) else value
