"""Gather the pages of the site of the documentation into build/docs: those of mkdocs.yml, and what they link to."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "docs"
LINK = re.compile(r"""\]\(\s*([^)\s#]+)(#[^)\s]*)?\s*\)|(?:src|href)="([^"#]+)(#[^"]*)?\"""")


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name things of its own."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: suffix)
Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def named(nav: Any) -> Iterator[str]:
    """The files of a navigation."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from named(value)
    else:
        for part in nav:
            yield from named(part)


def links(page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for match in LINK.finditer(text):
        link = unquote(match[1] or match[3])
        target = (page.parent / link).resolve()
        if "://" not in link and target.is_relative_to(ROOT) and target.exists():
            yield target / "README.md" if target.is_dir() and (target / "README.md").exists() else target


def gathered() -> list[Path]:
    """All files of the site: what the navigation names, and what these pages link to, and so on.

    Raises:
        FileNotFoundError: the navigation names a file that is not there.
    """
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]  # a subclass of the safe loader
    waiting = [ROOT / name for name in named(nav)]
    found: dict[Path, None] = {}
    while waiting:
        path = waiting.pop()
        if path in found or path.is_dir():
            continue
        if not path.exists():
            raise FileNotFoundError(f"mkdocs.yml names {path.relative_to(ROOT)}, which is not there")
        found[path] = None
        if path.suffix == ".md":
            waiting += links(path)
    return sorted(found)


def stage(build: Path = BUILD) -> list[Path]:
    """Copy them, each to its place below a folder; what was there goes.

    Args:
        build: the folder.
    """
    shutil.rmtree(build, ignore_errors=True)
    for path in (paths := gathered()):
        place = build / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return paths


if __name__ == "__main__":
    staged = stage()
    sys.stdout.write(f"{len(staged)} files in {BUILD.relative_to(ROOT)}\n")
