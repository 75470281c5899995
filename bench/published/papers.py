"""The papers' numbers, read from `bench/published`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, nearest

FOLDER = Path(__file__).resolve().parent

METRICS = {
    "test_acc": "test.acc",
    "train_acc": "train.acc",
    "test_spike_rate": "test.spike_rate",
    "train_spike_rate": "train.spike_rate",
}
"""A paper's column -> the record's number that measures the same."""


@dataclass(frozen=True)
class Published:
    """A table or figure of a paper.

    Attributes:
        paper: `nandan2022`.
        item: `table 3.1`.
        title: the paper's, shortened.
        columns: names of the numbers of `rows`.
        rows: the numbers.
    """

    paper: str
    item: str
    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()

    @property
    def axis(self) -> str:
        """The columns that are no numbers of a run: what tells the rows apart."""
        return ", ".join(column.replace("_", " ") for column in self.columns if column not in METRICS)


def known(paper: str) -> bool:
    """Whether there is a file of a paper."""
    return (FOLDER / f"{paper}.yaml").exists()


@cache
def paper(key: str) -> dict[str, Any]:
    """A paper's file.

    Raises:
        BenchError: there is no such paper.
    """
    path = FOLDER / f"{key}.yaml"
    if not path.exists():
        raise BenchError(f"no published numbers of '{key}'. {nearest(key, (p.stem for p in FOLDER.glob('*.yaml')))}")
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def load(key: str) -> Published:
    """A table, by `paper/number`.

    Raises:
        BenchError: there is no such table.
    """
    name, _, number = key.partition("/")
    tables = paper(name).get("tables", {})
    if not isinstance(tables.get(number), dict):
        raise BenchError(f"nothing is published as '{key}'. {nearest(key, [f'{name}/{number}' for number in tables])}")
    table = tables[number]
    rows = tuple(tuple(row) for row in table.get("rows", ()))
    return Published(name, f"table {number}", table.get("title", ""), tuple(table.get("columns", ())), rows)


def of_experiment(experiment: str) -> dict[str, Any]:
    """What a paper's file has under `experiments` for `paper/experiment`: claims, counts; often nothing."""
    name, _, item = experiment.partition("/")
    if not known(name):
        return {}
    entry: dict[str, Any] = paper(name).get("experiments", {}).get(item, {})
    return entry
