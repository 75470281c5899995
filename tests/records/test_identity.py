"""What identifies a run: no committed record may ever get another name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.config.compose import read_config
from bench.records.identity import run_id, science

RECORDS = Path(__file__).resolve().parents[2] / "reports" / "records"
FOLDERS = sorted(path.parent for path in RECORDS.glob("*/config.yaml"))


def test_every_record_has_its_settings() -> None:
    """So that the next test sees all of them."""
    assert len(FOLDERS) == len(list(RECORDS.glob("*/result.json"))) >= 538


@pytest.mark.parametrize("part", range(4))
def test_the_settings_of_every_committed_record_still_name_it(part: int) -> None:
    for folder in FOLDERS[part::4]:
        result = json.loads((folder / "result.json").read_text())
        data = (result["data_checksum"], result["data_copy"])
        facts = science(read_config(folder / "config.yaml"), data, auto=result["precision"])
        assert run_id(facts) == folder.name
