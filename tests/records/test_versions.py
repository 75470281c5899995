"""Records that earlier versions wrote, read in today's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.records.schema import FIELD, SCHEMA, SCHEMA_VERSION
from bench.records.versions import current

RECORDS = Path(__file__).resolve().parents[2] / "reports" / "records"


def first(network: str) -> dict[str, object]:
    """A submitted record of version 1."""
    for path in sorted(RECORDS.glob(f"*-{network}-*/result.json")):
        record: dict[str, object] = json.loads(path.read_text())
        if record["schema_version"] == 1 and record["neuron"] != "relu" and record["status"] == "finished":
            return record
    pytest.skip(f"no record of version 1 of {network} is left")


@pytest.mark.parametrize("network", ["cnn", "mlp", "srm", "diehl_cook"])
def test_energy_stands_where_every_event_was_a_spike(network: str) -> None:
    stored = first(network)
    found = current(stored)
    assert set(found) == set(SCHEMA)
    assert found["energy_uj"] == stored["energy_uj"]
    assert found["synops_nonbinary_per_image"] == 0
    assert (found["numerics"], found["no_effect"]) == (None, None)
    assert "numerics" not in stored, "what was read is left as it is"


@pytest.mark.parametrize("network", ["sew", "convmixer"])
def test_energy_is_not_known_where_sums_were_counted_as_spikes(network: str) -> None:
    stored = first(network)
    found = current(stored)
    assert (found["energy_uj"], found["synops_nonbinary_per_image"]) == (None, None)
    assert found["synops_per_image"] == stored["synops_per_image"]
    if network == "sew":
        product = current({**stored, "model_args": {**dict(stored["model_args"]), "cnf": "AND"}})  # type: ignore[call-overload]
        assert product["energy_uj"] == stored["energy_uj"], "a product of spikes is a spike"


def test_a_record_of_today_is_left_as_it_is_and_a_later_one_refused() -> None:
    record = {**current(first("cnn")), "schema_version": SCHEMA_VERSION, "energy_uj": 7.0}
    assert current(record) == record
    with pytest.raises(BenchError, match=f"schema_version is {SCHEMA_VERSION + 1}"):
        current({**record, "schema_version": SCHEMA_VERSION + 1})


def test_neuron_updates_are_neurons_times_time_steps() -> None:
    stored = {**current(first("cnn")), "time_steps": 3, "layers": [{"neurons": 5}, {"neurons": 7}]}
    updates = FIELD["neuron_updates_per_image"]
    assert updates.value(stored) == 36
    assert updates.value({**stored, "neuron": "relu"}) is None
    assert updates.value({**stored, "layers": []}) is None
