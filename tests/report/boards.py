"""A synthetic leaderboard: methods with known verdicts, and no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from bench.report.contrasts import Contrast
from bench.report.leaderboard import Board, Entry, Leaderboard
from bench.report.stats import Estimate
from bench.studies import Study, Trial


def contrast(difference: float, verdict: str, half: float | None = None, seeds: int = 5) -> Contrast:
    """A contrast whose interval reaches `half` to either side."""
    low, high = (None, None) if half is None else (difference - half, difference + half)
    return Contrast(difference, low, high, 0.5, cast(Any, verdict), seeds, seeds)


def entry(method: str, **changes: Any) -> Entry:
    """A complete, tuned entry; `acc`, `rate` and their contrasts are given short."""
    facts: dict[str, Any] = {
        "workload": "mnist-1k", "method": method, "ruleset": "tuned", "setting": "learning rate 0.004", "why": "",
        "complete": True, "trials": 8, "seeds": 5, "diverged": 0, "accuracy": Estimate(96.5, 96.1, 96.9, 5, "t"),
        "difference": None, "rate": Estimate(0.12, 0.11, 0.13, 5, "t"), "rate_change": None, "frugal_rate": None,
        "frugal_accuracy": None, "frugal_setting": "",
        "frugal_change": None, "frugal_difference": None, "at_half": 95.2, "at_three_quarters": 96.0, "passes": 1.0,
        "ms_per_step": 12.3, "gain": 0.21, "energy": 1.834, "best_of": (90.0, 93.5, 95.0, 95.8, 96.1, 96.3, 96.4, 96.5),
        "hardware": "test bench, 2 threads", "rank": None,
    }  # fmt: skip
    return Entry(**facts | changes)


def board(*entries: Entry, title: str = "Small MNIST (1,000 images, 40 epochs, cnn)") -> Board:
    """A workload of these entries and its baseline, each with three trials."""
    trials = {one.method: [(0.05 * n, 90.0 + 2 * n) for n in (1, 2, 3)] for one in entries}
    return Board("mnist-1k", title, (*entries, entry("none")), trials)


def leaderboard() -> Leaderboard:
    """Two workloads with many methods, one of them incomplete, one with its authors' values."""
    names = ("alpha_dropout", "dropout", "dropout2d", "feature_dropout", "uselose", "weight_decay", "weightnorm")
    ranked = [
        entry(
            "spikepen", rank=1, accuracy=Estimate(96.7, 96.4, 97.0, 5, "t"), difference=contrast(0.2, "alike", 0.28),
            rate=Estimate(0.1, 0.09, 0.11, 5, "t"), rate_change=contrast(-0.17, "better", 0.05),
            frugal_change=contrast(-0.34, "better", 0.06), frugal_difference=contrast(-0.2, "alike", 0.25),
            setting="weight 0.12, learning rate 0.0041, weight decay 0",
            frugal_rate=Estimate(0.08, 0.07, 0.09, 5, "t"), frugal_accuracy=Estimate(96.3, 96.0, 96.6, 5, "t"),
            frugal_setting="weight 0.9, learning rate 0.0041, weight decay 0",
        ),
        *(
            entry(
                name, rank=place, accuracy=Estimate(96.6 - 0.7 * place, 96.3 - 0.7 * place, 96.9 - 0.7 * place, 5, "t"),
                difference=contrast(0.1 - 0.7 * place, "worse" if place > 2 else "too few seeds to say", 0.6),
                rate=Estimate(0.12 + 0.004 * place, 0.11, 0.14, 5, "t"),
                rate_change=contrast(0.03 * place, "alike", 0.04),
            )
            for place, name in enumerate(names, 2)
        ),
        entry("spikepen", ruleset="default", trials=1, difference=contrast(-0.6, "too few seeds to say", 1.0),
              rate_change=contrast(-0.05, "alike", 0.1)),
        entry("dropout+spikepen", complete=False, why="3 of 8 trials", trials=3, seeds=0, accuracy=None, rate=None,
              best_of=(88.0, 91.0, 92.0)),
    ]  # fmt: skip
    one = board(*ranked)
    other = board(entry("dropout", difference=contrast(1.4, "better", 0.5), rate_change=contrast(0.1, "worse", 0.05)),
                  title="Small CIFAR-10 (4,000 images, 30 epochs, cnn)")  # fmt: skip
    other = Board("cifar10-4k", other.title, other.entries, other.trials)
    return Leaderboard((one, other), (("spikepen", 0.04, 0.01, 0.07), ("dropout", -0.2, -0.3, -0.1)))


def trials(method: str, *outcomes: tuple[float, float]) -> tuple[Trial, ...]:
    """Trials by validation accuracy and spike rate."""
    return tuple(
        Trial(
            place, f"{method}-trial-{place}", {"optim.lr": 0.002, "reg.weight_decay.weight": 0.0}, "finished", acc, rate
        )
        for place, (acc, rate) in enumerate(outcomes)
    )


def study(method: str, own: tuple[Trial, ...], workload: str = "mnist-1k", **changes: Any) -> Study:
    """A study whose choices have five final runs each."""
    chosen = {"tuned": 1, "frugal": 0, "default": 0}
    facts = {
        "protocol": 1, "experiment": "suite/small", "workload": workload, "base": [workload], "settings": [],
        "method": method.split("+"), "trials": len(own), "seeds": 5, "study": 0, "space": {}, "passes_per_step": 1,
        "data_checksum": "ab" * 32, "hardware": ["a machine"],
        "choices": {
            name: {"trial": trial, "runs": [f"{workload}-{method}-{trial}-s{seed}" for seed in range(1, 6)]}
            for name, trial in chosen.items()
        },
    }  # fmt: skip
    return Study(Path(f"{workload}-{method}"), facts | changes, own)
