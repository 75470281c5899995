"""Claims of papers that show curves without numbers: about lines by their label, and about any number of a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import stats

from bench.report import join
from bench.report.analysis import analyse
from bench.report.claims import judge
from bench.report.collect import StoredRun, collect
from bench.report.figures import figures, style
from bench.report.groups import groups
from bench.report.probes import counts
from bench.report.readme import readme
from bench.report.tables import Line
from bench.report.words import seeds_note

MEASURED = {
    "none": (0.3, 0.3, 90.0),
    "dropout": (0.4, 0.2, 80.0),
    "dropout2d": (0.5, 0.4, 91.0),
    "feature_dropout": (2.25, 1.5, 14.0),
    "alpha_dropout": (1.0, 2.6, 40.0),
}
"""Training loss under the masks and in evaluation mode, and test accuracy, by regularizer."""


def test_the_dropouts_of_lyu2023(records: SimpleNamespace, tmp_path: Path) -> None:
    """On both data sets, in both places: dropout's loss is higher under its masks alone, dropout2d predicts better than
    no dropout, feature dropout trains to 1.5 without its masks, whatever it is under them; 14 % is near guessing, 40 %
    is not."""

    def numbers(row: Any, seed: int) -> tuple[float, float]:
        name = row.label.split()[0]
        return MEASURED[name][2] + 0.01 * seed * len(name), 0.05

    for result in records.of_experiment(tmp_path, "lyu2023/figures2_5", "cpu", 5, numbers):
        scatter = 0.0001 * result["seed"] * len(result["reg"])
        result["train"]["loss"], result["train"]["loss_eval"] = (x + scatter for x in MEASURED[result["reg"]][:2])
        (tmp_path / result["run_id"] / "result.json").write_text(json.dumps(result))
    left_out: list[str] = []
    (table,) = join.tables(collect([tmp_path]), ["lyu2023/figures2_5"], (), left_out)
    assert left_out == []
    assert table.panels == ["MNIST", "CIFAR-10"]
    analysis = analyse(table)
    outcomes = {finding.says: finding.outcome for finding in analysis.findings}
    fails = [
        "dropout has a higher training loss than none, without its masks",
        "dropout2d has a lower test accuracy than none",
        "training fails under feature dropout: training loss above 2.2, without its masks",
        "prediction fails under alpha dropout: test accuracy below 15 %",
    ]
    expected = {
        f"{data}{place}: {says}" for data in ("MNIST", "CIFAR-10") for place in ("", ", eq. 5") for says in fails
    }
    # For two data sets and two places: two claims for each of four dropouts.
    assert len(outcomes) == 2 * 2 * 4 * 2
    assert {says for says, outcome in outcomes.items() if outcome != "holds"} == expected
    assert {outcomes[says] for says in expected} == {"does not hold"}
    says = "MNIST: dropout2d has a higher training loss than none, without its masks"
    (why,) = [finding.why for finding in analysis.findings if finding.says == says]
    # 0.4 - 0.3 and 0.0001 seed (9 - 4): +0.10 on average.
    assert why.startswith("+0.10 [")
    says = "MNIST: prediction fails under alpha dropout: test accuracy below 15 %"
    (why,) = [finding.why for finding in analysis.findings if finding.says == says]
    # 15 - 40, and 0.01 x 13 a seed of 0 to 4: -25.26 on average.
    assert why.startswith("-25.26 [")


def test_seeds_of_one_start_are_not_averaged_with_those_of_many(records: SimpleNamespace, tmp_path: Path) -> None:
    for place, init_seed in enumerate((None, 0)):
        for reg, regs in (("none", {"none": {}}), ("dropout", {"dropout": {"p": 0.5}})):
            for seed in (0, 1):
                name = f"digits-cnn-{reg}-s{seed}-{place:08x}"
                result = records.record(
                    run_id=name, reg=reg, regs=regs, seed=seed, strength=0.5 if reg == "dropout" else None
                )
                records.put(tmp_path, result, config={"neuron": {"name": "if"}, "init_seed": init_seed})
    tables = groups(collect([tmp_path]))
    assert [len(table.records) for table in tables] == [4, 4]


def test_runs_of_a_ranking_are_compared_over_pairs_of_seeds(records: SimpleNamespace, tmp_path: Path) -> None:
    """Two runs without dropout share .5, .7 and .6 of the neurons, one of each .2, .6 and .4 (means of both orders):
    .3, .1 and .2 less, whose error is worked out in test_stats."""
    null = {(0, 1): 0.5, (0, 2): 0.7, (1, 2): 0.6}
    crossed = {(0, 1): (0.1, 0.3), (0, 2): (0.6, 0.6), (1, 2): (0.5, 0.3)}
    for result in records.of_experiment(tmp_path, "lyu2023/table2", "cpu", 3, lambda row, seed: (90.0, 0.1)):
        seed, rows = result["seed"], []
        for partner in range(3):
            pair = (min(seed, partner), max(seed, partner))
            if result["reg"] == "dropout":
                value = 0.9 if seed == partner else crossed[pair][seed > partner]
            elif seed == partner:
                continue
            else:
                value = null[pair]
            rows.append({"against": f"seed {partner}", "by": "weight", "top_10": value, "tau_b": value})
            rows.append({"against": f"seed {partner}", "by": "rate", "top_10": 0.0, "tau_b": 0.0})
        content = {
            "schema_version": 1, "probe": "ranking", "run_id": result["run_id"], "run_finished": result["finished"],
            "settings": {}, "seed": 0, "baked": True, "headline": {}, "rows": rows,
        }  # fmt: skip
        if result["reg"] in ("none", "dropout"):
            path = tmp_path / result["run_id"] / "probes" / "ranking.json"
            path.parent.mkdir()
            path.write_text(json.dumps(content))
    (table,) = join.tables(collect([tmp_path]), ["lyu2023/table2"], (), [])
    findings = analyse(table).findings
    assert len(findings) == 2
    for finding in findings:
        assert finding.outcome == "open"
        # p = .225 twice: .451 after the correction.
        assert finding.why == "+0.20 [-0.30, +0.70] over 3 seeds, p = 0.451"


NOISE = {"none": (60.0, 64.0, 68.0), "effective": (3.0, 3.1, 3.2), "literal": (0.0, 0.0, 0.0)}
KNOWN = {"none": (16.0, 17.0, 18.0), "effective": (14.0, 15.0, 15.5), "literal": (0.0, 0.0, 0.0)}


def test_table_1_of_antonov2024(records: SimpleNamespace, tmp_path: Path) -> None:
    """Counts over 1,500 images beside the published ones, and claims about a probe's numbers: 64 spikes fall to less
    than a tenth, 6.4, but not to a hundredth, .64; of 17 more than 8.5 are kept; all runs have the same ratio, accuracy
    and gap; 95 to 97 % of the weights behind black pixels are pruned."""

    def numbers(row: Any, seed: int) -> tuple[float, float]:
        return 95.0 + 0.1 * seed, 0.05

    results = records.of_experiment(tmp_path, "antonov2024/table1", "paper", 3, numbers)
    for result in results:
        label, seed = str(result["regs"].get("uselose", {}).get("form", "none")), result["seed"]
        known, noise = KNOWN[label][seed], NOISE[label][seed]
        headline = {
            "known (spikes/image)": known, "unknown (spikes/image)": 0.8 * known,
            "delta noise (spikes/image)": noise, "blurred noise (spikes/image)": noise,
            "delta noise / known": noise / known if known else None, "unknown / known": 0.8 if known else None,
            "pruned behind black pixels (%)": 0.5 if label == "none" else 95.0 + seed,
        }  # fmt: skip
        content = {
            "schema_version": 1, "probe": "noise", "run_id": result["run_id"], "run_finished": result["finished"],
            "settings": {"images": 1500}, "seed": 0, "baked": True, "headline": headline, "rows": [],
        }  # fmt: skip
        path = tmp_path / result["run_id"] / "probes" / "noise.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
    (table,) = join.tables(collect([tmp_path]), ["antonov2024/table1"], (), [])
    analysis = analyse(table)
    outcomes = {finding.says: finding.outcome for finding in analysis.findings}
    assert list(outcomes.values()) == [
        "holds", "does not hold",  # delta noise: a tenth, a hundredth
        "holds", "does not hold",  # blurred noise
        "holds", "holds", "holds", "does not hold",  # known digits: fewer, half kept; unknown ones: fewer, 1.8 times
        "open", "holds", "holds", "open", "open",  # unknown / known; the border; accuracy and gap, the same in all rows
    ]  # fmt: skip
    section = counts(analysis)
    assert section is not None
    rows = {row[0]: dict(zip(section.columns, row, strict=True)) for row in section.rows}
    noise = rows["delta noise"]
    assert noise["paper: without decay"] == "3,162"
    assert noise["notebooks: with decay"] == "44"
    assert noise["ours: none"] == "96,000"  # 64 spikes an image
    assert noise["ours: effective"] == "4,650"
    assert noise["ours / known digits: none"] == "3.76"  # 64 / 17
    assert noise["ours / known digits: literal"] == "-"
    assert rows["unknown digits"]["ours: none"] == "20,400"
    assert section.name in readme(analysis, [])


def test_tables_without_counts_have_none(records: SimpleNamespace, tmp_path: Path) -> None:
    records.of_experiment(tmp_path, "lyu2023/figures2_5", "cpu", 1, lambda row, seed: (90.0, 0.1))
    (table,) = join.tables(collect([tmp_path]), ["lyu2023/figures2_5"], (), [])
    assert counts(analyse(table)) is None


def test_accuracy_over_neurons(records: SimpleNamespace, tmp_path: Path) -> None:
    """A figure where a table's lines differ in size, and one picture of accuracy over rate where training has none."""
    for result in records.of_experiment(tmp_path, "gutekunst/diehl_cook", "cpu", 1, lambda row, seed: (70.0, 0.1)):
        result["train"]["acc"] = None
        result["test"]["acc"] = {25: 20.0, 50: 50.0, 100: 60.0, 200: 70.0, 400: 80.0}[result["model_args"]["neurons"]]
        (tmp_path / result["run_id"] / "result.json").write_text(json.dumps(result))
    (table,) = join.tables(collect([tmp_path]), ["gutekunst/diehl_cook"], (), [])
    drawn = {figure.name: figure for figure in figures(analyse(table))}
    (tests,) = [curve.points for curve in drawn["growth"].source if curve.side == "test" and len(curve.points) > 1]
    accuracies = [(point.size, point.acc.mean) for point in tests]
    assert accuracies == [(25, 20.0), (50, 50.0), (100, 60.0), (200, 70.0), (400, 80.0)]
    with style():
        assert len(drawn["growth"].draw().axes) == 1
        assert len(drawn["accuracy_over_rate"].draw().axes) == 1


def line(records: SimpleNamespace, label: str, published: dict[str, Any] | None = None, **columns: Any) -> Line:
    """Runs of seeds 0, 1, ...: each column holds a number a seed."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    runs = [StoredRun(records.record(seed=seed, **row), Path()) for seed, row in enumerate(rows)]
    return Line(label, label, None, runs, published=published)


def verdict_of(claim: dict[str, Any], *lines: Line) -> tuple[str, str]:
    (finding,) = judge([{"says": "so", **claim}], lines)
    return finding.outcome, finding.why


def test_rates_are_compared_by_their_ratio(records: SimpleNamespace) -> None:
    """Ratios of 5, 20 and 80 have the geometric mean 20. Their logarithms have a standard error of ln 4 / sqrt 3 and a
    quantile of 4.3027: the interval is 20 * 4^(+-2.4842), [0.639, 626]."""
    rates = (line(records, "a", test__spike_rate=(0.05, 0.2, 0.8)), line(records, "b", test__spike_rate=(0.01,) * 3))
    falls = {"falls": "test_spike_rate", "from": {"label": "a"}, "to": {"label": "b"}}
    outcome, why = verdict_of(falls, *rates)
    assert outcome == "open"
    assert why.startswith("20 times [0.639, 626] over 3 seeds, p = ")
    # t = ln 20 / (ln 4 / sqrt 3) = 3.743 on two degrees of freedom: p = 1 - t / sqrt(t^2 + 2).
    assert why.endswith("p = 0.065")
    outcome, why = verdict_of({**falls, "times": 20}, *rates)
    assert why == "20 times [0.639, 626] over 3 seeds, bound 20, p = 1.000"
    # Accuracies stay differences, unless the claim says otherwise.
    accuracies = (line(records, "a", test__acc=(80.0, 82.0, 84.0)), line(records, "b", test__acc=(40.0, 41.0, 42.0)))
    better = {"better": {"label": "a"}, "than": {"label": "b"}, "in": "test_acc"}
    assert verdict_of(better, *accuracies)[1].startswith("+41.00 [")
    assert verdict_of({**better, "scale": "log"}, *accuracies)[1].startswith("2 times over 3 seeds")


def test_only_seeds_that_both_sides_have_are_compared(records: SimpleNamespace) -> None:
    """Seeds 0 to 2 against 1 to 3: the differences of seeds 1 and 2 are 1 and 3. Of one seed nothing can be told."""
    base = line(records, "b", test__acc=(0.0, 81.0, 81.0, 50.0))
    ours, base.records = line(records, "a", test__acc=(99.0, 82.0, 84.0)), base.records[1:]
    better = {"better": {"label": "a"}, "than": {"label": "b"}, "in": "test_acc"}
    outcome, why = verdict_of(better, ours, base)
    # A standard error of 1 and a quantile of 12.7062; t = 2 on one degree of freedom: p = 1 - 2 atan(2) / pi.
    assert (outcome, why) == ("open", "+2.00 [-10.71, +14.71] over 2 seeds, p = 0.295")
    base.records = base.records[1:]
    assert verdict_of(better, ours, base) == ("open", "+3.00 over 1 seed: one seed cannot tell")
    base.records = base.records[1:]
    assert verdict_of(better, ours, base)[0] == "not run"


def test_a_count_of_0_stands_as_half_a_spike(records: SimpleNamespace) -> None:
    """The fixture's network has 43,008 neurons, 4 steps and 360 test images: half a spike is a rate of 8.07e-9."""
    base, silent = (0.1, 0.2, 0.1), (0.0, 0.1, 0.0)
    lines = line(records, "a", test__spike_rate=base), line(records, "b", test__spike_rate=silent)
    claim = {"falls": "test_spike_rate", "from": {"label": "a"}, "to": {"label": "b"}}
    half = 0.5 / (43_008 * 4 * 360)
    mean = (0.1 / half * 2 * 0.1 / half) ** (1 / 3)
    outcome, why = verdict_of(claim, *lines)
    assert outcome == "open"
    assert why.startswith(f"{mean:,.0f} times [")
    assert "over 3 seeds, 2 counts of 0 taken as half a count, p = " in why
    # How much was counted is not known of a mean over validation images.
    runs = [
        replace(run, result=run.result | {"val": {"acc": 50.0, "loss": 1.0, "spike_rate": rate}})
        for run, rate in zip(lines[1].records, silent, strict=True)
    ]
    again = Line("b", "b", None, runs)
    claim = {**claim, "falls": "val.spike_rate", "from": {"label": "b"}}
    assert verdict_of(claim, again) == ("open", "a number is 0 and has no ratio")


def test_a_metric_falls_along_a_column(records: SimpleNamespace) -> None:
    rates = {0.5: (0.05, 0.06), 0.0: (0.2, 0.3), 0.1: (0.1, 0.2), 5.0: (0.01, 0.02), 1.0: (0.04, 0.03)}
    lines = [
        line(records, str(weight), {"penalty": weight}, test__spike_rate=values) for weight, values in rates.items()
    ]
    claim = {"falls": "test_spike_rate", "over": "penalty"}
    outcome, why = verdict_of(claim, *lines)
    # Both seeds in full order: 1 of 120 ways each, two-sided.
    assert (outcome, why) == ("holds", "falls at 4 of 4 steps over 2 seeds, p < 0.001")
    rising = [replace_rates(one, 0.01, rates) for one in lines]
    assert verdict_of(claim, *rising) == ("does not hold", "falls at 0 of 4 steps over 2 seeds, p < 0.001")
    assert verdict_of(claim, *lines[:2])[0] == "not run"


def replace_rates(one: Line, top: float, rates: dict[float, Any]) -> Line:
    """The line with spike rates that rise with its penalty."""
    assert one.published is not None
    place = sorted(rates).index(one.published["penalty"])
    runs = [
        replace(run, result=run.result | {"test": {**run.result["test"], "spike_rate": top * (1 + place)}})
        for run in one.records
    ]
    return Line(one.label, one.series, None, runs, published=one.published)


def test_alike_is_two_one_sided_tests(records: SimpleNamespace) -> None:
    """Against scipy's one-sided tests at the nearer bound."""
    differences = np.array([0.2, 0.3, 0.1, 0.4])
    lines = line(records, "a", test__acc=tuple(90 + differences)), line(records, "b", test__acc=(90.0,) * 4)
    claim = {"alike": {"label": "a"}, "with": {"label": "b"}, "in": "test_acc"}
    for within, wanted in ((1, "holds"), (0.3, "open"), (0.05, "open"), (0.01, "does not hold")):
        outcome, why = verdict_of({**claim, "within": within}, *lines)
        side = "less" if within > 0.25 else "greater"
        p = 2 * stats.ttest_1samp(differences, within, alternative=side).pvalue
        assert outcome == wanted, within
        assert why.endswith(f"within {within:g}, p = {p:.3f}"), why
        assert ("not within" in why) == (within < 0.25)


def test_the_two_orders_at_equal_rates(records: SimpleNamespace, tmp_path: Path) -> None:
    """The first order has 5 points less at each rate, which it reaches at other weights, and collapses at the last."""

    def numbers(row: Any, seed: int) -> tuple[float, float]:
        weight, first = float(row.label), row.group == "first order"
        if weight == 10:
            return 12.0, 0.05
        rate = 0.1 / (1 + (3 if first else 2) * weight)
        return 80 + 20 * math.log10(rate / 0.1) - 5 * (first and weight > 0) + 0.1 * seed * (first + 1), rate

    records.of_experiment(tmp_path, "nandan2022/figure3_1", "cpu", 3, numbers)
    (table,) = join.tables(collect([tmp_path]), ["nandan2022/figure3_1"], (), [])
    alike, above = analyse(table).findings
    assert alike.outcome == "does not hold"  # at 0.1 5 points and 20 log10(1.3 / 1.2) apart
    assert above.outcome == "holds"
    assert above.why.startswith("+4.90 [")  # 5 less 0, 0.1 and 0.2, by seed


def test_test_images_that_the_seed_draws_are_said_to_be(records: SimpleNamespace, tmp_path: Path) -> None:
    def note(settings: dict[str, Any]) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for seed in (0, 1):
            result = records.record(run_id=f"digits-cnn-none-s{seed}-00000000", seed=seed)
            records.put(folder, result, config={"data": settings})
        return seeds_note(collect([folder]).records)

    assert note({"test_limit": None}) == "Intervals are over seeds, on one test set."
    assert note({"test_limit": 200}) == (
        "Intervals are over seeds, each of which draws its own test images (`data.test_limit`)."
    )
    assert seeds_note([StoredRun(records.record(), Path())]) == "Intervals are over seeds."
