"""What identifies a run: no committed record may ever get another name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.config.compose import compose, read_config
from bench.records import identity
from bench.records.identity import best_precision, run_id, science

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


def test_data_and_precision_of_another_machine_are_taken_as_they_are_told() -> None:
    cfg = compose(["data=digits", "trainer.precision=auto"])
    facts = science(cfg, ("ab" * 32, "a copy"), auto="fp16")
    assert (facts["data"]["checksum"], facts["data"]["copy"], facts["precision"]) == ("ab" * 32, "a copy", "fp16")
    assert facts["plugins"] is None
    asked = science(compose(["data=digits", "trainer.precision=fp32"]), ("ab" * 32, "a copy"), auto="fp16")
    assert asked["precision"] == "fp32", "auto stands for nothing where precision is set"
    # Without them it is this machine's: digits come with scikit-learn and are the same everywhere.
    here = science(cfg)
    assert here["data"]["checksum"] not in ("", "ab" * 32)
    assert run_id(here) != run_id(facts)


@pytest.mark.parametrize(
    ("accelerator", "flags", "capability", "found"),
    [
        ("auto", "fpu avx512f avx512_bf16", None, "bf16"),
        ("auto", "fpu avx512f", None, "fp32"),
        ("auto", None, None, "fp32"),
        ("cpu", "fpu avx512f", (8, 0), "fp32"),
        ("gpu", "fpu avx512f", (8, 0), "bf16"),
        ("auto", "fpu avx512_bf16", (7, 5), "fp32"),
    ],
)
def test_which_processors_auto_trains_in_bf16(
    accelerator: str,
    flags: str | None,
    capability: tuple[int, int] | None,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processors that are not here: the system's files lie below a folder of the test, and torch is told of a GPU.

    Ampere has compute capability 8.0, Turing 7.5.
    """
    import torch

    for name, content in (("proc/cpuinfo", flags), ("dev/nvidiactl", None if capability is None else "")):
        if content is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
    monkeypatch.setattr(identity, "Path", lambda name: tmp_path / name.removeprefix("/"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_precision.__wrapped__(accelerator) == found
