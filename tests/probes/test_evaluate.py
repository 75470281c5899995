"""`bench eval` from the command line to `probes/<name>.json`, and everything it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.commands.reproduce import probe
from bench.config.component import settings
from bench.config.compose import compose, read_config, typed_component
from bench.errors import BenchError
from bench.experiments import Experiment, Row, load, names
from bench.files import read_json
from bench.models.base import Spec
from bench.models.mlp import MLP
from bench.probes import evaluate
from bench.probes.evaluate import parse, shown
from bench.records.probe import SCHEMA_VERSION
from bench.registry import MODELS, PROBES
from tests.probes.conftest import POISSON, POISSON_REG

Bench = Callable[..., subprocess.CompletedProcess[str]]
Copied = Callable[[Path], Path]
SMALL = ("probe=noise", "noise.images=12")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    return main(["eval", *arguments]), *capsys.readouterr()


def test_a_trained_run_is_probed_from_the_command_line(
    bench: Bench, conv_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process of its own, as a user has it: files, table, skipping, force, and the checkpoint as it was."""
    run = copied(conv_run)
    checkpoint = (run / "checkpoints" / "last.ckpt").read_bytes()
    words = (
        "probe=corruptions,noise",
        "corruptions.images=20",
        "corruptions.kinds=[jpeg,darkness]",
        "noise.images=12",
    )
    done = bench("eval", run.name, "--runs", str(run.parent), *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (run / "probes").iterdir()) == ["corruptions.json", "noise.json"]
    lines = done.stdout.splitlines()
    assert sum(line.split()[:1] == ["darkness"] for line in lines) == 5
    assert max(map(len, lines)) <= 200
    record, found = read_json(run / "result.json"), read_json(run / "probes" / "corruptions.json")
    assert found["schema_version"] == SCHEMA_VERSION == next(iter(found.values()))
    assert (found["run_id"], found["run_finished"]) == (record["run_id"], record["finished"])
    assert found["settings"] == {"kinds": ["jpeg", "darkness"], "images": 20}
    assert (found["seed"], found["baked"], found["images"]) == (0, True, 20)
    assert (found["data_copy"], found["data_checksum"]) == (record["data_copy"], record["data_checksum"])
    assert found["versions"]["torch"] == record["versions"]["torch"]
    assert len(found["rows"]) == 11
    stamp = (run / "probes" / "noise.json").stat().st_mtime_ns
    status, out, _ = call(capsys, str(run), *words)
    assert status == 0
    assert out.count(", measured before; force=true measures again\n") == 2
    assert (run / "probes" / "noise.json").stat().st_mtime_ns == stamp
    assert main(["eval", str(run), *SMALL, "force=true"]) == 0
    assert (run / "probes" / "noise.json").stat().st_mtime_ns > stamp
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    assert read_json(run / "result.json") == record


def test_the_same_probe_finds_the_same(poisson_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for _ in range(2):
        run = copied(poisson_run)
        assert call(capsys, str(run), *SMALL)[0] == 0
        content = read_json(run / "probes" / "noise.json")
        del content["measured"]
        found.append(content)
        shutil.rmtree(run)
    assert found[0] == found[1]


def test_a_run_trained_anew_is_probed_anew(
    poisson_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    assert call(capsys, str(run), *SMALL)[0] == 0
    record = read_json(run / "result.json")
    record["finished"] = "2031-01-01T00:00:00+00:00"
    (run / "result.json").write_text(json.dumps(record))
    status, out, _ = call(capsys, str(run), *SMALL)
    assert status == 0
    assert "measured before" not in out
    assert read_json(run / "probes" / "noise.json")["run_finished"] == record["finished"]


def test_other_settings_are_not_taken_for_the_same(
    poisson_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    assert call(capsys, str(run), *SMALL)[0] == 0
    for other, said in (
        (["noise.images=13"], "images=12"),
        (["noise.images=12", "seed=1"], "seed=0"),
        (["noise.images=12", "bake=false"], "bake=true"),
    ):
        status, out, err = call(capsys, str(run), "probe=noise", *other)
        assert (status, out) == (2, "")
        assert f"was measured with {said}; force=true replaces it" in err
    assert call(capsys, str(run), "probe=noise", "noise.images=13", "force=true")[0] == 0
    assert read_json(run / "probes" / "noise.json")["settings"]["images"] == 13


def unfinished(run: Path) -> None:
    (run / "result.json").unlink()


def diverged(run: Path) -> None:
    record = read_json(run / "result.json")
    nothing = {"acc": None, "loss": None, "spike_rate": None}
    record |= {"status": "diverged", "status_reason": "the loss became NaN", "gap": None, "layers": []}
    record["test"] |= nothing
    (run / "result.json").write_text(json.dumps(record))


def without_checkpoint(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()


def other_data(run: Path) -> None:
    record = read_json(run / "result.json")
    record["data_checksum"] = "ab" * 32
    (run / "result.json").write_text(json.dumps(record))


def damaged_config(run: Path) -> None:
    (run / "config.yaml").write_text("model: {")


def damaged_probe(run: Path) -> None:
    (run / "probes").mkdir()
    (run / "probes" / "noise.json").write_text('{"schema_version": 1, "run')


def foreign_probe(run: Path) -> None:
    (run / "probes").mkdir()
    (run / "probes" / "noise.json").write_text('{"schema_version": 99}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unfinished, "is not finished: there is no result.json"),
        (diverged, "diverged: there is no trained network to probe"),
        (without_checkpoint, "has no checkpoints/last.ckpt: records carry none"),
        (other_data, "was trained on another copy of digits"),
        (damaged_config, "config.yaml cannot be read"),
        (damaged_probe, "is damaged"),
        (foreign_probe, "is no probe of schema version 1; force=true measures it again"),
    ],
)
def test_a_run_that_cannot_be_probed_gets_one_line(
    damage: Callable[[Path], None], message: str, poisson_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    status, _, err = call(capsys, str(run), *SMALL)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_all_runs_are_looked_at_before_the_first_is_probed(
    poisson_run: Path, conv_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = copied(conv_run), copied(poisson_run)
    unfinished(second)
    status, out, _ = call(capsys, first.name, second.name, "--runs", str(first.parent), *SMALL)
    assert (status, out) == (2, "")
    assert not (first / "probes").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope", "probe=noise"], "no run 'nope' in"),
        (["RUN"], "probe what? Say probe=NAME; there are: adversarial, corruptions, "),
        (["RUN", "probe=nois"], "no probe is called 'nois'. Did you mean 'noise'"),
        (["RUN", "probe=noise", "noise.imgs=3"], "noise has no setting 'imgs'. Did you mean 'images'"),
        (["RUN", "probe=noise", "forse=true"], "bench eval has no setting 'forse'. Did you mean 'force'"),
        (["RUN", "probe=noise", "noise.images=many"], "noise.images is 'many', it must be a whole number"),
        (["RUN", "probe=noise", "noise.images=1,2"], "noise.images=1,2: a list is written [a,b]"),
        (["RUN", "probe=noise", "noise.level=trainig"], "which is no choice. Did you mean 'training'"),
        (["RUN", "probe=noise", "noise.sigma=0"], "noise.sigma is 0, it must be above 0"),
        (["RUN", "probe=noise", "corruptions.images=3"], "sets a probe that is not among probe=noise"),
        (["RUN", "probe=noise", "accelerator=tpu"], "which is no choice"),
        (["RUN", "--all", "probe=noise"], "--all leaves no run to name"),
        (["probe=noise"], "name the runs, or all of them with --all"),
    ],
)
def test_bad_command_lines_get_one_line(
    arguments: list[str], message: str, poisson_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, *[str(poisson_run) if word == "RUN" else word for word in arguments])
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (poisson_run / "probes").exists()


def test_a_stored_configuration_is_the_one_that_ran(poisson_run: Path) -> None:
    cfg = read_config(poisson_run / "config.yaml")
    assert cfg.model.hidden == [24]
    assert cfg.model.encoding.value == "poisson"
    assert cfg.reg.uselose.form.value == "literal"
    assert cfg.data.classes == [7, 4, 6]
    with pytest.raises(BenchError, match="which is no registered model"):
        typed_component(MODELS, {"_target_": "os.system"})


def test_settings_of_a_probe_are_typed() -> None:
    cfg = parse(
        ["probe=[adversarial,noise]", "adversarial.attacks=[pgd]", "adversarial.eps=[0.1,0]", "noise.unknown=[9,a]"]
    )
    assert list(cfg.eval.probe) == ["adversarial", "noise"]
    assert evaluate.stored(cfg.adversarial)["attacks"] == ["pgd"]
    assert evaluate.stored(cfg.adversarial)["eps"] == [0.1, 0.0]
    assert evaluate.stored(cfg.noise)["unknown"] == [9, "a"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("rotate", "rotate"),
        (14203, "14,203"),
        (0.031234, "0.03123"),
        (98.611111, "98.61"),
        (123456.7, "123,457"),
    ],
)
def test_cells_are_short(value: Any, text: str) -> None:
    assert shown(value) == text


def test_reproducing_a_table_probes_its_finished_runs(
    poisson_run: Path, copied: Copied, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    rows = [
        Row(label, overrides, overrides)
        for label, overrides in (("run", (*POISSON, *POISSON_REG)), ("not run", (*POISSON, "reg=none")))
    ]
    table = Experiment(
        name="a/b", title="", published=None, finding="", note="", small_note="", budget="quick",
        selection="last_epoch", baseline="run", seeds=(0,), rows=tuple(rows),
        probes=("noise", "noise.images=30"),
    )  # fmt: skip
    given = [f"runs={run.parent}", f"data.root={shared_data}"]
    probe(table, given)
    assert f"{run.name}: noise measured" in capsys.readouterr().out
    assert json.loads((run / "probes" / "noise.json").read_text())["settings"]["images"] == 30
    stamp = (run / "probes" / "noise.json").stat().st_mtime_ns
    probe(table, given)
    assert capsys.readouterr().out == ""
    assert (run / "probes" / "noise.json").stat().st_mtime_ns == stamp


def test_tables_name_probes_that_exist() -> None:
    wanted = {name: load(name).probes for name in names()}
    assert wanted["antonov2024/table1_surrogate"] == ("noise", "adversarial")
    words = [word for probes in wanted.values() for word in probes]
    assert {word for word in words if "=" not in word} <= set(PROBES.names())
    assert list(parse(["probe=noise", *(word for word in words if "=" in word)]).noise.unknown) == [9, 2, 1]


def test_the_surrogate_twin_has_the_papers_network_and_classes() -> None:
    """784 inputs, 30 neurons, no bias: 23,520 weights from 0 up, and a linear read-out of three digits."""
    table = load("antonov2024/table1_surrogate")
    for row in table.rows:
        cfg = compose([f"budget={table.budget}", *row.overrides])
        assert list(cfg.data.classes) == [7, 4, 6]
        assert (cfg.model.hidden, cfg.model.encoding.value, cfg.time_steps) == ([30], "poisson", 20)
        net = MLP(
            Spec((1, 28, 28), 3, cfg.time_steps, settings(cfg.neuron)),
            [30], cfg.model.encoding, cfg.model.rate, cfg.model.bias, cfg.model.excitatory,
        )  # fmt: skip
        assert sum(p.numel() for p in net.parameters()) == 784 * 30 + 30 * 3 + 3
        assert (bool((net.linears[0].weight >= 0).all())) is not row.label.startswith("signed")
