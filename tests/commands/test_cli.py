"""The command line: every mistake is one line that names the right thing, and nothing is left behind."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bench.commands import COMMANDS
from bench.config.options import groups

ROOT = Path(__file__).parents[2]
Cli = Callable[..., tuple[int, str, str]]

# What was typed, and what the one line must say.
MISTAKES = [
    ("model=swe", "no model is called 'swe'. Did you mean 'sew'? There are: cnn, convmixer, diehl_cook, diet, mlp, "),
    ("reg=spikpen", "no regularizer is called 'spikpen'. Did you mean 'spikepen'? There are: "),
    ("reg=[weight_decay,spikpen]", "no regularizer is called 'spikpen'. Did you mean 'spikepen'?"),
    ("data=cifar", "no data set is called 'cifar'. Did you mean 'cifar10' or 'cifar100'?"),
    ("neuron=lfi", "no neuron is called 'lfi'"),
    ("optim=sdg", "no optimizer is called 'sdg'. Did you mean 'sgd'?"),
    ("budget=qiuck", "no budget is called 'qiuck'. Did you mean 'quick'?"),
    ("recipe=quick_die", "no recipe is called 'quick_die'. Did you mean 'quick_diet'"),
    ("experiment=nowhere/table1", "no experiment is called 'nowhere/table1'."),
    ("hydra/launcher=basci", "no launcher is called 'basci'. Did you mean 'basic'?"),
    ("modell=cnn", "no setting is called 'modell'. Did you mean 'model'?"),
    ("seeed=1", "no setting is called 'seeed'. Did you mean 'seed' or 'init_seed'?"),
    ("trainer.epoch=1", "trainer has no setting 'epoch'. Did you mean 'epochs'?"),
    ("model.chanels=1", "model has no setting 'chanels'. Did you mean 'channels'?"),
    ("data.limt=1", "data has no setting 'limt'. Did you mean 'limit'"),
    ("reg=spikepen reg.spikepen.wieght=1", "reg.spikepen has no setting 'wieght'. Did you mean 'weight'?"),
    (
        "reg=spikepen reg.dropout.p=0.1",
        "'dropout' is not among the chosen regularizers (spikepen); choose it with reg=[spikepen,dropout]",
    ),
    ("reg.dropout.p=0.1", "'dropout' is not among the chosen regularizers (none); choose it with reg=[dropout]"),
    ("reg.dorpout.p=0.1", "no regularizer is called 'dorpout'. Did you mean 'dropout'"),
    ("reg.none.p=0.1", "reg.none has no setting 'p'. It has none."),
    ("seed=abc", "seed is 'abc', it must be a whole number"),
    ("seed=1.5", "seed is 1.5, it must be a whole number"),
    ("seed=null", "seed is null, it must be a whole number"),
    ("force=maybe", "force is 'maybe', it must be true or false"),
    ("optim.lr=fast", "optim.lr is 'fast', it must be a number"),
    ("optim.clip=x", "optim.clip is 'x', it must be a number or null"),
    ("optim.betas=0.9", "optim.betas is 0.9, it must be a list"),
    ("optim.betas=[0.9,x]", "optim.betas[1] is 'x', it must be a number"),
    ("reg=spikepen reg.spikepen.weight=abc", "reg.spikepen.weight is 'abc', it must be a number"),
    ("reg=spikepen reg.spikepen=3", "reg.spikepen is 3, but it holds settings"),
    ("trainer=3", "trainer is 3, but it holds settings"),
    ("model.cnf=ADDD", "model.cnf is 'ADDD', which is no choice. Did you mean 'ADD'"),
    ("trainer.precision=fp16", "trainer.precision is 'fp16', which is no choice. Did you mean"),
    ("logger.mode=offlin", "logger.mode is 'offlin', which is no choice. Did you mean 'offline'"),
    ("model=3", "model is 3, it must be a name. There are: cnn, convmixer, diehl_cook, diet, mlp, sew, srm."),
    ("model=[cnn,sew]", "only reg and logger take a list; to run each, write model=cnn,sew -m"),
    ("reg=[spikepen,spikepen]", "names 'spikepen' twice"),
    ("reg=none,spikepen", "add -m to start them all, or write reg=[none,spikepen] to use them together"),
    ("seed=0,1", "seed=0,1 are several runs: add -m"),
    ("seed=range(3)", "seed=range(3) are several runs: add -m"),
    ("lr=0.1", "no setting is called 'lr'. Did you mean 'optim.lr=0.1'?\n"),
    (
        "epochs=3",
        "epochs is 3, it must be a name. Did you mean 'trainer.epochs=3'? There are: lean_cifar10, "
        "lean_fashion_mnist, lean_mnist, quick_digits.\n",
    ),
    ("size=32", "size is 32, it must be a name. Did you mean 'data.size=32'? There are: full, small.\n"),
    ("batch_size=32", "Did you mean 'trainer.batch_size=32'?\n"),
    ("batchsize=32", "Did you mean 'trainer.batch_size=32'?\n"),
    ("weight_decay=0.1", "Did you mean 'reg=weight_decay reg.weight_decay.weight=0.1'?\n"),
    ("dropout=0.1", "Did you mean 'reg=dropout reg.dropout.p=0.1'?\n"),
    ("reg=spikepen dropout=0.1", "Did you mean 'reg=[spikepen,dropout] reg.dropout.p=0.1'?\n"),
    ("reg=dropout dropout=0.1", "Did you mean 'reg.dropout.p=0.1'?\n"),
    ("k_p=0.5", "Did you mean 'reg=uselose reg.uselose.k_p=0.5'?\n"),
    ("channels=16", "Did you mean 'model.channels=16'?\n"),
    ("width=16", "Did you mean 'model=convmixer model.width=16'?\n"),
    ("T=4", "Did you mean 'time_steps=4'?\n"),
    ("optimizer=adamw", "Did you mean 'optim=adamw'?\n"),
    ("optimizer.lr=0.1", "Did you mean 'optim.lr=0.1'?\n"),
    ("dataset=mnist", "Did you mean 'data=mnist'?\n"),
    ("regularizer=spikepen", "Did you mean 'reg=spikepen'?\n"),
    ("gpu=1", "Did you mean 'trainer.accelerator=gpu'?\n"),
    ("trainer.lr=1", "trainer has no setting 'lr'. Did you mean 'optim.lr=1'? There are: accelerator, "),
    ("-m lr=0.1,0.2", "no setting is called 'lr'. Did you mean 'optim.lr=0.1'?\n"),
    ("data.path=/a=b", "cannot read 'data.path=/a=b': its value needs quotes, in a shell 'data.path=\"/a=b\"'\n"),
    ("data.classes=[é,1]", "its value needs quotes, in a shell 'data.classes=[\"é\",1]'\n"),
    ("-m runs=~/a,b", "its value needs quotes, in a shell 'runs=\"~/a\",b'\n"),
    ("runs='a~b", "cannot read 'runs='a~b': a ' has no partner"),
    ("seed==1", "cannot read 'seed==1': write seed=1\n"),
    ("op!tim=1", "cannot read 'op!tim=1': 'op!tim' can be no setting's name"),
    ("-m seed=range(3", "cannot read 'seed=range(3': a '(' or ')' has no partner"),
    ("--config-name=foo", "--config-name is not taken: runs start from configs/config.yaml"),
    ("--config-path foo", "--config-path is not taken: runs start from configs/config.yaml"),
    ("--experimental-rerun foo", "--experimental-rerun is not taken: runs start from configs/config.yaml"),
    ("hydra.searchpath=[foo]", "the folder of your own files is named by --config-dir DIR"),
    ("sew", "cannot read 'sew': write model=sew"),
    ("digits", "cannot read 'digits': write data=digits"),
    ("whatever", "cannot read 'whatever': write key=value"),
    ("reg=[a", "cannot read 'reg=[a': a '[' or ']' has no partner"),
    ("+foo=1", "'+foo=1' would add or delete a setting"),
    ("++seed=1", "'++seed=1' would add or delete a setting"),
    ("~model", "'~model' would add or delete a setting"),
    ("model@other=cnn", "Could not override 'model@other'"),
    ("model._target_=os.system", "model._target_ is 'os.system', which is no registered model"),
    (
        "reg=spikepen reg.spikepen._target_=bench.regularizers.none.NoRegularizer",
        "reg.spikepen._target_ is 'bench.regularizers.none.NoRegularizer', which is not spikepen",
    ),
    ("seed=${nowhere}", "seed: Interpolation key 'nowhere' not found"),
    ("seed=${model.cnf}", "seed is 'ADD', it must be a whole number"),
    ("runs=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
    ("--cfgg job", "unrecognized arguments"),
    ("--cfg jobs", "invalid choice: 'jobs'"),
    ("-m --cfg job", "Only one of --run, --multirun, --cfg"),
    ("--config-dir nowhere", "nowhere' not found"),
    ("-m model=cnn,swe", "no model is called 'swe'. Did you mean 'sew'?"),
    ("-m seed=0,x", "seed is 'x', it must be a whole number"),
    ("-m model=[cnn,sew],cnn", "only reg and logger take a list"),
    ("-m reg=none,spikepen reg.spikepen.weight=0,1", "'spikepen' is not among the chosen regularizers (none)"),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_is_one_line(cli: Cli, asked: list[DictConfig], typed: str, said: str) -> None:
    status, out, err = cli("run", *typed.split())
    assert status == 2
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert not asked
    assert not os.listdir()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["rnu"],
            f"there is no command 'rnu'. Did you mean 'run' or 'runs'? There are: {', '.join(sorted(COMMANDS))}.",
        ),
        (["list", "reg"], "nothing called 'reg' can be listed. Did you mean 'regs'?"),
        (["list", "--jsn"], "unrecognized arguments: --jsn; `bench list --help` says more"),
        (["data", "stauts"], "bench data cannot 'stauts'. Did you mean 'status'?"),
        (["data", "prepare"], "prepare what? There are: cifar10,"),
        (["data", "prepare", "mnits"], "no data set is called 'mnits'. Did you mean"),
        (["completion", "bsh"], "no script for the shell 'bsh'. Did you mean 'bash'"),
    ],
)
def test_a_mistaken_command_is_one_line(cli: Cli, typed: list[str], said: str) -> None:
    status, out, err = cli(*typed)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize(
    "value", ["/a=b", "~/snn", "~", "/data/é", "a;b", "/a(b)", "a{b", 'a"~b', "it's~", "C:\\é\\", 'b\\"=', "a #b"]
)
def test_what_has_to_be_quoted_is_shown_as_a_shell_takes_it(cli: Cli, asked: list[DictConfig], value: str) -> None:
    status, _, err = cli("run", f"data.path={value}")
    assert status == 2
    typed = shlex.split(err.partition("in a shell ")[2])
    assert cli("run", *typed) == (0, "", "")
    assert asked[0].data.path == value


TABLE = """\
# @package _global_
# Mine
hydra: {mode: MULTIRUN}
experiment:
  budget: smoke
  baseline: plain
  seeds: [0]
  fixed: [model=cnn]
  rows:
    - {label: plain, overrides: [reg=none]}
    - {label: penalty, overrides: [reg=spikepen]}
"""


def test_own_files_are_found_in_the_folder_that_is_named(cli: Cli, asked: list[DictConfig]) -> None:
    for name, text in (("experiment/mine/table", TABLE), ("epochs/smoke_digits", "# @package trainer\nepochs: 7\n")):
        path = Path("my") / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    status, out, err = cli("run", "--config-dir", "my", "experiment=mine/table")
    assert (status, err) == (0, "")
    assert out.startswith("mine/table: 2 rows, 1 seed, 2 runs, 0 finished, 2 to do\n  budget=smoke: 7 epochs")
    assert [list(cfg.reg) for cfg in asked] == [["none"], ["spikepen"]]
    assert [cfg.trainer.epochs for cfg in asked] == [7, 7]
    # Named like an option of the suite: `epochs` is a group whose missing files Hydra passes over.
    assert cli("run", "--config-dir=my", "epochs=smoke_digits")[0] == 0
    assert "Did you mean 'mine/table'?" in cli("run", "--config-dir", "my", "experiment=mine/tabel")[2]
    for typed in (["run", "experiment=mine/table"], ["reproduce", "mine/table"], ["report", "mine/table"]):
        status, _, err = cli(*typed)
        assert (status, err.count("\n")) == (2, 1)
        if typed[0] != "report":
            assert err.endswith("`bench run --config-dir DIR` takes DIR/experiment/NAME.yaml, no other command does.\n")
    Path("my/experiment/mine/table.yaml").write_text(TABLE.replace("plain,", "plane,"))
    said = "error: my/experiment/mine/table.yaml: the baseline 'plain' is no row\n"
    assert cli("run", "--config-dir", "my", "experiment=mine/table") == (2, "", said)


def test_a_run_gets_its_settings_and_hydra_leaves_nothing(cli: Cli, asked: list[DictConfig]) -> None:
    assert cli("run", "model=cnn", "reg=spikepen", "seed=3") == (0, "", "")
    (cfg,) = asked
    assert (cfg.seed, list(cfg.reg), cfg.model.channels) == (3, ["spikepen"], 32)
    assert "hydra" not in cfg
    assert not os.listdir()
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_what_means_no_regularizer_arrives_as_none(cli: Cli, asked: list[DictConfig]) -> None:
    assert cli("run", "reg=[]")[0] == 0
    assert list(asked[0].reg) == ["none"]


@pytest.mark.parametrize(("seed", "status", "said"), [(7, 2, "seed 7 is bad input"), (8, 1, "the disk full")])
def test_a_fault_of_the_run_is_one_line(cli: Cli, seed: int, status: int, said: str) -> None:
    found, out, err = cli("run", f"seed={seed}")
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert err.startswith("error: ")
    assert said in err


def test_a_bug_shows_its_traceback(cli: Cli) -> None:
    status, _, err = cli("run", "seed=9")
    assert status == 1
    assert "Traceback" in err
    assert "RuntimeError: seed 9 met a bug" in err


def test_an_interrupted_run_exits_with_130(cli: Cli) -> None:
    status, _, err = cli("run", "seed=10")
    assert (status, err.count("\n")) == (130, 1)
    assert err.startswith("interrupted")


def test_the_configuration_can_be_shown(cli: Cli, asked: list[DictConfig]) -> None:
    status, out, _ = cli("run", "--cfg", "job", "reg=[weight_decay,spikepen]", "-p", "reg")
    assert status == 0
    assert "spikepen:\n  _target_: bench.regularizers.spikepen.SpikePenalty\n  weight: 0.1\n" in out
    # The flag may follow the overrides, and takes none of them for its value.
    status, out, _ = cli("run", "seed=5", "--cfg", "job")
    assert status == 0
    assert "\nseed: 5\n" in out
    assert not asked


def test_help_of_run_names_every_group(cli: Cli, asked: list[DictConfig]) -> None:
    status, out, _ = cli("run", "--help")
    assert status == 0
    assert out.startswith("usage: bench run")
    assert all(f"\n{group}: " in out for group in groups() if group != "experiment")
    assert cli("run", "--hydra-help")[0] == 0
    assert not asked


def test_version_and_help(cli: Cli) -> None:
    import bench as package

    assert cli("--version") == (0, f"snn-bench {package.__version__}\n", "")
    assert cli("run", "--version") == cli("--version")
    helps = [cli(*typed) for typed in ([], ["--help"], ["-h"])]
    assert len(set(helps)) == 1
    status, out, _ = helps[0]
    assert status == 0
    assert all(f"  {command} " in out for command in ("run", "list", "data", "completion"))


def test_help_imports_nothing_slow() -> None:
    """Neither the program's help, which needs no command at all, nor any command's parser."""
    code = (
        "import sys; from bench.__main__ import main; from bench.commands import COMMANDS; main(['--help'])\n"
        "print([m for m in sys.modules if m.startswith('bench.commands.')])\n"
        "assert all(command.load().parser().format_help() for command in COMMANDS.values())\n"
        "slow = ('torch', 'hydra', 'omegaconf', 'lightning', 'rich', 'numpy', 'yaml', 'wandb_workspaces')\n"
        "print([m for m in slow if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]


@pytest.mark.parametrize("typed", [["data"], ["data", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_fault(typed: list[str]) -> None:
    """A table and plain lines, into a pipe whose other end is closed."""
    command = [sys.executable, "-m", "bench", *typed]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


def test_the_module_exits_with_the_status() -> None:
    """The one test through the real entry point."""
    typed = [sys.executable, "-m", "bench", "run", "model=swe"]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    said = "no model is called 'swe'. Did you mean 'sew'? There are: cnn, convmixer, diehl_cook, diet, mlp, sew, srm."
    assert done.stderr == f"error: {said}\n"


RUN = ["run", "budget=smoke", "logger=none"]


@pytest.mark.parametrize(
    ("arguments", "place", "status", "said"),
    [
        (["--help"], "/dev/full", 1, True),
        (["list", "probes"], "/dev/full", 1, True),
        (RUN, "/dev/full", 1, True),
        (["--help"], "closed", 0, False),
        (["list", "probes"], "closed", 0, False),
        (["list", "probes"], "unread", 141, False),
        (RUN, "unread", 141, False),
        ([*RUN, "-m", "seed=0,1"], "unread", 141, False),
    ],
)
def test_output_that_nobody_takes_is_no_traceback(
    arguments: list[str], place: str, status: int, said: bool, tmp_path: Path, shared_data: Path
) -> None:
    """On a full disk, closed from the start, or with a reader that has gone."""
    to = {"/dev/full": ">/dev/full", "closed": ">&-", "unread": "| true"}[place]
    line = f"{shlex.join([sys.executable, '-m', 'bench', *arguments])} {to}; exit ${{PIPESTATUS[0]}}"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "BENCH_RUNS": str(tmp_path / "runs"), "BENCH_DATA": str(shared_data),
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", line], env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    full = "error: a file or the output could not be written: No space left on device"
    assert [full] * said == [line for line in done.stderr.splitlines() if line.startswith("error")]
