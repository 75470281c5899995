"""Records that cannot be trusted are left out, each with a line and a count."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.records.schema import FIELDS
from bench.report.collect import Collection, collect


def names(collection: Collection) -> list[str]:
    return [record.run_id for record in collection.records]


def test_good_records_are_read_with_what_lies_beside_them(records: SimpleNamespace, tmp_path: Path) -> None:
    records.put(tmp_path, records.record(run_id="b", seed=1))
    records.put(tmp_path, records.record(run_id="a"))
    (tmp_path / "flat.json").write_text(json.dumps(records.record(run_id="c")))
    collection = collect([tmp_path, tmp_path / "nowhere"])
    assert names(collection) == ["a", "b", "c"]
    assert [record.dirty for record in collection.records] == [False, False, None]
    assert len(collection.records[0].epochs) == 3
    assert collection.records[0].config["neuron"]["name"] == "if"
    assert collection.records[0].number("test.acc") == 94.0
    assert collection.records[0].number("val.acc") is None
    assert collection.lines() == ["3 records"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: text.replace('"schema_version": 3', '"schema_version": 7'), "schema_version is 7"),
        (lambda text: text.replace('"gap": 3.0', '"gap": "wide"'), "key 'gap'"),
        (lambda text: text.replace('"gap": 3.0', '"gap": NaN'), "'gap' is nan, no finite number"),
        (lambda text: text.replace('"acc": 94.0', '"acc": null'), "finished but has no accuracy"),
        (lambda text: "", "is damaged"),
    ],
)
def test_a_bad_record_is_left_out_with_its_reason(
    records: SimpleNamespace, tmp_path: Path, damage: Any, reason: str
) -> None:
    records.put(tmp_path, records.record(run_id="good"))
    path = records.put(tmp_path, records.record(run_id="bad"))
    path.write_text(damage(path.read_text()))
    collection = collect([tmp_path])
    assert names(collection) == ["good"]
    ((where, said),) = collection.left_out
    assert where == path
    assert reason in said
    assert "\n" not in said
    assert collection.lines()[-1] == "1 records, 1 left out"


def test_a_dirty_commit_is_left_out_unless_asked_for(records: SimpleNamespace, tmp_path: Path) -> None:
    records.put(tmp_path, records.record(), dirty=True)
    collection = collect([tmp_path])
    assert not collection.records
    assert "dirty commit" in collection.left_out[0][1]
    assert len(collect([tmp_path], dirty=True).records) == 1


def test_a_repeated_record_counts_once_and_another_outcome_stands_beside(
    records: SimpleNamespace, tmp_path: Path
) -> None:
    submitted, local = tmp_path / "records", tmp_path / "runs"
    records.put(submitted, records.record(run_id="same"))
    # Another machine, another day, another speed: the same outcome.
    records.put(local, records.record(run_id="same", hardware="other", finished="2026-02-02T00:00:00+00:00"))
    records.put(submitted, records.record(run_id="torn"))
    records.put(local, records.record(run_id="torn", test__acc=50.0, hardware="other"))
    beside = records.put(submitted / "torn" / "replicates", records.record(run_id="torn", test__acc=60.0, numerics=2))
    for folders in ([submitted, local], [local, submitted], [submitted]):
        collection = collect(folders)
        assert names(collection) == ["same", "torn"]
        assert collection.left_out == []
        assert collection.unexplained == []
    collection = collect([submitted, local])
    assert collection.repeated == 1
    assert collection.lines() == ["2 records, 1 found twice, alike, 2 replicates beside them"]
    same, torn = collection.records
    assert same.path.is_relative_to(submitted)
    assert same.replicates == ()
    assert torn.number("test.acc") == 94.0, "the submitted one counts"
    assert [(other.number("test.acc"), other.path) for other in torn.replicates] == [
        (50.0, local / "torn" / "result.json"), (60.0, beside)
    ]  # fmt: skip
    # Of one's own runs the first folder's counts, and never what lies among replicates.
    assert collect([local, submitted]).records[1].number("test.acc") == 50.0
    assert collect([submitted, submitted]).repeated == 0


def test_another_outcome_on_the_same_machine_is_told(records: SimpleNamespace, tmp_path: Path) -> None:
    records.put(tmp_path / "records", records.record(run_id="torn"))
    path = records.put(tmp_path / "runs", records.record(run_id="torn", test__acc=50.0))
    (line,) = collect([tmp_path / "records", tmp_path / "runs"]).unexplained
    assert line.startswith(f"{path} has another outcome than")
    path.unlink()
    # From before numerics were counted, nothing is known.
    records.put(tmp_path / "runs", records.record(run_id="torn", test__acc=50.0, numerics=None))
    assert collect([tmp_path / "records", tmp_path / "runs"]).unexplained == []


def test_what_an_earlier_version_did_not_record_contradicts_nothing(records: SimpleNamespace, tmp_path: Path) -> None:
    later = records.record(run_id="a", model="convmixer")
    since = {field.key: field.since for field in FIELDS}
    earlier = {key: value for key, value in later.items() if since.get(key, 1) == 1}
    records.put(tmp_path / "runs", later)
    path = records.put(tmp_path / "records", later)
    path.write_text(json.dumps({**earlier, "schema_version": 1}))
    collection = collect([tmp_path / "records", tmp_path / "runs"])
    assert (len(collection.records), collection.repeated, collection.records[0].replicates) == (1, 1, ())
    second = {key: value for key, value in later.items() if since.get(key, 1) <= 2}
    path.write_text(json.dumps({**second, "schema_version": 2}))
    collection = collect([tmp_path / "records", tmp_path / "runs"])
    assert (len(collection.records), collection.repeated, collection.records[0].replicates) == (1, 1, ())
    path.write_text(json.dumps({**earlier, "schema_version": 1, "gap": 2.0}))
    assert len(collect([tmp_path / "records", tmp_path / "runs"]).records[0].replicates) == 1


def test_unfinished_runs_are_counted_and_cut_curves_not_used(records: SimpleNamespace, tmp_path: Path) -> None:
    path = records.put(tmp_path, records.record(run_id="running"))
    path.unlink()
    path = records.put(tmp_path, records.record(run_id="cut"))
    lines = path.with_name("metrics.jsonl").read_text()
    path.with_name("metrics.jsonl").write_text(lines[: len(lines) // 2])
    collection = collect([tmp_path])
    assert names(collection) == ["cut"]
    assert collection.records[0].epochs == []
    assert collection.lines() == ["1 records, 1 runs unfinished"]


def test_a_number_of_an_epoch(records: SimpleNamespace, tmp_path: Path) -> None:
    """The fixture's three epochs reach 32, 64 and 96 % of the training images; the first tests at 94 / 3 %."""
    records.put(tmp_path, records.record())
    (run,) = collect([tmp_path]).records
    assert run.number("epochs.0.train.acc") == pytest.approx(32)
    assert run.number("epochs.2.train.acc") == pytest.approx(96)
    assert run.number("epochs.0.test.acc") == pytest.approx(94 / 3)
    assert run.number("epochs.3.train.acc") is None
    assert run.number("epochs.0.val.acc") is None
