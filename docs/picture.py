"""Draw docs/run.svg, the README's picture of a run, from that run's folder: python docs/picture.py runs/RUN."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from bench.records.folder import RunFolder
from bench.training.summary import epoch_line, summary_table


def main(path: Path) -> None:
    folder = RunFolder(path.parent, path.name)
    result = folder.finished()
    if result is None:
        sys.exit(f"{path} has no result.json")
    console = Console(record=True, width=92, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print("$ python -m bench run model=sew reg=spikepen", style="bold")
    for row in folder.rows():
        console.print(epoch_line(row, result["epochs"]), markup=False)
    console.print(summary_table(result, f"runs/{path.name}", "offline"))
    # Without the web font: a picture in a README must not ask the network for anything.
    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title="bench", code_format=plain, unique_id="run")
    Path(__file__).with_name("run.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
