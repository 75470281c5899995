"""The tables under configs/experiment: their rows against the thesis, their runs under every budget."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench import experiments
from bench.commands import catalog
from bench.config.compose import compose, compose_all
from bench.config.options import config_dir
from bench.errors import BenchError
from bench.experiments import Experiment, Job, Row, expand, identified, load, merge, names
from bench.published import papers
from bench.registry import REGULARIZERS
from tests.expanded import run_ids

# By hand from the papers, and from the suite's own plan.
ROWS = {
    "nandan2022/table2_1": 4,
    "nandan2022/table2_2": 5,
    "nandan2022/table2_3": 8,
    "nandan2022/table2_4": 8,
    "nandan2022/table2_5": 4,
    "nandan2022/table3_1": 11,
    "nandan2022/figure3_1": 22,
    "nandan2022/table4_1": 9,
    "nandan2022/table4_2": 2,
    "antonov2024/table1": 3,
    "antonov2024/figure2": 5,
    "antonov2024/table1_surrogate": 10,
    "gutekunst/diet_snn": 3 * 6,
    "gutekunst/diehl_cook": 6,
    "gutekunst/decision_time": 5,
    "lyu2023/figures2_5": 2 * (5 + 4 + 2),
    "lyu2023/table2": 5,
    "suite/digits": 3 * 25,
    "suite/methods": 32 + 2,
    "suite/mnist": 9,
    "suite/precision": 4,
    "suite/small": 3 * 9,
}
DATA = dict.fromkeys(("cifar10", "digits", "mnist"), ("0" * 64, "jpeg"))


def test_every_table_of_the_paper_is_there_with_its_rows() -> None:
    assert {name: len(load(name).rows) for name in names()} == ROWS


def test_titles_are_what_list_shows() -> None:
    for entry in catalog.experiments():
        assert load(entry.name).title == entry.summary
        assert len(entry.summary) > 20


@cache
def planned(name: str, budget: str) -> list[tuple[Job, str, dict[str, Any]]]:
    """Every run of three seeds: job, run id, settings; composed once for all tests."""
    return identified(expand(load(name), [f"budget={budget}", "seed=0,1,2"]), DATA)


def settings(name: str, budget: str) -> list[dict[str, Any]]:
    """What changes the numbers of each row."""
    return [facts for job, _, facts in planned(name, budget) if job.seed == 0]


# The suite's own grids are of the quick budget, which sets what cpu does; composing 75 rows takes a while.
BUDGETS = [(n, b) for n in ROWS for b in ("smoke", "cpu", "paper") if not (n.startswith("suite") and b == "cpu")]


@pytest.mark.parametrize(("name", "budget"), BUDGETS)
def test_every_row_composes_under_every_budget(name: str, budget: str) -> None:
    experiment = load(name)
    found = planned(name, budget)
    assert [(job.seed, job.row) for job, *_ in found] == [(seed, row) for seed in (0, 1, 2) for row in experiment.rows]
    assert {facts["budget"] for *_, facts in found} == {budget}
    counts = Counter(identity for _, identity, _ in found)
    # The unpenalized run of figure 3.1 is a point of both curves, the twin of DIET-SNN a row at each of three T.
    shared, most = {"nandan2022/figure3_1": (3, 2), "gutekunst/diet_snn": (6, 3)}.get(name, (0, 1))
    assert len(counts) == len(found) - shared
    assert max(counts.values()) == most


def test_records_are_found_row_by_row() -> None:
    experiment = load("nandan2022/table4_2")
    found = run_ids(experiment, "cpu", [2, 0], data=DATA)
    assert [(row.label, seed) for row, seed, _ in found] == [("with", 2), ("with", 0), ("without", 2), ("without", 0)]
    known = {(job.row.label, job.seed): identity for job, identity, _ in planned(experiment.name, "cpu")}
    assert all(known[row.label, seed] == identity for row, seed, identity in found)


def test_composing_many_gives_what_composing_each_gives() -> None:
    for name, rows in (("nandan2022/table4_1", slice(3, 7)), ("nandan2022/table2_3", slice(3, 5))):
        grid = [job.overrides for job in expand(load(name), ["budget=cpu", "seed=1"])][rows]
        assert compose_all(grid) == [compose(overrides) for overrides in grid]


def test_the_papers_recipe_is_the_thesis() -> None:
    for name in ROWS:
        if not name.startswith("nandan2022"):
            continue
        for facts in settings(name, "paper"):
            trainer, optim, data = facts["trainer"], facts["optim"], facts["data"]
            assert (trainer["epochs"], trainer["batch_size"], facts["time_steps"]) == (100, 50, 4)
            assert (trainer["max_train_images"], data["limit"], data["crop"], data["flip"]) == (None, None, 4, True)
            assert data["name"] == "cifar10"
            assert optim["schedule"] == "cosine"
            rate = {"nandan2022/table2_2": ("adamw", 0.01), "nandan2022/table2_4": ("sgd", 0.001)}
            assert (optim["name"], optim["lr"]) == rate.get(name, ("sgd", 0.1))
            assert optim["momentum"] == 0.9


def test_the_networks_are_the_thesis_and_small_under_other_budgets() -> None:
    def widths(name: str, budget: str) -> list[Any]:
        models = [facts["model"] for facts in settings(name, budget)]
        return [(model["name"], model.get("channels", model.get("width"))) for model in models]

    assert set(widths("nandan2022/table2_1", "paper")) == {("cnn", 128)}
    assert set(widths("nandan2022/table2_1", "cpu")) == {("cnn", 32)}
    assert set(widths("nandan2022/table2_5", "paper")) == {("convmixer", 256)}
    assert set(widths("nandan2022/table2_5", "smoke")) == {("convmixer", 64)}
    for table in ("nandan2022/table2_3", "nandan2022/table2_4"):
        assert widths(table, "paper") == [("sew", 32)] * 4 + [("sew", 64)] * 4
        assert widths(table, "cpu") == [("sew", 16)] * 4 + [("sew", 32)] * 4
        assert "16 and 32" in load(table).small_note


def test_every_row_has_its_published_numbers() -> None:
    """Spot checks against the thesis, and that the numbers stand beside the settings they were published for."""

    def row(name: str, label: str, group: str = "") -> Row:
        return next(r for r in load(f"nandan2022/{name}").rows if (r.label, r.group) == (label, group))

    def cells(*place: str) -> dict[str, Any]:
        found = row(*place).published
        assert found is not None
        return dict(found)

    assert cells("table2_1", "0.0003") == {"weight_decay": 0.0003, "train_acc": 94.42, "test_acc": 88.53}
    assert cells("table2_2", "0.3") == {"weight_decay": 0.3, "train_acc": 74.15, "test_acc": 74.41}
    assert cells("table2_3", "0.0003", "C = 64")["test_acc"] == 85.34
    assert cells("table2_4", "0.00003", "C = 32")["test_acc"] == 82.78
    assert cells("table2_5", "0.0001")["test_acc"] == 92.53
    assert cells("table3_1", "2.5")["test_spike_rate"] == 0.0136
    assert cells("figure3_1", "0", "squared")["test_acc"] == 87.04
    assert cells("table4_1", "0", "weight norm + mean-only BN")["test_acc"] == 88.54
    assert cells("table4_2", "with")["test_acc"] == 81.98
    assert cells("table4_2", "without")["test_acc"] == 86.15
    for name in ROWS:
        experiment = load(name)
        facts = settings(name, "paper")
        published = [r for r in experiment.rows if r.published is not None]
        if experiment.published is None:
            assert not published
            continue
        # Each published row is there; a selection's candidates share one, the first order of the figure has none.
        assert len({tuple(r.published.values()) for r in published if r.published}) == len(
            papers.load(experiment.published).rows
        )
        for r, fact in zip(experiment.rows, facts, strict=True):
            assert (r.published is None) == (r.group == "first order")
            expected, regs = dict(r.published or {}), fact["reg"]
            decay = regs.get("weight_decay", {}).get("weight", 0)
            if "weight_decay" in expected:
                assert decay == expected["weight_decay"]
            if "channels" in expected:
                assert fact["model"]["channels"] == expected["channels"]
            if "penalty" in expected:
                assert regs.get("spikepen", {}).get("weight", 0) == expected["penalty"]
                assert regs.get("spikepen", {}).get("order", 2) == 2
            if "data_dependent_init" in expected:
                assert regs["weightnorm"]["data_init"] is expected["data_dependent_init"]
            if "normalization" in expected:
                own = {(): "batch_norm", (False,): "weight_norm", (True,): "weight_norm_mean_only_bn"}
                mean_only = tuple(reg["mean_only_bn"] for key, reg in regs.items() if key == "weightnorm")
                assert own[mean_only] == expected["normalization"]
                assert decay == float(r.label)


def test_figure_3_1_has_both_orders_at_the_same_weights() -> None:
    pairs = [(r.group, f["reg"].get("spikepen")) for r, f in zip(
        load("nandan2022/figure3_1").rows, settings("nandan2022/figure3_1", "paper"), strict=True
    )]  # fmt: skip
    by_order = {
        order: [reg["weight"] for group, reg in pairs if reg and (reg["order"], group) == (order, name)]
        for order, name in ((2, "squared"), (1, "first order"))
    }
    assert by_order[1] == by_order[2] == [0.01, 0.05, 0.1, 0.5, 1, 1.5, 2, 2.5, 5, 10]


def test_table_4_1_selects_on_validation_and_never_on_the_test_set() -> None:
    experiment = load("nandan2022/table4_1")
    assert experiment.selection == "best_on_validation"
    assert experiment.groups == ("batch norm", "weight norm", "weight norm + mean-only BN")
    for budget in ("smoke", "cpu", "paper"):
        assert {facts["data"]["val_fraction"] for facts in settings(experiment.name, budget)} == {0.1}
    assert experiment.baseline_of(experiment.rows[0]) is None
    for name in ROWS:
        if load(name).selection == "last_epoch":
            assert {facts["data"]["val_fraction"] for facts in settings(name, "paper")} == {0.0}


def test_tables_share_their_runs() -> None:
    def ids(name: str) -> set[str]:
        return {identity for _, identity, _ in planned(name, "cpu")}

    assert len(ids("nandan2022/table3_1") & ids("nandan2022/table2_1")) == 3
    assert ids("nandan2022/table3_1") < ids("nandan2022/figure3_1")


def test_every_regularizer_is_among_the_methods_at_its_authors_values() -> None:
    """A new regularizer enters here: its author adds its row, the first trial of `bench tune`."""
    rows = {name: facts for facts in settings("suite/methods", "lean") for name in facts["reg"]}
    assert rows.keys() == set(REGULARIZERS.names())
    for name, facts in rows.items():
        for argument, axis in REGULARIZERS.get(name).space.items():
            assert facts["reg"][name][argument] == axis.authors, f"{name}.{argument}"


def test_the_papers_regularizers_are_in_the_suites_tables() -> None:
    registered = {
        "none", "weight_decay", "spikepen", "weightnorm", "dropout", "dropout2d", "feature_dropout", "alpha_dropout",
        "uselose",
    }  # fmt: skip
    digits = settings("suite/digits", "paper")
    for model in ("cnn", "sew", "convmixer"):
        counts = Counter("+".join(facts["reg"]) for facts in digits if facts["model"]["name"] == model)
        assert counts == {name: 1 if name == "none" else 3 for name in registered}
    assert {"+".join(facts["reg"]) for facts in settings("suite/mnist", "paper")} == registered
    assert len(settings("suite/mnist", "paper")) == len(registered)


def test_every_row_is_compared_with_the_baseline_of_its_group() -> None:
    experiment = load("suite/digits")
    for row in experiment.rows:
        base = experiment.baseline_of(row)
        assert base is not None
        assert (base.label, base.group) == ("none", row.group)


def test_a_quoted_budget_is_the_budget() -> None:
    """Under `paper` the networks are the papers', quoted or not."""
    experiment = load("nandan2022/table2_1")
    for budget in ("paper", "cpu"):
        plain = expand(experiment, [f"budget={budget}", "seed=1"])
        quoted = expand(experiment, [f'budget="{budget}"', "seed='1'"])
        assert [(job.row, job.seed) for job in quoted] == [(job.row, job.seed) for job in plain]
        assert [name for _, name, _ in identified(quoted, DATA)] == [name for _, name, _ in identified(plain, DATA)]


def test_the_command_line_wins_over_the_file() -> None:
    experiment = load("nandan2022/table2_1")
    jobs = expand(experiment, ["budget=cpu", "seed=4,5", "time_steps=1,2"])
    assert len(jobs) == 4 * 2 * 2
    # The whole table with one seed comes before the next.
    assert [job.seed for job in jobs] == [4] * 8 + [5] * 8
    assert jobs[0].overrides == (
        "budget=cpu", "data=cifar10", "model=cnn", "optim=sgd", "optim.lr=0.1", "reg=none", "seed=4", "time_steps=1",
    )  # fmt: skip
    assert expand(experiment)[0].overrides[0] == "budget=paper"
    assert {job.seed for job in expand(experiment)} == {0, 1, 2}
    assert merge(["a=1", "b=2"], ["a=3", "c=[1,2]"]) == ("a=3", "b=2", "c=[1,2]")


def test_the_data_need_not_be_there_to_find_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    first, second = (
        run_ids(load("nandan2022/table4_2"), "cpu", [0], data={"cifar10": (checksum, "jpeg")})
        for checksum in ("a", "b")
    )
    assert [row for row, *_ in first] == [row for row, *_ in second]
    assert {identity for *_, identity in first}.isdisjoint(identity for *_, identity in second)
    assert not list(tmp_path.iterdir())


GOOD = """# @package _global_
# A table of my own
hydra: {mode: MULTIRUN}
experiment:
  baseline: a
  rows:
    - {label: a, overrides: [reg=none]}
    - {label: b, overrides: [reg=spikepen]}
"""


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """write(text): that text as the one experiment there is."""
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    budgets = config_dir() / "budget"
    (tmp_path / "configs" / "budget").symlink_to(budgets)
    monkeypatch.setattr("bench.config.options.config_dir", lambda: tmp_path / "configs")
    monkeypatch.setattr(experiments, "config_dir", lambda: tmp_path / "configs")

    def put(text: str) -> Experiment:
        (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(text)
        return load("mine")

    return put


def test_a_file_of_ones_own(write: Any) -> None:
    mine = write(GOOD)
    assert (mine.title, mine.budget, mine.seeds, mine.selection) == (
        "A table of my own",
        "paper",
        (0, 1, 2),
        "last_epoch",
    )
    assert [row.overrides for row in mine.rows] == [("reg=none",), ("reg=spikepen",)]
    with pytest.raises(BenchError, match=r"no experiment is called 'mien'. Did you mean 'mine'\?"):
        load("mien")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hydra: {mode: MULTIRUN}\n", "", "lacks 'hydra: {mode: MULTIRUN}'"),
        ("baseline: a", "baseline: c", "the baseline 'c' is no row"),
        ("label: b", "label: a", "two rows are called 'a'"),
        ("baseline: a", "baseline: a\n  selection: best_test_epoch", "no selection is called 'best_test_epoch'"),
        ("baseline: a", "baseline: a\n  selection: best_on_validation", "the baseline 'a' is no group"),
        ("baseline: a", "baseline: a\n  budget: papre", "no budget is called 'papre'. Did you mean 'paper'"),
        ("baseline: a", "baseline: a\n  sedes: [1]", "Key 'sedes' not in"),
        ("baseline: a", "baseline: a\n  seeds: [x]", "'x' of type 'str' could not be converted to Integer"),
        ("label: b", "label: b, published: 3", "row 'b': 0 published rows begin with [3]"),
        ("baseline: a", "baseline: a\n  published: nandan2022/9.9", "nothing is published as 'nandan2022/9.9'"),
        (
            "baseline: a",
            "baseline: a\n  across: {model: [cnn], neuron: [if]}",
            "across repeats the rows over one setting",
        ),
        ("experiment:", "experiments:", "'experiment'"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(write: Any, old: str, new: str, said: str) -> None:
    with pytest.raises(BenchError) as caught:
        write(GOOD.replace(old, new, 1))
    assert str(caught.value).startswith("configs/experiment/mine.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
