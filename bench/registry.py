"""The one registry: every model, regularizer, data set and probe is found here by its name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import BenchError, nearest

T = TypeVar("T")


class Registry:
    """Names of one kind of component; the modules of `package` are imported on first use.

    Args:
        kind: what it holds, for messages ("regularizer").
        package: the package whose modules register themselves when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, Any] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: put a class or function under `name`.

        Raises:
            BenchError: the name is taken by another object.
        """

        def add(item: T) -> T:
            old = self._items.get(name)
            if old is not None and old.__qualname__ != getattr(item, "__qualname__", None):
                raise BenchError(f"{self.kind} '{name}' is already registered by {old.__module__}.{old.__qualname__}")
            self._items[name] = item
            return item

        return add

    def load(self) -> None:
        """Import every module of the package, then the user's plugins."""
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        load_plugins()

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.load()
        return sorted(self._items)

    def items(self) -> Iterator[tuple[str, Any]]:
        """(name, object) pairs, by name."""
        for name in self.names():
            yield name, self._items[name]

    def get(self, name: str) -> Any:
        """The object under `name`.

        Raises:
            BenchError: no such name; the message gives the nearest ones.
        """
        self.load()
        if name not in self._items:
            raise BenchError(f"no {self.kind} is called '{name}'. {nearest(name, self._items)}")
        return self._items[name]


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
