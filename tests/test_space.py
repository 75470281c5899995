"""Search spaces: the values at shares of a range."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bench.space import Choice, Linear, Log

SHARES = st.floats(0, 1)


def test_a_logarithmic_range_is_halved_by_its_geometric_mean() -> None:
    axis = Log(0.01, 100, authors=1, source="")
    assert [axis.at(share) for share in (0, 0.25, 0.5, 1)] == [0.01, 0.1, 1, 100]


def test_a_linear_range_is_halved_by_its_mean() -> None:
    axis = Linear(0.2, 0.6, authors=0.5, source="")
    assert [axis.at(share) for share in (0, 0.5, 1)] == [0.2, 0.4, 0.6]


def test_options_share_a_range_equally() -> None:
    axis = Choice(("a", "b", "c"), authors="b", source="")
    assert [axis.at(share) for share in (0, 0.33, 0.34, 0.66, 0.67, 1)] == ["a", "a", "b", "b", "c", "c"]


@given(share=SHARES, low=st.floats(1e-6, 1), factor=st.floats(1.01, 1e6))
def test_values_have_four_digits_and_lie_in_the_range(share: float, low: float, factor: float) -> None:
    for axis in (Log(low, low * factor, low, ""), Linear(low, low * factor, low, "")):
        value = axis.at(share)
        assert low * (1 - 1e-3) <= value <= low * factor * (1 + 1e-3)
        assert math.isclose(value, float(f"{value:.3e}"), rel_tol=1e-12)


def test_a_range_holds_its_ends_and_nothing_beyond() -> None:
    axis = Log(0.1, 1, authors=0.5, source="")
    assert axis.holds(0.1)
    assert axis.holds(1)
    assert not axis.holds(1.01)
    assert not axis.holds("0.5")
    assert Choice((True, False), True, "").holds(False)
    assert not Choice((1, 2), 1, "").holds(3)
