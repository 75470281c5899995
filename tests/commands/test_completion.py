"""Shell completion: what TAB offers, in Python and in a real bash, and how fast the answer can be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.__main__ import COMMANDS
from bench.commands import completion
from bench.registry import MODELS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the index in it."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    completion.index()
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before
    return folder


@pytest.fixture
def offered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What could follow a line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return lambda line: completion.complete(line, COMMANDS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bench ", [f"{command} " for command in COMMANDS]),
        ("bench l", ["list "]),
        ("bench run mod", ["model.", "model="]),
        ("bench run model=c", ["model=cnn ", "model=convmixer "]),
        ("bench run -m model=cnn,", [f"model=cnn,{name} " for name in MODELS.names() if name != "cnn"]),
        ("bench run reg=[spikepen,weight", ["reg=[spikepen,weight_decay", "reg=[spikepen,weightnorm"]),
        ("bench run reg=[spikepen,spike", []),
        ("bench run trainer.epo", ["trainer.epochs="]),
        ("bench run optim.schedule=", ["optim.schedule=cosine ", "optim.schedule=constant "]),
        ("bench run force=t", ["force=true "]),
        ("bench run model=cnn model.", ["model.channels=", "model.depth="]),
        ("bench run model.cnf=I", ["model.cnf=IAND "]),
        ("bench run reg=spikepen reg.", ["reg.spikepen."]),
        ("bench run reg.spikepen.w", ["reg.spikepen.weight="]),
        ("bench run reg.spikepen.scale=", ["reg.spikepen.scale=literal ", "reg.spikepen.scale=matched "]),
        ("bench run --cfg ", ["job ", "hydra ", "all "]),
        ("bench run --mu", ["--multirun "]),
        ("bench list re", ["regs "]),
        ("bench data ", ["status ", "prepare ", "--json ", "--root "]),
        ("bench data prepare cifar100 cif", ["cifar10 "]),
        ("bench speed peers=spikingjelly_eager,n", ["peers=spikingjelly_eager,norse "]),
        ("bench speed ro", ["rounds="]),
        ("bench speed model=c", ["model=cnn ", "model=convmixer "]),
        ("bench speed --j", ["--json "]),
        ("bench reproduce nandan2022/table4", ["nandan2022/table4_1 ", "nandan2022/table4_2 "]),
        ("bench reproduce nandan2022/table4_1 budget=c", ["budget=cpu "]),
        (
            "bench run experiment=suite/",
            ["experiment=suite/digits ", "experiment=suite/mnist ", "experiment=suite/precision "],
        ),
        ("bench submit --a", ["--all "]),
        ("bench eval --a", ["--all "]),
        ("bench eval x probe=noise,corr", ["probe=noise,corruptions "]),
        ("bench eval x noise.le", ["noise.level="]),
        ("bench eval x noise.level=", ["noise.level=training ", "noise.level=dark "]),
        ("bench sync ", ["--runs "]),
        ("bench completion ", ["bash ", "zsh ", "fish "]),
        ("bench completion bash ", []),
        ("bench nonsense ", []),
    ],
)
def test_a_line_can_go_on_with(offered: Callable[[str], list[str]], line: str, words: list[str]) -> None:
    assert sorted(offered(line)) == sorted(words)


def test_answering_imports_nothing_slow(cache: Path) -> None:
    code = (
        "import sys; from bench.__main__ import main; main(['completion', '--query', 'bench run model='])\n"
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'yaml', 'numpy') if m in sys.modules])"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [*(f"model={name} " for name in MODELS.names()), "[]"]


def test_the_index_is_built_anew_when_a_file_changed_or_it_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(completion, "build", lambda: {"groups": {"built": built.append(1)}})
    built: list[int] = []
    completion.index()
    completion.index()
    assert len(built) == 1
    monkeypatch.setattr(completion, "fingerprint", lambda package: "another")
    completion.index()
    assert len(built) == 2
    (stored,) = tmp_path.glob("snn-bench/*.json")
    assert json.loads(stored.read_text())["fingerprint"] == "another"
    stored.write_text(stored.read_text()[:10])
    completion.index()
    completion.index()
    assert len(built) == 3


def test_the_fingerprint_follows_files_and_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "bench"
    package.mkdir()
    (tmp_path / "configs" / "data").mkdir(parents=True)
    module, plugin = package / "a.py", tmp_path / "plugin.py"
    seen = set()
    for path in (module, tmp_path / "configs" / "data" / "x.yaml", plugin):
        path.touch()
        if path is plugin:
            monkeypatch.setenv("BENCH_PLUGINS", str(plugin))
        for moment in (1_000, 2_000):
            os.utime(path, (moment, moment))
            seen.add(completion.fingerprint(package))
    assert len(seen) == 6


def test_without_a_writable_cache_it_still_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(completion, "build", lambda: {"groups": {"model": ["sew"]}})
    assert completion.complete("bench run model=", COMMANDS) == ["model=sew "]


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("bench li", ["list "]),
        # Readline replaces what follows the '=', so that is what it must be given.
        ("bench run model=c", ["cnn ", "convmixer "]),
        ("bench run reg=[spikepen,weight", ["[spikepen,weight_decay", "[spikepen,weightnorm"]),
        ("bench run reg.spikepen.sc", ["reg.spikepen.scale="]),
    ],
)
def test_bash_completes(cache: Path, tmp_path: Path, line: str, replies: list[str]) -> None:
    bash = shutil.which("bash")
    assert bash
    program = tmp_path / "bench"
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m bench "$@"\n')
    program.chmod(0o755)
    # As readline does it: words are broken at '=', the cursor is at the end.
    script = f"""
        eval "$(bench completion bash)"
        COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=(bench)
        $(complete -p bench | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "--norc", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == replies
