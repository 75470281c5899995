"""Run the cells of docs/first-steps.ipynb and keep what they print and draw: `make notebook`."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "first-steps.ipynb"


def executed(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """A notebook with the outputs of its cells, run in their order by a fresh kernel on this suite.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # Without times, which would differ at every run.
    client = NotebookClient(notebook, timeout=300, record_timing=False, kernel_name="python3")
    client.execute(cwd=str(ROOT), env={**os.environ, "PYTHONPATH": paths})
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
