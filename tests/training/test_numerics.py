"""Results do not move unnoticed: a few steps of every network, kernel and regularizer come to what they came to."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from bench.errors import BenchError
from bench.records.provenance import NUMERICS
from bench.registry import REGULARIZERS

MOVED = "results moved: raise NUMERICS in bench/records/provenance.py, then run `python tests/training/golden.py`"


def _load() -> ModuleType:
    path = Path(__file__).with_name("golden.py")
    spec = importlib.util.spec_from_file_location("golden", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _load()
STORED = json.loads(golden.FILE.read_text())
# Between AVX2 and AVX-512, and between one thread and two, outcomes were up to 1.8 % apart.
TOLERANCE = 1e-6 if STORED["machine"] == golden.machine() else 0.03


def test_the_file_is_of_the_present_numerics() -> None:
    assert STORED["numerics"] == NUMERICS, MOVED


def test_no_network_kernel_or_regularizer_lacks_an_outcome() -> None:
    assert list(STORED["outcomes"]) == [name for name, _ in golden.cases(sorted(REGULARIZERS.names()))]


@pytest.mark.parametrize(("name", "overrides"), golden.cases(sorted(REGULARIZERS.names())))
def test_a_few_steps_come_to_what_they_came_to(name: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    try:
        found = golden.measure(overrides, tmp_path)
    except BenchError as error:
        pytest.skip(f"not on this machine: {error}")
    stored = STORED["outcomes"][name]
    assert list(found) == list(stored)
    for key, value in stored.items():
        assert found[key] == (value if value is None else pytest.approx(value, rel=TOLERANCE)), f"{key}: {MOVED}"
