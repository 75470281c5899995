"""A paper's table in one command: run what has no record yet, probe it where the table says so, write its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands import run
from bench.commands.parsing import Parser
from bench.commands.report import add_out, report
from bench.commands.words import experiments, overrides
from bench.errors import BenchError, RunsFailed

if TYPE_CHECKING:
    from bench.experiments import Experiment

EPILOG = """\
  bench reproduce nandan2022/table3_1 budget=cpu seed=0,1     small networks, two seeds
  bench list experiments                                      what there is
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("reproduce", EPILOG)
    parser.add_words("EXPERIMENT", "and settings, as `bench run` takes them", experiments, overrides)
    add_out(parser)
    parser.add_argument("--dirty", action="store_true", help="report runs of a changed, uncommitted tree too")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run an experiment and write its report.

    Raises:
        BenchError: as `reproduce` says.
    """
    options = parser().parse_intermixed_args(arguments)
    reproduce(options.words, options.out, options.dirty)


def reproduce(words: Sequence[str], out: Path | None, dirty: bool = False) -> None:
    """Run what some experiments lack, probe the runs that are to be, then write their reports.

    Args:
        words: names of experiments, and settings as `bench run` takes them.
        out: the reports' folder; None is `report` in the folder of runs.
        dirty: report runs of a changed, uncommitted tree too.

    Raises:
        BenchError: no experiment is named, or one cannot be run or reported.
        RunsFailed: some runs failed; the report is written without them.
    """
    names = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not names:
        raise BenchError("reproduce what? `bench list experiments` says what there is")
    # Imported here: torch and Hydra take seconds.
    from bench.config.compose import given
    from bench.experiments import load

    own = given(settings)
    chosen = [load(name) for name in names]
    failed: RunsFailed | None = None
    try:
        run.main(["-m", f"experiment={','.join(names)}", *settings])
    except RunsFailed as error:
        failed = error
    for experiment in chosen:
        if experiment.probes:
            probe(experiment, settings)
    others = [line for line in settings if not line.startswith("budget=")]
    try:
        for experiment in chosen:
            for budget in own.get("budget", [experiment.budget]):
                report([experiment.name, f"budget={budget}", *others], False, own.get("runs", [""])[0], out, dirty)
    except BenchError:
        if failed is None:
            raise
    if failed is not None:
        raise failed


def probe(experiment: Experiment, settings: Sequence[str]) -> None:
    """Measure the experiment's probes on all of its runs that have finished and have not been probed.

    Raises:
        BenchError: a probe does not exist, does not fit a run, or was measured with other settings.
    """
    from bench.console import say
    from bench.experiments import expand, identified
    from bench.probes import evaluate

    names = [word for word in experiment.probes if "=" not in word]
    own = [word for word in experiment.probes if "=" in word]
    cfg = evaluate.parse([f"probe={','.join(names)}", *own])
    paths = [Path(facts["runs"]) / name for _, name, facts in identified(expand(experiment, settings))]
    able = [path for path in dict.fromkeys(paths) if evaluate.probeable(path)]
    for path, name, _, there in evaluate.evaluate(able, cfg, say):
        if not there:
            say(f"{path.name}: {name} measured")
