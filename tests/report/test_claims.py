"""Claims of papers that show curves without numbers: about lines by their label, and about any number of a record."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.report import experiments
from bench.report.analysis import analyse
from bench.report.collect import collect
from bench.report.grids import groups

LOSS = {"none": 0.3, "dropout": 0.4, "dropout2d": 0.5, "feature_dropout": 2.2, "alpha_dropout": 0.2}


def test_the_dropouts_of_lyu2023(records: SimpleNamespace, tmp_path: Path) -> None:
    """Test accuracy falls by 10 points from method to method; alpha dropout's loss is below that of no dropout."""

    def numbers(row: Any, seed: int) -> tuple[float, float]:
        return 90.0 - 10 * list(LOSS).index(row.label) + 0.1 * seed * len(row.label), 0.05

    for result in records.of_experiment(tmp_path, "lyu2023/figures2_5", "cpu", 4, numbers):
        result["train"]["loss"] = LOSS[result["reg"]] + 0.001 * result["seed"] * len(result["reg"])
        (tmp_path / result["run_id"] / "result.json").write_text(json.dumps(result))
    said: list[str] = []
    (table,) = experiments.tables(collect([tmp_path]), ["lyu2023/figures2_5"], (), said)
    assert said == []
    assert table.panels == ["MNIST", "CIFAR-10"]
    found = analyse(table)
    outcomes = {finding.says: finding.outcome for finding in found.findings}
    assert len(outcomes) == 16
    wrong = [says for says, outcome in outcomes.items() if outcome != "holds"]
    assert wrong == [f"{data}: alpha dropout has a higher training loss than none" for data in ("MNIST", "CIFAR-10")]
    assert {outcomes[says] for says in wrong} == {"does not hold"}
    (why,) = [f.why for f in found.findings if f.says == "MNIST: dropout has a higher training loss than none"]
    # 0.1 and 0.001 seed (7 - 4): +0.10 on average.
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
