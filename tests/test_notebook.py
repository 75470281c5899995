"""The notebook of first steps: its cells run from the first to the last, and what it shows is what they say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from docs import notebook


def printed(cells: list[Any]) -> str:
    """All that the cells print."""
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def told(cells: list[Any]) -> tuple[str, list[list[float]]]:
    """Of what the cells print: the answer to the image, and (weight, accuracy in percent, both spike rates) each."""
    text = printed(cells)
    answer = re.search(r"the network says (\S+)", text)
    assert answer is not None, text
    rows = re.findall(r"weight ([\d.]+): ([\d.]+)% .* spike rates ([\d.]+), ([\d.]+),", text)
    return answer[1], [[float(value) for value in row] for row in rows]


def pictures(cells: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def test_its_outputs_are_of_one_run_from_the_first_cell_to_the_last() -> None:
    cells = nbformat.read(notebook.NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert pictures(cells) == 3


@pytest.mark.slow
def test_its_cells_run_and_say_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow: networks are trained. Another processor rounds otherwise, so that accuracies may move by a few images."""
    # The tests' home does not exist.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shown, found = (told(cells) for cells in (nbformat.read(notebook.NOTEBOOK, as_version=4).cells, run().cells))
    assert found[0] == shown[0] == "3"
    assert [row[0] for row in found[1]] == [0.0, 0.5, 2.0]
    for own, theirs in zip(found[1], shown[1], strict=True):
        assert own[1] == pytest.approx(theirs[1], abs=3)
        assert own[2:] == pytest.approx(theirs[2:], abs=0.05)
        # What the text says of the penalty.
        assert own[1] > 90
    rates = [row[2:] for row in found[1]]
    for less, more in itertools.pairwise(rates):
        assert all(b < a for a, b in zip(less, more, strict=True))


def run() -> Any:
    done = notebook.executed()
    assert pictures(done.cells) == 3
    return done
