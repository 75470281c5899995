"""A setting against its baseline, as a difference or a ratio with the interval that decides."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.stats import Verdict


@dataclass(frozen=True)
class Contrast:
    """A setting against its baseline.

    Attributes:
        difference: accuracy: the mean minus the baseline's, in points; ratio: the ratio of the means minus 1, so that
            -0.25 is a quarter less.
        low: lower end of the interval that decides, in the same unit; None where there is none.
        high: its upper end.
        p: p-value of no difference after Holm's correction; None where there is none.
        verdict: better, worse, alike or too few seeds to say.
        seeds: number of the setting's values.
        base_seeds: number of the baseline's.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    seeds: int
    base_seeds: int
