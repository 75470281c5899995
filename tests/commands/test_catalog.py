"""`bench list` and `bench data`: tables for people, pipes and other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.commands import catalog
from bench.config import options
from bench.data import DATASETS
from bench.declarations import declaration_of
from bench.families import Family
from bench.registry import MODELS, PROBES, REGULARIZERS
from bench.regularizers.base import Regularizer

Cli = Callable[..., tuple[int, str, str]]


def test_everything_registered_is_listed_with_its_source(cli: Cli) -> None:
    status, out, _ = cli("list", "--json")
    assert status == 0
    found = json.loads(out)
    assert [row["name"] for row in found["models"]] == MODELS.names()
    assert sorted(row["name"] for row in found["regs"]) == REGULARIZERS.names()
    assert [row["name"] for row in found["data"]] == DATASETS.names()
    assert [row["name"] for row in found["probes"]] == PROBES.names()
    assert all(row["summary"] and row["source"] for row in found["models"] + found["regs"] + found["probes"])
    spikepen = next(row for row in found["regs"] if row["name"] == "spikepen")
    assert spikepen["defaults"]["weight"] == 0.1
    assert spikepen["source"].startswith("nandan2022 (arXiv 2201.02538), eq. 3.1")
    assert next(row["defaults"] for row in found["data"] if row["name"] == "mnist")["size"] == 32


def test_regularizers_are_listed_by_family(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(cli("list", "regs", "--json")[1])["regs"]
    groups = list(dict.fromkeys(row["group"] for row in found))
    assert groups == ["baseline", *(f"{family.name} ({family.value})" for family in Family)]
    of = {row["name"]: row["group"].partition(" ")[0] for row in found}
    assert of["none"] == "baseline"
    assert (of["spikepen"], of["dropout2d"], of["membrane"]) == ("activity", "masks", "potentials")
    assert (of["weightnorm"], of["sam"], of["tet"], of["cutmix"]) == ("normalization", "optimizer", "loss", "data")

    class Mine(Regularizer):
        """Mine."""

    stranger = declaration_of("mine", Mine)
    monkeypatch.setattr(REGULARIZERS, "declarations", lambda: [stranger])
    monkeypatch.setattr(catalog, "components", lambda _: [catalog.Entry("mine", "Mine.", "", {})])
    assert [row.group for row in catalog.section("regs")] == ["of no family"]


@pytest.mark.parametrize("width", ["", "60"])
def test_a_pipe_gets_every_word(cli: Cli, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    _, out, _ = cli("list", "regs")
    assert "…" not in out
    assert "\x1b" not in out
    for row in catalog.section("regs"):
        assert row.name in out
        for word in row.settings.split():
            # A narrow column folds a long word, it does not drop it.
            assert word in out or width
    assert max(map(len, out.splitlines())) <= int(width or 200)


def test_without_a_section_all_are_listed(cli: Cli) -> None:
    _, out, _ = cli("list")
    titles = [line.strip() for line in out.splitlines() if line.strip().partition(":")[0] in catalog.SECTIONS]
    assert [title.partition(":")[0] for title in titles] == ["models", "regs", "data", "experiments", "probes"]


def test_experiments_are_described_by_their_first_comment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "experiment" / "paper" / "table1.yaml"
    table.parent.mkdir(parents=True)
    table.write_text("# @package _global_\n# Table 1: what it shows.\n# More.\nseed: 0\n")
    monkeypatch.setattr(options, "config_dir", lambda: tmp_path)
    assert catalog.section("experiments") == [catalog.Entry("paper/table1", "Table 1: what it shows.", "", {})]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("A thing.\n\n    Source: someone (2020), eq. 3.1; Fang et al. 2021, table 1. It is our choice.\n\n    Args:\n",
         "someone (2020), eq. 3.1; Fang et al. 2021, table 1"),
        ("A thing.\n\n    Source: a long\n    line, eq. 2.\n    ", "a long line, eq. 2"),
        ("A thing.", ""),
    ],
)  # fmt: skip
def test_the_source_is_one_sentence(text: str, source: str) -> None:
    assert catalog.source_of(text) == source


def test_settings_are_written_as_one_would_type_them() -> None:
    row = catalog.Entry("x", "", "", {"a": None, "b": True, "c": [1, 2.5], "d": "per_step", "e": 0.1})
    assert row.settings == "a=null b=true c=[1,2.5] d=per_step e=0.1"


def test_tables_of_a_markdown_file_are_renewed(cli: Cli, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("Intro\n\n<!-- bench list regs -->\nwhat was here\n<!-- end -->\n\nOutro\n")
    assert cli("list", "--markdown", "--into", str(readme))[0] == 0
    text = readme.read_text()
    assert text.startswith("Intro\n\n<!-- bench list regs -->\n")
    assert text.endswith("<!-- end -->\n\nOutro\n")
    assert "what was here" not in text
    assert all(f"\n| `{name}` |" in text for name in REGULARIZERS.names())
    _, out, _ = cli("list", "--markdown", "--into", str(readme))
    assert out.endswith("is as it should be\n")
    assert readme.read_text() == text
    other = tmp_path / "other.md"
    other.write_text("no marks")
    assert cli("list", "--into", str(other))[0] == 2
    assert cli("list", "--into", str(tmp_path / "none.md"))[0] == 1


def test_data_status_is_a_table_or_json(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "mnist", "present": True, "copy": "original", "images": 70_000, "classes": 10, "bytes": 3 * 2**20,
         "checksum": "0123456789abcdef", "path": "data/MNIST", "note": ""},
        {"name": "kmnist", "present": False, "path": "data/KMNIST", "note": "the first run downloads it",
         "copy": None, "images": None, "classes": None, "bytes": None, "checksum": None},
    ]  # fmt: skip
    monkeypatch.setattr("bench.data.status", lambda root: rows)
    monkeypatch.delenv("COLUMNS", raising=False)
    _, out, _ = cli("data")
    assert out == cli("data", "status")[1]
    assert "mnist   yes      original  70,000  10       3.0 MiB  0123456789ab" in out
    assert "kmnist  no       -         -" in out
    assert json.loads(cli("data", "status", "--json")[1]) == rows


def test_data_prepare_checks_all_names_first(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []
    monkeypatch.setattr("bench.data.prepare_named", lambda name, root: prepared.append(name))
    assert cli("data", "prepare", "digits", "mnits")[0] == 2
    assert prepared == []


def test_data_prepare_brings_a_set_to_disk(cli: Cli, tmp_path: Path) -> None:
    status, out, _ = cli("data", "prepare", "digits", "--root", str(tmp_path / "data"))
    assert status == 0
    assert out.startswith("digits: embedded, 1,437 + 360 images, 10 classes, ")
