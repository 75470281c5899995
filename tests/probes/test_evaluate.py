"""`bench eval` from the command line to `probes/<name>.json`, and everything it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.__main__ import main
from bench.commands.reproduce import probe
from bench.config.component import settings
from bench.config.compose import compose, read_config, typed_component
from bench.errors import BenchError
from bench.experiments import Experiment, Row, load, names
from bench.files import read_json
from bench.models.base import Spec
from bench.models.mlp import MLP
from bench.probes import adversarial, evaluate
from bench.probes.evaluate import parse, shown
from bench.records.probe import SCHEMA_VERSION, VERSIONS
from bench.registry import MODELS, PROBES
from tests.conftest import ROOT
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


def test_a_probe_that_doubts_its_numbers_says_so(
    poisson_run: Path, copied: Copied, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    words = ("probe=adversarial", "adversarial.attacks=[fgsm]", "adversarial.eps=[0.1]", "adversarial.images=12")
    for reasons, entries in (
        (None, {}),
        ([], {"unreliable": False, "unreliable_because": []}),
        (["gradients are masked"], {"unreliable": True, "unreliable_because": ["gradients are masked"]}),
    ):
        monkeypatch.setattr(adversarial, "doubts", lambda *given, found=reasons: found)
        status, out, _ = call(capsys, str(run), *words, "force=true")
        assert status == 0
        assert out.splitlines().count("unreliable: gradients are masked") == (1 if reasons else 0)
        content = read_json(run / "probes" / "adversarial.json")
        assert {key: value for key, value in content.items() if key.startswith("unreliable")} == entries
    # What is there already says it again.
    assert "unreliable: gradients are masked" in call(capsys, str(run), *words)[1]


def test_what_an_earlier_rule_measured_is_measured_anew(
    poisson_run: Path, copied: Copied, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    assert call(capsys, str(run), *SMALL)[0] == 0
    assert read_json(run / "probes" / "noise.json")["version"] == 1
    monkeypatch.setitem(VERSIONS, "noise", 2)
    status, out, _ = call(capsys, str(run), *SMALL)
    assert status == 0
    assert "measured before" not in out
    assert read_json(run / "probes" / "noise.json")["version"] == 2
    assert "measured before" in call(capsys, str(run), *SMALL)[1]


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


def test_a_setting_that_came_later_has_its_default_in_an_earlier_file(
    poisson_run: Path, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(poisson_run)
    words = ("probe=adversarial", "adversarial.attacks=[fgsm]", "adversarial.eps=[0.1]", "adversarial.images=12")
    assert call(capsys, str(run), *words)[0] == 0
    file = run / "probes" / "adversarial.json"
    content = read_json(file)
    for key in ("adaptive_steps", "omega", "queries"):
        del content["settings"][key]
    file.write_text(json.dumps(content))
    assert "measured before" in call(capsys, str(run), *words)[1]
    status, _, err = call(capsys, str(run), *words, "adversarial.queries=7")
    assert status == 2
    assert err.rstrip().endswith("was measured with queries=100; force=true replaces it")


MINE = """
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer

@REGULARIZERS.register("mine")
class Mine(Regularizer):
    '''Nothing. Source: me (2024), eq. 1.'''
    scale = 1.0
"""


def test_a_run_is_not_probed_by_another_version_of_its_plugin(bench: Bench, tmp_path: Path) -> None:
    plugin, runs = tmp_path / "mine.py", tmp_path / "runs"
    plugin.write_text(MINE)
    env = {"BENCH_PLUGINS": str(plugin)}
    done = bench("run", "budget=smoke", "data=digits", "reg=mine", "logger=none", f"runs={runs}", env=env)
    assert done.returncode == 0, done.stderr
    words = ("--all", "--runs", str(runs), "probe=noise", "noise.images=12")
    assert bench("eval", *words, env=env).returncode == 0
    plugin.write_text(MINE.replace("1.0", "2.0"))
    refused = bench("eval", *words, "force=true", env=env)
    (run,) = runs.iterdir()
    then, now = (hashlib.sha256(text.encode()).hexdigest()[:8] for text in (MINE, plugin.read_text()))
    assert (refused.returncode, refused.stderr) == (
        2,
        f"error: {run.name} was trained by plugin 'mine' (mine.py) as it was at {then}, and now it is at {now}: "
        "bring that code back, or train anew\n",
    )


def test_data_that_moved_are_found_by_the_settings_that_the_line_names(shared_data: Path, tmp_path: Path) -> None:
    """A folder of images given by a relative path, asked for from elsewhere."""
    here, there = tmp_path / "here", tmp_path / "there"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 8), dtype=np.uint8)
    for split, images in zip(("train", "test"), pixels, strict=True):
        for name, own in zip("ab", images, strict=True):
            (here / "images" / split / name).mkdir(parents=True)
            for place, image in enumerate(own):
                Image.fromarray(image).save(here / "images" / split / name / f"{place}.png")
    there.mkdir()
    words = ("budget=smoke", "data=folder", "data.path=images", "model=mlp", "logger=none", f"runs={tmp_path / 'runs'}")
    code = "import sys, os; os.chdir(sys.argv.pop(1)); from bench.__main__ import main; sys.exit(main(sys.argv[1:]))"

    def at(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "BENCH_DATA": str(shared_data), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    done = at(here, "run", *words)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    probe_it = ("eval", str(run), "probe=noise", "noise.images=4", "force=true")
    refused = at(there, *probe_it)
    assert (refused.returncode, refused.stderr) == (
        2, f"error: {run.name}: data.path=images is no folder here; path=FOLDER names where its images lie\n",
    )  # fmt: skip
    for setting in (f"path={here / 'images'}", "data.path=../here/images"):
        found = at(there, *probe_it, setting)
        assert found.returncode == 0, found.stderr
    (here / "images" / "train" / "a" / "0.png").unlink()
    other = at(there, *probe_it, "path=../here/images")
    assert other.returncode == 2
    assert "was trained on another copy of folder; path=FOLDER names where it lies" in other.stderr


def test_the_data_root_has_its_name_as_a_run_has_it() -> None:
    assert parse(["probe=noise", "data.root=elsewhere"]).eval.root == "elsewhere"
    for typed in ('probe="noise"', "probe=[noise]", "probe='noise'"):
        assert parse([typed]).eval.probe == ["noise"]
    assert parse(["probe=noise,adversarial"]).eval.probe == ["noise", "adversarial"]
    with pytest.raises(BenchError, match=r"bench eval has no setting 'data\.limit'"):
        parse(["probe=noise", "data.limit=3"])


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
        (["RUN", "probe=noise", "noise.images=2"], "noise.images=2 is too few: there are 3 classes"),
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
    own = {word for probes in wanted.values() for word in probes if "=" not in word}
    assert own <= set(PROBES.names())
    settings = [word for probes in wanted.values() for word in probes if "=" in word]
    cfg = parse([f"probe={','.join(own)}", *settings])
    assert list(cfg.noise.unknown) == [9, 2, 1]
    assert list(cfg.decision.confusions) == ["9-0", "4-9"]


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
