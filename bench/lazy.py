"""Names that import what they come from when they are first asked for: faces of our packages, and slow ones put off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import RLock
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


class Deferred(ModuleType):
    """A package whose own `__init__` runs when a name is first asked for that needs it; see `defer`.

    It is the package itself, in the way of `importlib.util.LazyLoader`, which runs it for any name whatever: its parts
    can be imported as ever, and from the first other name on it is what a plain import would have made of it.
    """

    _lock = RLock()

    def __getattr__(self, name: str) -> Any:
        early: Mapping[str, Callable[[], Any]] | None = self.__dict__.get("_early")
        if early is not None and name in early:
            value = early[name]()
            setattr(self, name, value)
            return value
        # Python and its tools look for these in every module.
        if early is None or (name.startswith("__") and name.endswith("__") and name != "__all__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        self._run()
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        self._run()
        return sorted(self.__dict__)

    def _run(self) -> None:
        """Run its `__init__`, once."""
        with self._lock:
            if self.__dict__.pop("_early", None) is None:
                return
            spec = self.__spec__
            assert spec is not None
            assert spec.loader is not None
            try:
                spec.loader.exec_module(self)
            except BaseException:
                sys.modules.pop(self.__name__, None)  # as a plain import would leave it
                raise


def defer(package: str, early: Mapping[str, Callable[[], Any]]) -> None:
    """Put off a package's `__init__`, where it imports much that most of its users' users never need.

    Nothing is put off that was imported already, or is not there.

    Args:
        package: its name.
        early: names that can be had without it, and how.
    """
    if package in sys.modules or (spec := find_spec(package)) is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    module.__class__ = Deferred
    module.__dict__["_early"] = dict(early)
    sys.modules[package] = module


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
