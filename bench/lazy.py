"""Faces of packages: names that import the part of the package they come from when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
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


def public(package: str, parts: Mapping[str, str]) -> Callable[[str], Any]:
    """As `face`, of a package some of whose own modules are called as names of its face are: these can be called.

    `bench.activity` is a floor of the suite and, called, `bench.face.watch.activity`: whichever module is imported
    first, the attribute of the package is the one object that is both.

    Args:
        package: its dotted path.
        parts: name -> the module that has it.
    """
    resolve = face(package, parts)

    class Called(ModuleType):
        def __call__(self, *args: Any, **keywords: Any) -> Any:
            name = self.__name__.rpartition(".")[2]
            return getattr(import_module(f"{package}.{parts[name]}"), name)(*args, **keywords)

    class Package(ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            # So the import system hangs a module into its package.
            if name in parts and isinstance(value, ModuleType):
                value.__class__ = Called
            super().__setattr__(name, value)

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name in parts:
            try:
                return import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        return resolve(name)

    sys.modules[package].__class__ = Package
    return __getattr__
