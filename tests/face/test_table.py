"""Records as rows: those of the reports and of one's own runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[2]


def test_the_submitted_records_are_there_with_ones_own(run_tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run_tiny("reg=spikepen")
    rows = bench.records(dirty=True)
    own = rows.where(run_id=result["run_id"])
    assert len(own) == 1
    assert own[0]["test.acc"] == result["test"]["acc"]
    assert own[0]["model_args"] == {"channels": 4, "depth": 3}
    with (ROOT / "reports" / "results.csv").open() as file:
        published = {line["run_id"]: line for line in csv.DictReader(file)}
    shared = {row["run_id"]: row for row in rows}
    assert published.keys() <= shared.keys()
    for name, line in list(published.items())[::50]:
        accuracy = shared[name]["test.acc"]
        assert accuracy == (pytest.approx(float(line["test.acc"])) if line["test.acc"] else None)
    assert bench.records(tmp_path / "runs", dirty=True).where(test__acc=result["test"]["acc"])[0]["seed"] == 0


def test_a_column_or_folder_that_is_none_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there is no folder"):
        bench.records(tmp_path / "none")
    assert bench.records(tmp_path) == []
    with pytest.raises(BenchError, match=r"no column 'modle'\. Did you mean 'model'"):
        bench.records(ROOT / "reports" / "records").where(modle="cnn")


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({"schema_version": 99}))
    rows = bench.records(tmp_path)
    assert rows == []
    assert "schema_version is 99" in rows.left_out[0][1]


@pytest.mark.skipif(find_spec("pandas") is not None, reason="pandas is here")
def test_a_frame_without_pandas_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"pip install 'snn-bench\[pandas\]'"):
        bench.records(tmp_path).frame()


@pytest.mark.skipif(find_spec("pandas") is None, reason="needs pandas")
def test_a_frame_of_pandas() -> None:
    frame = bench.records(ROOT / "reports" / "records").frame()
    assert {"reg", "test.acc", "test.spike_rate"} <= set(frame.columns)
    assert len(frame) == len(bench.records(ROOT / "reports" / "records"))
