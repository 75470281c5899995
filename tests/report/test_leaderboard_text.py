"""The sentence says what the verdicts support and no more; the table's cells are texts for people."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report import leaderboard_text
from bench.report.leaderboard_text import columns, rows, sentence
from bench.report.stats import Estimate
from tests.report.boards import board, contrast, entry

OPEN = "too few seeds to say"
WHERE = "On small MNIST (1,000 images, 40 epochs, cnn), "


def _penalty(cut: tuple[float, str], acc: tuple[float, str], half: float | None = 0.3) -> Any:
    return entry("spikepen", rate_change=contrast(*cut, half=0.05), difference=contrast(*acc, half=half))


@pytest.mark.parametrize(
    ("cut", "acc", "says"),
    [
        ((-0.333, "better"), (-0.2, "alike"),
         "`spikepen` cuts spikes by 33 % at the same accuracy (-0.2 points); nothing raises accuracy by more than 0.1 "
         "points"),
        ((-0.333, "better"), (-0.2, OPEN),
         "`spikepen` cuts spikes by 33 % at no loss of accuracy that 5 seeds can see (-0.2 points); nothing raises "
         "accuracy by more than 0.1 points"),
        ((-0.5, "better"), (0.6, "better"),
         "`spikepen` cuts spikes by 50 % and raises accuracy by 0.6 points; `spikepen` raises accuracy most, by 0.6 "
         "points [+0.3, +0.9]"),
        ((-0.5, "better"), (-3.0, "worse"),
         "nothing cuts spikes for free: `spikepen` saves 50 % of them for -3.0 points of accuracy; nothing raises "
         "accuracy by more than 0.0 points"),
        ((0.02, "alike"), (-0.1, "alike"),
         "nothing cuts spikes by anything that 5 seeds can see; nothing raises accuracy by more than 0.2 points"),
    ],
)  # fmt: skip
def test_the_sentence_follows_the_verdicts(cut: tuple[float, str], acc: tuple[float, str], says: str) -> None:
    text = sentence(board(_penalty(cut, acc)))
    assert text == f"{WHERE}{says} (1 method, 8 trials and 5 seeds each)."


def test_no_loss_that_seeds_can_see_is_not_said_of_a_large_one() -> None:
    """Five points less with a wide interval: not seen, but not free either."""
    text = sentence(board(_penalty((-0.5, "better"), (-5.0, OPEN), half=8.0)))
    assert "no loss" not in text
    assert "`spikepen` saves 50 % of them for -5.0 points of accuracy" in text


def test_too_few_seeds_for_everything_is_said_so() -> None:
    text = sentence(board(_penalty((-0.4, OPEN), (0.3, OPEN), half=2.0)))
    assert text.startswith(
        f"{WHERE}5 seeds are too few to say of any method what it does; the largest differences are "
    )
    assert "cuts" not in text
    assert "raises" not in text


def test_a_wide_interval_is_no_bound() -> None:
    text = sentence(board(_penalty((0.0, "alike"), (0.4, OPEN), half=5.0)))
    assert "by more than" not in text
    assert "(`spikepen` comes highest: +0.4 points [-4.6, +5.4])" in text


def test_the_second_choice_counts_where_it_saves_more() -> None:
    first = _penalty((-0.1, "better"), (0.0, "alike"))
    frugal = {"frugal_change": contrast(-0.6, "better"), "frugal_difference": contrast(-0.9, OPEN)}
    second = entry("uselose", rate_change=contrast(0.0, "alike"), difference=contrast(0.0, "alike", 0.1), **frugal)
    text = sentence(board(first, second))
    assert "`uselose` cuts spikes by 60 % at no loss of accuracy that 5 seeds can see (-0.9 points)" in text


def test_incomplete_methods_and_authors_values_have_no_say() -> None:
    cheap = {"rate_change": contrast(-0.9, "better"), "difference": contrast(2.0, "better")}
    boards = board(
        _penalty((0.0, "alike"), (0.0, "alike")),
        entry("dropout", complete=False, why="3 of 8 trials", **cheap),
        entry("uselose", ruleset="default", **cheap),
    )
    assert "dropout" not in sentence(boards)
    assert "uselose" not in sentence(boards)
    none_yet = sentence(board(entry("dropout", complete=False, why="3 of 8 trials")))
    assert none_yet == f"{WHERE}no method can be compared yet (`dropout`: 3 of 8 trials)."


def test_capitals_that_are_names_stay() -> None:
    text = sentence(board(_penalty((0.0, "alike"), (0.0, "alike")), title="CIFAR-10 (4,000 images)"))
    assert text.startswith("On CIFAR-10 (4,000 images), ")


def test_a_row_has_a_cell_for_every_column() -> None:
    full = entry(
        "spikepen", rank=1.5, difference=contrast(-0.004, "alike", 0.25), rate_change=contrast(-0.333, "better", 0.05),
        frugal_change=contrast(-0.5, "better"), frugal_difference=contrast(-0.8, OPEN), diverged=1, seeds=4,
    )  # fmt: skip
    first, second, third = rows(board(full, entry("dropout", complete=False, why="3 of 8 trials", trials=3, seeds=0,
                                                  accuracy=None, rate=None, energy=None, gain=None, ms_per_step=None,
                                                  at_half=None)))  # fmt: skip
    assert dict(zip(columns(), first, strict=True)) == {
        "rank": "1.5",
        "method": "`spikepen`",
        "accuracy (%)": "96.50 [96.10, 96.90]",
        "vs none (points)": "+0.00 [-0.25, +0.25] alike",
        "spike rate": "0.1200 [0.1100, 0.1300]",
        "spikes vs none": "-33 % [-38, -28] **better**",
        "fewest spikes within 1 point": "**-50 %** spikes, -0.80 points",
        "accuracy at 3/4 | 1/2 of the spikes": "96.0 | 95.2",
        "gain of tuning (points)": "+0.21",
        "cost: passes | ms a step": "1 | 12.3",
        "energy (µJ)": "1.83",
        "n": "4 seeds, 1 diverged, 8 trials",
    }
    assert second[1] == "`dropout` incomplete: 3 of 8 trials"
    assert second[2:5] == ["-", "-", "-"]
    assert third[3] == third[5] == "baseline"
    assert [heading for heading, _ in leaderboard_text.about()] == columns()


def test_an_accuracy_without_an_interval_stands_alone() -> None:
    (row, _) = rows(board(entry("dropout", accuracy=Estimate(90.0, None, None, 1, "one value"))))
    assert row[2] == "90.00"
