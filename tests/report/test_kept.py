"""What is kept from one report to the next: it is taken for the same input alone, and never where it may be old."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import experiments
from bench.config.options import beside
from bench.registry import REGULARIZERS
from bench.report import join, kept
from bench.report.build import _drawing
from bench.report.collect import collect
from bench.report.figures.drawn import Drawn
from bench.report.groups import groups
from bench.report.parallel import Files, Job, side_by_side


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of kept things, by a process that began long after the last edit of the suite."""
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "kept")
    monkeypatch.setattr(kept, "_STARTED", time.time() + 1e6)
    return tmp_path / "kept"


def place(given: bytes = b"", what: str = "figure") -> Path:
    path = kept.place(what, given)
    assert path is not None
    return path


def test_what_is_kept_is_taken_for_its_own_input() -> None:
    kept.keep({place(b"one"): [1, {"two": 3.5}]})
    assert kept.take(place(b"one")) == [1, {"two": 3.5}]
    assert kept.take(place(b"two")) is None
    assert kept.take(place(b"one", "rows")) is None
    assert kept.take(None) is None


def test_what_is_damaged_is_not_taken() -> None:
    kept.keep({place(): [1]})
    place().write_text("[1")
    assert kept.take(place()) is None


def test_a_changed_new_or_renamed_file_makes_all_that_is_kept_another(tmp_path: Path) -> None:
    file = tmp_path / "own" / "optim" / "mine.yaml"
    file.parent.mkdir(parents=True)

    def now() -> bytes:
        return kept._surroundings.__wrapped__((tmp_path / "own",))

    file.write_text("lr: 0.1")
    first = now()
    assert now() == first
    file.write_text("lr: 0.2")
    second = now()
    file.rename(file.with_name("other.yaml"))
    third = now()
    (file.parent / "new.yaml").write_text("")
    assert len({first, second, third, now()}) == 4


def test_own_settings_are_looked_at(tmp_path: Path) -> None:
    before = place()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("lr: 0.1")
    with beside(tmp_path / "own"):
        assert place() != before


def test_nothing_is_kept_while_the_code_may_have_changed(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = max(path.stat().st_ctime for path, _ in kept._files(kept.config_dirs()))
    monkeypatch.setattr(kept, "_STARTED", newest + kept._SHORTLY - 1)
    kept.keep({place(): [1]})
    assert not own.exists()
    monkeypatch.setattr(kept, "_STARTED", newest + kept._SHORTLY + 1)
    kept.keep({place(): [1]})
    assert kept.take(place()) == [1]


def test_with_a_plugin_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGULARIZERS, "_brought", {})

    @REGULARIZERS.register("of_a_plugin")
    class OfAPlugin:
        """A regularizer of somebody else's."""

    assert kept.place("figure", b"") is None
    REGULARIZERS._items.pop("of_a_plugin")


def test_what_nobody_took_for_a_month_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep({place(b"old"): [1]})
    monkeypatch.setattr(kept, "_DAYS", -1)
    kept.keep({place(b"new"): [2]})
    assert kept.take(place(b"old")) is None


def test_a_folder_that_cannot_be_written_to_is_no_fault(own: Path) -> None:
    own.write_text("a file")
    kept.keep({place(): [1]})
    assert kept.take(place()) is None


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_was_done_is_not_done_again(processes: int) -> None:
    def fail() -> Files:
        raise AssertionError("done again")

    def files(content: bytes) -> Callable[[], Files]:
        return lambda: [("a.svg", content)]

    assert side_by_side([Job(files(b"\x00\xff"), place(b"one"))], processes) == [[("a.svg", b"\x00\xff")]]
    again = [Job(files(b"no place")), Job(fail, place(b"one")), Job(files(b"new"), place(b"two"))]
    assert side_by_side(again, processes) == [[("a.svg", b"no place")], [("a.svg", b"\x00\xff")], [("a.svg", b"new")]]


def test_a_figure_is_kept_for_its_table_its_name_and_the_files_there(tmp_path: Path, records: SimpleNamespace) -> None:
    records.grid(tmp_path / "records", 2)
    (table,) = groups(collect([tmp_path / "records"]))
    (same,) = groups(collect([tmp_path / "records"]))
    (other,) = groups(collect([tmp_path / "records"]))
    other.title = "Another"
    figure, second = (Drawn(name, "", [], lambda: None) for name in ("gap", "pareto"))  # type: ignore[arg-type,return-value]

    def of(*arguments: Any) -> Path | None:
        (job,) = _drawing(*arguments)
        return job.place

    known = of(table, [figure], True, tmp_path)
    assert known is not None
    assert of(same, [figure], True, tmp_path) == known
    others = [
        of(other, [figure], True, tmp_path),
        of(table, [second], True, tmp_path),
        of(table, [figure], False, tmp_path),
        of(table, [figure], True, None),
    ]
    (tmp_path / table.folder).mkdir(parents=True)
    (tmp_path / table.folder / "gap.png").write_bytes(b"a picture")
    others.append(of(table, [figure], True, tmp_path))
    assert len({known, *others}) == 6


def test_rows_are_composed_once_and_are_the_same_from_where_they_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = experiments.load("suite/digits")
    calls: list[int] = []
    identified = experiments.identified

    def counted(jobs: Any, *given: Any, **named: Any) -> Any:
        calls.append(len(jobs))
        return identified(jobs, *given, **named)

    def ids() -> list[tuple[str, int, str]]:
        monkeypatch.setattr(join, "_known", {})
        return join.run_ids(experiment, "smoke", [0, 1], (), {"digits": ("ab", "a copy")}, "fp32")

    monkeypatch.setattr(experiments, "identified", counted)
    first = ids()
    assert len(calls) == 1
    assert len(first) == 2 * len(experiment.rows)
    assert ids() == first
    assert len(calls) == 1
