"""Draw docs/run.svg, the README's picture of a run: python docs/picture.py trains what the picture shows."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from bench.records.folder import RunFolder
from bench.training.summary import epoch_line, summary_table

DEMO = ("run", "model=sew", "reg=spikepen")
"""The first run of a newcomer: `make demo`."""

PICTURE = Path(__file__).with_name("run.svg")


def demo(runs: Path) -> Path:
    """Train the demo in a process of its own, as a newcomer does, and offline.

    Args:
        runs: where the run's folder goes.

    Returns:
        The run's folder.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = os.environ | {"BENCH_RUNS": str(runs), "WANDB_MODE": "offline"}
    subprocess.run([sys.executable, "-m", "bench", *DEMO], env=environment, check=True)
    (record,) = runs.glob("*/result.json")
    return record.parent


def draw(run: Path) -> str:
    """What the terminal showed of a run, as SVG.

    Args:
        run: its folder.

    Raises:
        ValueError: it has no record.
    """
    folder = RunFolder(run.parent, run.name)
    result = folder.finished()
    if result is None:
        raise ValueError(f"{run} has no result.json")
    console = Console(record=True, width=92, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print(f"$ bench {' '.join(DEMO)}", style="bold")
    for row in folder.rows():
        console.print(epoch_line(row, result["epochs"]), markup=False)
    console.print(summary_table(result, f"runs/{run.name}", "W&B", "offline"))
    # Without the web font: a picture in a README must not ask the network for anything.
    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title="bench", code_format=plain, unique_id="run")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PICTURE.write_text(draw(demo(Path(folder))))
