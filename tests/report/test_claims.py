"""Claims of papers that show curves without numbers: about lines by their label, and about any number of a record."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.report import join
from bench.report.analysis import analyse
from bench.report.collect import collect
from bench.report.figures import figures, style
from bench.report.groups import groups
from bench.report.probes import counts
from bench.report.readme import readme

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
    no dropout, feature dropout trains to 1.5 without its masks and alpha dropout to 1.0 under them; 14 % is less than a
    sixth of 90, 40 % less than half of it alone."""

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
        "dropout has a higher training loss than none, in evaluation mode",
        "dropout2d has a lower test accuracy than none",
        "training fails under feature dropout: training loss in evaluation mode above 2.2",
        "training fails under alpha dropout: loss under its masks above 2.2",
    ]
    sixth = "prediction fails under alpha dropout: test accuracy below a sixth of none's"
    expected = {
        f"{data}{place}: {says}" for data in ("MNIST", "CIFAR-10") for place in ("", ", eq. 5") for says in fails
    }
    expected |= {f"MNIST{place}: {sixth}" for place in ("", ", eq. 5")}
    # For two data sets and two places: three claims for each of four dropouts.
    assert len(outcomes) == 2 * 2 * 4 * 3
    assert {says for says, outcome in outcomes.items() if outcome != "holds"} == expected
    assert {outcomes[says] for says in expected} == {"does not hold"}
    (why,) = [
        finding.why
        for finding in analysis.findings
        if finding.says == "MNIST: dropout has a higher training loss than none, under its masks"
    ]
    # 0.1 and 0.0001 seed (7 - 4): +0.10 on average.
    assert why.startswith("+0.10 [")


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


NOISE = {"none": (60.0, 64.0, 68.0), "effective": (3.0, 3.1, 3.2), "literal": (0.0, 0.0, 0.0)}
KNOWN = {"none": (16.0, 17.0, 18.0), "effective": (14.0, 15.0, 15.5), "literal": (0.0, 0.0, 0.0)}


def test_table_1_of_antonov2024(records: SimpleNamespace, tmp_path: Path) -> None:
    """Counts over 1,500 images beside the published ones, and claims about a probe's numbers: 64 spikes fall to less
    than a tenth, 6.4, but not to a hundredth, .64; of 17 more than 8.5 are kept; all runs have the same ratio."""

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
    assert list(outcomes.values()) == ["holds", "does not hold", "holds", "open", "holds", "holds"]
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
