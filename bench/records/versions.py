"""How records that earlier versions of the suite wrote are read: in today's form, what they lack being null."""

from __future__ import annotations

from typing import Any

from bench.energy import microjoules
from bench.records.schema import FIELDS, validate

_SPIKES_ALONE = ("cnn", "mlp", "srm", "diehl_cook")
"""Networks none of whose synapses got a sum or a mean of spikes when version 1 was written."""


def current(record: Any) -> dict[str, Any]:
    """A record of this version or an earlier one, in today's form.

    Version 1 counted a sum or a mean of spikes as one accumulation and did not say how many there were. Where there
    were none its energy stands; elsewhere it is null, as it cannot be worked out anew.

    Args:
        record: the content of `result.json`; it is left as it is.

    Raises:
        BenchError: names the first key that does not fit.
    """
    validate(record)
    version = record["schema_version"]
    later = {field.key: None for field in FIELDS if field.since > version and field.derive is None}
    found: dict[str, Any] = {**record, **later}
    if version > 1:
        return found
    macs, synops = found["macs_per_image"], found["synops_per_image"]
    if synops is not None and _fed_by_spikes_alone(found):
        found["synops_nonbinary_per_image"] = 0.0
    elif synops is not None:
        found["energy_uj"] = None
    elif macs is not None:
        found["energy_uj"] = microjoules(0.0, 0.0, macs)
    return found


def _fed_by_spikes_alone(record: dict[str, Any]) -> bool:
    if record["model"] == "sew":
        return record["model_args"].get("cnf", "ADD") != "ADD"
    return record["model"] in _SPIKES_ALONE
