"""The search space that every regularizer declares beside its constructor."""

from __future__ import annotations

from typing import Any

import pytest

from bench.registry import REGULARIZERS
from bench.space import Choice, Linear, Log
from bench.studies import check_space


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_space_is_small_sourced_and_within_the_constructors_bounds(name: str) -> None:
    cls = REGULARIZERS.get(name)
    known = {argument.name: argument for argument in REGULARIZERS.declaration(name).arguments}
    assert len(cls.space) <= 3
    assert bool(cls.space) == (name != "none")
    for key, axis in cls.space.items():
        assert key in known, f"{name} has no argument {key}"
        assert axis.source.strip()
        assert axis.holds(axis.authors), "the authors' value lies in the range"
        values = axis.options if isinstance(axis, Choice) else (axis.low, axis.high)
        for value in (*values, axis.authors):
            cls(**{key: value})
        if not isinstance(axis, Choice):
            assert axis.low < axis.high
            # A strength of 0 is the baseline: the trials there would be spent on nothing.
            assert key != cls.strength or axis.low > 0
    check_space((name,))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"p": Linear(0.1, 1.5, 0.1, "x")}, r"dropout's search space leaves its bounds: .*p.* is 1.5"),
        ({"rate": Linear(0.1, 0.5, 0.1, "x")}, r"dropout's search space has 'rate'. .*There are: at, mask, p, scaling"),
        ({"mask": Choice(("per_step", "daily"), "per_step", "x")}, "mask=daily is refused"),
        ({key: Log(0.1, 1, 0.1, "x") for key in "abcd"}, "has 4 parameters, at most three"),
    ],
)
def test_a_space_outside_the_bounds_is_one_line(
    monkeypatch: pytest.MonkeyPatch, space: dict[str, Any], said: str
) -> None:
    from bench.errors import BenchError

    monkeypatch.setattr(REGULARIZERS.get("dropout"), "space", space)
    with pytest.raises(BenchError, match=said):
        check_space(("dropout",))
