"""Seeds derived by name."""

import hashlib
import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.seeds import derive, generator

KEYS = st.lists(st.one_of(st.integers(-5, 1000), st.text(max_size=5)), max_size=3)


def test_value_is_the_documented_hash() -> None:
    digest = hashlib.sha256(b'[7, "augment", 3]').hexdigest()
    assert derive(7, "augment", 3) == int(digest[:16], 16) // 2


def test_same_in_another_process() -> None:
    code = "from bench.seeds import derive; print(derive(7, 'augment', 3))"
    assert int(subprocess.check_output([sys.executable, "-c", code])) == derive(7, "augment", 3)


@given(st.integers(0, 2**31), KEYS, KEYS)
def test_range_and_independence(seed: int, a: list[str | int], b: list[str | int]) -> None:
    assert 0 <= derive(seed, *a) < 2**63
    assert (derive(seed, *a) == derive(seed, *b)) == (a == b)


def test_generators_are_fresh() -> None:
    first, second = (torch.rand(3, generator=generator("cpu", 1, "x")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=generator("cpu", 2, "x")))
