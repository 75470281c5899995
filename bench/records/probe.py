"""What a probe leaves in a run's folder, `probes/<name>.json`: its schema, and reading it with care."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import read_json

SCHEMA_VERSION = 1

VERSIONS = {"decision": 2}
"""By the name of a probe, 1 where it is not here: raised when the same settings come to measure something else."""

KINDS: dict[str, type] = {
    "probe": str, "run_id": str, "run_finished": str, "settings": dict, "seed": int, "baked": bool, "headline": dict,
    "rows": list,
}  # fmt: skip
"""Keys that others read; `bench eval` writes more."""


UNRELIABLE, REASONS = "unreliable", "unreliable_because"
"""Keys of a probe that looks into whether its own numbers are to be believed: a bool, and a list of lines."""


class Outdated(BenchError):
    """A probe's file was measured by an earlier rule."""


def version(name: str) -> int:
    """The version of what a probe measures."""
    return VERSIONS.get(name, 1)


def read(file: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """A probe's file; None where the run was trained anew after it.

    Args:
        file: `probes/<name>.json`.
        record: the run's `result.json`.

    Raises:
        Outdated: the probe has come to measure something else since, or in the suite that measured it.
        BenchError: it is damaged, of another schema or of another run.
    """
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise BenchError(f"{file} is no probe of schema version {SCHEMA_VERSION}")
    for key, kind in KINDS.items():
        if not isinstance(content.get(key), kind):
            raise BenchError(f"{file}: key '{key}' is no {kind.__name__}")
    for key, value in content["headline"].items():
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise BenchError(f"{file}: '{key}' is {value!r}, no finite number")
    if not isinstance(content.get(UNRELIABLE, False), bool):
        raise BenchError(f"{file}: key '{UNRELIABLE}' is no bool")
    if content["run_id"] != record["run_id"]:
        raise BenchError(f"{file} is of the run {content['run_id']}")
    name, found = content["probe"], content.get("version", 1)
    if found != version(name):
        raise Outdated(
            f"{file} was measured by another rule: version {found} of probe={name}, where this suite has version "
            f"{version(name)}; it must be measured again"
        )
    return content if content["run_finished"] == record["finished"] else None
