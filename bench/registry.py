"""The one registry: every model, regularizer, data set and probe is found here by its name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from bench.declarations import Declaration, LiveDeclaration, declaration_of, declared
from bench.errors import BenchError, nearest, one_line

T = TypeVar("T", bound=type)

PLUGINS = "bench_plugins"
"""The package that the files of $BENCH_PLUGINS are modules of: `copy.py` among them is not the standard library's."""


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
        self._brought: dict[str, LiveDeclaration] = {}

    @cached_property
    def _declared(self) -> dict[str, Declaration]:
        return declared(self.package)

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: put a class under `name`.

        Raises:
            BenchError: it is no class, the name is none for a setting or taken by another class, or the class has
                another name already.
        """

        def add(item: T) -> T:
            what = f"{getattr(item, '__module__', None)}.{getattr(item, '__qualname__', None)}"
            if not isinstance(item, type):
                raise BenchError(f"{self.kind} '{name}' is {what}, which is no class")
            if not re.fullmatch(r"[A-Za-z]\w*", str(name), re.ASCII):
                raise BenchError(f"{self.kind} '{name}' ({what}): a name is a letter, then letters, digits or _")
            own = self._declared.get(name)
            if own is None or own.target != what:
                own = declaration_of(name, item)
            # The suite's come last: they keep their names.
            taken = {**self._brought, **self._declared}
            old = taken.get(name)
            if old is not None and old.target != own.target:
                raise BenchError(
                    f"{self.kind} '{name}' is already registered by {old.place}; "
                    f"give {own.place} another name in `register`"
                )
            for known, other in taken.items():
                if known != name and other.target == own.target:
                    raise BenchError(
                        f"{self.kind} '{name}': {own.place} is registered as '{known}' already; a class has one name"
                    )
            self._items[name] = item
            if isinstance(own, LiveDeclaration):
                self._brought[name] = own
            return item

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        load_plugins()
        return sorted({*self._declared, *self._brought})

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
        declaration = self._declared.get(name) or self._brought.get(name)
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
    # Set before the first of them, which may ask for names itself.
    _plugins_loaded = True
    try:
        for point in entry_points(group="bench.plugins"):
            _load(f"'{point.value}' of the entry points `bench.plugins`", point.load)
        words = named_plugins()
        if words:
            # Processes that this one starts in other folders find the same files.
            os.environ["BENCH_PLUGINS"] = ",".join(words)
        modules = {str(file): module for module, file in plugin_files().items()}
        for word in words:
            if word.endswith(".py") or os.sep in word:
                _check_file(Path(word))
            _load(f"'{word}' of $BENCH_PLUGINS", partial(importlib.import_module, modules.get(word, word)))
    except BaseException:
        _plugins_loaded = False
        raise


def plugin_files() -> dict[str, Path]:
    """The files that $BENCH_PLUGINS names, by module: `bench_plugins.<stem>`, numbered where a stem comes again."""
    files: dict[str, Path] = {}
    for file in (Path(word) for word in named_plugins() if word.endswith(".py")):
        stem = module = f"{PLUGINS}.{_identifier(file.stem)}"
        count = 1
        while module in files:
            count += 1
            module = f"{stem}_{count}"
        files[module] = file
    return files


def plugin_module(module: str) -> bool:
    """Whether a dotted path's module is none of the suite's."""
    return module.partition(".")[0] != "bench"


def may_be(target: str, declaration: Declaration) -> bool:
    """Whether a stored `_target_` names this class of a plugin's file by an earlier form of its module.

    A file's module has another number where $BENCH_PLUGINS names other files before it, and runs may name it by its
    stem alone.
    """
    file = plugin_files().get(declaration.module)
    if file is None or not target.endswith(f".{declaration.qualname}"):
        return False
    module = target.removesuffix(f".{declaration.qualname}")
    stem = _identifier(file.stem)
    return module == file.stem or re.fullmatch(rf"{PLUGINS}\.{stem}(_\d+)?", module) is not None


def named_plugins() -> list[str]:
    """The words of $BENCH_PLUGINS, each once, files by their absolute paths."""
    words: dict[str, str] = {}
    for word in filter(None, map(str.strip, os.environ.get("BENCH_PLUGINS", "").split(","))):
        path = os.path.abspath(os.path.expanduser(word)) if word.endswith(".py") else word
        words.setdefault(os.path.realpath(path) if word.endswith(".py") else word, path)
    return list(words.values())


def _identifier(stem: str) -> str:
    return re.sub(r"\W", "_", stem)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise BenchError(f"plugin '{path}' of $BENCH_PLUGINS is no Python file")
    if path.resolve().is_relative_to(Path(__file__).resolve().parent):
        raise BenchError(
            f"plugin '{path}' of $BENCH_PLUGINS is a file of the suite, which has it already; leave it out"
        )


def _load(plugin: str, load: Callable[[], Any]) -> None:
    try:
        load()
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        raise BenchError(f"plugin {plugin} could not be imported: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """An exception that an import ended with, in a line, with the file and the line number."""
    if isinstance(error, SyntaxError):
        file, line, said = error.filename, error.lineno, f"{type(error).__name__}: {error.msg}"
    else:
        said = f"it calls sys.exit({error.code!r})" if isinstance(error, SystemExit) else one_line(error)
        machinery = ("<frozen", __file__, os.path.dirname(importlib.__file__))
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
        if not frames:
            return said
        # The plugin's own line says more than that of a library which it called.
        last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
        file, line = last.filename, last.lineno
    return f"{said} ({file}, line {line})" if file and line else said


class _Loader(SourceFileLoader):
    """Runs a file as it is now.

    Python's cache beside it is passed over: it cannot tell a file changed within a second to the same length.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(MetaPathFinder):
    """Finds plugins' files as modules, in a process too that unpickles their classes before it asks for a name."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if fullname == PLUGINS:
            return ModuleSpec(fullname, None, is_package=True)
        if not fullname.startswith(f"{PLUGINS}."):
            return None
        file = plugin_files().get(fullname)
        if file is None:
            return None
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file)))


sys.meta_path.insert(0, _Finder())
