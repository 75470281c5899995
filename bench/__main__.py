"""The commands of `python -m bench`, a few lines each; each imports what it needs, so that help is quick."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench import __version__
from bench.errors import BenchError, nearest

COMMANDS = {
    "run": "train one configuration, or with -m a grid of them; `run --help` says more",
    "reproduce": "a paper's table: run what has no record yet, then write its report",
    "list": "models, regularizers, data sets, experiments and probes: what they are, their source and defaults",
    "eval": "probes of finished runs: noise, attacks, corruptions; into the run's folder",
    "data": "what data is on disk; download and check it",
    "speed": "training images/s, memory and share of the floor, beside networks built from public packages",
    "report": "records into tables, figures and one page under reports/; --check says whether they still follow",
    "submit": "check finished runs and copy their records to where the reports find them",
    "dashboard": "build the W&B workspace and report over a project's runs, or with --json write them to a file",
    "sync": "upload offline W&B runs",
    "completion": "print the script that makes TAB complete in bash, zsh or fish",
}


Raw = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        raise BenchError(f"{message}; `{self.prog} --help` says more")


def run(arguments: list[str]) -> None:
    """Everything after `run` is Hydra's."""
    from bench.commands.run import launch

    launch(arguments)


def reproduce(arguments: list[str]) -> None:
    """Run an experiment and write its report."""
    parser = Parser("bench reproduce", description=COMMANDS["reproduce"], epilog=REPRODUCE, formatter_class=Raw)
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT", help="and settings, as `bench run` takes them")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="the reports [%(default)s]")
    parser.add_argument("--dirty", action="store_true", help="report runs of a changed, uncommitted tree too")
    options = parser.parse_intermixed_args(arguments)
    from bench.commands.reproduce import reproduce as go

    go(options.words, options.out, options.dirty)


REPRODUCE = """\
  python -m bench reproduce nandan2022/table3_1 budget=cpu seed=0,1     small networks, two seeds
  python -m bench list experiments                                      what there is
"""


def list_(arguments: list[str]) -> None:
    """Print what is registered."""
    parser = Parser("bench list", description=COMMANDS["list"])
    parser.add_argument("section", nargs="?", help="models, regs, data, experiments or probes; all of them if left out")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--markdown", action="store_true", help="as Markdown tables")
    parser.add_argument("--into", type=Path, metavar="FILE", help="renew the tables in a Markdown file")
    options = parser.parse_args(arguments)
    from bench.commands import catalog

    if options.into is not None:
        print(f"{options.into} {'renewed' if catalog.write_into(options.into) else 'is as it should be'}")
        return
    names = [options.section] if options.section else list(catalog.SECTIONS)
    found = {name: catalog.section(name) for name in names}
    if options.json:
        print(json.dumps({name: [vars(row) for row in rows] for name, rows in found.items()}, indent=1))
        return
    for name, rows in found.items():
        if options.markdown:
            print(f"## {name}\n\n{catalog.markdown(rows)}\n")
        elif rows:
            table(name, ("name", "what it is", "source", "defaults"), [
                (row.name, row.summary, row.source, row.settings) for row in rows
            ])  # fmt: skip
        else:
            print(f"{name}: none")


def eval_(arguments: list[str]) -> None:
    """Probe finished runs."""
    parser = Parser("bench eval", description=COMMANDS["eval"], epilog=EVAL, formatter_class=Raw)
    parser.add_argument("words", nargs="*", metavar="RUN", help="run ids or folders of runs, and settings key=value")
    parser.add_argument("--all", action="store_true", help="all finished runs")
    parser.add_argument("--runs", type=Path, default=runs(), metavar="DIR", help="where they lie [%(default)s]")
    options = parser.parse_intermixed_args(arguments)
    from bench.commands.submit import folders
    from bench.probes import evaluate

    lines = [word for word in options.words if "=" in word and not Path(word).is_dir()]
    cfg = evaluate.parse(lines)
    paths = folders([word for word in options.words if word not in lines], options.all, options.runs)
    for path, name, content, there in evaluate.evaluate(paths, cfg, lambda line: print(line, flush=True)):
        # Not as the table's title: that would be folded to the table's width.
        print(f"{path.name}: {name}" + (", measured before; force=true measures again" if there else ""))
        rows = content["rows"]
        table("", list(rows[0]), [[evaluate.shown(value) for value in row.values()] for row in rows])


EVAL = """\
  python -m bench eval RUN probe=noise,adversarial          into RUN/probes/noise.json, RUN/probes/adversarial.json
  python -m bench eval --all probe=corruptions corruptions.images=200
  python -m bench list probes                               what there is, with settings and defaults

settings, with their defaults; a probe's own are written PROBE.KEY=VALUE:
  probe=NAME,...    which probes; what is measured is skipped
  force=false       measure again what is there
  seed=0            of the probes, not of the runs
  bake=true         fold what regularizers did into plain weights first, as for export
  root=null         where the data sets lie, if no longer where the run had them
  accelerator=auto  auto, cpu or gpu
  ops=auto          which kernels
"""


def data(arguments: list[str]) -> None:
    """Say what data is on disk, or bring it there."""
    parser = Parser("bench data", description=COMMANDS["data"])
    parser.add_argument("action", nargs="?", default="status", help="status (if left out) or prepare")
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets to prepare")
    parser.add_argument("--root", default=os.environ.get("BENCH_DATA", "data"), help="where it lies [%(default)s]")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    options = parser.parse_args(arguments)
    from bench.data import DATASETS, prepare_named, status

    if options.action == "prepare":
        if not options.names:
            raise BenchError(f"prepare what? There are: {', '.join(DATASETS.names())}.")
        for name in options.names:
            DATASETS.get(name)
        for name in options.names:
            ready = prepare_named(name, options.root)
            counts = f"{len(ready.train_images):,} + {len(ready.test_images):,} images"
            print(f"{ready.name}: {ready.copy}, {counts}, {len(ready.classes)} classes, {ready.checksum}")
        return
    if options.action != "status":
        raise BenchError(f"bench data cannot '{options.action}'. {nearest(options.action, ['status', 'prepare'])}")
    rows = status(options.root)
    if options.json:
        print(json.dumps(rows, indent=1, default=str))
        return
    shown = ("name", "present", "copy", "images", "classes", "size", "checksum", "path", "note")
    table(f"data under {options.root}", shown, [
        tuple(cell(key, row["bytes" if key == "size" else key]) for key in shown) for row in rows
    ])  # fmt: skip


def speed(arguments: list[str]) -> None:
    """Measure how fast a network trains, beside its peers."""
    parser = Parser("bench speed", description=COMMANDS["speed"], epilog=SPEED, formatter_class=Raw)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of this command or of `bench run`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON there and a chart beside it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write both there, say reports/speed")
    options = parser.parse_intermixed_args(arguments)
    from bench.speed.command import main as measure

    measure(options.settings, options.json, options.out)


SPEED = """\
settings, with their defaults:
  model=cnn data=cifar10 time_steps=4, and all others of `bench run`, under budget=paper
  batch_size=50   images in a step
  peers=all       or none, or some of spikingjelly_eager,spikingjelly_best,snntorch,norse
  rounds=7        each arm is measured that often, in a process of its own, in turn
  seconds=3       how long one measurement takes, about, warm-up left out
"""


def report(arguments: list[str]) -> None:
    """Turn records into reports, or check those there are."""
    parser = Parser("bench report", description=COMMANDS["report"], epilog=REPORT, formatter_class=Raw)
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT", help="and settings it was run with; all if left out")
    parser.add_argument("--check", action="store_true", help="write nothing: do the files follow from OUT/records?")
    parser.add_argument("--into", type=Path, metavar="FILE", help="renew the short tables in a Markdown file")
    parser.add_argument("--runs", metavar="DIR", help="runs beside OUT/records, `none` for no others [runs]")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="where to [%(default)s]")
    parser.add_argument("--dirty", action="store_true", help="take in runs of a changed, uncommitted tree")
    options = parser.parse_intermixed_args(arguments)
    if options.into is not None:
        from bench.report.headline import write_into

        print(f"{options.into} {'renewed' if write_into(options.into, options.out) else 'is as it should be'}")
        return
    from bench.commands.report import main as go

    go(options.words, options.check, options.runs, options.out, options.dirty)


REPORT = """\
  python -m bench report                                    all records, all tables
  python -m bench report nandan2022/table3_1 budget=cpu     one table
  python -m bench report --runs none                        of what was submitted alone
"""


def submit(arguments: list[str]) -> None:
    """Copy records to where the reports find them."""
    parser = Parser("bench submit", description=COMMANDS["submit"])
    parser.add_argument("names", nargs="*", metavar="RUN", help="run ids, or folders of runs")
    parser.add_argument("--all", action="store_true", help="all finished runs")
    parser.add_argument("--runs", type=Path, default=runs(), metavar="DIR", help="where they lie [%(default)s]")
    parser.add_argument("--into", type=Path, default=Path("reports/records"), metavar="DIR", help="[%(default)s]")
    options = parser.parse_args(arguments)
    from bench.commands import submit as records

    records.submit(records.folders(options.names, options.all, options.runs), options.into)


def dashboard(arguments: list[str]) -> None:
    """Build the W&B workspace and report."""
    parser = Parser("bench dashboard", description=COMMANDS["dashboard"], epilog=DASHBOARD, formatter_class=Raw)
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT", help="of the report, and budget=; all if left out")
    parser.add_argument("--entity", metavar="E", help="the W&B team or user; the key's own if left out")
    parser.add_argument("--project", metavar="P", help="the W&B project; if left out, where runs go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write them there; needs no key and no network")
    options = parser.parse_intermixed_args(arguments)
    from bench.commands.dashboard import main as go

    go(options.words, options.entity, options.project, options.json)


DASHBOARD = """\
  python -m bench dashboard --json dashboard.json                 all experiments, offline
  python -m bench dashboard nandan2022/table3_1 budget=cpu        one table, saved to the project
"""


def sync(arguments: list[str]) -> None:
    """Upload offline W&B runs."""
    parser = Parser("bench sync", description=COMMANDS["sync"])
    parser.add_argument("names", nargs="*", metavar="RUN", help="run ids, or folders of runs; all if left out")
    parser.add_argument("--runs", type=Path, default=runs(), metavar="DIR", help="where they lie [%(default)s]")
    options = parser.parse_args(arguments)
    from bench.commands import submit as records

    records.sync(options.names, options.runs)


def runs() -> Path:
    """The folder of the records, where nothing else is said."""
    return Path(os.environ.get("BENCH_RUNS") or "runs")


def cell(column: str, value: Any) -> str:
    """A value of `bench data status` for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column == "size":
        return f"{value / 2**20:.1f} MiB"
    return str(value)[:12] if column == "checksum" else f"{value:,}" if isinstance(value, int) else str(value)


def completion(arguments: list[str]) -> None:
    """Print a shell's script, or what could stand at the end of a line."""
    parser = Parser("bench completion", description=COMMANDS["completion"])
    parser.add_argument("shell", nargs="?", help="bash, zsh or fish")
    parser.add_argument("--query", metavar="LINE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    from bench.commands import completion as shell

    if options.query is not None:
        print("\n".join(shell.complete(options.query, COMMANDS)))
        return
    if options.shell not in shell.SCRIPTS:
        raise BenchError(f"no script for the shell '{options.shell}'. {nearest(str(options.shell), shell.SCRIPTS)}")
    print(shell.SCRIPTS[options.shell], end="")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that cuts nothing off: as wide as a terminal, or as $COLUMNS, or as it needs."""
    from rich.console import Console
    from rich.table import Table

    wide = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or 0) or 200
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        out.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        out.add_row(*row)
    console = Console(width=wide, highlight=False, markup=False)
    console.print(out)
    console.print()


def help_text() -> str:
    """What `bench --help` prints."""
    lines = [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m bench COMMAND ...",
            "",
            "Regularizers for spiking neural networks, compared: which one buys how much accuracy for how many spikes.",
            "",
            *lines,
            "",
            "  python -m bench run model=sew reg=spikepen",
            "  python -m bench run -m model=cnn,sew reg=none,spikepen seed=0,1,2",
            "",
            "Exit status: 0 done, 1 a fault of the machine or of the suite, 2 bad input, 130 interrupted.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status.
    """
    # Before torch starts its threads: where another process wants a core too, threads that wait busily for each
    # other cost several times what sleeping costs on a quiet machine (2-4x against about 10 %).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], None]] = {
        "run": run, "reproduce": reproduce, "list": list_, "eval": eval_, "data": data, "speed": speed,
        "report": report, "submit": submit, "sync": sync, "dashboard": dashboard,
        "completion": completion,
    }  # fmt: skip
    command = arguments[0] if arguments else "--help"
    try:
        if command in ("-h", "--help", "help"):
            print(help_text())
        elif command == "--version":
            print(f"snn-bench {__version__}")
        elif command not in commands:
            raise BenchError(f"there is no command '{command}'. {nearest(command, commands)}")
        else:
            commands[command](arguments[1:])
        sys.stdout.flush()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last finished epoch", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`head`) has seen enough; without this Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
