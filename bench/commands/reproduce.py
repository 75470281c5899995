"""A paper's table in one command: run what has no record yet, probe it where the table says so, write its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.commands.run import launch
from bench.errors import BenchError, RunsFailed
from bench.experiments import Experiment, expand, identified, load


def reproduce(words: Sequence[str], out: Path, dirty: bool = False) -> None:
    """Run what some experiments lack, probe the runs that are to be, then write their reports.

    Args:
        words: names of experiments, and settings as `bench run` takes them.
        out: the reports' folder.
        dirty: report runs of a changed, uncommitted tree too.

    Raises:
        BenchError: no experiment is named, or one cannot be run or reported.
        RunsFailed: some runs failed; the report is written without them.
    """
    names = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not names:
        raise BenchError("reproduce what? `python -m bench list experiments` says what there is")
    experiments = [load(name) for name in names]
    failed: RunsFailed | None = None
    try:
        launch(["-m", f"experiment={','.join(names)}", *settings])
    except RunsFailed as error:
        failed = error
    for experiment in experiments:
        if experiment.probes:
            probe(experiment, settings)
    # Imported here: plotting takes a second, and a mistyped name should be told at once.
    from bench.commands.report import main as report

    given = dict(line.split("=", 1) for line in settings)
    others = [line for line in settings if not line.startswith("budget=")]
    try:
        for experiment in experiments:
            for budget in given.get("budget", experiment.budget).split(","):
                report([experiment.name, f"budget={budget}", *others], False, given.get("runs"), out, dirty)
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
    # Imported here: torch takes seconds.
    from bench.probes import evaluate

    names = [word for word in experiment.probes if "=" not in word]
    own = [word for word in experiment.probes if "=" in word]
    cfg = evaluate.parse([f"probe={','.join(names)}", *own])
    paths = [Path(facts["runs"]) / name for _, name, facts in identified(expand(experiment, settings))]
    able = [path for path in dict.fromkeys(paths) if evaluate.probeable(path)]
    for path, name, _, there in evaluate.evaluate(able, cfg, print):
        if not there:
            print(f"{path.name}: {name} measured", flush=True)
