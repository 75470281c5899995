"""Studies: points, choices and files of the protocol of equal tuning budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import studies
from bench.config.compose import compose
from bench.errors import BenchError
from bench.studies import Trial, best, cheapest, choices, design
from tests.report.conftest import put, record


def trial(number: int, acc: float | None, rate: float | None = 0.1, status: str = "finished") -> Trial:
    return Trial(number, f"run-{number}", {}, status, acc, rate)


def small(method: list[str], **numbers: int) -> studies.Design:
    return design("suite/small", "mnist-1k", method, **numbers)


def test_the_first_trial_has_the_authors_values_at_the_workloads_own_rate() -> None:
    first = small(["spikepen"], trials=4).points()[0]
    assert first == {
        "optim.lr": 0.002, "reg.weight_decay.weight": 0.0, "reg.spikepen.weight": 0.05, "reg.spikepen.order": 2,
    }  # fmt: skip


def test_all_methods_search_the_same_rates_and_decays() -> None:
    shared = ("optim.lr", "reg.weight_decay.weight")
    seen = [
        [tuple(point[key] for key in shared) for point in small(method, trials=16).points()]
        for method in (["none"], ["dropout"], ["dropout", "spikepen"])
    ]
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0])) == 16


def test_points_cover_the_ranges_and_more_trials_continue_fewer() -> None:
    many, few = small(["spikepen"], trials=64).points(), small(["spikepen"], trials=8).points()
    assert many[:8] == few
    rates = [point["optim.lr"] for point in many[1:]]
    assert 0.00025 <= min(rates) < 0.0003
    assert 0.0135 < max(rates) <= 0.016
    decays = [point["reg.weight_decay.weight"] for point in many[1:]]
    # An eighth of 63 points, which Sobol points meet to within one.
    assert abs(decays.count(0.0) - 63 / 8) <= 1
    assert all(1e-6 <= decay <= 1e-2 for decay in decays if decay)
    weights = [point["reg.spikepen.weight"] for point in many[1:]]
    assert sum(weight < 0.1 for weight in weights) == pytest.approx(63 / 2, abs=2), "half lie below the geometric mean"
    assert [point["reg.spikepen.order"] for point in many].count(1) == pytest.approx(32, abs=2)


def test_another_study_searches_other_points_and_seeds() -> None:
    one, other = small(["none"], trials=4), small(["none"], trials=4, study=1)
    assert one.points()[0] == other.points()[0]
    assert one.points()[1] != other.points()[1]
    assert one.final_seeds == (1, 2, 3, 4, 5)
    assert not {*one.final_seeds, one.trial_seed} & {*other.final_seeds, other.trial_seed}
    assert one.name != other.name


def test_weight_decay_searches_its_own_range_alone() -> None:
    points = small(["weight_decay"], trials=8).points()
    assert points[0]["reg.weight_decay.weight"] == 0.03
    assert all(1e-4 <= point["reg.weight_decay.weight"] <= 1 for point in points)


def test_a_trial_composes_to_what_it_says() -> None:
    made = small(["dropout", "spikepen"], trials=4)
    point = made.points()[0] | {"reg.weight_decay.weight": 0.001}
    cfg = compose(made.overrides(point, seed=0, final=False))
    assert list(cfg.reg) == ["dropout", "spikepen", "weight_decay"]
    assert (cfg.reg.weight_decay.weight, cfg.reg.dropout.p, cfg.data.val_fraction) == (0.001, 0.1, 0.1)
    assert (cfg.data.limit, cfg.trainer.epochs, cfg.budget, cfg.seed) == (1000, 40, "lean", 0)
    final = compose(made.overrides(made.points()[0], seed=3, final=True))
    assert list(final.reg) == ["dropout", "spikepen"]
    assert (final.data.val_fraction, final.seed) == (0, 3)


def test_two_methods_together_are_one_entry_whatever_their_order() -> None:
    assert small(["spikepen", "dropout"]).label == small(["dropout", "spikepen"]).label == "dropout+spikepen"
    assert small(["none", "dropout"]).label == "dropout"


def test_the_best_trial_is_the_most_accurate_then_the_cheapest_then_the_first() -> None:
    assert best([trial(0, 90), trial(1, 92), trial(2, 91)]) == trial(1, 92)
    assert best([trial(0, 92, 0.2), trial(1, 92, 0.1)]) == trial(1, 92, 0.1)
    assert best([trial(0, 92), trial(1, 92)]) == trial(0, 92)
    assert best([trial(0, 92, status="missing")]) is None


def test_a_diverged_trial_scores_nothing() -> None:
    lost = trial(0, None, None, "diverged")
    assert lost.score == 0
    assert best([lost, trial(1, 10)]) == trial(1, 10)
    assert cheapest([lost, trial(1, 10)], 0) == trial(1, 10)


def test_the_cheapest_is_chosen_within_a_point_of_the_baseline() -> None:
    own = [trial(0, 95, 0.10), trial(1, 94.0, 0.05), trial(2, 93.9, 0.01)]
    picked = choices(own, [trial(0, 94), trial(1, 95)], ["tuned", "default"])
    assert {name: one.trial for name, one in picked.items()} == {"tuned": 0, "frugal": 1, "default": 0}
    assert "frugal" not in choices(own, [trial(0, 99)], ["tuned"])
    assert list(choices(own, [trial(0, 99)], ["default"])) == ["default"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workload": "mnist-1m"}, "has no workload 'mnist-1m'. Did you mean 'mnist-1k'"),
        ({"experiment": "suite/digits"}, "suite/digits has no workloads to tune on; suite/small has"),
        ({"method": ["dropuot"]}, "no regularizer is called 'dropuot'. Did you mean 'dropout'"),
        ({"method": ["dropout", "dropout"]}, "names 'dropout' twice"),
    ],
)
def test_what_is_not_there_is_one_line(change: dict[str, object], said: str) -> None:
    asked = {"experiment": "suite/small", "workload": "mnist-1k", "method": ["none"]} | change
    with pytest.raises(BenchError, match=said):
        design(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{"trials": 0}, {"seeds": 0}, {"study": -1}])
def test_numbers_have_ranges(numbers: dict[str, int]) -> None:
    with pytest.raises(BenchError, match=f"{next(iter(numbers))} is .*, it must be at least"):
        small(["none"], **numbers)


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    # A method among whose parameters is a choice, which JSON gives back as a list.
    made = small(["dropout"], trials=2, seeds=1)
    trials = [trial(0, 90.5), trial(1, None, None, "diverged")]
    facts = studies.facts_of(made, {"tuned": Trial(0, "run-0", made.points()[0], "finished", 90.5)}, tmp_path)
    studies.write(tmp_path / made.name, facts, trials)
    study = studies.read(tmp_path / made.name)
    assert (study.design, study.facts) == (made, facts)
    assert list(study.trials) == trials
    assert study.facts["choices"]["tuned"]["trial"] == 0
    assert len(study.facts["choices"]["tuned"]["runs"]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": 99}, "it is by protocol 99, this suite's is 1"),
        ({"trials": ...}, "study.json lacks 'trials'"),
    ],
)
def test_a_study_of_another_protocol_or_form_is_one_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    made = small(["none"], trials=1, seeds=1)
    facts = studies.facts_of(made, {"tuned": Trial(0, "run-0", made.points()[0], "finished", 90.5)}, tmp_path)
    facts = {key: value for key, value in (facts | change).items() if value is not ...}
    studies.write(tmp_path, facts, [trial(0, 90)])
    with pytest.raises(BenchError, match=said):
        studies.read(tmp_path)
    (tmp_path / "trials.jsonl").write_text("{")
    (tmp_path / "study.json").write_text(json.dumps(facts | {"protocol": 1, "trials": 1}))
    with pytest.raises(BenchError, match="damaged"):
        studies.read(tmp_path)


def test_a_trial_without_a_validation_split_is_one_line(tmp_path: Path) -> None:
    made = small(["none"], trials=1)
    (waiting,) = studies.trials_of(made, tmp_path)
    assert waiting.status == "missing"
    put(tmp_path, record(run_id=waiting.run, val=None))
    with pytest.raises(BenchError, match=f"{waiting.run} has no validation split, so no trial can be chosen"):
        studies.trials_of(made, tmp_path)


def test_settings_are_written_for_people() -> None:
    settings = {"optim.lr": 0.002, "reg.weight_decay.weight": 0.0, "reg.weightnorm.data_init": True}
    assert studies.words_of(settings) == "lr 0.002, data_init true"
    two = {"reg.dropout.p": 0.1, "reg.spikepen.weight": 2.0}
    assert studies.words_of(two) == "dropout.p 0.1, spikepen.weight 2"
    assert studies.words_of({"optim.lr": 0.01, "reg.weight_decay.weight": 1e-05}) == "lr 0.01, weight decay 1e-05"
