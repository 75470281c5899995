"""The README's short table: one strength of each regularizer, chosen before its result is known."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.report.headline import write_into


def numbers(row: Any, seed: int) -> tuple[float, float]:
    """Spikes halve under weight decay 0.1; accuracy falls by 10 points at 1 alone, and by 2 under dropout 0.2."""
    noise = 0.1 * seed + 0.01 * ((len(row.label) * (seed + 1)) % 3)
    loss = {"weight_decay 1": 10.0, "dropout 0.2": 2.0}.get(row.label, 0.0)
    return 90.0 - loss + noise, 0.05 if row.label == "weight_decay 0.1" else 0.1


def test_the_middle_strength_is_shown_whatever_came_of_it(records: SimpleNamespace, tmp_path: Path) -> None:
    records.of_experiment(tmp_path / "reports" / "records", "suite/digits", "quick", 3, numbers)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench report suite/digits/quick -->\nwhat was here\n<!-- end -->\nafter\n")
    assert write_into(page, tmp_path / "reports")
    text = page.read_text()
    assert text.startswith("before\n<!-- bench report suite/digits/quick -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "what was here" not in text
    assert "Reduced run" in text
    head, *rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [cell.split(":")[0] for cell in re.findall(r"[a-z]+: accuracy", head)] == ["cnn", "sew", "convmixer"]
    cells = {row.split(" |")[0]: row for row in rows}
    decay = next(row for name, row in cells.items() if "weight_decay" in name)
    assert "0.1" in decay.split("|")[1]
    # Spike rate and SynOps, on three networks.
    assert decay.count("**-50.0 %**") == 6
    assert "10.0" not in decay
    dropout = next(row for name, row in cells.items() if "`dropout`" in name)
    assert dropout.count("**-2.0") + dropout.count("**-1.9") == 3
    assert not write_into(page, tmp_path / "reports")


def test_a_report_that_does_not_exist(records: SimpleNamespace, tmp_path: Path) -> None:
    records.grid(tmp_path / "reports" / "records", seeds=2)
    page = tmp_path / "page.md"
    page.write_text("<!-- bench report suite/mnit/quick -->\n<!-- end -->\n")
    with pytest.raises(BenchError, match=r"called 'suite/mnit/quick'. Did you mean 'suite/mnist/quick'"):
        write_into(page, tmp_path / "reports")
    page.write_text("nothing\n")
    with pytest.raises(BenchError, match="has no '<!-- bench report NAME -->'"):
        write_into(page, tmp_path / "reports")
