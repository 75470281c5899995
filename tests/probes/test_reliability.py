"""When white-box attacks are not to be believed: the rules by hand on made-up answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.probes._reliability import chance_of, doubts

BLACK = {"square"}


def first(count: int, of: int = 100) -> Tensor:
    """All images right but the first so many."""
    return torch.arange(of) >= count


def test_chance_by_hand() -> None:
    # Five that only the one attack fools: 1 / 32. Three to one: (4 + 1) / 16. None: whatever.
    assert chance_of(first(5), first(0)) == pytest.approx(1 / 32)
    assert chance_of(torch.tensor([0, 0, 0, 1, 1]) > 0, torch.tensor([1, 1, 1, 0, 1]) > 0) == pytest.approx(5 / 16)
    assert chance_of(first(7), first(7)) == 1
    assert chance_of(first(0), first(5)) == 1


def test_a_black_box_attack_that_wins_by_more_than_chance_is_a_doubt() -> None:
    # Of five more that it alone fools chance makes 1 / 32, less than 5 %; of four 1 / 16.
    assert doubts({0.1: {"pgd": first(20), "square": first(24)}}, BLACK, 10) == []
    (reason,) = doubts({0.1: {"pgd": first(20), "square": first(25)}}, BLACK, 10) or ()
    assert reason == (
        "at eps 0.1 square, which follows no gradient, leaves 75 %, and pgd, the strongest attack that follows one, "
        "80 %"
    )
    # The strongest counts, not any.
    assert doubts({0.1: {"fgsm": first(5), "pgd": first(60), "square": first(25)}}, BLACK, 10) == []


def test_several_radii_share_the_chance_of_a_false_alarm() -> None:
    radii = {eps: {"pgd": first(10 + k), "square": first(10 + k)} for k, eps in enumerate((0.1, 0.2))}
    radii[0.2]["square"] = first(16)  # 5 more than pgd's 11: 1 / 32, above 2.5 %
    assert doubts(radii, BLACK, 10) == []
    radii[0.2]["square"] = first(17)
    assert len(doubts(radii, BLACK, 10) or ()) == 1


def test_accuracy_that_does_not_fall_is_a_doubt() -> None:
    assert doubts({0.2: {"pgd": first(50)}, 0.1: {"pgd": first(30)}}, BLACK, 10) == []
    (flat,) = doubts({0.2: {"pgd": first(30)}, 0.1: {"pgd": first(30)}}, BLACK, 10) or ()
    assert flat == "accuracy does not fall from eps 0.1, 70 %, to eps 0.2, 70 %"
    # At the level of guessing there is nothing left to fall.
    assert doubts({0.2: {"pgd": first(90)}, 0.1: {"pgd": first(90)}}, BLACK, 10) == []
    # Radius 0 is no attack.
    assert doubts({0.0: {"pgd": first(5)}, 0.1: {"pgd": first(5)}}, BLACK, 10) is None


def test_accuracy_that_rises_between_two_radii_is_a_doubt() -> None:
    accs = {0.1: {"pgd": first(10)}, 0.2: {"pgd": first(60)}, 0.3: {"pgd": first(50)}}
    assert doubts(accs, BLACK, 10) == ["accuracy rises from eps 0.2, 40 %, to eps 0.3, 50 %"]
    accs[0.3] = {"pgd": first(57)}  # three images: chance
    assert doubts(accs, BLACK, 10) == []


def test_nothing_to_compare_is_no_clean_bill() -> None:
    assert doubts({0.1: {"pgd": first(10)}}, BLACK, 10) is None
    assert doubts({0.1: {"square": first(10)}, 0.2: {"square": first(10)}}, BLACK, 10) is None
    assert doubts({0.1: {"pgd": first(10)}, 0.2: {"pgd": first(20)}}, BLACK, 10) == []
