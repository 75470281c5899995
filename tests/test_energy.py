"""Operations become energy by one rule."""

from __future__ import annotations

import pytest

from bench.energy import microjoules


def test_a_spike_accumulates_and_everything_else_multiplies() -> None:
    """Of a million events a quarter are sums: 750,000 x 0.9 pJ + 250,000 x 4.6 pJ, and 100,000 pixels x 4.6 pJ."""
    assert microjoules(1e6, 250e3, 100e3) == pytest.approx(0.675 + 1.15 + 0.46)
    assert microjoules(0, 0, 1e6) == pytest.approx(4.6)
