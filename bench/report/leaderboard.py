"""The leaderboard: every method tuned with the same number of trials on every workload."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.contrasts import Contrast
from bench.report.stats import Estimate


@dataclass(frozen=True)
class Entry:
    """A method on a workload under one ruleset.

    Attributes:
        workload: its name, "mnist-1k".
        method: "spikepen", "dropout+spikepen".
        ruleset: "tuned" or "default".
        setting: what was chosen, in words.
        complete: whether it had all its trials; if not it is not ranked and stands below.
        why: what is missing, "3 of 8 trials"; "" when complete.
        trials: how many were run.
        seeds: how many retrained runs finished.
        diverged: how many retrained runs did not.
        accuracy: of the retrained runs, in percent.
        difference: accuracy against tuned none of the workload, in points; None for none itself.
        rate: spike rate.
        rate_change: its ratio to none's, minus 1.
        frugal_rate: spike rate of the second choice: the cheapest within 1 point of none.
        frugal_change: its ratio to none's, minus 1.
        frugal_difference: its accuracy against none's, in points.
        at_half: validation accuracy reached at half of none's spike rate, in percent.
        at_three_quarters: the same at three quarters.
        passes: forward-backward passes a step.
        ms_per_step: milliseconds a training step.
        gain: tuned minus default accuracy, in points.
        energy: microjoules an image.
        best_of: expected best validation accuracy of the first n trials, n = 1 to `trials`.
        hardware: what it ran on.
        rank: among complete entries of workload and ruleset, from 5 seeds on.
    """

    workload: str
    method: str
    ruleset: str
    setting: str
    complete: bool
    why: str
    trials: int
    seeds: int
    diverged: int
    accuracy: Estimate | None
    difference: Contrast | None
    rate: Estimate | None
    rate_change: Contrast | None
    frugal_rate: Estimate | None
    frugal_change: Contrast | None
    frugal_difference: Contrast | None
    at_half: float | None
    at_three_quarters: float | None
    passes: float
    ms_per_step: float | None
    gain: float | None
    energy: float | None
    best_of: tuple[float, ...]
    hardware: str
    rank: float | None


@dataclass(frozen=True)
class Board:
    """A workload's entries.

    Attributes:
        workload: its name.
        title: in words, with what is reduced: "Small MNIST (1,000 images, cnn)".
        entries: ranked first, tuned before default, incomplete below.
        trials: method -> (spike rate, validation accuracy) of each trial.
    """

    workload: str
    title: str
    entries: tuple[Entry, ...]
    trials: dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Leaderboard:
    """All workloads.

    Attributes:
        boards: one a workload.
        overall: method, interquartile mean over workloads of (acc - none) / (100 - none), and its interval.
    """

    boards: tuple[Board, ...]
    overall: tuple[tuple[str, float, float, float], ...]
