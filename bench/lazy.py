"""Faces of packages: names that import the part of the package they come from when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def face(package: str, parts: Mapping[str, str]) -> Callable[[str], Any]:
    """What a package takes for its `__getattr__` (PEP 562).

    Args:
        package: its dotted path.
        parts: name -> the module of the package that has it; the module itself where both are called the same.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in parts:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module = import_module(f"{package}.{parts[name]}")
        return module if parts[name] == name else getattr(module, name)

    return __getattr__
