"""Poisson trains: what they are in law, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.local.spikes import by_step, poisson


def test_each_step_is_a_coin_toss_of_its_own() -> None:
    """50 and 400 Hz in steps of 0.5 ms: p = 0.025 and 0.2; counts are binomial, steps independent."""
    trains = poisson(np.array([50.0, 0.0, 400.0]), 0.5, 100_000, 100_200, np.random.default_rng(0))
    counts = np.bincount(trains.inputs, minlength=3)
    for count, p in zip(counts[[0, 2]], (0.025, 0.2), strict=True):
        assert abs(count - 1e5 * p) < 4 * (1e5 * p * (1 - p)) ** 0.5
    assert counts[1] == 0
    when = np.repeat(np.arange(100_200), np.diff(trains.offset))
    fires = np.zeros(100_000)
    fires[when[trains.inputs == 2]] = 1
    assert fires.sum() == counts[2], "at most one spike a step"
    assert abs(np.corrcoef(fires[1:], fires[:-1])[0, 1]) < 0.015
    assert abs(fires[:50_000].sum() - fires[50_000:].sum()) < 4 * (1e5 * 0.16) ** 0.5
    assert trains.offset[100_000] == trains.offset[-1], "silent after the image"


@given(
    st.lists(st.floats(0, 2000), min_size=1, max_size=8), st.integers(0, 300), st.integers(0, 20), st.integers(0, 99)
)
@example([840.0, 1e-05, 216.0, 1.1e-308], 111, 14, 0)
@settings(max_examples=60, deadline=None)
def test_trains_are_sorted_and_within_the_presentation(rates: list[float], steps: int, rest: int, seed: int) -> None:
    trains = poisson(np.array(rates), 0.5, steps, steps + rest, np.random.default_rng(seed))
    assert trains.steps == steps + rest
    assert trains.offset[0] == 0
    assert trains.offset[-1] == len(trains.inputs) == trains.offset[steps]
    assert (np.diff(trains.offset) >= 0).all()
    for a, b in zip(trains.offset, trains.offset[1:], strict=False):
        assert (np.diff(trains.inputs[a:b]) > 0).all(), "sorted, and no input twice in a step"
    certain = np.flatnonzero(np.array(rates) == 2000)
    assert all((np.bincount(trains.inputs, minlength=len(rates))[i]) == steps for i in certain)


def test_by_step_sorts_by_step_then_input() -> None:
    trains = by_step(np.array([3, 0, 3, 1]), np.array([5, 2, 1, 0]), 5)
    assert trains.offset.tolist() == [0, 1, 2, 2, 4, 4]
    assert trains.inputs.tolist() == [2, 0, 1, 5]


def test_a_rate_that_a_step_cannot_carry_is_one_line() -> None:
    with pytest.raises(BenchError, match=r"^2001 Hz is more than one spike in a step of 0.5 ms; at most 2000 Hz fit$"):
        poisson(np.array([10.0, 2001.0]), 0.5, 10, 10, np.random.default_rng(0))
