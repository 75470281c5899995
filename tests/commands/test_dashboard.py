"""The W&B workspace and report: every key is one that a real run has, and they arrive at a server that takes them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from wandb_workspaces import workspaces
from wandb_workspaces.reports import v2 as reports
from wandb_workspaces.reports.v2 import internal

from bench import experiments
from bench.commands.panels import arranged, chosen, scope, specification
from bench.data import DATASETS
from bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[2]
Bench = Callable[..., subprocess.CompletedProcess[str]]

TOPICS = ["Accuracy against spikes", "Accuracy", "Spikes", "Runs"]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """Workspace and report over two experiments, the first under two budgets; as it would be read from a file."""
    scopes = chosen(["nandan2022/table3_1", "suite/mnist"], lambda line: None)
    return json.loads(json.dumps(specification("some-project", scopes)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> dict[str, set[str]]:
    """The keys in a real run's offline W&B file: of its config, its history and its summary."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("recorded")
    command = [sys.executable, "-m", "bench", "run", *TINY, "logger=wandb", "logger.mode=offline", "reg=spikepen"]
    env = {**os.environ, "BENCH_DATA": str(shared_data), "BENCH_RUNS": str(folder), "HOME": str(folder)}
    subprocess.run([*command, "data.val_fraction=0.2"], env=env, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (log,) = folder.rglob("*.wandb")
    inspect = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", log]
    shown = subprocess.run(inspect, capture_output=True, text=True, timeout=60, check=True).stdout
    keys: dict[str, set[str]] = {"config": set(), "history": set(), "summary": set()}
    for line in map(json.loads, shown.splitlines()):
        keys["config"] |= set(line.get("run", {}).get("config", {}).get("update", {}))
        keys["history"] |= set(line.get("history", {}).get("item", {}))
        keys["summary"] |= set(line.get("summary", {}).get("update", {}))
    return keys


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in some JSON."""
    if isinstance(node, dict):
        yield node
        for item in node.values():
            yield from walk(item)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item)


def panels(node: Any) -> list[dict[str, Any]]:
    """All panels in a specification."""
    return [item for item in walk(node) if "viewType" in item]


def grids(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The panel grids of a report, in order."""
    return [block["metadata"] for block in spec["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]


def named(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, key) of everything that a specification would look up in a run."""

    def column(text: str) -> tuple[str, str]:
        section, _, key = text.partition(":")
        return section, key.removesuffix(".value") if section == "config" else key

    for panel in panels(spec):
        config = panel["config"]
        if group := config.get("groupBy"):
            yield "config", group.removesuffix(".value")
        for text in re.findall(r"\$\{(.+?)\}", config.get("legendTemplate", "")):
            yield column(text)
        if panel["viewType"] == "Run History Line Plot":
            yield from (("history", key) for key in (config["xAxis"], *config["metrics"]))
        elif panel["viewType"] == "Bar Chart":
            yield from (("summary", key) for key in config["metrics"])
        elif panel["viewType"] == "Scatter Plot":
            yield from (column(config[axis]) for axis in ("xAxis", "yAxis"))
        elif panel["viewType"] == "Parallel Coordinates Plot":
            yield from (column(item["accessor"]) for item in config["columns"])
        elif panel["viewType"] == "Parameter Importance":
            yield "summary", config["targetKey"]
    for runs in (item for node in walk(spec) for item in node.get("runSets", [])):
        yield from map(column, runs["runFeed"]["columnOrder"])
        keys = [*runs["grouping"], *(k["key"] for k in (*runs["sort"]["keys"], *runs["filters"]["filters"]))]
        yield from (column(f"{key['section']}:{key['name']}") for key in keys)
    yield "history", spec["workspace"]["spec"]["section"]["settings"]["xAxis"]


def test_every_key_is_one_that_a_run_has(spec: dict[str, Any], recorded: dict[str, set[str]]) -> None:
    found = set(named(spec))
    missing = {(kind, key) for kind, key in found if kind != "run" and key not in recorded[kind]}
    assert not missing
    assert {key for kind, key in found if kind == "run"} == {"displayName", "jobType"}
    # That the walk above finds keys at all.
    assert {("config", "reg"), ("config", "strength"), ("summary", "final/test_acc"), ("history", "val/acc")} <= found
    assert len(found) > 20


def test_every_pattern_matches_what_a_run_logs_each_epoch(spec: dict[str, Any], recorded: dict[str, set[str]]) -> None:
    patterns = {panel["config"]["metricRegex"] for panel in panels(spec) if "metricRegex" in panel["config"]}
    matched = {key for pattern in patterns for key in recorded["history"] if re.search(pattern, key)}
    assert matched == {"penalty/spikepen", *(f"spike_rate_layer/spikings.{i}" for i in range(3))}


def test_the_workspace_has_these_panels(spec: dict[str, Any]) -> None:
    sections = spec["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["How to read this", *TOPICS]
    assert Counter(panel["viewType"] for panel in panels(sections)) == {
        "Run History Line Plot": 11, "Bar Chart": 4, "Scatter Plot": 3, "Parallel Coordinates Plot": 1,
        "Run Comparer": 1, "Parameter Importance": 1, "Markdown Panel": 1,
    }  # fmt: skip
    for panel in panels(sections):
        if panel["viewType"] in ("Run History Line Plot", "Bar Chart"):
            config = panel["config"]
            assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == ("reg.value", "mean", "stddev")
            assert config["aggregate"] is True


def test_the_report_has_the_same_panels_for_each_experiment(spec: dict[str, Any]) -> None:
    def kinds(node: Any) -> list[tuple[str, str]]:
        return [(panel["viewType"], panel["config"].get("chartTitle", "")) for panel in panels(node)]

    overall, leaders, *rest = grids(spec)
    assert kinds(leaders) == [
        ("Bar Chart", "Tuned: test accuracy (%)"),
        ("Bar Chart", "Tuned: spike rate on the test set"),
        ("Bar Chart", "Tuned: seconds a run"),
    ]
    assert [name for name, _ in kinds(overall)] == [
        "Scatter Plot", "Scatter Plot", "Scatter Plot", "Parallel Coordinates Plot", "Run Comparer"
    ]  # fmt: skip
    workspace = spec["workspace"]["spec"]["section"]["panelBankConfig"]["sections"][1:]
    # Four topics, then the curves by strength; twice.
    assert len(rest) == 10
    for first in (0, 5):
        assert [kinds(grid) for grid in rest[first : first + 4]] == [kinds(section) for section in workspace]
        by_strength = rest[first + 4]
        assert all("groupBy" not in panel["config"] for panel in panels(by_strength))
        for runs in by_strength["runSets"]:
            assert [key["name"] for key in runs["grouping"]] == ["reg.value", "strength.value"]


def test_an_experiment_shows_its_own_runs_a_run_set_a_budget(spec: dict[str, Any]) -> None:
    def values(runs: dict[str, Any]) -> dict[str, Any]:
        return {item["key"]["name"]: item["value"] for item in runs["filters"]["filters"]}

    overall, leaders, *rest = grids(spec)
    (tuned,) = leaders["runSets"]
    assert values(tuned) == {"jobType": "tune-final"}
    assert [key["name"] for key in tuned["grouping"]] == ["reg.value"]
    assert values(overall["runSets"][0]) == {}
    table = {"data": ["cifar10"], "model": ["cnn"], "reg": ["none", "spikepen"]}
    for grid in rest[:5]:
        assert [values(runs) for runs in grid["runSets"]] == [{"budget": "paper", **table}, {"budget": "cpu", **table}]
    for grid in rest[5:]:
        (runs,) = grid["runSets"]
        assert (values(runs)["budget"], values(runs)["data"], values(runs)["model"]) == ("quick", ["mnist"], ["cnn"])
        assert {"none", "spikepen", "uselose"} <= set(values(runs)["reg"])


def test_no_panel_covers_another(spec: dict[str, Any]) -> None:
    for grid in grids(spec):
        taken: set[tuple[int, int]] = set()
        for panel in panels(grid):
            place = panel["layout"]
            cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
            assert not cells & taken
            assert max(x for x, _ in cells) < 24
            taken |= cells


def test_wide_panels_have_a_row_of_their_own() -> None:
    narrow, wide = reports.BarPlot, reports.RunComparer
    places = [(p.layout.x, p.layout.y, p.layout.w) for p in arranged([narrow(), wide(), *(narrow() for _ in range(4))])]
    assert places == [(0, 0, 8), (0, 6, 24), (0, 12, 8), (8, 12, 8), (16, 12, 8), (0, 18, 8)]


def test_it_survives_the_library_s_own_models(spec: dict[str, Any]) -> None:
    def dump(model: Any) -> Any:
        found = model.model_dump(mode="json", by_alias=True, exclude_none=True)
        for node in walk(found):
            # Reading puts an empty list of comments beside a heading's text.
            if node.get("inlineComments") == []:
                del node["inlineComments"]
        return found

    view = workspaces.internal.View.model_validate(spec["workspace"])
    assert dump(workspaces.Workspace._from_model(view)._to_model()) == spec["workspace"]
    stored = internal.ReportViewspec.model_validate(spec["report"])
    assert dump(stored) == spec["report"]
    # wandb-workspaces forgets the width when it reads a report.
    again = reports.Report._from_model(stored)
    again.width = "fluid"
    assert dump(again._to_model()) == spec["report"]


# -- the command --------------------------------------------------------------------------------------


def test_a_file_needs_no_key_and_no_server(bench: Bench, tmp_path: Path) -> None:
    # A server that nobody could reach: asking it would be an error.
    done = bench(
        "dashboard", "nandan2022/table3_1", "budget=smoke", "--entity", "E", "--project", "P", "--json",
        str(tmp_path / "spec.json"), env={"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x" * 40},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "nandan2022/table3_1: 11 rows, budget smoke"
    written = json.loads((tmp_path / "spec.json").read_text())
    assert [written["workspace"][key] for key in ("entity", "project")] == ["E", "P"]
    assert written["report"]["project"] == {"name": "P", "entityName": "E"}


def test_an_experiments_runs_are_those_that_its_rows_compose_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read off the rows in no time, where nothing is left to the defaults; the same as what Hydra makes of them."""
    composed: list[int] = []
    identified = experiments.identified
    monkeypatch.setattr(experiments, "identified", lambda jobs, *rest, **named: composed.append(1) or identified(
        jobs, *rest, **named
    ))  # fmt: skip
    for name, budget in (("nandan2022/table3_1", "cpu"), ("suite/digits", "quick")):
        experiment = experiments.load(name)
        found = scope(experiment, budget).values
        assert composed == []
        jobs = experiments.expand(experiment, [f"budget={budget}", "seed=0"])
        facts = [own for _, _, own in identified(jobs, dict.fromkeys(DATASETS.names(), ("", "any")), auto="auto")]
        assert found == {
            "data": sorted({own["data"]["name"] for own in facts}),
            "model": sorted({own["model"]["name"] for own in facts}),
            "reg": sorted({"+".join(own["reg"]) for own in facts}),
        }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nandan2022/table3"], "no experiment is called 'nandan2022/table3'. Did you mean 'nandan2022/table3_1'"),
        (["budget=cpux"], "no budget is called 'cpux'. Did you mean 'cpu'?"),
        (["seed=3"], "the dashboard takes experiments and budget=, not 'seed=3'"),
    ],
)
def test_what_it_does_not_know_it_says(words: list[str], line: str) -> None:
    with pytest.raises(BenchError) as caught:
        chosen(words, lambda line: None)
    assert str(caught.value).startswith(line)
    assert caught.value.code == 2


def test_a_file_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    done = bench("dashboard", "suite/precision", "--json", str(tmp_path / "none" / "spec.json"))
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'none' / 'spec.json'} could not be written: No such file or directory\n"


def test_without_a_key_it_says_how_to_get_one(bench: Bench) -> None:
    done = bench("dashboard", "suite/precision")
    assert done.returncode == 2
    assert re.fullmatch(r"error: no W&B key for https://\S+: `wandb login` .* WANDB_API_KEY\n", done.stderr)
    assert done.stdout == "", "no work was done in vain"


def test_a_mistake_is_said_before_a_key_is_asked_for(bench: Bench) -> None:
    done = bench("dashboard", "suite/precision", "lr=1")
    assert done.stderr == "error: the dashboard takes experiments and budget=, not 'lr=1'\n"
    assert done.returncode == 2


def test_without_the_package_it_says_what_to_install(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['wandb_workspaces'] = None")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = bench("dashboard", "--json", str(tmp_path / "spec.json"), env={"PYTHONPATH": path})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("pip install wandb-workspaces\n")


class Wandb(BaseHTTPRequestHandler):
    """As much of a W&B server as wandb's client needs to save a view, and what it was sent."""

    views: list[dict[str, Any]]
    project: dict[str, str] | None
    stuck: threading.Event | None

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.stuck is not None:
            self.stuck.wait(60)
            return
        asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
        data: dict[str, Any] = {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}"}}
        data["viewer"]["teams"] = {"edges": []}
        data["project"] = self.project
        empty = {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}, "totalCount": 0}
        data["models"] = empty
        data["result"] = {"project": {"id": "1", "name": "p", "entityName": "me"}, "model": None, "inserted": True}
        if "upsertView(" in asked["query"]:
            self.views.append(asked["variables"])
            view = {"id": "VmlldzoxMjM=", "name": asked["variables"]["name"], "type": "runs", "displayName": "x"}
            view |= {"description": "", "project": {"id": "1", "name": "p", "entityName": "me"}, "spec": "{}"}
            data["upsertView"] = {"view": {**view, "updatedAt": None}, "inserted": True}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def wandb_server() -> Iterator[tuple[str, type[Wandb]]]:
    """Its address, and the class that answers for it."""

    class Handler(Wandb):
        views: list[dict[str, Any]] = []  # noqa: RUF012 (one for each test: the class is made anew)
        project: dict[str, str] | None = {"id": "1", "internalId": "UHJvamVjdDox"}  # noqa: RUF012
        stuck = None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", Handler
        if Handler.stuck is not None:
            Handler.stuck.set()
        http.shutdown()
        thread.join()


def account(url: str) -> dict[str, str]:
    """The environment of somebody who is logged in there."""
    return {"WANDB_BASE_URL": url, "WANDB_API_KEY": "x" * 40}


def test_saved_is_what_a_file_has(bench: Bench, wandb_server: tuple[str, type[Wandb]], tmp_path: Path) -> None:
    """Through wandb's own client; only the server is not theirs."""

    def plain(node: Any) -> Any:
        """Without what is drawn by chance or looked up."""
        if isinstance(node, dict):
            return {k: plain(v) for k, v in node.items() if k not in ("__id__", "id", "project")}
        return [plain(item) for item in node] if isinstance(node, list) else node

    url, server = wandb_server
    done = bench("dashboard", "suite/precision", "--project", "p", env=account(url))
    assert (done.returncode, done.stderr) == (0, "")
    bench("dashboard", "suite/precision", "--project", "p", "--json", str(tmp_path / "spec.json"))
    wanted = json.loads((tmp_path / "spec.json").read_text())
    report, workspace = server.views
    assert [view["type"] for view in (report, workspace)] == ["runs", "project-view"]
    for view, name in ((report, "report"), (workspace, "workspace")):
        assert (view["entityName"], view["projectName"]) == ("me", "p")
        assert plain(json.loads(view["spec"])) == plain(wanted[name]["spec"])
    runs = grids({"report": {"spec": json.loads(report["spec"])}})[0]["runSets"][0]
    assert runs["project"] == {"name": "p", "entityName": "me", "id": "UHJvamVjdDox"}
    assert [line.split("?")[0].split("/reports/")[0] for line in done.stdout.splitlines()[1:]] == [f"{url}/me/p"] * 2


def test_a_project_that_is_not_there(bench: Bench, wandb_server: tuple[str, type[Wandb]]) -> None:
    url, server = wandb_server
    server.project = None
    done = bench("dashboard", "suite/precision", "--project", "p", env=account(url))
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {url}: Run set 'all runs' project 'me/p' not found\..*\n", done.stderr)
    assert server.views == []


def test_a_server_that_falls_silent_ends_in_a_line(wandb_server: tuple[str, type[Wandb]], shared_data: Path) -> None:
    """It answers the first question and none after; the process ends all the same."""
    url, server = wandb_server
    server.stuck = threading.Event()
    code = "import sys, bench.commands.panels as d; d.SAVE_SECONDS = 2.0; "
    code += "from bench.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "dashboard", "suite/precision"]
    env = {**os.environ, **account(url), "PYTHONPATH": str(ROOT), "BENCH_DATA": str(shared_data)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {url} did not take the dashboard within 2 s\n"


def test_a_server_that_does_not_answer(bench: Bench) -> None:
    done = bench("dashboard", "suite/precision", env=account("http://127.0.0.1:9"))
    assert (done.returncode, done.stderr) == (1, "error: http://127.0.0.1:9 did not answer within 2 s\n")
