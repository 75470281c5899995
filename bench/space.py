"""Search spaces: which settings of a regularizer are tuned, over what range, and where its authors' values lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIGITS = 4
"""Significant digits of a tuned number: a setting that people can read and write down."""


@dataclass(frozen=True)
class Log:
    """A number above 0, uniform in its logarithm.

    Attributes:
        low: least value.
        high: largest value.
        authors: the value of the first trial, the method's authors' own.
        source: where they state it, or that they do not.
    """

    low: float
    high: float
    authors: float
    source: str

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the range."""
        return rounded(self.low * (self.high / self.low) ** share)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Linear:
    """A number, uniform; see `Log` for its attributes."""

    low: float
    high: float
    authors: float
    source: str

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the range."""
        return rounded(self.low + (self.high - self.low) * share)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely as the others.

    Attributes:
        options: as the command line takes them.
        authors: that of the first trial, the method's authors' own.
        source: where they state it, or that they do not.
    """

    options: tuple[Any, ...]
    authors: Any
    source: str

    def at(self, share: float) -> Any:
        """The option at a share in [0, 1]."""
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]

    def holds(self, value: Any) -> bool:
        """Whether it is one of the options."""
        return value in self.options


Axis = Log | Linear | Choice
Space = Mapping[str, Axis]
"""The tuned arguments of a constructor, at most three."""


def rounded(value: float) -> float:
    """A number to as many digits as settings have."""
    return float(f"{value:.{DIGITS}g}")
