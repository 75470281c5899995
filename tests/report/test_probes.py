"""Probes in reports: means over seeds and differences by hand, settings kept apart, nothing where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.report.analysis import Analysis, analyse
from bench.report.collect import collect
from bench.report.figures import figures
from bench.report.groups import groups
from bench.report.probes import sections
from bench.report.readme import readme

SPIKES = {"none": (10.0, 12.0, 14.0), "spikepen": (1.0, 2.5, 5.5)}


def probe(result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A probe's file, as `bench eval` writes it, without what no report reads."""
    content = {
        "schema_version": 1, "probe": "noise", "run_id": result["run_id"], "run_finished": result["finished"],
        "settings": {"images": 1500, "unknown": None}, "seed": 0, "baked": True,
        "headline": {"known (spikes/image)": SPIKES[result["reg"]][result["seed"]], "unknown (spikes/image)": None},
        "rows": [],
    }  # fmt: skip
    return content | changes


def put(folder: Path, content: Any, name: str = "noise") -> None:
    path = folder / content["run_id"] / "probes" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def runs(records: SimpleNamespace, tmp_path: Path) -> list[dict[str, Any]]:
    """Three seeds of a baseline and of a penalty."""
    made = []
    for place, (reg, regs) in enumerate((("none", {"none": {}}), ("spikepen", {"spikepen": {"weight": 0.1}}))):
        for seed in range(3):
            name = f"digits-cnn-{reg}-s{seed}-{place:08x}"
            result = records.record(run_id=name, reg=reg, regs=regs, seed=seed, strength=0.1 if place else None)
            records.put(tmp_path, result)
            made.append(result)
    return made


def only(folder: Path) -> Analysis:
    (table,) = groups(collect([folder]))
    return analyse(table)


def test_means_and_differences_over_seeds(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in runs:
        put(tmp_path, probe(result))
    (section,) = sections(only(tmp_path))
    assert section.name == "noise"
    assert "Measured with bake=true, images=1500, seed=0, unknown=null." in section.text
    assert section.columns == ["setting", "seeds", "known (spikes/image)", "unknown (spikes/image)"]
    # Means 12 and 3; t = 4.303 at two degrees of freedom, deviations 2 and 2.291: half widths 4.968 and 5.692.
    # Differences -9, -9.5, -8.5: mean -9, deviation 0.5, t = -31, p = 0.001.
    assert section.rows == [
        ["none", "3", "12 [7.032, 16.97]", "-"],
        ["spikepen weight=0.1", "3", "3 [-2.692, 8.692]; **-9**", "-"],
    ]


def test_runs_whose_numbers_are_doubted_are_counted(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in runs:
        # The baseline's second and third run; the penalty's last was measured before the probe looked into it.
        looked = {} if (result["reg"], result["seed"]) == ("spikepen", 2) else {
            "unreliable": result["reg"] == "none" and result["seed"] > 0
        }  # fmt: skip
        put(tmp_path, probe(result, **looked))
    (section,) = sections(only(tmp_path))
    assert section.columns[-1] == "unreliable"
    assert [row[-1] for row in section.rows] == ["2 of 3", "0 of 2"]
    assert "Unreliable: runs under which an attack that follows no gradient fools more images" in section.text
    assert "| unreliable |" in readme(only(tmp_path), [])


def test_a_flag_that_is_none_is_refused(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    put(tmp_path, probe(runs[0], unreliable="perhaps"))
    assert any("key 'unreliable' is no bool" in line for line in collect([tmp_path]).lines())


def test_one_seed_has_a_difference_and_no_verdict(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in (runs[0], runs[3]):
        put(tmp_path, probe(result))
    (section,) = sections(only(tmp_path))
    assert [row[1:3] for row in section.rows] == [["1", "10"], ["1", "1; -9"]]


def test_other_settings_make_another_table(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in runs:
        put(tmp_path, probe(result) if result["seed"] else probe(result, seed=7))
    tables = sections(only(tmp_path))
    assert [(section.name, [row[1] for row in section.rows]) for section in tables] == [
        ("noise", ["2", "2"]), ("noise", ["1", "1"]),
    ]  # fmt: skip
    assert "seed=7" in tables[1].text


def test_what_does_not_belong_is_not_shown(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    before = readme(only(tmp_path), [])
    assert "## Probes" not in before
    wrong = ("run_finished", "1999"), ("run_id", "another"), ("schema_version", 2), ("headline", {"a": "NaN"})
    for result, (key, value) in zip(runs, wrong, strict=False):
        content = probe(result, **{key: value})
        path = tmp_path / result["run_id"] / "probes"
        path.mkdir()
        (path / "noise.json").write_text(json.dumps(content))
    path = tmp_path / runs[5]["run_id"] / "probes"
    path.mkdir()
    (path / "noise.json").write_text('{"schema_version": 1, "pro')
    assert readme(only(tmp_path), []) == before
    said = {path.parent.name: reason for path, reason in collect([tmp_path]).left_out}
    assert said == {
        runs[0]["run_id"]: "probes/noise.json was measured on an earlier training of the run",
        runs[1]["run_id"]: "probes/noise.json is of the run another",
        runs[2]["run_id"]: "probes/noise.json is no probe of schema version 1",
        runs[3]["run_id"]: "probes/noise.json: 'a' is 'NaN', no finite number",
        runs[5]["run_id"]: said[runs[5]["run_id"]],
    }
    assert said[runs[5]["run_id"]].startswith("probes/noise.json is damaged (")
    assert len(collect([tmp_path]).records) == 6


def test_what_an_earlier_rule_measured_is_left_out_and_said(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    """The threshold of `decision` was once chosen on the test images: such files have no version."""
    for result, version in zip(runs, ({}, {"version": 1}, {"version": 3}, {"version": 2}), strict=False):
        put(tmp_path, probe(result, probe="decision", headline={"vote (%)": 70.0}, **version), "decision")
    collection = collect([tmp_path])
    assert [record.run_id for record in collection.records if record.probes] == [runs[3]["run_id"]]
    assert {path.parent.name: reason for path, reason in collection.left_out} == {
        runs[place][
            "run_id"
        ]: f"probes/decision.json was measured by another rule: version {version} of probe=decision, "
        "where this suite has version 2; it must be measured again"
        for place, version in enumerate((1, 1, 3))
    }


def test_the_page_of_a_table_has_them(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in runs:
        put(tmp_path, probe(result))
        put(tmp_path, probe(result, probe="attack", headline={"clean (%)": 90.0}), "attack")
    text = readme(only(tmp_path), [])
    assert text.index("## What it costs") < text.index("## Probes") < text.index("### attack") < text.index("### noise")
    assert "| spikepen weight=0.1 | 3 | 3 [-2.692, 8.692]; **-9** | - |" in text
    assert "| spikepen weight=0.1 | 3 | 90; +0 |" in text


def test_a_probe_is_found_where_it_is(runs: list[dict[str, Any]], records: SimpleNamespace, tmp_path: Path) -> None:
    """The same records twice, as in `reports/records` and `runs`: the probes of either count."""
    submitted, local = tmp_path / "submitted", tmp_path / "local"
    for result in runs:
        records.put(submitted, result)
        records.put(local, result)
        put(local, probe(result))
    collection = collect([submitted, local])
    assert collection.repeated == 6
    assert all(list(record.probes) == ["noise"] for record in collection.records)


def test_input_weights_are_drawn_one_line_after_the_other(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in runs:
        if result["reg"] == "none" and result["seed"] == 0:
            continue  # the first seed that has a map is shown
        size = -1.0 if result["reg"] == "none" else 0.5
        kept = {"neuron_0": [size * (result["seed"] + place) for place in range(6)], "shape": [1, 2, 3]}
        put(tmp_path, probe(result, input_weights=kept))
    (drawn,) = (figure for figure in figures(only(tmp_path)) if figure.name == "weights")
    first, second, *empty = drawn.draw().axes[:2]
    assert not empty
    assert (first.get_title(), second.get_title()) == ("none\nseed 1", "spikepen weight=0.1\nseed 0")
    assert first.images[0].get_array().tolist() == [[-1, -2, -3], [-4, -5, -6]]  # type: ignore[union-attr]
    assert second.images[0].get_array().tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]  # type: ignore[union-attr]
    # One scale for both, with 0 in its middle.
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-6, 6)


def test_no_picture_of_weights_that_are_no_image(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    put(tmp_path, probe(runs[0], input_weights={"neuron_0": [1.0, 2.0], "shape": [1, 2, 3]}))
    assert not [figure for figure in figures(only(tmp_path)) if figure.name == "weights"]


def test_decisions_over_their_threshold(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    for result in runs[:2]:  # two seeds of the baseline
        rows = [{"threshold": None, "acc": 80.0 + 2 * result["seed"], "right_ms": None, "wrong_ms": None}]
        rows += [
            {"threshold": 5, "acc": 70.0 + result["seed"], "right_ms": 40.0, "wrong_ms": 60.0 + 10 * result["seed"]},
            {"threshold": 1, "acc": 50.0, "right_ms": 10.0, "wrong_ms": None},
        ]
        put(tmp_path, probe(result, probe="decision", rows=rows, headline={}, version=2), "decision")
    (drawn,) = (figure for figure in figures(only(tmp_path)) if figure.name == "decisions")
    accuracy, times = drawn.draw().axes
    curve, vote = accuracy.lines
    assert [list(curve.get_xdata()), list(curve.get_ydata())] == [[1, 5], [50, 70.5]]  # type: ignore[arg-type]
    assert set(vote.get_ydata()) == {81}  # type: ignore[arg-type]
    right, wrong = times.lines
    assert list(right.get_ydata()) == [10, 40]  # type: ignore[arg-type]
    assert list(wrong.get_ydata())[1] == 65  # type: ignore[index]
