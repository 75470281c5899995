"""The ranges of the numbers that users set: what lies outside, NaN and infinity too, is one line that names the key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import BenchError


@dataclass(frozen=True)
class Numbers:
    """The numbers under one prefix, and how a line that refuses one of them reads.

    Every method takes the numbers by their names, refuses the first one out of range, and leaves out those that are
    None, which are settings left alone.

    Examples:
        >>> Numbers("model.").at_least(1, channels=0)
        Traceback (most recent call last):
        bench.errors.BenchError: model.channels is 0, it must be at least 1

    Attributes:
        prefix: what the keys begin with, as in `model.` or `reg.dropout.`.
        sentence: the line, of `{key}`, `{value}` (six digits) or `{exact}` (all of them), and `{wanted}`, a verb first.
        finite: whether it says "a finite number" always, not only to those who set NaN or infinity.
    """

    prefix: str = ""
    sentence: str = "{key} is {value}, it must {wanted}"
    finite: bool = False

    def at_least(self, least: float, /, **numbers: float | None) -> None:
        """Refuse numbers below the smallest one allowed.

        Raises:
            BenchError: names the first such number.
        """
        for name, value in numbers.items():
            if value is not None and not (is_finite(value) and value >= least):
                brief = is_finite(value) and not self.finite
                wanted = f"be at least {least:g}" if brief else f"be a finite number, {least:g} or more"
                self._refuse(name, value, wanted)

    def above(self, bound: float, unit: str = "", /, **numbers: float | None) -> None:
        """Refuse numbers at a bound or below.

        Args:
            bound: which the numbers must exceed.
            unit: that the bound has in the message, with the space before it.
            numbers: by their names.

        Raises:
            BenchError: names the first such number.
        """
        for name, value in numbers.items():
            if value is not None and not (is_finite(value) and value > bound):
                brief = is_finite(value) and not self.finite
                wanted = f"be above {bound:g}" if brief else f"be a finite number above {bound:g}"
                self._refuse(name, value, wanted + unit)

    def within(self, interval: str, why: str = "", /, **numbers: float | None) -> None:
        """Refuse numbers outside an interval.

        Args:
            interval: as the message has it: `[0, 1)` holds 0 and not 1.
            why: what the message ends in.
            numbers: by their names.

        Raises:
            BenchError: names the first such number.
        """
        low, high = map(float, interval[1:-1].split(","))
        for name, value in numbers.items():
            if value is None:
                continue
            at_an_end = (value == low and interval[0] == "[") or (value == high and interval[-1] == "]")
            if not (low < value < high or at_an_end):
                self._refuse(name, value, f"lie in {interval}{why}")

    def check(self, name: str, value: float | Sequence[float] | None, fits: bool, wanted: str) -> None:
        """Refuse what is not finite, or breaks a rule of its own.

        Args:
            name: of the setting.
            value: a number, or several that the message shows together.
            fits: whether it keeps the rule.
            wanted: the rule, as it follows "it must".

        Raises:
            BenchError: names the setting.
        """
        if value is None:
            return
        finite = all(map(is_finite, value)) if isinstance(value, Sequence) else is_finite(value)
        if not (finite and fits):
            self._refuse(name, value, wanted if finite else "be finite")

    def _refuse(self, name: str, value: float | Sequence[float], wanted: str) -> None:
        short = f"{value:g}" if isinstance(value, float) else value
        raise BenchError(self.sentence.format(key=self.prefix + name, value=short, exact=value, wanted=wanted))


def is_finite(value: float) -> bool:
    """Whether a number is neither NaN nor infinite, as no whole number is, however large."""
    return isinstance(value, int) or math.isfinite(value)
