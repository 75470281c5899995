"""Records that go out and records that do not; W&B uploads."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.__main__ import main
from bench.commands.parsing import folders
from bench.commands.submit import FILES, PATH, strings, submit
from bench.commands.sync import sync
from bench.errors import BenchError, EnvironmentFault
from bench.records.provenance import NUMERICS
from bench.report.collect import collect

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """One real run, tiny, as if from a clean commit and of a budget that counts."""
    from bench.config.compose import compose
    from bench.training.run import run
    from tests.conftest import TINY

    runs = tmp_path_factory.mktemp("home") / "anna" / "runs"
    result = run(compose([*TINY, f"data.root={shared_data}", f"runs={runs}"]))
    path: Path = runs / result["run_id"]
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name in ("result.json", "env.json"):
        edit(path / name, lambda of: of.update(commit=commit))
    edit(path / "env.json", lambda of: of.update(dirty=False, uncommitted=[], plugins={}))
    return path


def edit(path: Path, change: Edit) -> None:
    """Change a JSON or YAML file."""
    is_json = path.suffix == ".json"
    content = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
    change(content)
    path.write_text(json.dumps(content) if is_json else yaml.safe_dump(content))


@pytest.fixture
def record(template: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(template, tmp_path / "runs" / template.name))


def test_a_record_goes_out_without_the_machines_folders(record: Path, tmp_path: Path, shared_data: Path) -> None:
    assert str(shared_data) in (record / "config.yaml").read_text()
    said: list[str] = []
    submit([record], tmp_path / "records", said.append)
    target = tmp_path / "records" / record.name
    assert said == [f"{record.name}: copied to {target}"]
    assert sorted(path.name for path in target.iterdir()) == sorted(FILES)
    for name in FILES:
        text = (target / name).read_text()
        # Every root that a path of this machine could have.
        for root in ("/home", "/tmp", "/work", "/root", "/usr", str(shared_data), str(tmp_path), str(Path.home())):
            assert root not in text, name
    config = yaml.safe_load((target / "config.yaml").read_text())
    assert "runs" not in config
    assert not {"root", "path"} & set(config["data"])
    assert config["data"]["name"] == "digits"
    for name in ("result.json", "env.json"):
        assert json.loads((target / name).read_text()) == json.loads((record / name).read_text())
    submit([record], tmp_path / "records", said.append)
    assert said[-1] == f"{record.name}: is there already"
    assert [path.name for path in (tmp_path / "records").iterdir()] == [record.name]


def test_another_record_of_the_same_run_becomes_a_replicate(record: Path, tmp_path: Path) -> None:
    records, said = tmp_path / "records", list[str]()
    submit([record], records, print)
    first = (records / record.name / "result.json").read_text()
    edit(record / "result.json", lambda of: of["test"].update(acc=99.0))
    submit([record], records, said.append)
    assert "a replicate, as" in said[-1]
    assert (records / record.name / "result.json").read_text() == first
    (beside,) = (records / record.name / "replicates").iterdir()
    assert json.loads((beside / "result.json").read_text())["test"]["acc"] == 99.0
    assert sorted(path.name for path in beside.iterdir()) == ["config.yaml", "env.json", "metrics.jsonl", "result.json"]
    submit([record], records, said.append)
    assert said[-1] == f"{record.name}: is there already"
    (found,) = collect([records]).records
    assert [other.number("test.acc") for other in found.replicates] == [99.0]


def test_a_record_of_later_numerics_takes_the_place(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    records, said = tmp_path / "records", list[str]()
    submit([record], records, print)
    edit(record / "result.json", lambda of: of.update(numerics=of["numerics"] + 1))
    # On a full disk the earlier one stays, whole.
    before = {path.name: path.read_bytes() for path in (records / record.name).iterdir()}
    with monkeypatch.context() as full:
        full.setattr("bench.commands.submit.write_atomic", no_room)
        with pytest.raises(BenchError, match="No space left"):
            submit([record], records, print)
    assert {path.name: path.read_bytes() for path in (records / record.name).iterdir()} == before
    submit([record], records, said.append)
    assert said[-1].endswith(f"in place of the record by numerics {NUMERICS}")
    assert json.loads((records / record.name / "result.json").read_text())["numerics"] == NUMERICS + 1
    assert not (records / record.name / "replicates").exists()
    edit(record / "result.json", lambda of: of.update(numerics=NUMERICS))
    submit([record], records, said.append)
    assert json.loads((records / record.name / "result.json").read_text())["numerics"] == NUMERICS + 1, (
        "an earlier one does not"
    )
    (records / record.name / "result.json").write_text("{")
    with pytest.raises(BenchError, match="another record of this run, which is damaged: remove it"):
        submit([record], records, print)


REFUSED: list[tuple[str, Edit, str]] = [
    ("result.json", lambda of: of.update(schema_version=7), "schema_version is 7, this suite reads 1 to 3"),
    ("result.json", lambda of: of.pop("gap"), "key 'gap' is missing"),
    ("result.json", lambda of: of.update(budget="smoke"), "budget=smoke only shows that a run works"),
    ("result.json", lambda of: of.update(budget="paper"), "budget is quick in config.yaml, paper in result.json"),
    ("result.json", lambda of: of["versions"].pop("torch"), "the version of torch is not in it"),
    ("result.json", lambda of: of.update(commit=None), "it names no commit"),
    ("result.json", lambda of: of.update(commit="f" * 40), "env.json and result.json name different commits"),
    ("result.json", lambda of: of.update(epochs=3), "metrics.jsonl has 2 epochs of 3"),
    ("result.json", lambda of: of.update(run_id="digits-cnn-none-s0-00000000"), "its folder is called"),
    ("env.json", lambda of: of.update(dirty=True), "tracked files differed from the commit 01234567"),
    (
        "env.json",
        lambda of: of.update(dirty=True, uncommitted=[f"bench/models/{name}.py" for name in "abcde"]),
        "the code in bench/models/a.py, bench/models/b.py, bench/models/c.py and 2 more is in no commit: commit, and",
    ),
    (
        "env.json",
        lambda of: of.update(
            dirty=True,
            uncommitted=["a.py", "b.py"],
            plugins={
                "none": {"file": "a.py", "sha256": "0" * 12},
                "cnn": {"file": "b.py", "sha256": "1" * 12},
                "digits": {"file": "c.py", "sha256": "2" * 12},
            },
        ),
        "the code of the plugin 'none' (a.py), 'cnn' (b.py) is in no commit: "
        "put it into bench/models/ and bench/regularizers/, commit, and run it again",
    ),
    ("env.json", lambda of: of.pop("dirty"), "tracked files differed from the commit 01234567"),
    ("env.json", lambda of: of.update(hardware="/home/anna/gpu"), "env.json: hardware holds a path of this machine"),
    ("config.yaml", lambda of: of.update(seed=5), "seed is 5 in config.yaml, 0 in result.json"),
    (
        "config.yaml",
        lambda of: of["logger"].update(project="C:\\Users\\anna"),
        "config.yaml: logger.project holds a path of this machine",
    ),
]


@pytest.mark.parametrize(("name", "change", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_a_record_that_nobody_could_trust_is_refused_in_a_line(
    record: Path, tmp_path: Path, name: str, change: Edit, said: str
) -> None:
    edit(record / name, change)
    with pytest.raises(BenchError) as caught:
        submit([record], tmp_path / "records", print)
    first, line = str(caught.value).splitlines()
    assert first == "1 of 1 records refused"
    assert line.startswith(f"  {record.name}: ")
    assert said in line
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_record_that_is_not_whole_is_refused(record: Path, tmp_path: Path, name: str) -> None:
    path = record / name
    # Three quarters end inside the second of two epochs' lines; a half may end between them.
    path.write_text(path.read_text()[: path.stat().st_size * 3 // 4] + ("\n{" if name.endswith("yaml") else ""))
    with pytest.raises(BenchError, match="damaged"):
        submit([record], tmp_path / "records", print)
    path.unlink()
    with pytest.raises(BenchError, match="not finished" if name == "result.json" else f"{name} is missing"):
        submit([record], tmp_path / "records", print)


def test_the_command_takes_all_and_copies_what_it_can(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = shutil.copytree(record, record.with_name("digits-cnn-none-s9-00000000"))
    (record.parent / "unfinished").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "--all", "--runs", "runs"]) == 2
    out, err = capsys.readouterr()
    assert out == f"{record.name}: copied to reports/records/{record.name}\n"
    assert err.splitlines()[0] == "error: 1 of 2 records refused"
    assert err.splitlines()[1].startswith(f"  {bad.name}: its folder is called")
    assert main(["submit", record.name]) == 0
    assert "is there already" in capsys.readouterr().out
    for typed, said in (
        (["submit"], "name the runs, or all of them with --all"),
        (["submit", "--all", "x"], "--all leaves no run to name"),
        (["submit", "nothing"], "no run 'nothing' in"),
        (["submit", "--all", "--runs", "reports"], "reports holds no finished run"),
        (["sync", "nothing"], "no run 'nothing' in"),
    ):
        assert main(typed) == 2
        assert said in capsys.readouterr().err


def test_what_is_a_path_of_a_machine() -> None:
    for text in ("/home/anna", "at ~/data", "x=/tmp", "C:\\data", "'/a'", "[/a/b]", "file:/x"):
        assert PATH.search(text), text
    for text in ("https://a.b/c", "img/s", "and / or", "2.11+cu130", "a/b/c", "10 / 20", ""):
        assert not PATH.search(text), text
    assert list(strings({"a": [{"b": "x"}, 1], "c": "y"})) == [
        ("a", "a"), ("a.0.b", "b"), ("a.0.b", "x"), ("c", "c"), ("c", "y"),
    ]  # fmt: skip


# -- W&B ----------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    """Two runs with an offline W&B run each, one of them uploaded before."""
    for name in ("a", "b"):
        run = tmp_path / "runs" / name / "wandb" / f"offline-run-1-{name}"
        run.mkdir(parents=True)
        (run / f"run-{name}.wandb").touch()
    (tmp_path / "runs" / "b" / "wandb" / "offline-run-1-b" / "run-b.wandb.synced").touch()
    return tmp_path / "runs"


def test_without_a_key_sync_says_how_to_get_one(offline: Path) -> None:
    with pytest.raises(BenchError, match=r"no W&B key for https://.*`wandb login` .* WANDB_API_KEY") as caught:
        sync([], offline, print)
    assert caught.value.code == 2
    with pytest.raises(BenchError, match="no offline W&B run in"):
        sync([], offline / "a", print)


def test_a_server_that_does_not_answer(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentFault, match="did not answer within 2 s"):
        sync(["a"], offline, print)


def test_what_waits_is_uploaded_and_failures_are_named(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def upload(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, len(calls) - 1, "", "line\nwandb: ERROR quota")

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("bench.training.logger.answers", lambda url: True)
    monkeypatch.setattr("bench.commands.sync.subprocess.run", upload)
    said: list[str] = []
    sync([], offline, said.append)
    assert said == ["1 to upload, 1 uploaded before", "a: uploaded"]
    assert calls == [[sys.executable, "-m", "wandb", "sync", str(offline / "a" / "wandb" / "offline-run-1-a")]]
    with pytest.raises(EnvironmentFault, match=r"1 of 1 uploads failed\n  a: wandb: ERROR quota"):
        sync(["a"], offline, said.append)
    sync(["b"], offline, said.append)
    assert said[-1] == "0 to upload, 1 uploaded before"
    assert folders(["a"], False, offline) == [(offline / "a").resolve()]


def with_probe(path: Path, **changes: Any) -> Path:
    """Put a probe beside a record, as `bench eval` does."""
    result = json.loads((path / "result.json").read_text())
    content = {
        "schema_version": 1, "probe": "noise", "run_id": result["run_id"], "run_finished": result["finished"],
        "settings": {}, "seed": 0, "baked": True, "headline": {"known": 1.5}, "rows": [], "commit": "0" * 40,
        "dirty": False, "notes": {},
    }  # fmt: skip
    (path / "probes").mkdir(exist_ok=True)
    (path / "probes" / "noise.json").write_text(json.dumps(content | changes))
    return path


def test_probes_go_with_the_record_or_follow_it(record: Path, tmp_path: Path) -> None:
    said: list[str] = []
    target = tmp_path / "records" / record.name
    submit([record], tmp_path / "records", said.append)
    with_probe(record)
    submit([record], tmp_path / "records", said.append)
    assert said[-1] == f"{record.name}: is there already; probes/noise.json joined it"
    assert json.loads((target / "probes" / "noise.json").read_text())["headline"] == {"known": 1.5}
    submit([record], tmp_path / "records", said.append)
    assert said[-1] == f"{record.name}: is there already"
    submit([record], tmp_path / "elsewhere", said.append)
    assert (tmp_path / "elsewhere" / record.name / "probes" / "noise.json").is_file()
    # Another measurement does not slip in.
    with_probe(record, headline={"known": 2.5})
    with pytest.raises(BenchError, match=r"has another probes/noise.json; which of them counts"):
        submit([record], tmp_path / "records", said.append)
    assert json.loads((target / "probes" / "noise.json").read_text())["headline"] == {"known": 1.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_finished": "1999-01-01T00:00:00+00:00"}, "was measured on an earlier training of the run"),
        ({"dirty": True}, "was not measured at a commit without changes"),
        ({"commit": None}, "was not measured at a commit without changes"),
        ({"run_id": "another"}, "is of the run another"),
        ({"notes": {"root": "/home/anna/data"}}, "probes/noise.json: notes.root holds a path of this machine"),
    ],
)
def test_probes_that_do_not_belong_are_refused(
    changes: dict[str, Any], message: str, record: Path, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=message):
        submit([with_probe(record, **changes)], tmp_path / "records", lambda line: None)
    assert not (tmp_path / "records" / record.name).exists()
