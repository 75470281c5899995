"""The record's schema and the files around it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError, EnvironmentFault
from bench.files import write_atomic
from bench.records.folder import RunFolder
from bench.records.identity import run_id
from bench.records.schema import SCHEMA, SCHEMA_VERSION, validate


def example(schema: Any = SCHEMA) -> Any:
    """A record that fits the schema, every value the plainest of its type."""
    found: dict[str, Any] = {}
    for name, entry in schema.items():
        if isinstance(entry, dict):
            found[name] = [example(entry)] if name == "layers" else example(entry)
        elif isinstance(entry.kind, tuple):
            found[name] = entry.kind[0]
        else:
            found[name] = (
                SCHEMA_VERSION
                if name == "schema_version"
                else {int: 1, float: 1.0, str: "x", dict: {}, list: []}[entry.kind]
            )
    return found


def test_the_schema_is_the_one_that_was_designed() -> None:
    """The keys of the design's listing, in its order."""
    listed = (
        "schema_version, run_id, status, status_reason, budget, data, data_copy, data_checksum, train_images, "
        "test_images, classes, model, model_args, neuron, time_steps, reg, strength, regs, no_effect, optimizer, lr, "
        "weight_decay, epochs, batch_size, seed, precision, ops, numerics, train, val, test, test_best_epoch, gap, "
        "layers, synops_per_image, synops_nonbinary_per_image, macs_per_image, energy_uj, params, "
        "passes_per_step, train_images_per_s, seconds, peak_memory_bytes, hardware, versions, commit, started, finished"
    )
    assert list(SCHEMA) == listed.split(", ")
    assert list(SCHEMA["train"]) == ["acc", "loss", "acc_eval", "loss_eval", "spike_rate"]
    assert list(SCHEMA["test"]) == ["acc", "loss", "spike_rate", "spike_rate_layer_mean"]
    assert list(SCHEMA["layers"]) == ["name", "neurons", "spike_rate", "dead", "saturated"]


def test_a_record_that_fits() -> None:
    validate(example())
    validate({**example(), "val": None, "strength": None, "commit": None, "gap": None})


@given(st.sampled_from(list(SCHEMA)))
def test_every_key_is_needed(key: str) -> None:
    record = example()
    del record[key]
    with pytest.raises(
        BenchError, match="schema_version is None" if key == "schema_version" else f"key '{key}' is missing"
    ):
        validate(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "key 'extra' is not in the schema"),
        ({"schema_version": 4}, "schema_version is 4, this suite reads 1 to 3"),
        ({"schema_version": True}, "schema_version is True"),
        ({"schema_version": 1}, "key 'no_effect' is not in the schema"),
        ({"seed": "0"}, "key 'seed' is '0', not a int"),
        ({"seed": None}, "key 'seed' is None"),
        ({"seed": True}, "key 'seed' is True"),
        ({"status": "fine"}, "key 'status' is 'fine', not one of finished, diverged"),
        ({"layers": {}}, "key 'layers' is no list"),
        ({"layers": [{}]}, r"key 'layers\[0\].name' is missing"),
        ({"test": {"acc": "high"}}, "key 'test.loss' is missing"),
        ({"seconds": {"total": 1, "train": 1, "eval": "x"}}, "key 'seconds.eval' is 'x'"),
    ],
)
def test_records_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        validate({**example(), **change})


def test_identity_depends_on_every_setting_and_on_no_order() -> None:
    science = {"data": {"name": "digits", "limit": 5}, "model": {"name": "cnn"}, "reg": {"a": {}, "b": {}}, "seed": 3}
    name = run_id(science)
    assert name.startswith("digits-cnn-a+b-s3-")
    assert len(name) == len("digits-cnn-a+b-s3-") + 8
    assert run_id(dict(reversed(science.items()))) == name
    assert run_id({**science, "data": {"name": "digits", "limit": 6}}) != name
    # A setting that is added later and not asked for names the same run.
    assert run_id({**science, "data": {**science["data"], "classes": None}, "later": None}) == name
    assert run_id({**science, "data": {**science["data"], "classes": 3}}) != name
    # The same in another process, whatever its hash seed.
    code = f"from bench.records.identity import run_id; print(run_id({science!r}))"
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.strip() == name


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    with pytest.raises(EnvironmentFault, match="could not be written"):
        write_atomic(tmp_path / "missing" / "result.json", "new")


@given(st.integers(0, 200))
def test_metrics_cut_anywhere_lose_at_most_the_last_line(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root), "run")
        folder.path.mkdir()
        for epoch in range(3):
            folder.append({"epoch": epoch, "loss": 1 / (epoch + 1)})
        text = folder.metrics_path.read_text()
        folder.metrics_path.write_text(text[: len(text) - min(cut, len(text))])
        rows = folder.rows()
        whole = text[: max(0, len(text) - cut)].count("\n")
        assert whole <= len(rows) <= whole + 1
        assert rows == [{"epoch": e, "loss": 1 / (e + 1)} for e in range(len(rows))]
        kept = folder.cut_back(whole)
        assert folder.metrics_path.read_text() == "".join(json.dumps(row) + "\n" for row in kept)
