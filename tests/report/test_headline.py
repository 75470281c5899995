"""The README's short table: one strength of each regularizer, chosen before its result is known."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import studies
from bench.errors import BenchError
from bench.report.headline import write_into
from tests.report.boards import study, trials
from tests.report.conftest import put


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


def test_a_workload_of_the_leaderboard_is_its_sentence_and_a_narrow_table(
    records: SimpleNamespace, tmp_path: Path
) -> None:
    reports = tmp_path / "reports"
    for method, acc, rate in (("none", 95.0, 0.2), ("spikepen", 95.1, 0.1)):
        one = study(method, trials(method, (95.0, rate), (96.0, rate)))
        studies.write(reports / "studies" / one.folder.name, one.facts, one.trials)
        for seed in range(1, 6):
            for trial in (0, 1):
                name = f"mnist-1k-{method}-{trial}-s{seed}"
                noise = 0.02 * seed
                put(reports / "records", records.record(
                    run_id=name, seed=seed, test__acc=acc + noise, test__spike_rate=rate + noise / 100
                ))  # fmt: skip
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- bench report leaderboard/mnist-1k -->\n<!-- end -->\n")
    assert write_into(page, reports)
    text = page.read_text()
    # The rates' geometric means are .1006 and .2006.
    assert "`spikepen` cuts spikes by 50 % at the same accuracy (+0.1 points)" in text
    head, *rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert head.count("|") == 6
    assert [row.split("`")[1] for row in rows] == ["spikepen", "none"]
    # Links are read from the folder that the page is in.
    assert "(../reports/leaderboard/README.md)" in text
    assert not write_into(page, reports)
    page.write_text("<!-- bench report leaderboard/mnist-2k -->\n<!-- end -->\n")
    with pytest.raises(BenchError, match=r"no workload of \S+ is called 'mnist-2k'. Did you mean 'mnist-1k'"):
        write_into(page, reports)


def test_a_report_that_does_not_exist(records: SimpleNamespace, tmp_path: Path) -> None:
    records.grid(tmp_path / "reports" / "records", seeds=2)
    page = tmp_path / "page.md"
    page.write_text("<!-- bench report suite/mnit/quick -->\n<!-- end -->\n")
    with pytest.raises(BenchError, match=r"called 'suite/mnit/quick'. Did you mean 'suite/mnist/quick'"):
        write_into(page, tmp_path / "reports")
    page.write_text("nothing\n")
    with pytest.raises(BenchError, match="has no '<!-- bench report NAME -->'"):
        write_into(page, tmp_path / "reports")
