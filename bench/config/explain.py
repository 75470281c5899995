"""Hydra's and OmegaConf's exceptions as one line each: what is wrong, and the nearest right thing."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from bench.config.options import config_dirs, groups, options
from bench.errors import BenchError, first_line, nearest
from bench.registry import MODELS, REGULARIZERS

KINDS = {"reg": "regularizer", "data": "data set", "optim": "optimizer", "hydra/launcher": "launcher"}
SYMBOLS = {"T": "time_steps", "learning_rate": "optim.lr"}
"""What papers call a setting, where that is no part of its key."""
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
    # The override itself stands in what Hydra proposes.
    typed = match[1] if (match := re.search(r"To append to your config use \+(.*)$", text)) else ""
    return place + of_setting(cause, typed)


def unreadable(error: OverrideParseException) -> str:
    """An override that Hydra's grammar does not accept."""
    text = error.override
    if "=" not in text:
        choices = [f"{group}={text}" for group in groups() if text in options(group)]
        return f"cannot read '{text}': write {' or '.join(choices) or 'key=value, as in model=sew'}"
    key, _, value = text.partition("=")
    if not readable(f"{key}=1"):
        return f"cannot read '{text}': '{key}' can be no setting's name"
    if value.startswith("="):
        return f"cannot read '{text}': write {key}={value.lstrip('=')}"
    if re.match(r"[\[{(]|\w+\(", value):
        for opening, closing in ("[]", "{}", "()"):
            if text.count(opening) != text.count(closing):
                return f"cannot read '{text}': a '{opening}' or '{closing}' has no partner"
    if value[:1] in ("'", '"') and value.count(value[0]) % 2:
        return f"cannot read '{text}': a {value[0]} has no partner"
    quoted = with_quotes(key, value)
    hint = first_line(error) if quoted is None else f"its value needs quotes, in a shell {shlex.quote(quoted)}"
    return f"cannot read '{text}': {hint}"


def readable(override: str) -> bool:
    """Whether Hydra's grammar accepts an override."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def with_quotes(key: str, value: str) -> str | None:
    """An override with quotes around what Hydra cannot read without them; None where they do not help.

    Args:
        key: of the override.
        value: one, a list in brackets, or several for a sweep.
    """
    listed = value.startswith("[") and value.endswith("]")
    items = (value[1:-1] if listed else value).split(",")
    escaped = [re.sub(r'(\\*)("|$)', lambda end: 2 * end[1] + ('\\"' if end[2] else ""), item) for item in items]
    each = [item if readable(f"{key}={item}") else f'"{inside}"' for item, inside in zip(items, escaped, strict=True)]
    override = f"{key}=[{','.join(each)}]" if listed else f"{key}={','.join(each)}"
    return override if readable(override) else None


def of_several(override: str) -> str:
    """A sweep without -m."""
    key, _, value = override.partition("=")
    together = f", or write reg=[{value}] to use them together" if key == "reg" else ""
    return f"{override} are several runs: add -m to start them all{together}"


def of_setting(error: OmegaConfBaseException, typed: str = "") -> str:
    """A setting that does not exist or has the wrong type.

    Args:
        error: what OmegaConf says of it.
        typed: the override that set it, as far as it is known.
    """
    key = error.full_key or ""
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return of_key(error, key, typed)
    if isinstance(error, ValidationError) and error.parent_node is not None:
        return f"{key} is {shown(error.value)}, {wanted(error)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{key} has no default: give {key}=VALUE"
    return f"{key}: {first_line(error)}" if key else first_line(error)


def of_key(error: OmegaConfBaseException, key: str, typed: str) -> str:
    """A setting that does not exist.

    Args:
        error: what OmegaConf says of it.
        key: how far its key leads.
        typed: the override that set it, as far as it is known.
    """
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
    root = node._get_root() if isinstance(node, DictConfig) else OmegaConf.create()
    whole, _, value = typed.partition("=") if typed else (key, "", "")
    lines = meant(root, whole, value or "VALUE")
    if not parent:
        return no_setting(root, whole, value or "VALUE", {*names, *groups()})
    # What one regularizer has not, others may have, but they are others.
    if lines and not parent.startswith("reg."):
        there = f"There are: {', '.join(sorted(names))}." if names else "It has none."
        return f"{parent} has no setting '{name}'. {instead(lines)} {there}"
    return f"{parent} has no setting '{name}'. " + (nearest(name, names) if names else "It has none.")


def no_setting(root: Any, key: str, value: str, names: Iterable[str]) -> str:
    """That no setting begins as a key does, and what was meant.

    Args:
        root: the whole configuration.
        key: as it was typed.
        value: the same.
        names: what keys can begin with.
    """
    name = key.partition(".")[0]
    elsewhere = meant(root, key, value) or alike(root, name, value)
    return f"no setting is called '{name}'. {instead(elsewhere) if elsewhere else nearest(name, names)}"


def instead(overrides: Sequence[str]) -> str:
    """The overrides one of which was meant, as a question."""
    quoted = [f"'{override}'" for override in overrides]
    return f"Did you mean {' or '.join(quoted)}?"


def meant(root: Any, key: str, value: str) -> list[str]:
    """What was meant by a key that leads nowhere, as it is to be typed; nothing where no setting, component or choice
    has its name.

    Args:
        root: the whole configuration.
        key: as it was typed.
        value: the same.
    """
    first, _, rest = key.partition(".")
    name = key.rpartition(".")[2]
    kinds = {word.replace(" ", ""): group for group, word in KINDS.items()}
    group = kinds.get(first.replace("_", ""))
    if group is not None:
        return [f"{group}.{rest}={value}" if rest else f"{group}={value}"]
    if keys := ending_in(root, name):
        return [f"{full}={value}" for full in keys]
    if name in REGULARIZERS.names() and (arguments := REGULARIZERS.declaration(name).arguments):
        chosen = [reg for reg in root.get("reg", {}) if reg != "none"]
        choice = f"reg=[{','.join([*chosen, name])}] " if chosen else f"reg={name} "
        return [f"{'' if name in chosen else choice}reg.{name}.{arguments[0].name}={value}"]
    if name in SYMBOLS:
        return [f"{SYMBOLS[name]}={value}"]
    if options_ := [f"{group}={name}" for group in groups() if name in options(group)]:
        return options_
    if choices := [
        f"{full}={name}"
        for full in leaves(root)
        if isinstance(choice := OmegaConf.select(root, full), Enum) and name in type(choice).__members__
    ]:
        return choices
    components = [(component, f"model={component.name} model") for component in MODELS.declarations()]
    components += [(reg, f"reg={reg.name} reg.{reg.name}") for reg in REGULARIZERS.declarations()]
    return [
        f"{where}.{name}={value}"
        for component, where in components
        if name in [argument.name for argument in component.arguments]
    ]


def alike(root: Any, name: str, value: str) -> list[str]:
    """The setting below a group whose last part is nearly `name`; none where a setting beside it is as near.

    Args:
        root: the whole configuration.
        name: as it was typed.
        value: the same.
    """
    keys = {full.rpartition(".")[2]: full for full in leaves(root)}
    close = difflib.get_close_matches(name, {*keys, *groups()}, n=1, cutoff=0.8)
    return [f"{keys[word]}={value}" for word in close if "." in keys.get(word, "")]


def ending_in(root: Any, name: str) -> list[str]:
    """The keys of a configuration whose last part is `name`."""
    return [full for full in leaves(root) if full.rpartition(".")[2] == name]


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The full keys of a configuration's values, Hydra's own left out."""
    for key in node:
        if key in ("_target_", "hydra"):
            continue
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_missing()):
            yield from leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


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
    if group == "experiment" and len(config_dirs()) == 1:
        hint += " Your own: `bench run --config-dir DIR` takes DIR/experiment/NAME.yaml, no other command does."
    return BenchError(f"no {KINDS.get(group, group)} is called '{name}'. {hint}")


def known(group: str) -> str:
    """All options of a group, as the end of a message."""
    return f"There are: {', '.join(options(group))}." if options(group) else "There are none."


def shown(value: Any) -> str:
    """A value as one would write it on the command line."""
    if isinstance(value, Enum):
        return repr(value.name)
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)
