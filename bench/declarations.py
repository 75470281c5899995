"""What the files of a package register, read from their source: names, documentation and settings without an import.

A network or a regularizer imports torch, which takes seconds; to list it, to check its settings or to name its runs
takes its signature alone.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path
from typing import Any, get_type_hints

from bench.errors import BenchError, one_line

REQUIRED: Any = inspect.Parameter.empty
"""The default of an argument that has none."""

SUITE = {"bench", "hydra_plugins"}
"""The suite's own packages, whose code its commit names."""

LIBRARIES = {"site-packages", "dist-packages"}
"""Folders in which everything lies beside everything."""

CONTEXT = {"self", "spec"}
"""What a run gives to a constructor, so that it is no setting."""


class Unreadable(Exception):
    """Something that only an import can tell."""


@dataclass(frozen=True)
class Argument:
    """One setting of a registered class.

    Attributes:
        name: of the constructor's argument.
        kind: its type; None where it has none.
        default: `REQUIRED` where there is none.
        stars: `*` or `**` before an argument that takes what comes, which no schema can check.
    """

    name: str
    kind: Any
    default: Any
    stars: str = ""

    def __str__(self) -> str:
        """As the signature has it, without the type."""
        default = "" if self.default is REQUIRED else f"={self.default!r}"
        return f"{self.stars}{self.name}{default}"


@dataclass(frozen=True, eq=False)
class Declaration:
    """A registered class as others see it before it is needed.

    Attributes:
        name: that it is registered under.
        module: that registers it.
        qualname: of the class.
        doc: its docstring, or nothing.
    """

    name: str
    module: str
    qualname: str
    doc: str

    @property
    def target(self) -> str:
        """Its dotted path, as `_target_` has it."""
        return f"{self.module}.{self.qualname}"

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return self.target

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """The settings, in the constructor's order; the class is imported only where its source does not tell them."""
        try:
            return tuple(Source.of(self.module).arguments(self.qualname))
        except Unreadable:
            return arguments_of(_imported_class(self.module, self.qualname))

    def attribute(self, name: str) -> Any:
        """The value of an attribute of the class, its own or inherited; imported only where its source does not tell.

        Args:
            name: of the attribute.

        Raises:
            AttributeError: it has no such attribute.
        """
        try:
            return Source.of(self.module).attribute(self.qualname, name)
        except Unreadable:
            return getattr(_imported_class(self.module, self.qualname), name)


def _imported_class(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


@dataclass(frozen=True, eq=False)
class LiveDeclaration(Declaration):
    """That of a class which is imported already: one of a plugin.

    Attributes:
        cls: the class.
        file: that its module was imported from; None where there is none.
        files: that file and those beside it which it imports, each with the first 12 hex digits of its sha256 when the
            class was registered; none without a file.
    """

    cls: type
    file: Path | None
    files: tuple[tuple[Path, str], ...]

    @property
    def sha256(self) -> str | None:
        """Of all its code: the file's own where it imports nothing beside it, else of the files' names and sums."""
        if len(self.files) < 2:
            return self.files[0][1] if self.files else None
        return digest("".join(f"{self.named(file)} {sha256}\n" for file, sha256 in self.files).encode())

    def named(self, file: Path) -> str:
        """One of its files as others may see it: without the folders, which are a machine's."""
        return file.name if self.file is None else file.relative_to(self.file.parent).as_posix()

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """The settings, in the constructor's order.

        Raises:
            BenchError: an annotation names what its module does not have.
        """
        try:
            return arguments_of(self.cls)
        except Exception as error:  # whatever evaluating a stranger's annotations comes to
            raise BenchError(f"the types of the arguments of {self.place} cannot be read: {one_line(error)}") from error

    def attribute(self, name: str) -> Any:
        return getattr(self.cls, name)

    @property
    def place(self) -> str:
        return self.target if self.file is None else f"{self.target} ({self.file})"


def declaration_of(name: str, cls: type) -> LiveDeclaration:
    """Of an imported class; asked when it is registered, its hash is that of the code that runs."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    file = Path(path) if path is not None and Path(path).is_file() else None
    files = () if file is None else tuple((each, digest(each.read_bytes())) for each in _code(cls.__module__, file))
    return LiveDeclaration(name, cls.__module__, cls.__qualname__, cls.__doc__ or "", cls, file, files)


def _code(module: str, file: Path) -> list[Path]:
    """A plugin's file, then those in its folder or below that it imports, directly or through each other, by name."""
    code: dict[Path, None] = {file: None}
    if file.parent.name not in LIBRARIES:
        waiting = [(module, file)]
        while waiting:
            for name in _imported(*waiting.pop()):
                for found, other in _sources(name, file.parent):
                    if other not in code:
                        code[other] = None
                        waiting.append((found, other))
    return [file, *sorted(other for other in code if other != file)]


def _imported(module: str, file: Path) -> Iterator[str]:
    """The dotted names that a module's file may import, those inside functions too."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # a relative import that leaves its package
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                # What is imported from a package may be a module of it.
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _sources(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The modules on the way to a dotted name that lie in a folder, with their files; none is imported for it."""
    places: list[str] = []
    for module in accumulate(name.split("."), "{}.{}".format):
        spec = _spec(module, places)
        if spec is None or module in SUITE:
            return
        file = Path(spec.origin).resolve() if spec.origin and spec.origin.endswith(".py") else None
        places = list(spec.submodule_search_locations or ())
        home = Path(places[0]).resolve() if places else None if file is None else file.parent
        if home is not None and "." not in module and not _beside(home, folder.resolve(), bool(places)):
            return
        if file is not None and file.is_relative_to(folder.resolve()):
            yield module, folder / file.relative_to(folder.resolve())


def _spec(module: str, places: list[str]) -> ModuleSpec | None:
    """Where a module comes from; None where only an import would tell.

    Args:
        module: its dotted name.
        places: the folders of the package that it is of.
    """
    try:
        if module in sys.modules:
            return sys.modules[module].__spec__
        if places:
            return PathFinder.find_spec(module, places)
        # It would import the package.
        return importlib.util.find_spec(module) if module.rpartition(".")[0] in {"", *sys.modules} else None
    except (AttributeError, ImportError, ValueError):
        return None


def _beside(home: Path, folder: Path, package: bool) -> bool:
    """Whether a module, or a package by its folder, lies in a plugin's folder, or is the package that this is of.

    An environment's libraries may lie deeper in the folder: they are not the plugin's.
    """
    return home == folder or (package and (home.parent == folder or folder.is_relative_to(home)))


def digest(source: bytes) -> str:
    """What names a source file's content: the first 12 hex digits of its sha256."""
    return hashlib.sha256(source).hexdigest()[:12]


def arguments_of(cls: type) -> tuple[Argument, ...]:
    """The settings of an imported class, from its constructor's signature."""
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return tuple(
        Argument(argument.name, hints.get(argument.name), argument.default, stars.get(argument.kind, ""))
        for argument in inspect.signature(cls).parameters.values()
        if argument.name not in CONTEXT
    )


def declared(package: str) -> dict[str, Declaration]:
    """What the modules of a package register by `@REGISTRY.register("name")` on a class, by name.

    Raises:
        BenchError: two classes have one name.
    """
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    paths = sorted(path for folder in folders for path in Path(folder).glob("*.py") if path.stem != "__init__")
    modules = [Source.of(f"{package}.{path.stem}") for path in paths]
    by_name: dict[str, Declaration] = {}
    for declaration in (declaration for module in modules for declaration in module.registered()):
        other = by_name.setdefault(declaration.name, declaration)
        if other is not declaration:
            raise BenchError(
                f"'{declaration.name}' is registered by {other.target} and by {declaration.target}: "
                "give one of them another name in `register`"
            )
    return by_name


class Source:
    """A module's source, of which single names are worked out on demand.

    Args:
        module: its dotted path.
        tree: of its source.
    """

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.bound = dict(_bindings(tree))
        self._values: dict[str, Any] = {}

    @staticmethod
    @cache
    def of(module: str) -> Source:
        """Of a module; its packages are imported, it is not.

        Raises:
            Unreadable: it has no source file.
        """
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            raise Unreadable(module)
        return Source(module, ast.parse(Path(spec.origin).read_bytes()))

    def registered(self) -> Iterator[Declaration]:
        """The classes under a decorator `....register("name")`."""
        for node in self.bound.values():
            if not isinstance(node, ast.ClassDef):
                continue
            for call in node.decorator_list:
                if (name := _registration(call)) is not None:
                    yield Declaration(name, self.module, node.name, ast.get_docstring(node, clean=False) or "")

    def arguments(self, qualname: str) -> Iterator[Argument]:
        """The settings of a class.

        Raises:
            Unreadable: they are not plain to see.
        """
        constructor = self._constructor(qualname)
        if constructor is None:
            return
        module, function = constructor
        given = function.args
        if given.vararg or given.kwarg or given.posonlyargs:
            raise Unreadable(qualname)
        plain = [None] * (len(given.args) - len(given.defaults)) + list(given.defaults)
        for argument, default in [
            *zip(given.args, plain, strict=True),
            *zip(given.kwonlyargs, given.kw_defaults, strict=True),
        ]:
            if argument.arg in CONTEXT:
                continue
            if argument.annotation is None:
                raise Unreadable(f"{qualname}.{argument.arg}")
            kind = module.evaluate(argument.annotation)
            yield Argument(argument.arg, kind, REQUIRED if default is None else module.evaluate(default))

    def attribute(self, qualname: str, name: str) -> Any:
        """The value that a class or one of its bases gives to an attribute.

        Raises:
            Unreadable: it is not plain to see.
        """
        node = self.bound.get(qualname)
        if isinstance(node, ast.ImportFrom) and (module := _module_of(node)).startswith("bench."):
            return Source.of(module).attribute(_original(node, qualname), name)
        if not isinstance(node, ast.ClassDef):
            raise Unreadable(qualname)
        stated = dict(_bindings(node)).get(name)
        if isinstance(stated, ast.Assign | ast.AnnAssign) and stated.value is not None:
            return self.evaluate(stated.value)
        for base in node.bases:
            if isinstance(base, ast.Name):
                with suppress(Unreadable):
                    return self.attribute(base.id, name)
        raise Unreadable(f"{qualname}.{name}")

    def _constructor(self, qualname: str) -> tuple[Source, ast.FunctionDef] | None:
        """The `__init__` that a class has or inherits, with the module that it stands in."""
        node = self.bound.get(qualname)
        if isinstance(node, ast.ImportFrom):
            module = _module_of(node)
            if module.startswith("bench."):
                return Source.of(module)._constructor(_original(node, qualname))
            if module in sys.stdlib_module_names:
                return None
        if not isinstance(node, ast.ClassDef) or any(_registration(call) is None for call in node.decorator_list):
            raise Unreadable(qualname)
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                return self, part
            if isinstance(part, ast.Assign) and any(ast.unparse(target) == "__init__" for target in part.targets):
                raise Unreadable(qualname)
        for base in node.bases:
            # A base with a dot is another library's, `nn.Module`: its constructor holds no settings.
            if isinstance(base, ast.Name) and (inherited := self._constructor(base.id)) is not None:
                return inherited
        return None

    def evaluate(self, node: ast.expr) -> Any:
        """The value of an expression.

        Raises:
            Unreadable: it needs what only an import can tell.
        """
        known = self._used(node)
        try:
            return eval(compile(ast.Expression(node), self.module, "eval"), known)
        except Exception as error:  # whatever an unusual expression comes to
            raise Unreadable(ast.unparse(node)) from error

    def _used(self, node: ast.AST) -> dict[str, Any]:
        """The values of the module's names that some code reads."""
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
        return {name: self.value(name) for name in names if name in self.bound}

    def value(self, name: str) -> Any:
        """What a name of the module stands for: an Enum, a constant, something of the standard library.

        Raises:
            Unreadable: it is none of these.
        """
        if name not in self._values:
            self._values[name] = self._value(name, self.bound[name])
        return self._values[name]

    def _value(self, name: str, node: ast.stmt) -> Any:
        if isinstance(node, ast.ImportFrom):
            module, original = _module_of(node), _original(node, name)
            if module.startswith("bench."):
                source = Source.of(module)
                if original not in source.bound:
                    raise Unreadable(f"{module}.{original}")
                return source.value(original)
            if module.partition(".")[0] in sys.stdlib_module_names:
                return getattr(importlib.import_module(module), original)
        elif isinstance(node, ast.Import) and name in sys.stdlib_module_names:
            return importlib.import_module(name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return self.evaluate(node.value)
        elif isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Enum") for base in node.bases):
            space = self._used(node)
            exec(compile(ast.Module([node], []), self.module, "exec"), space | {"__name__": self.module}, space)
            return space[name]
        raise Unreadable(name)


def _registration(decorator: ast.expr) -> str | None:
    """The name in `....register("name")`; None for any other decorator."""
    if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)):
        return None
    name = decorator.args[0] if len(decorator.args) == 1 else None
    plain = decorator.func.attr == "register" and isinstance(name, ast.Constant)
    return str(name.value) if plain and isinstance(name, ast.Constant) else None


def _bindings(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.stmt]]:
    """Each name that a module's or a class's own statements bind, with the statement."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign):
            yield from ((target.id, node) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node


def _module_of(node: ast.ImportFrom) -> str:
    if node.level or node.module is None:
        raise Unreadable("a relative import")
    return node.module


def _original(node: ast.ImportFrom, name: str) -> str:
    """The name that another module calls an imported one by."""
    return next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
