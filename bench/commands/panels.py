"""The W&B workspace and report over a project's runs: their panels, written as JSON or saved to the project."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import experiments
from bench.config.options import options
from bench.config.schema import LoggerConfig
from bench.console import say
from bench.data import DATASETS
from bench.errors import BenchError, EnvironmentFault, nearest
from bench.experiments import FULL, Experiment
from bench.files import write_atomic
from bench.records.schema import FIELD
from bench.report.join import named
from bench.training.logger import one_line, reachable
from bench.training.result import logged_config

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr
except ImportError as error:
    raise BenchError(
        f"the dashboard needs the package wandb-workspaces ({error}): pip install wandb-workspaces"
    ) from error

TUNED = "tune-final"
"""The job type of runs at a tuned setting."""

TITLE = "SNN regularizers: accuracy for spikes"

# The budget that the papers' tables are also run under, where there is no GPU.
SMALL = "cpu"

# A project's runs; wandb-workspaces would draw 10.
RUNS = 500

API_SECONDS = 20
SAVE_SECONDS = 180.0

REG = wr.Config("reg")
STRENGTH = wr.Config("strength")
# W&B's names of a record's numbers.
TEST_ACC, TRAIN_ACC, RATE, GAP = (FIELD[key].wandb for key in ("test.acc", "train.acc_eval", "test.spike_rate", "gap"))
SYNOPS, SECONDS = FIELD["synops_per_image"].key, FIELD["seconds.total"].wandb
ACCURACY = wr.SummaryMetric(TEST_ACC)
SPIKE_RATE = wr.SummaryMetric(RATE)

COLUMNS = (
    "run:displayName", "config:data.value", "config:model.value", "config:budget.value", "config:reg.value",
    "config:strength.value", "config:seed.value", f"summary:{TEST_ACC}", f"summary:{GAP}", f"summary:{RATE}",
)  # fmt: skip

ADVICE = (
    "Means and deviations are over the runs that are shown, one curve or bar a regularizer. Networks, data sets, "
    "budgets and strengths belong apart: filter by `data`, `model`, `budget` and `strength` before reading them."
)

# wandb-workspaces' own union of its panels has one among them without a place on the grid.
Panels = list[Any]

WIDE = (wr.ParallelCoordinatesPlot, wr.RunComparer, wr.MarkdownPanel)


def curve(title: str, *keys: str, regex: str | None = None, apart: bool = True) -> wr.LinePlot:
    """What was logged each epoch: the mean of each regularizer's runs and their standard deviation.

    Args:
        title: with the unit.
        keys: that the runs logged.
        regex: of keys, instead.
        apart: one curve a regularizer; else the run set says what is averaged.
    """
    return wr.LinePlot(
        title=title,
        x="epoch",
        y=list(keys),
        metric_regex=regex,
        title_x="epoch",
        groupby=REG if apart else None,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        smoothing_type="none",
        max_runs_to_show=RUNS,
    )


def bars(title: str, key: str) -> wr.BarPlot:
    """An outcome: the mean of each regularizer's runs and their standard deviation."""
    return wr.BarPlot(
        title=title,
        metrics=[key],
        groupby=REG,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=RUNS,
        max_bars_to_show=50,
    )


def scatter(title: str, x: wr.SummaryMetric, y: wr.SummaryMetric, log_x: bool = False) -> wr.ScatterPlot:
    """One outcome against another, a point a run."""
    return wr.ScatterPlot(
        title=title,
        x=x,
        y=y,
        log_x=log_x or None,
        legend_template="${config:reg} ${config:strength} ${run:displayName}",
    )


def accuracy() -> Panels:
    """Who learns faster, ends better, overfits less?"""
    return [
        curve("Test accuracy (%)", "test/acc"),
        curve("Accuracy while training, augmented (%)", "train/acc"),
        curve("Validation accuracy (%)", "val/acc"),
        curve("Test loss", "test/loss"),
        curve("Training loss", "train/loss"),
        bars("Final test accuracy (%)", TEST_ACC),
        bars("Gap: clean training accuracy - test accuracy (points)", GAP),
    ]


def spikes() -> Panels:
    """Who spikes less, where, and when did it happen?"""
    return [
        curve("Spike rate on the test set", "spike_rate/test"),
        curve("Spike rate while training", "spike_rate/train"),
        curve("Spike rate of each layer while training", regex="^spike_rate_layer/.+"),
        curve("Penalties in the loss", regex="^penalty/.+"),
        bars("Final spike rate on the test set", RATE),
        bars("SynOps an image", SYNOPS),
    ]


def tradeoff() -> Panels:
    """What accuracy do how many spikes buy, and which settings get there?"""
    synops = wr.SummaryMetric(SYNOPS)
    gap = wr.SummaryMetric(GAP)
    column = wr.ParallelCoordinatesPlotColumn
    return [
        scatter("Test accuracy (%) against spike rate", SPIKE_RATE, ACCURACY),
        scatter("Test accuracy (%) against SynOps an image", synops, ACCURACY, log_x=True),
        scatter("Gap (points) against spike rate", SPIKE_RATE, gap),
        wr.ParallelCoordinatesPlot(
            title="From the settings to the outcome, a line a run",
            columns=[
                column(wr.Config("model"), display_name="network"),
                column(REG, display_name="regularizer"),
                column(STRENGTH, display_name="strength"),
                column(SPIKE_RATE, display_name="spike rate"),
                column(synops, display_name="SynOps an image", log=True),
                column(wr.SummaryMetric(TRAIN_ACC), display_name="training accuracy, clean (%)"),
                column(gap, display_name="gap (points)"),
                column(ACCURACY, display_name="test accuracy (%)"),
            ],
        ),
    ]


def leaderboard() -> Panels:
    """Which method is best after tuning, and what does it cost in spikes and time?"""
    return [
        bars("Tuned: test accuracy (%)", TEST_ACC),
        bars("Tuned: spike rate on the test set", RATE),
        bars("Tuned: seconds a run", SECONDS),
    ]


def strengths() -> Panels:
    """How do the curves answer to the strength? For a run set that is grouped by it."""
    return [
        curve("Test accuracy (%)", "test/acc", apart=False),
        curve("Accuracy while training (%)", "train/acc", apart=False),
        curve("Spike rate on the test set", "spike_rate/test", apart=False),
    ]


def runs() -> Panels:
    """How do two runs differ, and did they train as they should?"""
    return [
        curve("Learning rate", "lr"),
        curve("Training images a second", "images_per_s"),
        wr.ParameterImportancePlot(with_respect_to=TEST_ACC),
        wr.RunComparer(diff_only="split"),
    ]


TOPICS: dict[str, Callable[[], Panels]] = {
    "Accuracy against spikes": tradeoff,
    "Accuracy": accuracy,
    "Spikes": spikes,
    "Runs": runs,
}


@dataclass(frozen=True)
class Scope:
    """The runs of an experiment under a budget, by what their W&B configs have in common.

    W&B knows no experiment: runs are shared between tables, and their ids differ from machine to machine.

    Attributes:
        experiment: the table.
        budget: of its runs.
        values: of `data`, `model` and `reg`, all that occur.
    """

    experiment: Experiment
    budget: str
    values: dict[str, list[str]]

    def filters(self) -> expr.And:
        """As wandb-workspaces filters runs."""
        among = [expr.Config(key).isin(values) for key, values in self.values.items()]
        return expr.And(expr.Config("budget") == self.budget, *among)


def scope(experiment: Experiment, budget: str) -> Scope:
    """What the runs of an experiment have in common; its data need not be there."""
    keys = ("data", "model", "reg")
    rows = {named(row.at(budget)) for row in experiment.rows}
    if any(None in row for row in rows):
        # What a row leaves to the defaults is Hydra's to say, which takes a second.
        jobs = experiments.expand(experiment, [f"budget={budget}", "seed=0"])
        anything = dict.fromkeys(DATASETS.names(), ("", "any"))
        configs = [logged_config(facts, None) for _, _, facts in experiments.identified(jobs, anything, auto="auto")]
        rows = {(config["data"], config["model"], config["reg"]) for config in configs}
    return Scope(experiment, budget, {key: sorted({str(row[i]) for row in rows}) for i, key in enumerate(keys)})


def chosen(words: Sequence[str], say: Callable[[str], None]) -> list[Scope]:
    """The experiments and budgets that a command line names.

    Args:
        words: names of experiments, all if there are none, and `budget=` with one or several; else each has its own
            and, where that is the papers', the small one too.
        say: takes a line for each of them.

    Raises:
        BenchError: there is no such experiment or budget, or another setting is named.
    """
    named = [word for word in words if "=" not in word] or experiments.names()
    budgets: list[str] = []
    for word in words:
        key, given, value = word.partition("=")
        if given and key != "budget":
            raise BenchError(f"the dashboard takes experiments and budget=, not '{word}'")
        budgets += value.split(",") if given else []
    for budget in budgets:
        if budget not in options("budget"):
            raise BenchError(f"no budget is called '{budget}'. {nearest(budget, options('budget'))}")
    found = []
    for table in [experiments.load(name) for name in dict.fromkeys(named)]:
        shown = list(dict.fromkeys(budgets)) or own_budgets(table)
        say(f"{table.name}: {len(table.rows)} rows, budget {' and '.join(shown)}")
        found += [scope(table, budget) for budget in shown]
    return found


def own_budgets(experiment: Experiment) -> list[str]:
    """The budgets whose runs are shown where none is asked for."""
    return [FULL, SMALL] if experiment.budget == FULL else [experiment.budget]


def arranged(panels: Panels) -> Panels:
    """Panels on a report's grid of 24 columns: three in a row, a wide one in a row of its own."""
    x = y = 0
    for panel in panels:
        width = 24 if isinstance(panel, WIDE) else 8
        if x + width > 24:
            x, y = 0, y + 6
        panel.layout = wr.Layout(x=x, y=y, w=width, h=6)
        x += width
    return panels


def workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace: a section a topic, over all runs of the project."""
    sections = [ws.Section(name="How to read this", panels=[wr.MarkdownPanel(markdown=ADVICE)], is_open=True)]
    sections += [ws.Section(name=name, panels=panels(), is_open=True) for name, panels in TOPICS.items()]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=RUNS),
        runset_settings=ws.RunsetSettings(
            pinned_columns=list(COLUMNS), order=[expr.Ordering(expr.Summary(TEST_ACC), ascending=False)]
        ),
    )


def report(entity: str, project: str, scopes: Sequence[Scope], owner: str = "") -> wr.Report:
    """The report: all runs, then each experiment with the same panels and, apart, by strength.

    Args:
        entity: the team or user whose report it is.
        project: its project.
        scopes: run sets of the experiments.
        owner: of the run sets' project, the entity; wandb-workspaces then asks the server for the project. Without
            one the run sets are of the report's own project.
    """

    def run_set(name: str, filters: Any = "", groupby: Sequence[str] = ()) -> wr.Runset:
        return wr.Runset(
            entity=owner,
            project=project,
            name=name,
            filters=filters,
            groupby=list(groupby),
            order=[wr.OrderBy(ACCURACY, ascending=False)],
            pinned_columns=list(COLUMNS),
        )

    blocks: list[Any] = [
        wr.P(
            "Which regularizer, at which strength, buys how much accuracy for how many spikes, on this network and "
            "data set? Accuracy is that of the last epoch, the spike rate is spikes / (neurons x time steps x images) "
            "on the test set, the gap is clean training accuracy minus test accuracy."
        ),
        wr.P(
            "Shaded bands and whiskers are one standard deviation over the runs of a regularizer. Verdicts, with "
            "intervals and correction for many comparisons, are in the reports that `bench report` writes."
        ),
        wr.TableOfContents(),
        wr.H1("All runs"),
        wr.P("Only what shows each run by itself: means over networks, data sets and budgets would say nothing."),
        wr.PanelGrid(runsets=[run_set("all runs")], panels=arranged([*tradeoff(), wr.RunComparer(diff_only="split")])),
    ]
    tuned = run_set("tuned methods", expr.And(expr.Metric("JobType") == TUNED), ["config.reg"])
    blocks += [
        wr.H1("Leaderboard"),
        wr.P(
            "Every method at the setting that an equal tuning budget chose for it, retrained with fresh seeds: the "
            f"runs of job type {TUNED}, grouped by regularizer. Filter by data set, network and budget: one "
            "of each at a time."
        ),
        wr.PanelGrid(runsets=[tuned], panels=arranged(leaderboard())),
    ]
    for table in dict.fromkeys(scope.experiment.name for scope in scopes):
        among = [scope for scope in scopes if scope.experiment.name == table]
        experiment = among[0].experiment
        blocks += [wr.H1(f"{experiment.name}: {experiment.title}")]
        blocks += [wr.P(text) for text in (experiment.finding, experiment.note) if text]
        blocks += [
            wr.P(
                "The runs whose data, network, regularizer and budget are the table's, a run set a budget; "
                f"`bench reproduce {experiment.name}` makes them."
            )
        ]
        for name, panels in TOPICS.items():
            sets = [run_set(f"budget {scope.budget}", scope.filters()) for scope in among]
            blocks += [wr.H2(name), wr.PanelGrid(runsets=sets, panels=arranged(panels()))]
        grouped = [
            run_set(f"budget {scope.budget}", scope.filters(), ["config.reg", "config.strength"]) for scope in among
        ]
        blocks += [wr.H2("By strength"), wr.PanelGrid(runsets=grouped, panels=arranged(strengths()))]
    return wr.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description="Built by `bench dashboard`.",
        blocks=blocks,
        width="fluid",
    )


def specification(project: str, scopes: Sequence[Scope], entity: str = "") -> dict[str, Any]:
    """Workspace and report as W&B stores them; asks no server."""
    models = {
        "workspace": workspace(entity, project)._to_model(),
        "report": report(entity, project, scopes)._to_model(),
    }
    return {name: model.model_dump(mode="json", by_alias=True, exclude_none=True) for name, model in models.items()}


def save(project: str, scopes: Sequence[Scope], entity: str | None) -> list[str]:
    """Save a new workspace and a new report to the project.

    Args:
        project: it must exist: a run makes it.
        scopes: of the report.
        entity: the team or user; None is the key's own.

    Returns:
        Their addresses.

    Raises:
        BenchError: there is no key, no entity or no such project.
        EnvironmentFault: the server does not answer, refuses, or takes too long.
    """
    url = reachable()
    import wandb

    wandb.setup(wandb.Settings(silent=True))

    def work() -> list[str]:
        owner = entity or wandb.Api(timeout=API_SECONDS).default_entity
        if not owner:
            raise BenchError("the key's account has no default entity: name one with --entity")
        # First the report: it asks for the project, which saving a workspace would not.
        written = report(owner, project, scopes, owner)
        written.save()
        view = workspace(owner, project)
        view.save()
        return [view.url, written.url]

    try:
        return within(SAVE_SECONDS, work)
    except TimeoutError as error:
        raise EnvironmentFault(f"{url} did not take the dashboard within {SAVE_SECONDS:g} s") from error
    except BenchError:
        raise
    except ValueError as error:  # what wandb-workspaces makes of a project that is not there
        raise BenchError(f"{url}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # wandb raises its own, its service's and the network's
        raise EnvironmentFault(f"{url} refused the dashboard: {one_line(error)}") from error


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; it is left to itself when the time is up.

    Raises:
        TimeoutError: it was not done in time.
    """
    returned: list[Any] = []
    raised: list[Exception] = []

    def go() -> None:
        try:
            returned.append(work())
        except Exception as error:
            raised.append(error)

    # A daemon, so that the process can end: wandb's client repeats a request for longer than anybody waits.
    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeoutError
    return returned[0]


def main(words: Sequence[str], entity: str | None, project: str | None, path: Path | None) -> None:
    """Save the dashboard to W&B, or write it to a file.

    Args:
        words: as `chosen` takes them.
        entity: None is the key's own.
        project: None is where the runs go.
        path: of the JSON file; None saves to W&B.
    """
    project = project or LoggerConfig.project
    lines: list[str] = []
    scopes = chosen(words, lines.append if path is None else say)
    if path is None:
        # Before anything is said: without a key nothing comes of it.
        reachable()
    for line in lines:
        say(line)
    if path is not None:
        spec = specification(project, scopes, entity or "")
        write_atomic(path, json.dumps(spec, indent=1) + "\n")
        say(f"workspace and report: {path}")
        return
    for address in save(project, scopes, entity):
        say(address)
