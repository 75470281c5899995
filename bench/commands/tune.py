"""`bench tune`: the protocol of equal tuning budgets, from the search over the choice to the final runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.commands.parsing import Parser
from bench.commands.report import PUBLISHED
from bench.commands.words import experiments, overrides
from bench.errors import BenchError, RunsFailed, nearest
from bench.records.folder import runs_folder

if TYPE_CHECKING:
    from bench.experiments import Job
    from bench.studies import Design, Study, Trial

OWN = ("reg", "workload", "trials", "seeds", "study", "ruleset")
"""The settings that are the protocol's and not a run's."""

SEARCHED = ("optim.lr", "seed", "data.val_fraction", "experiment", "model", "data", "init_seed", "logger.job_type")
"""Settings of a run that the protocol or the workload sets."""

EPILOG = """\
  bench tune suite/small workload=mnist-1k reg=none,spikepen,dropout     three methods, 16 trials each
  bench tune suite/small reg=[dropout,spikepen] trials=8 seeds=5         two together, as one entry
  bench submit STUDY                                                     a finished study, for the leaderboard

  trials=N    trials a method, the authors' values first [16]
  seeds=N     fresh seeds of each choice [5]
  study=N     another split, other points, other seeds [0]
  ruleset=    tuned, default or both [tuned,default]
  Every other setting is every run's: logger=none, hydra/launcher=ray, ...
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("tune", EPILOG)
    parser.add_words("WORKLOADS", "an experiment with workloads, reg=NAME[,NAME], and settings", experiments, overrides)
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own workloads, DIR/experiment/NAME.yaml")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Tune regularizers on workloads: search, choose, retrain.

    Raises:
        BenchError: as `tune` says.
    """
    options = parser().parse_intermixed_args(arguments)
    # Imported here, so that help is quick.
    from bench.config.options import beside

    with beside(options.config_dir):
        tune(options.words, options.config_dir)


@dataclass(frozen=True)
class Asked:
    """What a command line asks for.

    Attributes:
        designs: the studies, by workload; the baseline's first.
        rulesets: of `bench.studies.RULESETS`.
        aside: settings of the runs that change no number.
        runs: the folder of the runs.
        own: the user's folder of YAML files.
    """

    designs: dict[str, list[Design]]
    rulesets: tuple[str, ...]
    aside: tuple[str, ...]
    runs: Path
    own: Path | None


def tune(words: Sequence[str], own: Path | None = None) -> None:
    """Run what some studies lack, and leave their files.

    Whatever has a record is not run again, so that a study that was stopped goes on where it was.

    Args:
        words: the experiment, `reg=`, and settings.
        own: the user's folder of YAML files.

    Raises:
        BenchError: something asked for does not exist or cannot be.
        RunsFailed: some runs failed; what could be done without them is done.
    """
    from bench.console import say

    asked = _asked(words, own)
    failed: RunsFailed | None = None
    for workload, designs in asked.designs.items():
        say(f"{workload}: {', '.join(made.label for made in designs)}; {designs[0].trials} trials a method, then "
            f"{designs[0].seeds} fresh seeds of each choice")  # fmt: skip
        try:
            _search(workload, designs, asked)
            _retrain(workload, designs, asked)
        except RunsFailed as error:
            failed = error
        _show(workload, designs, asked)
    if failed is not None:
        raise failed


def _asked(words: Sequence[str], own: Path | None) -> Asked:
    """Read the command line.

    Raises:
        BenchError: names what is wrong with it.
    """
    from bench import studies
    from bench.config.compose import given
    from bench.experiments import load, whole
    from bench.records.identity import ASIDE, setting_of

    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        from bench.experiments import names as known

        able = [name for name in known() if load(name).workloads]
        raise BenchError(f"tune on the workloads of one experiment: {', '.join(able)}; `bench tune --help` says more")
    values = given([word for word in words if "=" in word])
    if "reg" not in values:
        raise BenchError("tune what? reg=NAME, reg=NAME,NAME for several, reg=[NAME,NAME] for two together")
    numbers = {key: whole(values[key][0], key) for key in ("trials", "seeds", "study") if key in values}
    rulesets = tuple(values.get("ruleset", studies.RULESETS))
    for ruleset in rulesets:
        if ruleset not in studies.RULESETS:
            raise BenchError(f"no ruleset is called '{ruleset}'. {nearest(ruleset, studies.RULESETS)}")
    settings: list[str] = []
    aside: list[str] = []
    for word in words:
        key = setting_of(word) if "=" in word else ""
        if not key or key in OWN:
            continue
        if key in SEARCHED or key.startswith("reg."):
            why = "the protocol searches or sets it" if key not in ("model", "data") else "workload= names both"
            raise BenchError(f"'{word}' cannot be set here: {why}")
        (aside if key in ASIDE else settings).append(word)
    methods = [["none"], *(_method(text) for text in values["reg"])]
    experiment = load(names[0])
    designs = {}
    for workload in values.get("workload", list(experiment.workloads) or [""]):
        made = [
            studies.design(names[0], workload, method, settings=tuple(sorted(settings)), **numbers)
            for method in methods
        ]
        designs[workload] = list({one.method: one for one in made}.values())
    runs = runs_folder(values.get("runs", [""])[0])
    return Asked(designs, rulesets, tuple(aside), runs, own)


def _method(text: str) -> list[str]:
    """`spikepen`, or `[dropout,spikepen]`, as names."""
    return [name.strip() for name in text.strip("[]").split(",") if name.strip()] or ["none"]


def _search(workload: str, designs: Sequence[Design], asked: Asked) -> None:
    """Run the trials of all methods that are not there yet.

    The baseline's are left alone where a submitted study of the same design has them.
    """
    own = [made for made in designs if made.method != ("none",) or _submitted(made) is None or made is designs[-1]]
    jobs = [job for made in own for job in _labelled(made, made.jobs(_numbered(made), [made.trial_seed], final=False))]
    _grid(f"{workload}, search", jobs, asked, "tune")


def _numbered(made: Design) -> dict[str, dict[str, Any]]:
    return {str(place): point for place, point in enumerate(made.points())}


def _labelled(made: Design, jobs: Sequence[Job]) -> Iterator[tuple[str, str, Job]]:
    """Method, row and run."""
    return ((made.label, f"{made.label} {job.row.label}", job) for job in jobs)


def _retrain(workload: str, designs: Sequence[Design], asked: Asked) -> None:
    """Choose, and run every choice with fresh seeds."""
    from bench import studies

    rows = []
    for made, trials, chosen in _chosen(designs, asked):
        if any(trial.status == "missing" for trial in trials):
            continue
        points = {name: trial.settings for name, trial in chosen.items()}
        rows += list(_labelled(made, made.jobs(points, made.final_seeds, final=True)))
        studies.write(_folder(made, asked), studies.facts_of(made, chosen, asked.runs), trials)
    try:
        _grid(f"{workload}, final runs", rows, asked, "tune-final")
    finally:
        for made, trials, chosen in _chosen(designs, asked):
            if chosen:
                studies.write(_folder(made, asked), studies.facts_of(made, chosen, asked.runs), trials)


def _chosen(designs: Sequence[Design], asked: Asked) -> Iterator[tuple[Design, list[Trial], dict[str, Trial]]]:
    """Each study with its trials and what is chosen of them; nothing is where a trial is missing."""
    from bench import studies

    reference: Sequence[Trial] = ()
    for made in designs:
        trials = studies.trials_of(made, asked.runs)
        whole = all(trial.status != "missing" for trial in trials)
        if made.method == ("none",):
            submitted = _submitted(made)
            reference = trials if whole else submitted.trials if submitted is not None else ()
            if not whole and submitted is not None and made is not designs[-1]:
                continue
        yield made, trials, studies.choices(trials, reference, asked.rulesets) if whole and reference else {}


def _submitted(made: Design) -> Study | None:
    """The submitted study of the same design, if there is one."""
    from bench import studies

    try:
        return studies.read(PUBLISHED / studies.FOLDER / made.name)
    except BenchError:
        return None


def _folder(made: Design, asked: Asked) -> Path:
    from bench.studies import FOLDER

    return asked.runs / FOLDER / made.name


def _grid(title: str, rows: Sequence[tuple[str, str, Job]], asked: Asked, job_type: str) -> None:
    """Run jobs as any grid: an experiment file of their own is what the sweeper, and so every launcher, reads.

    Args:
        title: of the file.
        rows: method, row and run of each.
        asked: by the command line.
        job_type: as W&B tells trials from final runs, one of `bench.training.logger.JOB_TYPES`.
    """
    import yaml

    from bench.commands import run

    if not rows:
        return
    seeds = list(dict.fromkeys(job.seed for _, _, job in rows))
    by_row: dict[tuple[str, str], Job] = {}
    for method, label, job in rows:
        by_row.setdefault((method, label), job)
    budget = next(line for line in rows[0][2].overrides if line.startswith("budget=")).partition("=")[2]
    content: Mapping[str, Any] = {
        "hydra": {"mode": "MULTIRUN"},
        "experiment": {
            "budget": budget,
            "selection": "best_on_validation",
            "baseline": rows[0][0],
            "seeds": seeds,
            "rows": [
                {"label": label, "group": method, "overrides": [o for o in job.overrides if not o.startswith("seed=")]}
                for (method, label), job in by_row.items()
            ],
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "experiment", "tune.yaml")
        if asked.own is not None:
            shutil.copytree(asked.own, folder, dirs_exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# @package _global_\n# {title}\n{yaml.safe_dump(content, sort_keys=False)}")
        run.main(["-m", "--config-dir", folder, "experiment=tune", f"logger.job_type={job_type}", *asked.aside])


def _show(workload: str, designs: Sequence[Design], asked: Asked) -> None:
    """A table of what each method has come to, and what is left."""
    from bench import console, studies
    from bench.records.folder import RunFolder
    from bench.records.schema import FIELD

    acc, rate = FIELD["test.acc"], FIELD["test.spike_rate"]
    body, left = [], 0
    for made, trials, chosen in _chosen(designs, asked):
        done = sum(trial.status != "missing" for trial in trials)
        left += len(trials) - done
        finals = studies.finals_of(made, chosen)
        # Equal choices share their runs.
        left += sum(RunFolder(asked.runs, run).finished() is None for run in {*chain.from_iterable(finals.values())})
        if not chosen:
            top = studies.best(trials)
            best = "-" if top is None else f"{top.trial}: {acc.text(top.score)} %"
            body.append([made.label, f"{done} of {len(trials)}", "-", best, "-", "-", "-", "-"])
        for name, trial in chosen.items():
            results = [RunFolder(asked.runs, run).finished() for run in finals[name]]
            ended = [result for result in results if result is not None]
            good = [result for result in ended if result["status"] == "finished"]
            diverged = f", {len(ended) - len(good)} diverged" if len(good) < len(ended) else ""
            means = [
                sum(float(field.value(result)) for result in good) / len(good) if good else None
                for field in (acc, rate)
            ]
            body.append([
                made.label, f"{done} of {len(trials)}", name, f"{trial.trial}: {acc.text(trial.score)} %",
                studies.words_of(trial.settings), f"{len(ended)} of {len(results)}{diverged}",
                acc.text(means[0]) + (" %" if good else ""), rate.text(means[1]),
            ])  # fmt: skip
    columns = ("method", "trials", "choice", "trial: validation", "settings", "final runs", "test", "spike rate")
    console.table(f"{workload}: tuned on validation images, tested once with fresh seeds", columns, body)
    folder = asked.runs / studies.FOLDER
    console.say(
        f"{left} runs are left; the same command goes on with them"
        if left
        else f"complete: studies in {folder}; `bench report` puts them into the leaderboard"
    )
