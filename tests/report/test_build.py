"""From records to files: experiments joined, published beside ours, and `--check`."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bench import experiments
from bench.errors import BenchError
from bench.experiments import load as load_experiment
from bench.experiments import names
from bench.published import papers
from bench.report import build, join, kept
from bench.report.analysis import Analysis, analyse
from bench.report.collect import collect
from bench.report.exports import columns, table_csv
from bench.report.groups import groups
from bench.report.latex import table_tex
from bench.report.readme import readme
from tests.expanded import run_ids


def penalty(row: Any, seed: int) -> tuple[float, float]:
    """A squared spike penalty that does what the thesis says, first order worse."""
    weight = float(row.label)
    loss = 3.0 if "first" in row.group else 1.0
    noise = 0.05 * ((7 * seed + len(row.label) + len(row.group) * (1 + seed // 2)) % 3)
    return 60.0 - loss * math.log10(1 + 10 * weight) ** 2 + noise + seed, 0.1 / (1 + 3 * weight) * (1 + 0.02 * seed)


def only(analyses: list[Analysis]) -> Analysis:
    (analysis,) = analyses
    return analysis


def joined(folder: Path, name: str) -> list[Analysis]:
    left_out: list[str] = []
    analyses = [analyse(table) for table in join.tables(collect([folder]), [name], (), left_out)]
    assert left_out == []
    return analyses


def test_published_numbers_are_the_facts_and_claims_point_at_rows() -> None:
    for path in papers.FOLDER.glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        for number, table in content["tables"].items():
            if not isinstance(table, dict):
                continue  # findings of all tables
            published = papers.load(f"{content['key']}/{number}")
            assert all(len(row) == len(published.columns) for row in published.rows)
            by_column = [dict(zip(published.columns, row, strict=True)) for row in published.rows]
            for claim in table.get("claims", ()):
                rows = [value for value in claim.values() if isinstance(value, dict)]
                assert rows or claim["over"] in published.columns
                for wanted in rows:
                    fits = [row for row in by_column if wanted.items() <= row.items()]
                    assert len(fits) == 1, (number, wanted)
        # A figure's claims, which name rows by group and label, stand in the experiment called like it.
        figures = {
            f"{content['key']}/figure{number.replace('.', '_')}": figure.get("claims", ())
            for number, figure in content.get("figures", {}).items()
        }
        for name in figures.keys() & {*names()}:
            rows = {f"{row.group}: {row.label}" for row in load_experiment(name).rows}
            sides = [value for claim in figures[name] for value in claim.values() if isinstance(value, dict)]
            assert {side["label"] for side in sides if "label" in side} <= rows, name
        for item, entry in content.get("experiments", {}).items():
            experiment = load_experiment(f"{content['key']}/{item}")
            labels = {row.label for row in experiment.rows} | {f"{row.group}: {row.label}" for row in experiment.rows}
            named = [value["label"] for claim in entry["claims"] for value in claim.values() if isinstance(value, dict)]
            assert named
            assert {*named, *entry.get("counts", {}).get("labels", ())} <= labels, item
    shared = Path(__file__).resolve().parents[3] / "shared" / "published" / "nandan2022.yaml"
    if shared.exists():
        facts, ours = (yaml.safe_load(path.read_text()) for path in (shared, papers.FOLDER / shared.name))
        assert {n: t["rows"] for n, t in facts["tables"].items()} == {n: t["rows"] for n, t in ours["tables"].items()}


def test_a_table_of_a_paper(records: SimpleNamespace, tmp_path: Path) -> None:
    records.of_experiment(tmp_path, "nandan2022/table3_1", "cpu", 3, penalty)
    analysis = only(joined(tmp_path, "nandan2022/table3_1"))
    table = analysis.table
    assert table.folder == "nandan2022/table3_1/cpu"
    assert table.reduced
    assert [row.line.label for row in analysis.rows][:3] == ["0", "0.01", "0.05"]
    assert len(table.records) == 33
    first = analysis.rows[0]
    assert first.line.against is None
    # Ours minus published, by hand: mean of 60 + noise + seed, noise 0.05 * ((7 s + 1) mod 3) = .05, .1, 0.
    assert first.off("test_acc") == pytest.approx(60 + 0.05 + 1 - 87.04)
    outcomes = [finding.outcome for finding in analysis.findings]
    # Rates fall and a penalty of 10 costs accuracy; one of 0.05 moves it by less than the noise, and no gap.
    assert outcomes == ["holds", "open", "open", "holds"]
    page = readme(analysis, [])
    assert page.count("educed run") >= 4
    # The interval is narrower than one of three values alone would be, 58.63 to 63.47: eleven rows scatter alike.
    ((low, high),) = re.findall(r"\| 87\.04 \| 61\.05 \[([\d.]+), ([\d.]+)\] \| -25\.99 \|", page)
    assert 58.63 < float(low) < 60.5 < 61.6 < float(high) < 63.47
    assert "nandan2022, table 3.1" in page
    assert "a copy" in page


def test_a_figure_compares_two_curves(records: SimpleNamespace, tmp_path: Path) -> None:
    records.of_experiment(tmp_path, "nandan2022/figure3_1", "cpu", 3, penalty)
    # The runs of table 3.1 are the figure's squared ones: they are shared.
    analysis = only(joined(tmp_path, "nandan2022/figure3_1"))
    assert {row.line.series for row in analysis.rows} == {"squared", "first order"}
    assert analysis.table.panels == [""]
    assert [finding.outcome for finding in analysis.findings] == ["holds", "holds"]
    assert only(joined(tmp_path, "nandan2022/table3_1")).table.folder == "nandan2022/table3_1/cpu"


def test_a_selection_looks_at_validation_only(records: SimpleNamespace, tmp_path: Path) -> None:
    def numbers(row: Any, seed: int) -> tuple[float, float]:
        return 70.0 + seed + (5 if row.label == "0.0003" else 0), 0.1

    made = records.of_experiment(tmp_path, "nandan2022/table4_1", "cpu", 2, numbers)
    for result in made:
        # The opposite of the test set's order.
        decay = result["regs"].get("weight_decay", {}).get("weight", 0.0)
        result["val"] = {"acc": 60.0 - 1e4 * decay, "loss": 1.0, "spike_rate": 0.1, "spike_rate_layer_mean": 0.1}
        (tmp_path / result["run_id"] / "result.json").write_text(json.dumps(result))
    analysis = only(joined(tmp_path, "nandan2022/table4_1"))
    labels = ["batch norm: 0", "weight norm: 0", "weight norm + mean-only BN: 0"]
    assert [row.line.label for row in analysis.rows] == labels
    assert len(analysis.table.candidates) == 9
    assert analysis.rows[1].line.against is analysis.rows[0].line
    assert "best_on_validation" in readme(analysis, [])


def test_a_selection_without_validation_is_refused_in_a_line(records: SimpleNamespace, tmp_path: Path) -> None:
    records.of_experiment(tmp_path, "nandan2022/table4_1", "cpu", 1, lambda row, seed: (70.0, 0.1))
    left_out: list[str] = []
    assert join.tables(collect([tmp_path]), ["nandan2022/table4_1"], (), left_out) == []
    assert len(left_out) == 1
    assert "needs a validation split" in left_out[0]


def test_copies_of_the_data_are_never_mixed(records: SimpleNamespace, tmp_path: Path) -> None:
    def vary(place: int, copy: str) -> None:
        result = records.record(run_id=f"r{place}", seed=place, data_copy=copy, data_checksum=copy * 32)
        records.put(tmp_path, result)

    for place, copy in enumerate(("aa", "aa", "bb")):
        vary(place, copy)
    records.put(tmp_path, records.record(run_id="cpu", budget="cpu"))
    tables = groups(collect([tmp_path]))
    assert sorted(len(table.records) for table in tables) == [1, 1, 2]
    assert {table.variant[:6] for table in tables} == {"cpu", "quick-"}
    split = [table for table in tables if table.variant != "cpu"]
    assert all("data_copy=" in table.notes[0] for table in split)
    assert {frozenset(record.result["data_copy"] for record in table.records) for table in tables} == {
        frozenset({"aa"}), frozenset({"bb"}), frozenset({"embedded"}),
    }  # fmt: skip


def test_missing_seeds_and_diverged_runs_are_said_and_not_averaged(records: SimpleNamespace, tmp_path: Path) -> None:
    spikepen = {"spikepen": {"weight": 0.1, "order": 2}}
    for seed, acc in enumerate((90.0, 91.0, 92.0)):
        records.put(tmp_path, records.measured(records.record(run_id=f"n{seed}", seed=seed), acc, 0.1))
    for seed, acc in enumerate((99.0, 99.5)):
        result = records.record(run_id=f"p{seed}", seed=seed, reg="spikepen", regs=spikepen, strength=0.1)
        records.put(tmp_path, records.diverge(result) if seed else records.measured(result, acc, 0.1))
    (table,) = groups(collect([tmp_path]))
    assert table.notes == ["spikepen weight=0.1: seed 2 missing", "spikepen weight=0.1: seed 1 diverged, in no mean"]
    analysis = analyse(table)
    assert analysis.rows[1].mean("test_acc") == 99.0
    # One seed is left, and the baseline has three: nothing to judge or to rank by.
    assert analysis.rows[1].verdict == "too few seeds to say"
    assert analysis.rows[1].adjusted is None
    assert analysis.rows[1].rank is None
    page = readme(analysis, [])
    assert "1, 1 diverged" in page
    row = list(csv.DictReader(io.StringIO(table_csv(analysis))))[1]
    assert (row["seeds"], row["missing"], row["diverged"], row["test_acc"]) == ("0", "2", "1", "99.0")


def test_a_better_mean_is_no_better_when_runs_diverge(records: SimpleNamespace, tmp_path: Path) -> None:
    spikepen = {"spikepen": {"weight": 0.1, "order": 2}}
    for seed in range(5):
        base = records.record(run_id=f"n{seed}", seed=seed)
        records.put(tmp_path, records.measured(base, 90.0 + 0.1 * seed, 0.1))
        result = records.record(run_id=f"p{seed}", seed=seed, reg="spikepen", regs=spikepen, strength=0.1)
        better = records.measured(result, 95.0 + 0.11 * seed, 0.1)
        records.put(tmp_path, records.diverge(result) if seed == 4 else better)
    (table,) = groups(collect([tmp_path]))
    row = analyse(table).rows[1]
    assert row.adjusted is not None
    assert row.adjusted < 0.001
    assert row.verdict == "too few seeds to say"


def test_every_table_has_verdicts_on_accuracy_and_on_spikes(records: SimpleNamespace, tmp_path: Path) -> None:
    """The squared penalty of 5 takes 1.2 log10(101)^2 = 4.8 points and leaves 0.35^log10(101) = 0.12 of the spikes."""
    label = "spikepen weight=5 order=2"
    records.grid(tmp_path, seeds=3)
    (table,) = groups(collect([tmp_path]))
    analysis = analyse(table)
    verdicts = ("worse", "better", "better")
    row = next(row for row in csv.DictReader(io.StringIO(table_csv(analysis))) if row["label"] == label)
    columns = ("verdict", "test_spike_rate_verdict", "synops_per_image_verdict")
    assert tuple(row[column] for column in columns) == verdicts
    for ratio in ("test_spike_rate_ratio", "synops_per_image_ratio"):
        assert 0 < float(row[f"{ratio}_low"]) < float(row[ratio]) < float(row[f"{ratio}_high"]) < 0.2
    page = readme(analysis, []).split("## Against the baseline")[1]
    shown = next(line for line in page.splitlines() if line.startswith(f"| {label} |"))
    assert tuple(re.findall(r"\*\*(\w+)\*\*", shown)) == verdicts
    assert "No ranks: they need 5 seeds of every row, and the rows have 3 seeds in common." in page
    tex = next(line for line in table_tex(analysis).splitlines() if line.startswith(label))
    assert tuple(re.findall(r"\b(better|worse)\b", tex)) == verdicts


def test_runs_that_a_record_cannot_tell_apart_are_left_out(records: SimpleNamespace, tmp_path: Path) -> None:
    records.put(tmp_path, records.record(run_id="a"))
    records.put(tmp_path, records.record(run_id="b", test__acc=90.0))
    (table,) = groups(collect([tmp_path]))
    assert table.lines[0].records == []
    assert "two runs each" in table.notes[0]


def test_all_files_are_written_and_again_the_same(written: Path) -> None:
    folder = written / "digits-cnn" / "quick"
    figures = ("accuracy_over_rate", "strength_response", "gap", "layers", "curves", "pareto")
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "table.csv", "table.tex", *(f"{name}.{kind}" for name in figures for kind in ("svg", "png")),
    }  # fmt: skip
    assert (written / "index.html").stat().st_size < 3_000_000
    rows = list(csv.DictReader((written / "results.csv").read_text().splitlines()))
    assert len(rows) == len(json.loads((written / "results.json").read_text())) == 30
    assert list(rows[0]) == list(columns())
    readme = (written / "README.md").read_text()
    assert all(f"| `{column}` |" in readme for column in columns())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in written.rglob("*") if path.is_file()}
    said: list[str] = []
    build.check(written, said.append)
    assert said[-1] == f"{3 + 2 * len(figures) + 4} files follow from 30 records"
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before}


def test_figures_say_what_they_show(written: Path) -> None:
    from bench.report.figures import source_of

    folder = written / "digits-cnn" / "quick"
    for path in folder.glob("*.svg"):
        text = path.read_text()
        assert "reduced run: budget quick" in text
        assert not re.search(r"\d{4}-\d{2}-\d{2}T", text)
        svg, png = source_of(path.read_bytes()), source_of(path.with_suffix(".png").read_bytes())
        assert svg is not None
        assert svg == png


def test_a_picture_is_drawn_only_where_what_it_shows_has_changed(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "reports"
    shutil.copytree(written, out)
    folder = out / "digits-cnn" / "quick"
    # Marks of pictures that are not drawn anew: of one whose SVG is as it should be, it stays.
    for name in ("gap", "pareto", "layers"):
        edit(folder / f"{name}.png", lambda content: content + b"\0")
    edit(folder / "pareto.svg", lambda text: text.replace(b"<path", b"<path ", 1))
    edit(folder / "layers.png", lambda content: content.replace(b"Matplotlib ", b"Matplotlib 0", 1))
    build.write([written / "records"], out, say=lambda line: None)
    pictures = sorted(folder.glob("*.*g"))
    changed = [path.name for path in pictures if path.read_bytes() != (written / path.relative_to(out)).read_bytes()]
    assert changed == ["gap.png"]


def test_figures_drawn_side_by_side_are_those_drawn_alone(written: Path) -> None:
    from bench.report.figures import figures
    from bench.report.parallel import Job, side_by_side

    (analysis,) = map(analyse, groups(collect([written / "records"])))
    own = [Job(lambda figure=figure: list(figure.files())) for figure in figures(analysis)]
    alone = side_by_side(own, processes=1)
    assert side_by_side(own, processes=3) == alone
    assert [name for files in alone for name, _ in files][:2] == ["accuracy_over_rate.svg", "accuracy_over_rate.png"]
    on_disk = {name: (written / "digits-cnn" / "quick" / name).read_bytes() for files in alone for name, _ in files}
    assert on_disk == {name: content for files in alone for name, content in files}


def test_tables_that_nobody_ran_are_not_composed(
    records: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composing is what building a report takes longest for."""
    calls: list[int] = []
    identified = experiments.identified

    def counted(jobs: Any, *given: Any, **named: Any) -> Any:
        calls.append(len(jobs))
        return identified(jobs, *given, **named)

    records.grid(tmp_path, 1)  # of digits and the network cnn
    monkeypatch.setattr(experiments, "identified", counted)
    monkeypatch.setattr(join, "_known", {})
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "kept")
    wanted = ["suite/digits", "nandan2022/table3_1", "lyu2023/figures2_5"]
    join.tables(collect([tmp_path]), wanted, (), [])
    assert calls == [75]  # the rows of the first: the others are of other data
    join.tables(collect([tmp_path]), wanted, (), [])
    assert sum(calls) == 75


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_check_names_what_does_not_follow(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    shutil.copytree(written, out)
    folder = out / "digits-cnn" / "quick"
    edit(folder / "table.csv", lambda text: text.replace(b"94.", b"95.", 1))
    edit(folder / "README.md", lambda text: text + b"so there\n")
    (folder / "gap.svg").unlink()
    edit(folder / "pareto.svg", lambda text: re.sub(rb"sha256:\w{4}", b"sha256:0000", text))
    # Drawn by another version: the same numbers are enough. By another libpng: likewise.
    edit(folder / "layers.svg", lambda text: re.sub(rb"Matplotlib [\d.]+", b"Matplotlib 9.9.9", text) + b" ")
    edit(folder / "layers.png", lambda content: content + b"\0")
    edit(folder / "curves.svg", lambda text: text.replace(b"<path", b"<path ", 1))
    stale = out / "mnist-cnn" / "quick"
    shutil.copytree(folder, stale)
    with pytest.raises(build.Stale) as caught:
        build.check(out, lambda line: None)
    assert caught.value.code == 1
    lines = str(caught.value).splitlines()
    here = [line.strip() for line in lines if "mnist" not in line][1:]
    assert here == [
        "digits-cnn/quick/README.md: differs",
        "digits-cnn/quick/table.csv: differs",
        "digits-cnn/quick/gap.svg: missing",
        "digits-cnn/quick/curves.svg: differs, though its numbers are right",
        "digits-cnn/quick/pareto.svg: shows other numbers",
    ]
    assert sum("mnist-cnn/quick/" in line and "follows from no record" in line for line in lines) == 14


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts only: figures and page take seconds."""
    monkeypatch.setattr(build, "figures", lambda analysis: [])
    monkeypatch.setattr(build.page, "available", lambda: False)


@pytest.mark.usefixtures("undrawn")
def test_a_new_record_makes_reports_stale(records: SimpleNamespace, written: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    shutil.copytree(written, out)
    records.put(out / "records", records.record(run_id="new", seed=7))
    with pytest.raises(build.Stale, match=r"results.csv: differs"):
        build.check(out, lambda line: None)


@pytest.mark.usefixtures("undrawn")
def test_an_experiment_with_overrides_is_built_again_from_its_first_line(
    records: SimpleNamespace, tmp_path: Path
) -> None:
    from bench.experiments import expand, identified, load

    extra = "trainer.epochs=2"
    out = tmp_path / "reports"
    jobs = expand(load("nandan2022/table4_2"), ["budget=cpu", "seed=0,1", extra])
    for job, run_id, facts in identified(jobs, {"cifar10": ("ef" * 32, "a copy")}, "fp32"):
        records.put(out / "records", records.record(
            run_id=run_id, seed=job.seed, budget="cpu", data="cifar10", data_copy="a copy", data_checksum="ef" * 32,
            reg="weightnorm", regs=facts["reg"], epochs=2,
        ))  # fmt: skip
    said: list[str] = []
    settings = [
        "budget=cpu",
        "seed=0,1",
        extra,
        "logger=none",
        "hydra/launcher=basic",
        "runs=/tmp/x",
        "trainer.devices=2",
    ]
    for quoted in ("budget=cpu", "budget='cpu'", 'budget="cpu"'):
        settings[0] = quoted
        (folder,) = build.write([out / "records"], out, ["nandan2022/table4_2"], settings, say=said.append)
        assert folder == out / "nandan2022" / "table4_2" / f"cpu+{extra}"
    assert f"report nandan2022/table4_2 budget=cpu {extra}`" in (folder / "README.md").read_text()
    build.write([out / "records"], out, say=said.append)
    build.check(out, said.append)
    assert "files follow from 4 records" in said[-1]


@pytest.mark.usefixtures("undrawn")
def test_ones_own_runs_change_nothing_that_is_published(
    records: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RUNS")
    records.put(tmp_path / "reports" / "records", records.record(run_id="theirs"))
    assert main(["report", "--out", "reports"]) == 0
    published = {path: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()}
    records.put(tmp_path / "runs", records.record(run_id="own", seed=1, test__acc=11.0))
    records.put(tmp_path / "runs", records.record(run_id="theirs", hardware="other", test__acc=91.5))
    assert main(["report"]) == 0
    assert {path: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()} == published
    table = Path("runs/report/results.csv").read_text()
    assert len(table.splitlines()) == 3, "the head, theirs and one's own"
    # 94.0 counts, 91.5 stands beside it.
    overview = Path("runs/report/README.md").read_text()
    assert (
        "1 run was repeated on another machine or number of threads; test accuracy differs by 2.50 points" in overview
    )
    assert main(["report", "--check"]) == 0
    # A target that is named takes one's own runs where they are named too.
    assert main(["report", "--out", "reports"]) == 0
    assert len(Path("reports/results.csv").read_text().splitlines()) == 2
    assert main(["report", "--out", "reports", "--runs", "runs"]) == 0
    assert len(Path("reports/results.csv").read_text().splitlines()) == 3


@pytest.mark.usefixtures("undrawn")
def test_a_row_that_did_nothing_is_marked(records: SimpleNamespace, tmp_path: Path) -> None:
    def put(reg: str, seed: int, **changes: Any) -> None:
        regs = {reg: {} if reg == "none" else {"weight": 1.0}}
        own = {"reg": reg, "regs": regs, "strength": None if reg == "none" else 1.0, "seed": seed}
        records.put(tmp_path / "records", records.record(run_id=f"{reg}-{seed}", **own, **changes))

    for seed in (0, 1):
        put("none", seed, test__loss=0.25 + seed)
        # To the last bit the baseline's; said by the runs; another at one seed.
        put("uselose", seed, test__loss=0.25 + seed, no_effect=None)
        put("spikepen", seed, test__loss=0.5, no_effect=["spikepen"])
        put("dropout", seed, test__loss=0.25 if seed == 0 else 0.3)
    build.write([tmp_path / "records"], tmp_path, say=lambda line: None)
    rows = (tmp_path / "digits-cnn" / "quick" / "README.md").read_text().split("## Against the baseline")[1]
    marked = [line.split(" ")[1] for line in rows.splitlines() if "did nothing here" in line]
    assert marked == ["spikepen", "uselose"]


@pytest.mark.usefixtures("undrawn")
def test_what_energies_leave_out_is_said(records: SimpleNamespace, tmp_path: Path) -> None:
    """43,008 neurons x 4 steps x 0.9 pJ are 0.154828.. microjoules: 8.5 % of 1.82, 15.5 % of 1."""
    records.put(tmp_path / "records", records.record(run_id="a", energy_uj=1.82))
    records.put(tmp_path / "records", records.record(run_id="b", seed=1, energy_uj=1.0))
    build.write([tmp_path / "records"], tmp_path, say=lambda line: None)
    page = tmp_path / "digits-cnn" / "quick" / "README.md"
    assert "at an accumulation each they would add 8.5 to 15.5 %." in page.read_text()
    assert "It is not known" not in page.read_text()
    records.put(tmp_path / "records", records.record(run_id="c", seed=2, energy_uj=None))
    build.write([tmp_path / "records"], tmp_path, say=lambda line: None)
    assert "It is not known of 1 run, whose records" in page.read_text()


def test_bad_command_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from bench.__main__ import main

    out = str(tmp_path / "reports")
    for arguments, message in (
        ([], "no usable record in"),
        (["--check"], "no usable record in"),
        (["--runs", "nowhere"], "there is no such folder"),
        (["nandan2022/table3"], "no experiment is called 'nandan2022/table3'. Did you mean"),
        (["--check", "nandan2022/table3_1"], "--check takes no other arguments"),
        (["lr=1"], "lr=1: name the experiment too"),
    ):
        assert main(["report", *arguments, "--out", out]) == 2, arguments
        told = capsys.readouterr()
        assert message in told.err
        assert len(told.err.strip().splitlines()) == 1
        assert "records" not in told.out or "no usable record" in message, "told before they are read"


def test_an_experiment_without_records_says_so(records: SimpleNamespace, tmp_path: Path) -> None:
    records.put(tmp_path / "records", records.record())
    with pytest.raises(BenchError, match="fewer than two rows of nandan2022/table2_1"):
        build.write([tmp_path / "records"], tmp_path, ["nandan2022/table2_1"], say=lambda line: None)


def test_other_commands_import_no_plotting() -> None:
    code = "import sys, bench.__main__ as m; m.main(['--help']); print([n for n in sys.modules if n.split('.')[0] in "
    code += "('matplotlib', 'altair', 'scipy', 'torch')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_run_ids_are_the_experiments_own() -> None:
    from bench.experiments import load
    from bench.records.identity import best_precision

    data = {"cifar10": ("12" * 32, "a copy")}
    table = load("nandan2022/table2_3")
    theirs = [(f"{row.group}\n{row.label}", seed, name) for row, seed, name in run_ids(table, "cpu", [0, 3], data)]
    assert sorted(join.run_ids(table, "cpu", [0, 3], (), data, best_precision("auto"))) == sorted(theirs)


def test_precisions_are_not_mixed(records: SimpleNamespace, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        records.of_experiment(tmp_path, "nandan2022/table2_1", "cpu", 2, penalty, auto=precision)
    analyses = joined(tmp_path, "nandan2022/table2_1")
    assert [analysis.table.folder for analysis in analyses] == [
        f"nandan2022/table2_1/cpu-{precision}" for precision in ("bf16", "fp32")
    ]
    for analysis, precision in zip(analyses, ("bf16", "fp32"), strict=True):
        assert [record.result["precision"] for record in analysis.table.records] == [precision] * 8
        assert "precision" in analysis.table.notes[0]


def test_rows_that_set_their_precision_are_one_table(records: SimpleNamespace, tmp_path: Path) -> None:
    records.of_experiment(tmp_path, "suite/precision", "quick", 2, lambda row, seed: (90.0 + seed, 0.1))
    assert only(joined(tmp_path, "suite/precision")).table.folder == "suite/precision/quick"
