"""Plugins: whose name it is, which module their file becomes, what is said of one that cannot be used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from bench.report.collect import collect
from tests.conftest import ROOT, TINY

Bench = Callable[..., "subprocess.CompletedProcess[str]"]

PLUGIN = '''
"""A regularizer of a user."""
from enum import StrEnum
from pathlib import Path

from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer


class Way(StrEnum):
    up = "up"
    down = "down"


@REGULARIZERS.register("NAME")
class Mine(Regularizer):
    """Mine: scales the first layer's spikes.

    Source: me (2024), eq. 1.
    """

    strength = "pull"

    def __init__(self, pull: float = 0.5, way: Way = Way.up) -> None:
        super().__init__()
        self.pull, self.way = pull, way

    def penalty(self, activity):
        return {"mine": 1.0 * self.pull * next(iter(activity.values())).spikes.float().mean()}
'''


def write(file: Path, name: str = "mine", change: tuple[str, str] = ("", "")) -> Path:
    """A plugin's file that registers `name`, with some text replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = PLUGIN.replace("NAME", name)
    assert change[0] in text
    file.write_text(text.replace(*change) if change[0] else text)
    return file


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command ended with."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def python(code: str, env: Mapping[str, str], cwd: Path) -> str:
    """What some code prints in a process of its own."""
    full = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=full, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- whose name it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["", "import bench.regularizers.dropout, bench.models.cnn\n"])
@pytest.mark.parametrize("way", ["file", "module", "entry point"])
@pytest.mark.parametrize(
    ("original", "known"),
    [
        (
            "regularizers/dropout.py",
            "regularizer 'dropout' is already registered by bench.regularizers.dropout.Dropout",
        ),
        ("models/cnn.py", "model 'cnn' is already registered by bench.models.cnn.CNN"),
    ],
)
def test_a_copy_with_its_name_kept_is_refused(original: str, known: str, way: str, first: str, tmp_path: Path) -> None:
    """Whoever is imported first, and however the copy comes."""
    text = (ROOT / "bench" / original).read_text()
    copy = tmp_path / "changed.py"
    # Behind the docstring and the import from the future, which must come first.
    copy.write_text(text.replace("from bench.registry", f"{first}from bench.registry", 1))
    env = {"file": {"BENCH_PLUGINS": str(copy)}, "module": {"BENCH_PLUGINS": "changed"}, "entry point": {}}[way]
    if way == "entry point":
        info = tmp_path / "mine-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[bench.plugins]\nmine = changed\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{first}"
    code += "from bench.__main__ import main\nsys.stderr = sys.stdout\nprint(main(['list', 'regs']))"
    module = "bench_plugins.changed" if way == "file" else "changed"
    cls = known.rpartition(".")[2]
    expected = f"error: {known}; give {module}.{cls} ({copy}) another name in `register`\n2\n"
    assert python(code, env, tmp_path) == expected


def test_two_plugins_with_one_name_are_refused(bench: Bench, tmp_path: Path) -> None:
    """Of one stem and one class, too: their modules differ."""
    one, two = write(tmp_path / "a" / "reg.py"), write(tmp_path / "b" / "reg.py")
    assert refusal(bench("list", "regs", env={"BENCH_PLUGINS": f"{one},{two}"})) == (
        f"error: regularizer 'mine' is already registered by bench_plugins.reg.Mine ({one}); "
        f"give bench_plugins.reg_2.Mine ({two}) another name in `register`"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('@REGULARIZERS.register("mine")', '@REGULARIZERS.register("m")\n@REGULARIZERS.register("mine")'),
         "is registered as 'mine' already; a class has one name"),
        (('"mine")\nclass', '"mine+none")\nclass'), "a name is a letter, then letters, digits or _"),
        (('"mine")\nclass', '"mine")\ndef mine(): ...\n\nclass'), "which is no class"),
    ],
)  # fmt: skip
def test_names_that_tell_nothing_apart_are_refused(
    change: tuple[str, str], said: str, bench: Bench, tmp_path: Path
) -> None:
    plugin = write(tmp_path / "reg.py", change=change)
    assert said in refusal(bench("list", "regs", env={"BENCH_PLUGINS": str(plugin)}))


# -- a module of its own ------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["copy", "random", "types", "statistics", "lightning", "torch", "my-reg"])
def test_a_file_takes_no_other_modules_name(stem: str, bench: Bench, tmp_path: Path) -> None:
    plugin = write(tmp_path / "plugins" / f"{stem}.py")
    env = {"BENCH_PLUGINS": str(plugin)}
    done = bench("run", *TINY, "reg=mine", "--cfg", "job", "-p", "reg", env=env)
    assert done.returncode == 0, done.stderr
    module = f"bench_plugins.{stem.replace('-', '_')}"
    assert yaml.safe_load(done.stdout)["mine"]["_target_"] == f"{module}.Mine"
    code = (
        f"import sys; from bench.registry import load_plugins; load_plugins(); print(sys.modules[{module!r}].__file__)"
    )
    assert python(code, env, tmp_path) == f"{plugin}\n"
    if stem != "my-reg":
        code = f"from bench.registry import load_plugins; load_plugins(); import {stem}; print({stem}.__file__)"
        assert str(tmp_path) not in python(code, env, tmp_path)


def test_files_of_one_stem_and_a_list_with_spaces(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path / "a" / "reg.py", "mine"), write(tmp_path / "b" / "reg.py", "other")
    words = f" {tmp_path}/a/reg.py , {tmp_path}/b/reg.py,, {tmp_path}/b/../a/reg.py "
    done = bench("run", *TINY, "reg=[mine,other]", "--cfg", "job", "-p", "reg", env={"BENCH_PLUGINS": words})
    assert done.returncode == 0, done.stderr
    targets = {name: node["_target_"] for name, node in yaml.safe_load(done.stdout).items()}
    assert targets == {"mine": "bench_plugins.reg.Mine", "other": "bench_plugins.reg_2.Mine"}


def test_a_run_that_is_sent_finds_the_plugin_in_another_folder(tmp_path: Path) -> None:
    """As Ray and Slurm send it: by cloudpickle, to a process that has not asked for a name, in a folder of its own."""
    pytest.importorskip("cloudpickle")
    write(tmp_path / "here" / "copy.py")
    (tmp_path / "there").mkdir()
    send = f"""
import cloudpickle, os, pathlib
from bench.config.compose import compose
from hydra_plugins._bench_job import SentJob
cfg = compose(["reg=mine", "reg.mine.way=down", "data.root={tmp_path}"])
pathlib.Path({str(tmp_path / "job.pkl")!r}).write_bytes(cloudpickle.dumps(SentJob("1/1", cfg, None, None, {{}})))
print(os.environ["BENCH_PLUGINS"])
"""
    (tmp_path / "elsewhere").mkdir()
    named = python(send, {"BENCH_PLUGINS": "../here/copy.py"}, tmp_path / "elsewhere").strip()
    assert named == str(tmp_path / "here" / "copy.py")
    receive = f"""
import pickle
job = pickle.load(open({str(tmp_path / "job.pkl")!r}, "rb"))
from bench.config.component import build
from bench.registry import REGULARIZERS
mine = build(REGULARIZERS, job.config.reg.mine)
print(type(mine).__module__, repr(mine.way), type(mine).__init__.__globals__["Way"].down is mine.way)
"""
    told = python(receive, {"BENCH_PLUGINS": named}, tmp_path / "there")
    assert told == "bench_plugins.copy <Way.down: 'down'> True\n"


# -- the run's identity and record --------------------------------------------------------------------


def test_the_hash_is_of_the_code_that_was_imported(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py")
    imported = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    code = """
from pathlib import Path
from bench.registry import REGULARIZERS
REGULARIZERS.get("mine")
Path("mine.py").write_text("# edited while the run goes on")
print(REGULARIZERS.declaration("mine").sha256)
"""
    assert python(code, {"BENCH_PLUGINS": str(file)}, tmp_path).strip() == imported


def test_a_changed_plugin_is_another_run_and_its_code_is_in_the_record(bench: Bench, tmp_path: Path) -> None:
    """The same length and the same second: no cached bytecode of the first runs in place of the second."""
    plugin = write(tmp_path / "mine.py")
    env = {"BENCH_PLUGINS": str(plugin)}
    hashes, ids = [], []
    for text in ("1.0 *", "9e3 *"):
        plugin.write_text(plugin.read_text().replace("1.0 *", text))
        hashes.append(hashlib.sha256(plugin.read_bytes()).hexdigest()[:12])
        done = bench("run", *TINY, "reg=mine", env=env)
        assert done.returncode == 0, done.stderr
        (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.name not in ids]
        ids.append(folder.name)
        written = json.loads((folder / "env.json").read_text())
        assert written["plugins"] == {"mine": {"file": "mine.py", "sha256": hashes[-1]}}
        assert written["dirty"] is True
        assert "mine.py" in written["uncommitted"]
        assert str(tmp_path) not in (folder / "env.json").read_text()
    losses = [json.loads((tmp_path / "runs" / run / "result.json").read_text())["train"]["loss"] for run in ids]
    assert losses[1] != losses[0]
    assert "is finished" in bench("run", *TINY, "reg=mine", env=env).stdout
    refused = bench("submit", ids[1], "--into", str(tmp_path / "records"))
    commit = "the code of the plugin 'mine' (mine.py) is in no commit: put it into bench/regularizers/, commit"
    if json.loads((tmp_path / "runs" / ids[1] / "result.json").read_text())["commit"] is not None:
        assert f"{ids[1]}: {commit}, and run it again" in refused.stderr
    (left_out, *_) = {reason for _, reason in collect([tmp_path / "runs"]).left_out}
    assert left_out == (
        "from a dirty commit: the code of the plugin 'mine' (mine.py) is in no commit (--dirty takes it in)"
    )
    assert len(collect([tmp_path / "runs"], dirty=True).records) == 2
    # As a run of an earlier form names it, and as one that was run beside another file of the stem.
    config = tmp_path / "runs" / ids[1] / "config.yaml"
    for target in ("mine.Mine", "bench_plugins.mine_2.Mine"):
        content = yaml.safe_load(config.read_text())
        content["reg"]["mine"]["_target_"] = target
        config.write_text(yaml.safe_dump(content))
        read = f"from bench.config.compose import *; print(*settle(read_config(Path({str(config)!r}))).reg)"
        assert python(read, env, tmp_path) == "mine\n"
    said = refusal(bench("eval", ids[1], "probe=noise"))
    assert said.startswith("error: ")
    assert said.removeprefix("error: ").split(": ", 1)[0].endswith(f"{ids[1]}/config.yaml")
    assert said.split("config.yaml: ")[1] == (
        "_target_ is 'bench_plugins.mine_2.Mine', which is no registered regularizer: it is of no module of "
        "the suite's, so $BENCH_PLUGINS must name the plugin's file or module"
    )


# -- plugins that cannot be used ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\n\nsys.exit()\n", "it calls sys.exit(None) ({file}, line 3)"),
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax ({file}, line 2)"),
        ("import json\ndef f():\n    json.loads('')\nf()\n",
         "JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({file}, line 3)"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two ({file}, line 1)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_module", [False, True])
def test_a_plugin_that_fails_is_one_line_with_its_place(
    text: str, said: str, as_module: bool, bench: Bench, tmp_path: Path
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(text)
    word = "broken" if as_module else str(plugin)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    line = refusal(bench("list", "regs", env={"BENCH_PLUGINS": word, "PYTHONPATH": path}))
    assert line == (f"error: plugin '{word}' of $BENCH_PLUGINS could not be imported: {said.format(file=plugin)}")


def test_what_could_not_be_loaded_is_said_again() -> None:
    """A process that goes on after the fault does not go on without the plugin."""
    code = """
from bench.errors import BenchError
from bench.registry import REGULARIZERS
for _ in range(2):
    try:
        REGULARIZERS.names()
    except BenchError as error:
        print("refused")
"""
    assert python(code, {"BENCH_PLUGINS": "no_such_module"}, ROOT) == "refused\nrefused\n"


@pytest.mark.parametrize("word", ["folder", "./folder/", "absent.py", "folder/absent.py", "folder/no_suffix"])
def test_a_path_that_is_no_file_of_python_s_is_one_line(word: str, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = f"{tmp_path}/{word}"
    said = f"error: plugin '{Path(path)}' of $BENCH_PLUGINS is no Python file"
    assert refusal(bench("list", "regs", env={"BENCH_PLUGINS": path})) == said


@pytest.mark.parametrize("words", ["", ",", " , ,"])
def test_no_plugin_at_all_is_no_fault(words: str, bench: Bench) -> None:
    done = bench("list", "probes", "--json", env={"BENCH_PLUGINS": words})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Path = Path('x')", "has an argument that cannot be checked (pull=PosixPath('x')); its type may be int,"),
        ("list[Path] | None = None", "has an argument that cannot be checked (pull=None); its type may be int,"),
        ("bytes = b''", "has an argument that cannot be checked (pull=b''); its type may be int,"),
        ("'Nowhere' = 0", "cannot be read: NameError: name 'Nowhere' is not defined"),
        ("dict[str, int] = frozenset", "has an argument that cannot be checked ("),
    ],
)
def test_an_argument_that_no_record_can_hold_is_one_line(kind: str, said: str, bench: Bench, tmp_path: Path) -> None:
    plugin = write(tmp_path / "mine.py", change=("float = 0.5", kind))
    line = refusal(bench("run", *TINY, "reg=mine", env={"BENCH_PLUGINS": str(plugin)}))
    assert said in line
    assert "mine" in line.lower()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0.5", "its penalty returns a float"),
        ("next(iter(activity.values())).spikes.float().mean()", "its penalty returns a tensor [] of float32"),
        ("None", "its penalty returns None"),
        ('{"mine": 0.5}', "its penalty's 'mine' is a float"),
        (
            '{"mine": next(iter(activity.values())).spikes.float().mean().repeat(3)}',
            "its penalty's 'mine' is of shape [3]",
        ),
    ],
)
def test_a_penalty_that_is_no_dict_of_scalars_is_one_line(given: str, said: str, bench: Bench, tmp_path: Path) -> None:
    line = PLUGIN.splitlines()[-1]
    plugin = write(tmp_path / "mine.py", change=(line.split("return ")[1], given))
    done = bench("run", *TINY, "reg=mine", env={"BENCH_PLUGINS": str(plugin)})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: regularizer 'mine': {said}, it must return {{name: scalar}}, of tensors"
    )
    assert "Traceback" not in done.stderr
