"""Shell completion: what TAB offers, in Python and in a real bash, and how fast the answer can be."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser

from bench.commands import COMMANDS, completion, words
from bench.commands.run import REFUSED
from bench.errors import BenchError
from bench.registry import MODELS

ROOT = Path(__file__).parents[2]
Offered = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the index in it."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    words.index()
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before
    return folder


@pytest.fixture
def offered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Offered:
    """What could follow a line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return completion.complete


@pytest.mark.parametrize(
    ("line", "ways"),
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
        ("bench run model=cnn model.", ["model.channels=", "model.depth=", "model.pool="]),
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
            [
                "experiment=suite/digits ",
                "experiment=suite/methods ",
                "experiment=suite/mnist ",
                "experiment=suite/precision ",
                "experiment=suite/small ",
            ],
        ),
        ("bench submit --a", ["--all "]),
        ("bench eval --a", ["--all "]),
        ("bench eval x probe=noise,corr", ["probe=noise,corruptions "]),
        ("bench eval x noise.le", ["noise.level="]),
        ("bench eval x noise.level=", ["noise.level=training ", "noise.level=dark "]),
        ("bench sync ", ["--runs "]),
        ("bench completion ", ["bash ", "zsh ", "fish "]),
        ("bench completion bash ", []),
        ("bench list regs ", ["--json ", "--markdown ", "--into "]),
        ("bench list --i", ["--into "]),
        ("bench list --json --", ["--help ", "--markdown ", "--into "]),
        ("bench data prepare --root x cifar1", ["cifar10 ", "cifar100 "]),
        ("bench data status cifar1", []),
        ("bench run --cfg=j", ["--cfg=job "]),
        ("bench report --into ", []),
        ("bench report nandan2022/table4_1 budget=c", ["budget=cpu "]),
        (
            "bench dashboard suite/",
            ["suite/digits ", "suite/methods ", "suite/mnist ", "suite/precision ", "suite/small "],
        ),
        ("bench dashboard suite/mnist bu", ["budget="]),
        ("bench dashboard suite/mnist budget=cpu,sm", ["budget=cpu,smoke "]),
        ("bench dashboard seed", []),
        ("bench reproduce --", ["--help ", "--out ", "--dirty "]),
        ("bench nonsense ", []),
    ],
)
def test_a_line_can_go_on_with(offered: Offered, line: str, ways: list[str]) -> None:
    assert sorted(offered(line)) == sorted(ways)


def accepted(parser: argparse.ArgumentParser, typed: list[str]) -> bool:
    """Whether a parser takes some words; where it takes them to print something, it does."""
    try:
        parser.parse_intermixed_args(typed)
    except BenchError:
        return False
    except SystemExit as done:
        return done.code == 0
    return True


@pytest.mark.parametrize("name", COMMANDS)
def test_all_options_are_offered_and_nothing_that_the_parser_refuses(offered: Offered, name: str) -> None:
    """After nothing, after each option with its value, and after each of the first and the last word offered."""
    parser = COMMANDS[name].load().parser()
    options = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    flags = {flag: action for action in options for flag in action.option_strings}
    assert {word.strip() for word in offered(f"bench {name} -")} == set(flags)

    def valued(flag: str) -> list[str]:
        action = flags[flag]
        return [flag] if action.nargs == 0 else [flag, next(iter(action.choices or ["x"]))]

    free = [word.strip() for word in offered(f"bench {name} ") if not word.startswith("-")]
    starts = [[], *(valued(flag) for flag in flags), *([word] for word in (*free[:1], *free[-1:]))]
    for start in starts:
        for beginning in ("", "-"):
            for word in offered(" ".join(["bench", name, *start, beginning])):
                typed = [*start, *(valued(word.strip()) if word.strip() in flags else [word.strip()])]
                assert accepted(parser, typed), typed
    for flag, action in flags.items():
        if action.nargs != 0:
            choices = [f"{choice} " for choice in action.choices or []]
            assert offered(f"bench {name} {flag} ") == choices, "a file's name is the shell's to complete"
            assert offered(f"bench {name} {flag}=") == [f"{flag}={choice}" for choice in choices]


def test_the_flags_of_run_are_those_of_hydras_that_it_takes() -> None:
    """`bench run` has a list of its own, since Hydra takes longer to import than TAB may take."""

    def described(parser: argparse.ArgumentParser) -> dict[str, tuple[list[str], bool, Any]]:
        return {a.dest: (sorted(a.option_strings), a.nargs == 0, a.choices) for a in parser._actions}

    hydras = {dest: flag for dest, flag in described(get_args_parser()).items() if dest not in REFUSED}
    assert described(COMMANDS["run"].load().parser()) == hydras


@pytest.mark.parametrize("flag", ["--config-path", "--config-name", "--experimental-rerun"])
def test_flags_that_run_refuses_are_not_offered(offered: Offered, flag: str) -> None:
    with pytest.raises(BenchError, match=f"^{flag} is not taken"):
        COMMANDS["run"].load().main([flag, "x"])
    assert offered(f"bench run {flag[:-1]}") == []


def test_the_settings_of_eval_and_speed_are_those_of_their_help(offered: Offered) -> None:
    keys = {word for word in offered("bench eval ") if word.endswith("=")}
    assert keys == {"probe=", "force=", "seed=", "bake=", "root=", "path=", "accelerator=", "ops="}
    assert offered("bench eval bake=") == ["bake=true ", "bake=false "]
    assert offered("bench eval force=true,") == [], "one value: only probe= takes several"
    own = {"batch_size=", "peers=", "rounds=", "seconds=", "steps=", "reg=", "startup "}
    assert own <= set(offered("bench speed "))
    assert offered("bench speed peers=n") == ["peers=none ", "peers=norse "]


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
    monkeypatch.setattr(words, "build", lambda: {"groups": {"built": built.append(1)}})
    built: list[int] = []
    words.index()
    words.index()
    assert len(built) == 1
    monkeypatch.setattr(words, "fingerprint", lambda package: "another")
    words.index()
    assert len(built) == 2
    (stored,) = tmp_path.glob("snn-bench/*.json")
    assert json.loads(stored.read_text())["fingerprint"] == "another"
    stored.write_text(stored.read_text()[:10])
    words.index()
    words.index()
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
            seen.add(words.fingerprint(package))
    assert len(seen) == 6


def test_without_a_writable_cache_it_still_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(words, "build", lambda: {"groups": {"model": ["sew"]}})
    assert completion.complete("bench run model=") == ["model=sew "]


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


def test_without_a_shell_it_says_which_there_are() -> None:
    with pytest.raises(BenchError, match=r"^for which shell\? There are: bash, fish, zsh\.$"):
        completion.main([])
