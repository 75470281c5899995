"""The one registry: every model, regularizer, data set and probe is found here by its name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.declarations import Declaration, declaration_of, declared
from bench.errors import BenchError, nearest

T = TypeVar("T")


class Registry:
    """Names of one kind of component.

    The classes of the suite are known from the source of `package`, and imported one by one when they are needed; those
    of plugins are imported when the first name is asked for.

    Args:
        kind: what it holds, for messages ("regularizer").
        package: the package whose modules register themselves when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, Any] = {}

    @cached_property
    def _declared(self) -> dict[str, Declaration]:
        return declared(self.package)

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: put a class under `name`.

        Raises:
            BenchError: the name is taken by another class.
        """

        def add(item: T) -> T:
            old = self._known(name)
            if old is not None and old.target != f"{item.__module__}.{getattr(item, '__qualname__', None)}":
                raise BenchError(f"{self.kind} '{name}' is already registered by {old.target}")
            self._items[name] = item
            return item

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        load_plugins()
        return sorted({*self._declared, *self._items})

    def items(self) -> Iterator[tuple[str, Any]]:
        """(name, class) pairs, by name; all of them are imported."""
        for name in self.names():
            yield name, self.get(name)

    def declarations(self) -> list[Declaration]:
        """All declarations, by name; nothing of the suite's is imported."""
        return [self.declaration(name) for name in self.names()]

    def declaration(self, name: str) -> Declaration:
        """What is registered under `name`, as far as it can be told without importing it.

        Raises:
            BenchError: no such name; the message gives the nearest ones.
        """
        load_plugins()
        declaration = self._known(name)
        if declaration is None:
            raise BenchError(f"no {self.kind} is called '{name}'. {nearest(name, self.names())}")
        return declaration

    def get(self, name: str) -> Any:
        """The class under `name`.

        Raises:
            BenchError: no such name; the message gives the nearest ones.
        """
        declaration = self.declaration(name)
        if name not in self._items:
            importlib.import_module(declaration.module)
        return self._items[name]

    def _known(self, name: str) -> Declaration | None:
        if name in self._declared:
            return self._declared[name]
        return declaration_of(name, self._items[name]) if name in self._items else None


MODELS = Registry("model", "bench.models")
REGULARIZERS = Registry("regularizer", "bench.regularizers")
PROBES = Registry("probe", "bench.probes")

_plugins_loaded = False


def load_plugins() -> None:
    """Import what users bring: entry points of the group `bench.plugins`, and the files or
    modules named in $BENCH_PLUGINS (separated by commas).

    Raises:
        BenchError: a named plugin is missing or fails to import.
    """
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    for point in entry_points(group="bench.plugins"):
        point.load()
    for name in filter(None, os.environ.get("BENCH_PLUGINS", "").split(",")):
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except BenchError:
            raise
        except Exception as error:
            raise BenchError(f"plugin '{name}' of $BENCH_PLUGINS could not be imported: {error}") from error


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BenchError(f"plugin '{path}' of $BENCH_PLUGINS is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
