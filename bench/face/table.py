"""Records as rows, for data frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError, nearest
from bench.records.folder import reports_folders, runs_folder
from bench.report.collect import collect
from bench.report.exports import entries


class Records(list[dict[str, Any]]):
    """Rows with the same keys, one a record: what `pandas.DataFrame(records)` and `polars.DataFrame(records)` take.

    Attributes:
        left_out: path and reason, for each record that could not be used.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], left_out: Sequence[tuple[Path, str]]) -> None:
        super().__init__(rows)
        self.left_out = list(left_out)

    def where(self, **equal: Any) -> Records:
        """The rows with these values.

        Args:
            equal: by column; a dot in its name is written as two underscores (`test__acc`).

        Raises:
            BenchError: no such column.
        """
        wanted = {key.replace("__", "."): value for key, value in equal.items()}
        for key in wanted:
            if self and key not in self[0]:
                raise BenchError(f"records have no column '{key}'. {nearest(key, self[0])}")
        return Records([row for row in self if all(row[k] == v for k, v in wanted.items())], self.left_out)

    def frame(self) -> Any:
        """A data frame of pandas.

        Raises:
            BenchError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise BenchError(
                "a data frame needs pandas, which is not installed: pip install 'snn-bench[pandas]'"
            ) from error
        return pandas.DataFrame(list(self))


def records(*folders: str | os.PathLike[str], dirty: bool = False) -> Records:
    """All records, submitted ones and those of one's own runs, as rows of numbers and settings.

    Columns are those of `reports/results.csv`: `reg`, `model`, `data`, `seed`, `test.acc`, `test.spike_rate`, ...;
    settings with structure (`regs`, `model_args`) are dicts.

    Args:
        folders: to look through; none is `reports/records`, then `runs` or `$BENCH_RUNS`.
        dirty: take in records of code that was in no commit.

    Returns:
        A list of dicts; `.frame()` is a data frame, `.where(model="cnn")` some of them.

    Raises:
        BenchError: a folder is not there.

    Examples:
        >>> import bench
        >>> rows = bench.records("reports/records").where(model="cnn", data="digits", reg="none")
        >>> {row["time_steps"] for row in rows} <= {2, 4, 8}
        True
    """
    places = [Path(folder).expanduser() for folder in folders]
    for place in places:
        if not place.is_dir():
            raise BenchError(f"there is no folder {place} of records")
    if not places:
        places = [reports / "records" for reports in reports_folders()] + [runs_folder()]
    found = collect(places, dirty)
    return Records([entries(record) for record in found.records], found.left_out)
