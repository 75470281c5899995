"""The range of an axis: from its smallest to its largest value, with room on either side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Margin:
    """How much room an axis leaves on either side of its values.

    Attributes:
        share: of the span of the values.
        least: the smallest room, in the values' unit.
        level: share of the largest value that is the room where the two above give none: all values are equal.
        zero: the room, in the values' unit, where `level` gives none either: all values are 0.
        factor: on a logarithmic axis, what the smallest value is divided and the largest multiplied by.
        floor: where a linear axis starts at the lowest.
        percent: end a linear axis at 100 at the highest, unless a value is above 100.
    """

    share: float
    least: float = 0.0
    level: float = 0.0
    zero: float = 0.0
    factor: float = 1.0
    floor: float = -math.inf
    percent: bool = False


# Of mean accuracies: their intervals may reach out of it, as one wide interval must not squeeze the rest.
ACCURACY = Margin(share=0.37, least=0.5, floor=0.0, percent=True)
# Of train and test accuracies along the x axis, where what counts is how far they are apart.
GAP = Margin(share=0.12, least=0.5, floor=0.0, percent=True)
# Of spike rates and operations, which are never negative.
COST = Margin(share=0.12, level=0.1, zero=0.01, factor=1.25, floor=0.0)
# Of losses and rates over the epochs, and of accuracies over them.
CURVE = Margin(share=0.08, level=0.05, zero=0.1)
LEARNING = Margin(share=0.08, level=0.05, zero=0.1, floor=0.0, percent=True)


def limits(values: Sequence[float], margin: Margin, logarithmic: bool = False) -> tuple[float, float]:
    """Where an axis starts and ends.

    Args:
        values: what is drawn along it, one or more.
        margin: the room around them.
        logarithmic: whether the axis is; then all values are above 0.
    """
    smallest, largest = min(values), max(values)
    if logarithmic:
        return smallest / margin.factor, largest * margin.factor
    room = max(margin.share * (largest - smallest), margin.least) or margin.level * abs(largest) or margin.zero
    end = largest + room
    if margin.percent and largest <= 100:
        end = min(end, 100.0)
    return max(margin.floor, smallest - room), end
