"""The README keeps its word: its example works, its tables are those of the registry, its commands exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.commands.catalog import write_into
from bench.config.compose import compose
from bench.report import headline

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_is_a_regularizer(
    bench: Callable[..., subprocess.CompletedProcess[str]], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """The file of the README in a process that knows it by $BENCH_PLUGINS alone."""
    found = re.search(r"<!-- example -->\n```python\n(.+?)```", README, re.DOTALL)
    assert found is not None
    plugin = tmp_path / "rateband.py"
    plugin.write_text(found[1])
    env = {"BENCH_PLUGINS": str(plugin)}
    # High above what a network without it does, so that the band must be what lowers the rate.
    rates = {}
    for weight in ("0", "300"):
        options = ("reg.rateband.low=0", "reg.rateband.high=0.01", f"reg.rateband.weight={weight}")
        done = bench("run", *tiny, "reg=rateband", *options, "trainer.epochs=6", "optim.lr=0.02", env=env)
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "runs").rglob("result.json"):
        result = json.loads(path.read_text())
        rates[result["strength"]] = result["test"]["spike_rate"]
    assert rates[300.0] < 0.7 * rates[0.0]
    listed = json.loads(bench("list", "regs", "--json", env=env).stdout)
    assert any("Zenke & Vogels" in entry["source"] for entry in listed["regs"] if entry["name"] == "rateband")
    refused = bench("run", "reg=rateband", "reg.rateband.weight=-1", env=env)
    assert refused.returncode == 2
    assert "reg.rateband.weight is -1" in refused.stderr


def test_the_tables_follow_from_the_registry(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README)
    assert not write_into(copy), "make readme"


def test_the_results_follow_from_the_submitted_records(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README)
    assert not headline.write_into(copy, ROOT / "reports"), "make readme"


def test_the_commands_compose() -> None:
    """Every `run` line of the README, each with one value of what it sweeps."""
    lines = re.findall(r"^(?:BENCH_PLUGINS\S+ )?python -m bench run (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        # How a grid is started is no setting of its runs.
        words = [word for word in line.split() if not word.startswith(("-", "hydra/")) and word != "job"]
        if "rateband" in line:
            continue
        compose([word if "[" in word else word.split(",")[0] for word in words])
