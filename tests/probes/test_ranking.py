"""Rankings of hidden neurons: the measures by hand and against scipy, importances, runs from one start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from torch.nn import functional as F

from bench.config.compose import compose
from bench.errors import BenchError
from bench.neurons import SPIKES
from bench.probes.base import Subject
from bench.probes.ranking import RankingProbe, agreement, importances, order, rank_biased_overlap, top_overlap
from bench.records.identity import run_id, science

SRM = (
    "data=digits", "data.crop=0", "data.size=null", "model=srm", "model.hidden=12", "time_steps=8", "data.limit=300",
    "data.test_limit=150", "trainer.batch_size=32", "trainer.epochs=4", "optim.lr=0.01", "trainer.precision=fp32",
    "logger=none",
)  # fmt: skip


# -- measures -------------------------------------------------------------------------------------


def test_order_and_overlap_by_hand() -> None:
    assert order([0.1, 3.0, -1.0, 3.0]) == [1, 3, 0, 2]
    assert top_overlap([9, 8, 3, 2], [8, 7, 9, 1], 3) == pytest.approx(2 / 3)
    # Table 2 of lyu2023: none of the first three, three of the first ten.
    without, under = [9, 8, 3, 2, 0, 1, 4, 5, 6, 7], [112, 127, 121, 122, 116, 118, 113, 9, 1, 5]
    assert top_overlap(without, under, 3) == 0
    assert top_overlap(without, under, 10) == pytest.approx(0.3)


def test_rank_biased_overlap_by_hand() -> None:
    """Webber et al.: X = 1, 1, 3 at depths 1, 2, 3 and p = 0.9 give 0.729 + (0.9 + 0.405 + 0.729) / 9."""
    assert rank_biased_overlap([0, 1, 2], [0, 2, 1], 0.9) == pytest.approx(0.729 + 2.034 / 9)
    # X = 0, 2 and p = 0.5: 0.25 + 0.25.
    assert rank_biased_overlap([0, 1], [1, 0], 0.5) == pytest.approx(0.5)


@given(a=st.permutations(range(9)), b=st.permutations(range(9)), p=st.floats(0.05, 0.95))
def test_rank_biased_overlap_lies_between_0_and_1_and_is_1_for_the_same(a: list, b: list, p: float) -> None:
    assert rank_biased_overlap(a, a, p) == pytest.approx(1)
    found = rank_biased_overlap(a, b, p)
    assert 0 < found <= 1 + 1e-12
    assert found == pytest.approx(rank_biased_overlap(b, a, p))
    # What disagrees at the top costs more than the same further down.
    if p < 0.9:
        down = [*range(7), 8, 7]
        up = [1, 0, *range(2, 9)]
        assert rank_biased_overlap(list(range(9)), up, p) < rank_biased_overlap(list(range(9)), down, p)


def tau_b(a: list[float], b: list[float]) -> float | None:
    """Pair by pair: (C - D) / sqrt((P - ties of a) (P - ties of b))."""
    signs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i in range(len(a)) for j in range(i)]
    score = sum(x * y for x, y in signs)
    scale = (sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)) ** 0.5
    return score / scale if scale else None


ties = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12)


@given(pairs=ties)
def test_tau_is_kendalls_with_ties(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = agreement(a, b, [1, 3], 0.9)
    expected = tau_b(a, b)
    if expected is None:
        assert found["tau_b"] is None
    else:
        assert found["tau_b"] == pytest.approx(expected, abs=1e-12)
        assert found["tau_b"] == pytest.approx(kendalltau(a, b).statistic)


# -- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> dict[str, Path]:
    """Runs from one start: two without a regularizer, one with; and one from another start. Not to be changed."""
    from bench.training.run import run

    folder = tmp_path_factory.mktemp("ranking")
    wanted = {
        "none 0": ["seed=0", "init_seed=0"],
        "none 1": ["seed=1", "init_seed=0"],
        "dropout 0": ["seed=0", "init_seed=0", "reg=dropout", "reg.dropout.p=0.5"],
        "elsewhere": ["seed=1"],
    }
    return {
        name: folder / run(compose([*SRM, *lines, f"data.root={shared_data}", f"runs={folder}"]))["run_id"]
        for name, lines in wanted.items()
    }


@pytest.fixture
def subject(subject_of: Callable[..., Subject], trained: dict[str, Path]) -> Subject:
    return subject_of(trained["none 0"])


def test_init_seed_is_of_the_start_alone() -> None:
    def identity(*lines: str) -> str:
        return run_id(science(compose([*SRM, *lines]), ("0" * 64, "x"), auto="fp32"))

    # Null leaves the names of all earlier runs alone: this one is of before there was the setting.
    facts = science(compose([*SRM]), ("0" * 64, "x"), auto="fp32")
    assert identity() == run_id({key: value for key, value in facts.items() if key != "init_seed"})
    assert len({identity(), identity("init_seed=0"), identity("init_seed=1"), identity("seed=1", "init_seed=0")}) == 4


def test_runs_of_one_start_share_weights_and_not_the_order_of_batches(shared_data: Path) -> None:
    from bench.config.component import settings
    from bench.data import prepare
    from bench.training.setup import make_task

    def start(*lines: str) -> Any:
        cfg = compose([*SRM, *lines, f"data.root={shared_data}"])
        splits = prepare(settings(cfg.data), seed=cfg.seed, batch_size=32, eval_batch_size=32)
        splits.train.set_epoch(0)
        images, _ = next(iter(splits.train))
        return make_task(cfg, splits).model.synapses.weight, images

    first, other, elsewhere = start("seed=0"), start("seed=1", "init_seed=0"), start("seed=1")
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[0], elsewhere[0])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(other[1], elsewhere[1])


def test_importances_by_other_means(subject: Subject) -> None:
    found = importances(subject, 100)
    assert all(len(values) == 12 for values in found.values())
    net: Any = subject.task.model
    weight = net.head.weight.view(10, 12, 3)
    expected = [sum(abs(float(w)) for w in weight[:, h].flatten()) for h in range(12)]
    assert found["weight"] == pytest.approx(expected, rel=1e-5)
    images, labels = subject.test_images(100)
    x = torch.cat([x for x, _ in subject.batches(images, labels)])
    net.forget()
    net.hidden.reads = SPIKES
    base = F.cross_entropy(net(x), labels).item()
    spikes = net.hidden.fired.sum((0, 1)) / len(x)
    assert found["rate"] == pytest.approx([e * float(s) for e, s in zip(expected, spikes, strict=True)], rel=1e-4)
    for h in (0, 5, 11):
        # A neuron without outgoing weights is one that says nothing.
        kept = net.head.weight.detach().clone()
        with torch.no_grad():
            net.head.weight.view(10, 12, 3)[:, h] = 0
            net.forget()
            rise = F.cross_entropy(net(x), labels).item() - base
            net.head.weight.copy_(kept)
        assert found["ablation"][h] == pytest.approx(rise, abs=2e-5)


def test_a_run_without_regularizer_gives_the_null_and_dropout_is_held_against_it(
    subject_of: Callable[..., Subject], trained: dict[str, Path]
) -> None:
    probe = RankingProbe(images=100, top=[3])
    null = probe.measure(subject_of(trained["none 0"]), lambda _: None)
    # Not against itself, nor against the run from another start.
    assert [(row["against"], row["order"]) for row in null.rows] == [("seed 1", "other")] * 3
    assert [row["by"] for row in null.rows] == ["weight", "rate", "ablation"]
    under = probe.measure(subject_of(trained["dropout 0"]), lambda _: None)
    assert {(row["against"], row["order"]) for row in under.rows} == {("seed 0", "same"), ("seed 1", "other")}
    # The headline is of the other orders, as the null's are.
    (row,) = [r for r in under.rows if r["order"] == "other" and r["by"] == "weight"]
    assert under.headline["tau-b, by weight"] == row["tau_b"]
    assert set(under.headline) == {f"{m}, by {d}" for m in ("top-3 overlap", "tau-b") for d in importance_names()}
    assert under.more["first"]["weight"] == order(under.more["importance"]["weight"])[:3]
    # It is symmetric: seen from the other one, the null is the same.
    back = probe.measure(subject_of(trained["none 1"]), lambda _: None)
    assert [row["tau_b"] for row in back.rows] == [row["tau_b"] for row in null.rows]


def importance_names() -> list[str]:
    return ["weight", "rate", "ablation"]


def test_on_the_command_line(bench: Callable[..., Any], trained: dict[str, Path], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("none 0", "none 1", "elsewhere"):
        shutil.copytree(trained[name], runs / trained[name].name)
    name = trained["none 0"].name
    asked = ("probe=ranking", "ranking.images=50", "ranking.top=[2]", "--runs", str(runs))
    done = bench("eval", name, *asked)
    assert done.returncode == 0, done.stderr
    content = json.loads((runs / name / "probes" / "ranking.json").read_text())
    assert [row["by"] for row in content["rows"]] == importance_names()
    assert 0 <= content["rows"][0]["top_2"] <= 1
    # One that nothing can be compared with says what is missing.
    alone = bench("eval", trained["elsewhere"].name, *asked)
    assert alone.returncode == 2
    assert alone.stderr.count("\n") == 1
    assert "no finished run with reg=none and the same settings and start" in alone.stderr
    assert "init_seed=1" in alone.stderr
    assert not (runs / trained["elsewhere"].name / "probes").exists()


def test_a_network_whose_read_out_sees_no_layer_of_neurons(subject_of: Callable[..., Subject], conv_run: Path) -> None:
    with pytest.raises(BenchError, match="ranks the neurons of a fully connected spiking layer"):
        importances(subject_of(conv_run), 20)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"images": 0}, r"ranking\.images is 0"),
        ({"top": []}, r"ranking\.top is \[\]"),
        ({"top": [0]}, r"ranking\.top is 0"),
        ({"persistence": 1.0}, r"ranking\.persistence is 1"),
        ({"persistence": float("nan")}, r"ranking\.persistence is nan"),
    ],
)
def test_settings_that_make_no_sense(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        RankingProbe(**knobs)


def test_a_top_of_more_neurons_than_there_are(subject: Subject) -> None:
    with pytest.raises(BenchError, match=r"ranking\.top has 13, but the network has 12"):
        RankingProbe(images=20, top=[13]).measure(subject, lambda _: None)
