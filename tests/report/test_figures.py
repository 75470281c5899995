"""What all figures share: the ranges of their axes, looks, and the hash of what is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from bench.report.figures import COLOURS
from bench.report.figures.drawn import Drawn
from bench.report.figures.limits import ACCURACY, COST, CURVE, GAP, Margin, limits
from bench.report.figures.look import look_of
from bench.report.figures.readings import Bar


@pytest.mark.parametrize(
    ("margin", "values", "ends"),
    [
        # 0.37 of a span of 20.
        (ACCURACY, [70, 50, 60], (42.6, 77.4)),
        # 3.7, but percent end at 101; below there is no end.
        (ACCURACY, [90, 100], (86.3, 101)),
        (ACCURACY, [1, 11], (-2.7, 14.7)),
        # More than 100 is no percent.
        (ACCURACY, [100, 120], (92.6, 127.4)),
        # The smallest room.
        (ACCURACY, [80, 81], (79.5, 81.5)),
        (ACCURACY, [80], (79.5, 80.5)),
        # 0.12 of 25; 0.12 of 2 is less than the smallest room.
        (GAP, [50, 75], (47, 78)),
        (GAP, [98, 96], (95.5, 98.5)),
        (GAP, [75, 100], (72, 101)),
        # 0.012; 0.03, but no cost is negative.
        (COST, [0.1, 0.2], (0.088, 0.212)),
        (COST, [0.01, 0.26], (0, 0.29)),
        # A tenth of the one value; 0 has no tenth.
        (COST, [0.5, 0.5], (0.45, 0.55)),
        (COST, [0.0], (0, 0.01)),
        # 0.2; a twentieth; 0 has none.
        (CURVE, [1, 3.5, 2], (0.8, 3.7)),
        (CURVE, [-2, -2], (-2.1, -1.9)),
        (CURVE, [0.0], (-0.1, 0.1)),
    ],
)
def test_an_axis_shows_its_values_with_room(margin: Margin, values: Sequence[float], ends: tuple[float, float]) -> None:
    assert limits(values, margin) == pytest.approx(ends, abs=1e-12)


def test_a_logarithmic_axis_has_room_by_a_factor() -> None:
    assert limits([0.02, 0.1, 0.05], COST, logarithmic=True) == pytest.approx((0.016, 0.125))


def test_the_eleventh_series_looks_like_the_first() -> None:
    assert look_of(0) == look_of(len(COLOURS))
    assert len({look_of(place) for place in range(10)}) == 10


def test_what_is_drawn_is_hashed_by_its_numbers() -> None:
    """Names of fields and digits after the sixth are not in the hash."""

    def draw() -> None:
        raise AssertionError("a hash needs no picture")

    drawn = Drawn("gap", "", {"none": [Bar(1.00000049, 0.5, 0.25)]}, draw)  # type: ignore[arg-type]
    assert drawn.digest == hashlib.sha256(b'["gap", {"none": [[1.0, 0.5, 0.25]]}]').hexdigest()
