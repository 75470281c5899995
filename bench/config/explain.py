"""Hydra's and OmegaConf's exceptions as one line each: what is wrong, and the nearest right thing."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from bench.config.options import groups, options
from bench.errors import BenchError, first_line, nearest
from bench.registry import REGULARIZERS

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
        choices = [f"{group}={text}" for group in groups() if text in options(group)]
        return f"cannot read '{text}': write {' or '.join(choices) or 'key=value, as in model=sew'}"
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
