"""Writes the floors into architecture.md, from the contract in pyproject.toml and the modules' own first sentences."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- floors, by docs/tree.py -->\n", "<!-- end of floors -->"


def floors() -> list[list[str]]:
    """The names on each floor, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "floors")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def first_sentence(path: Path) -> str:
    """What a module says of itself."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def tree() -> str:
    """A line for each folder and module of the package, floor by floor."""
    lines = []
    for number, names in enumerate(floors(), 1):
        for place, name in enumerate(names):
            package = ROOT / "bench" / name / "__init__.py"
            path = package if package.exists() else ROOT / "bench" / f"{name}.py"
            shown = f"{name}/" if package.exists() else f"{name}.py"
            lines.append(f"{number if place == 0 else '':>2}  {shown:<17} {first_sentence(path)}")
    return "\n".join(lines)


def page() -> str:
    """The page with the floors as they are."""
    head, rest = PAGE.read_text().split(BEGIN)
    tail = rest.split(END, 1)[1]
    return f"{head}{BEGIN}```\n{tree()}\n```\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page())
