"""Labels, votes and decisions, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.local.readout import NO_ANSWER, answers, apart, assign, confusions, decide, lead, reaction, vote


def test_a_neuron_gets_the_class_it_answers_with_most_spikes_per_image() -> None:
    """Neuron 0: 6 spikes on 3 images of class 0, 5 on 1 of class 1; it stands for class 1. Neuron 2 never fires."""
    counts = np.array([[6.0, 5.0], [3.0, 0.0], [0.0, 0.0]])
    assert assign(counts, np.array([3, 1])).tolist() == [1, 0, NO_ANSWER]


def test_pools_vote_by_their_mean_and_silence_is_no_answer() -> None:
    labels = np.array([0, 0, 0, 1, NO_ANSWER])
    counts = np.array([[1, 1, 1, 2, 9], [0, 0, 6, 2, 0], [0, 0, 0, 0, 9], [2, 2, 2, 2, 0]])
    votes = vote(counts, labels, 3)
    np.testing.assert_allclose(votes, [[1, 2, 0], [2, 2, 0], [0, 0, 0], [2, 2, 0]])
    assert answers(votes).tolist() == [1, 0, NO_ANSWER, 0]


@pytest.mark.parametrize(
    ("threshold", "answer"),
    # Pool 0 fires at 1, 4 and twice at 9, pool 1 at 2, 3 and 9; neuron 3 has no label, 7 is inhibitory.
    [(1, (0, 1)), (2, (1, 3)), (3, (0, 9)), (4, (0, 9)), (5, (NO_ANSWER, NO_ANSWER))],
)
def test_the_first_pool_to_reach_the_threshold_decides(threshold: int, answer: tuple[int, int]) -> None:
    step = np.array([0, 1, 2, 3, 3, 4, 9, 9, 9])
    neuron = np.array([3, 0, 2, 2, 7, 1, 2, 0, 1])
    assert decide(step, neuron, np.array([0, 0, 1, NO_ANSWER]), 2, threshold) == answer


def test_no_spike_decides_nothing() -> None:
    nothing = np.array([], dtype=np.int32)
    assert decide(nothing, nothing, np.array([0, 1]), 2, 1) == (NO_ANSWER, NO_ANSWER)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=40).map(sorted),
    st.integers(1, 6),
)
def test_a_decision_is_what_counting_spike_by_spike_finds(spikes: list[tuple[int, int]], threshold: int) -> None:
    labels = np.array([0, 1, 2, 0, NO_ANSWER])
    totals, expected = [0, 0, 0], (NO_ANSWER, NO_ANSWER)
    for at in range(31):
        for step, neuron in spikes:
            if step == at and neuron < 5 and labels[neuron] >= 0:
                totals[labels[neuron]] += 1
        if max(totals) >= threshold:
            expected = (totals.index(max(totals)), at)
            break
    step, neuron = (np.array([s[k] for s in spikes], dtype=np.int32) for k in (0, 1))
    assert decide(step, neuron, labels, 3, threshold) == expected


def test_reaction_times_of_right_and_wrong_answers() -> None:
    decided = np.array([0, 1, 1, NO_ANSWER, 0])
    measured = reaction(decided, np.array([10.0, 20.0, 50.0, 999.0, 40.0]), np.array([0, 1, 0, 0, 1]), 3)
    assert (measured.acc, measured.decided) == (40.0, 80.0)
    assert (measured.right, measured.wrong) == (15.0, 45.0)
    # Every right answer came before every wrong one: the distributions are 1 apart, by chance in 2 of 6 orders.
    assert (measured.apart.ks, measured.apart.p) == (1.0, pytest.approx(1 / 3))
    assert measured.fast == 0


def test_fast_errors_come_before_the_median_right_answer() -> None:
    """Right answers at 1, 3 and 5 ms, wrong ones at 2, 3 and 9: one of three is before 3 ms."""
    measured = reaction(np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 3.0, 5.0, 2.0, 3.0, 9.0]), np.zeros(6, int), 1)
    assert measured.fast == pytest.approx(100 / 3)


def test_the_distance_of_two_samples_and_its_scale() -> None:
    """Up to 2 ms lie three quarters of one sample and nothing of the other; sqrt(4 x 2 / 6) = 1.1547."""
    found = apart(np.array([1.0, 1.0, 2.0, 9.0]), np.array([3.0, 4.0]))
    assert (found.ks, found.scaled) == (0.75, pytest.approx(0.8660254))
    assert apart(np.array([1.0]), np.array([])).scaled is None


def test_the_scaled_distance_does_not_depend_on_the_sizes() -> None:
    """Of one distribution it is 0.87 on average and above 1.36 in 5 %, for 60 against 900 as for 400 against 400."""
    rng = np.random.default_rng(0)
    for a, b in ((60, 900), (400, 400)):
        found = [apart(rng.random(a), rng.random(b)).scaled for _ in range(400)]
        assert np.mean(found) == pytest.approx(0.869, abs=0.06)  # type: ignore[arg-type]
        assert 0.02 < np.mean(np.array(found) > 1.358) < 0.08


def test_confusions_are_counted_by_class_and_answer() -> None:
    decided, y = np.array([0, 1, NO_ANSWER, 1, 1, 2]), np.array([0, 0, 0, 1, 2, 1])
    assert confusions(decided, y, 3).tolist() == [[1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]]


def test_a_confusion_is_compared_with_the_most_frequent_other() -> None:
    """Ten wrong answers: 5 of 0 as 1, 3 of 2 as 0, 2 of 1 as 0; 7 images without an answer are none of them."""
    table = np.array([[90, 5, 0, 7], [2, 80, 0, 0], [3, 0, 70, 0]])
    assert lead(table, 0, 1) == pytest.approx(20)
    assert lead(table, 2, 0) == pytest.approx(-20)
    assert lead(table, 1, 2) == pytest.approx(-50)
    assert table[0, 1] == 5
    assert lead(np.diag([4, 4, 4, 4])[:3], 0, 1) is None


def test_without_wrong_answers_there_is_nothing_to_compare() -> None:
    measured = reaction(np.array([0, 1]), np.array([1.0, 2.0]), np.array([0, 1]), 1)
    assert (measured.right, measured.wrong, measured.fast, measured.apart.p) == (1.5, None, None, None)
