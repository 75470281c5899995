"""`bench speed reg=...`: what it asks for, its sums against hand-worked ones, small real sittings; nothing is timed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import ops
from bench.__main__ import main
from bench.activity import activity_of
from bench.config.component import build
from bench.config.compose import compose
from bench.errors import BenchError, EnvironmentFault
from bench.registry import REGULARIZERS
from bench.speed import arms, methods, pages, settings, show_methods, summary, ways, worker
from bench.speed.crew import Crew, checked
from bench.speed.methods import Arm, Sitting

SMALL = ["model=cnn", "model.channels=4", "model.depth=2", "time_steps=2", "batch_size=4", "steps=1", "rounds=2"]


# -- what is asked for ------------------------------------------------------------------------------


def test_sets_are_written_as_a_grid_of_runs_has_them() -> None:
    asked = settings.parse(["reg=spikepen,[spikepen,dropout],none,spikepen", "reg.dropout.p=0.5", "model=sew"])
    assert asked.methods == (("none",), ("spikepen",), ("spikepen", "dropout"))
    assert (asked.every, asked.batch_size, asked.peers) == (False, 64, ("spikingjelly_eager",))
    run = compose(asked.of_method(("spikepen", "dropout")))
    assert (list(run.reg), run.reg.dropout.p, run.budget, run.data.name) == (
        ["spikepen", "dropout"],
        0.5,
        "quick",
        "mnist",
    )
    # What sets another one's number has no place in a run without it.
    assert list(compose(asked.of_method(("spikepen",))).reg) == ["spikepen"]


def test_one_list_is_one_set_and_quotes_are_taken_off() -> None:
    assert settings.parse(["reg=[rdrop,dropout]"]).methods == (("none",), ("rdrop", "dropout"))
    assert settings.parse(['reg="spikepen",["rdrop",dropout]']).methods[1:] == (("spikepen",), ("rdrop", "dropout"))
    assert settings.parse(["reg=none"]).methods == (("none",),)


def test_all_is_every_registered_one() -> None:
    asked = settings.parse(["reg=all,[spikepen,dropout]", "peers=none", "seconds=2", "steps=3"])
    assert asked.every
    assert set(asked.methods) == {(name,) for name in REGULARIZERS.names()} | {("spikepen", "dropout")}
    assert (asked.methods[0], asked.peers, asked.seconds, asked.steps) == (("none",), (), 2, 3)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["reg=spikpen"], "no regularizer is called 'spikpen'. Did you mean 'spikepen'?"),
        (["reg=[spikepen,al]"], "no regularizer is called 'al'"),
        (["reg=[dropout,dropout]"], "reg=[dropout,dropout] names 'dropout' twice in one set"),
        (["reg=[dropout"], "cannot read 'reg=[dropout'"),
        (["reg=spikepen", "reg.dropout.p=1"], "'reg.dropout.p=1' sets a regularizer that is not compared"),
        (["reg=spikepen", "reg.spikepen.wieght=1"], "Did you mean"),
        (["reg=spikepen", "reg.spikepen.weight=-1"], "reg.spikepen.weight is -1"),
        (["reg=spikepen", "peers=norse"], "peers=norse: regularizers are measured beside those of spikingjelly_eager"),
        (["reg=spikepen", "steps=0"], "steps is 0, it must be at least 1"),
        (["reg=spikepen", "model=diehl_cook"], "model=diehl_cook learns without gradients"),
        (["--redraw", "nowhere"], "nowhere holds no measurement"),
        (["--redraw", "nowhere", "reg=all"], "--redraw measures nothing"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: list[str], said: str
) -> None:
    monkeypatch.setattr(methods, "Crew", InProcess)
    status = main(["speed", *SMALL[3:], *typed] if not typed[0].startswith("--") else ["speed", *typed])
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1)
    assert said in err


# -- sums -------------------------------------------------------------------------------------------


def did(pace: float, memory: int, peak: int = 1000) -> dict[str, Any]:
    """What the worker says of an arm."""
    return {
        "images_per_s": pace,
        "first_step_s": 1 / pace,
        "step_memory_bytes": memory,
        "peak_memory_bytes": peak,
        "saved_bytes_for_backward": 7,
        "notes": [],
    }


def about(passes: float = 1, potential: bool = False) -> dict[str, Any]:
    """What the worker says of a set that the network takes."""
    return {"passes_per_step": passes, "reads_potential": potential, "way": True}


def made_up() -> Sitting:
    """Three rounds of made-up timings."""
    theirs = Arm("none", peer=True)
    paces = [(100.0, 80.0, 30.0, 10.0), (200.0, 190.0, 120.0, 20.0), (50.0, 30.0, 20.0, 10.0)]
    none, spikepen, membrane = (Arm(name) for name in ("none", "spikepen", "membrane"))
    rounds = [
        {none: did(a, 100), spikepen: did(b, 110 + turn), membrane: did(c, 150), theirs: did(d, 250)}
        for turn, (a, b, c, d) in enumerate(paces)
    ]
    longer = {none: did(1, 300), membrane: did(1, 900), theirs: did(1, 500)}
    facts = {"none": about(), "spikepen": about(), "membrane": about(potential=True)}
    return Sitting(facts, {"tet": "it cannot"}, rounds, (16, longer), 4)


def test_shares_are_of_the_same_round() -> None:
    by = {row["name"]: row for row in made_up().summary({}, [])["methods"]}
    assert by["none"]["of_none"] == {"median": 1, "min": 1, "max": 1}
    # .8, .95 and .6; .3, .6 and .4.
    assert by["spikepen"]["of_none"] == {"median": 0.8, "min": 0.6, "max": 0.95}
    assert by["membrane"]["of_none"] == {"median": 0.4, "min": 0.3, "max": 0.6}
    assert by["spikepen"]["images_per_s"] == {"median": 80, "min": 30, "max": 190}
    assert by["spikepen"]["rounds"] == [80, 190, 30]


def test_memory_is_the_largest_beside_the_baseline_s() -> None:
    found = made_up().summary({}, [])
    by = {row["name"]: row["memory"] for row in found["methods"]}
    assert by["spikepen"] == {"4": {"peak_memory_bytes": 1000, "step_memory_bytes": 112, "of_none": 1.12}}
    assert by["membrane"]["16"] == {"peak_memory_bytes": 1000, "step_memory_bytes": 900, "of_none": 3.0}
    (peer,) = found["peers"]
    assert {key: entry["bench_takes"] for key, entry in peer["memory"].items()} == {"4": 0.4, "16": 0.6}
    # 100 / 10, 200 / 20 and 50 / 10.
    assert peer["bench_is"] == {"median": 10, "min": 5, "max": 10}
    assert methods.share(1, 0) is None


@pytest.mark.parametrize(
    ("passes", "potential", "expected"), [(1, False, 0.9), (2, False, 0.45), (3, False, 0.3), (1, True, 0.6)]
)
def test_goals(passes: float, potential: bool, expected: float) -> None:
    assert math.isclose(methods.goal(about(passes, potential)), expected)


@pytest.fixture
def env() -> dict[str, Any]:
    """The circumstances of a measurement."""
    return {
        "model": "cnn", "data": "mnist", "batch_size": 64, "time_steps": 4, "rounds": 3, "hardware": "a machine",
        "device": "cpu", "precision": "fp32", "ops": "compiled", "dirty": False, "commit": "c" * 40,
        "date": "2026-01-02T03:04:05", "versions": dict.fromkeys(("torch", "spikingjelly", "lightning"), "1"),
    }  # fmt: skip


def test_page_and_chart_follow_from_the_file(env: dict[str, Any], tmp_path: Path) -> None:
    measured = made_up().summary(env, ["a note"])
    path = tmp_path / pages.name(measured)
    assert path.name == "regs-cnn-mnist-b64-cpu.json"
    path.write_text(json.dumps(measured))
    assert main(["speed", "--redraw", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    rows = {line.split()[0]: line for line in page.splitlines() if line.startswith(("spikepen ", "membrane ", "none "))}
    assert re.search(r"80\.0 +0\.80 +0\.60 - 0\.95 +0\.90 ! +1 +0 MiB +1\.12 x$", rows["spikepen"])
    assert re.search(r"0\.40 +0\.30 - 0\.60 +0\.60 ! +1 +0 MiB +1\.50 x +3\.00 x$", rows["membrane"])
    assert "- below their goal: spikepen, membrane\n" in page
    assert "same precision: 0.40 of it at T = 4; 0.60 of it at T = 16, more than half\n" in page
    assert "- tet is left out: it cannot\n" in page
    assert "- a note\n" in page
    assert max(map(len, page.split("```")[1].splitlines())) <= 100
    picture = path.with_suffix(".png")
    assert f"]({picture.name})" in page
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("folder", ["speed", "speed/avx2"])
def test_the_submitted_page_follows_from_its_files(folder: str) -> None:
    reports = Path(__file__).parents[2] / "reports" / folder
    assert (reports / "README.md").read_text() == pages.page(reports)


def test_what_was_called_a_floor_is_read_as_a_roof(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    arm = {"name": "bench", "share_of_floor": 1.1}
    env = {"floor_images_per_s": {"serial": 2}, "notes": ["16 products where the floor counts 36"]}
    path.write_text(json.dumps({"env": env, "arms": [arm]}))
    found = pages.read(path)
    assert found["arms"] == [{"name": "bench", "share_of_roof": 1.1}]
    assert found["env"] == {"roof_images_per_s": {"serial": 2}, "notes": ["16 products where the roof counts 36"]}


def test_bars_are_the_shares(env: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **options: drawn.append(figure))
    show_methods.chart(made_up().summary(env, []), tmp_path / "x.png")
    (axes,) = drawn[0].axes
    bars = {name.get_text(): bar.get_width() for name, bar in zip(axes.get_yticklabels(), axes.patches, strict=False)}
    assert bars == {"membrane": 0.4, "spikepen": 0.8, "none": 1}
    words = [text.get_text() for text in axes.texts]
    assert {"0.90", "0.60", "none"} <= set(words)
    assert any(word.endswith("1 pass, memory 1.50 x") for word in words)


# -- what the network takes -------------------------------------------------------------------------


class InProcess:
    """Does the jobs here: imports take seconds."""

    last: InProcess

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        InProcess.last = self

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def work(self, job: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(json.loads(json.dumps(job)))
        return checked(json.loads(json.dumps(worker.answer(self.jobs[-1]))))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work is done in this process, on random images."""
    monkeypatch.setattr(methods, "Crew", InProcess)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))


def test_of_all_what_the_network_cannot_take_is_named(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network without residual branches can leave none out."""
    monkeypatch.setattr(REGULARIZERS, "names", lambda: ["none", "spikepen", "stochdepth"])
    found = methods.compare(settings.parse([*SMALL[:-1], "rounds=1", "peers=none", "reg=all"]))
    assert [row["name"] for row in found["methods"]] == ["none", "spikepen"]
    ((name, why),) = found["env"]["left_out"].items()
    assert (name, "leaves out residual branches" in why) == ("stochdepth", True)
    assert f"stochdepth is left out: {why}\n" in capsys.readouterr().out
    with pytest.raises(BenchError, match="leaves out residual branches"):
        methods.compare(settings.parse([*SMALL, "reg=stochdepth"]))


def test_what_has_no_room_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """At more time steps, the rounds stand; in the first round, the others go on, unless it was named itself."""

    def work(job: dict[str, Any]) -> dict[str, Any]:
        reg = next(line for line in job["overrides"] if line.startswith("reg=["))[5:-1]
        if job["job"] == "takes":
            return about(potential=reg == "membrane")
        if reg == "rdrop" or (reg == "membrane" and "time_steps=16" in job["overrides"]):
            raise EnvironmentFault(f"no room for {reg}")
        return did(10.0, 5)

    asked = settings.Settings((), rounds=2, peers=(), methods=(("none",), ("membrane",), ("rdrop",)), every=True)
    overview = {"hardware": "a machine", "parity_max_abs": {}}
    found = methods.sitting(asked, overview, work, 4).summary({}, [])
    assert [row["name"] for row in found["methods"]] == ["none", "membrane"]
    assert [set(row["memory"]) for row in found["methods"]] == [{"4", "16"}, {"4"}]
    assert found["env"]["left_out"] == {"rdrop": "no room for rdrop"}
    assert re.search(r"T = 16  membrane +not measured: no room for membrane\n", capsys.readouterr().out)
    named = settings.Settings((), peers=(), methods=(("none",), ("rdrop",)))
    with pytest.raises(EnvironmentFault, match="no room for rdrop"):
        methods.sitting(named, overview, work, 4)


def test_arms_alternate(here: None) -> None:
    methods.compare(settings.parse([*SMALL, "reg=spikepen,uselose"]))
    order = [(job["overrides"][-1], job["peer"]) for job in InProcess.last.jobs if job["job"] == "method"]
    ours = [(f"reg=[{name}]", False) for name in ("none", "spikepen", "uselose")]
    assert order == 2 * [*ours, ("reg=[none]", True), ("reg=[spikepen]", True)]


# -- SpikingJelly's ways ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cnn", "sew", "convmixer"])
@pytest.mark.parametrize("reg", ["spikepen", "spikepen reg.spikepen.order=1 reg.spikepen.scale=matched"])
def test_hooks_compute_our_spike_penalty(here: None, model: str, reg: str) -> None:
    """In float64 the same loss, to the last digits, of the same weights."""
    small = {"convmixer": ["model.width=8", "model.depth=2"], "sew": ["model.channels=6", "model.depth=2"]}
    name, *rest = reg.split()
    cfg = compose([f"model={model}", *small.get(model, ["model.channels=8", "model.depth=2"]), "budget=quick",
                   "data=mnist", "trainer.batch_size=4", f"reg={name}", *rest, "ops=reference"])  # fmt: skip
    splits = arms.splits_of(cfg, 10, "cpu")
    ours, theirs = arms.model_of(cfg, splits), arms.model_of(cfg, splits)
    peer = arms.peer_model(cfg, "spikingjelly_eager", theirs).double()
    way = ways.take(peer, cfg.reg)
    x = splits.train_clean.sample(4, 0).double()
    reg_ours = build(REGULARIZERS, cfg.reg.spikepen)
    with ops.using(ops.Backend.reference):
        for _, layer in ours.spiking_layers():
            layer.reads = frozenset(reg_ours.reads)
        ours.double()(x)
        expected = reg_ours.penalty(activity_of(ours))["spikepen"]
    peer(x)
    found = way.penalty()
    assert isinstance(found, Tensor)
    assert float(expected.detach()) > 0
    assert math.isclose(float(found.detach()), float(expected.detach()), rel_tol=1e-6)


def test_dropout_stands_in_front_of_every_neuron() -> None:
    from spikingjelly.activation_based import layer, neuron

    net = nn.Sequential(layer.Linear(3, 400, step_mode="m"), neuron.IFNode(step_mode="m"))
    cfg = compose(["reg=dropout", "reg.dropout.p=0.5", "data=mnist"])
    assert all(ways.expressed(name, node) for name, node in cfg.reg.items())
    ways.take(net, cfg.reg)
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.zeros_(net[0].bias)
    spikes = net(torch.ones(2, 1, 3))
    # A current of 3 / (1 - p) fires at once; what is dropped never does, at neither step.
    assert torch.equal(spikes[0], spikes[1])
    assert 100 < int(spikes[0].sum()) < 300


def test_what_spikingjelly_has_no_way_for() -> None:
    def has(*reg: str) -> bool:
        cfg = compose([*reg, "data=mnist"])
        return all(ways.expressed(str(name), node) for name, node in cfg.reg.items())

    assert has("reg=[spikepen,dropout2d,weight_decay]")
    assert not has("reg=[spikepen,uselose]")
    assert not has("reg=dropout", "reg.dropout.scaling=test")
    assert not has("reg=spikepen", "reg.spikepen.increasing=true")
    assert not has("reg=weight_decay", "reg.weight_decay.only_weights=true")


# -- real processes ---------------------------------------------------------------------------------


def test_a_sitting_through_the_command(bench: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    """Two rounds of real processes: JSON, page and chart."""
    words = [*SMALL, "data=digits", f"data.root={shared_data}", "reg=[spikepen,membrane]"]
    done = bench("speed", *words, "--out", str(tmp_path), timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "regs-cnn-digits-b4-cpu.json").read_text())
    assert set(found) == {"env", "methods", "peers"}
    none, both = found["methods"]
    assert (none["name"], both["name"], [row["name"] for row in found["peers"]]) == (
        "none", "spikepen+membrane", ["none"],
    )  # fmt: skip
    for row in [none, both, *found["peers"]]:
        assert len(row["rounds"]) == 2
        assert set(row["images_per_s"]) == set(row["of_none"]) == {"median", "min", "max"}
        # A process that trains holds torch, far more than these networks.
        assert row["memory"]["2"]["peak_memory_bytes"] > 10**8
        assert row["memory"]["8"]["peak_memory_bytes"] > 10**8
    assert (none["goal"], both["goal"], both["reads_potential"], both["passes_per_step"]) == (None, 0.6, True, 1)
    env = found["env"]
    assert {"hardware", "versions", "commit", "date", "left_out", "notes", "parity_max_abs"} <= set(env)
    assert (env["rounds"], env["steps"], env["data_copy"]) == (2, 1, "embedded")
    assert env["parity_max_abs"]["spikingjelly_eager"] <= 1e-9
    assert (tmp_path / "README.md").exists()
    assert (tmp_path / "regs-cnn-digits-b4-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_that_dies_or_refuses() -> None:
    overrides = [
        "model=cnn",
        "model.channels=4",
        "model.depth=2",
        "data=mnist",
        "trainer.batch_size=4",
        "reg=stochdepth",
    ]
    asked = {"job": "takes", "overrides": overrides, "seconds": 0, "steps": 1}
    with Crew() as crew:
        with pytest.raises(BenchError, match="leaves out residual branches") as caught:
            crew.work(asked)
        assert caught.value.code == 2
        with pytest.raises(EnvironmentFault, match="measuring nothing failed: KeyError: 'nothing'"):
            crew.work({**asked, "job": "nothing"})
        # The crew goes on.
        assert crew.work({**asked, "overrides": [*overrides[:-1], "reg=spikepen"]})["passes_per_step"] == 1


def test_spread() -> None:
    assert summary.spread([3.0, 1.0, 2.0]) == {"median": 2, "min": 1, "max": 3}


# -- the start of a run -----------------------------------------------------------------------------


def test_a_start_is_measured(bench: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    words = ["model=cnn", "model.channels=4", "model.depth=2", "data=digits", f"data.root={shared_data}"]
    done = bench("speed", "startup", *words, "rounds=1", "--out", str(tmp_path), timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "startup-cnn-digits.json").read_text())["startup"]
    # A second of computing at least, of a process with torch and Lightning in it.
    assert found["cpu_s"]["median"] > 0.5
    assert 0.5 < found["seconds"]["min"] <= found["seconds"]["max"]
    assert (len(found["rounds"]), found["modules"] > 1000) == (1, True)
    assert {"torch", "lightning"} <= set(found["imported"])
    assert not {"torchvision", "scipy"} & set(found["imported"])
    page = (tmp_path / "README.md").read_text()
    assert f"from Enter to the end of the first training step {found['seconds']['median']:.2f} s" in page


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["model=swe"], "no model is called 'swe'. Did you mean 'sew'?"),
        (["rounds=none"], "rounds is 'none', it must be a whole number"),
        (["model=diehl_cook"], "model=diehl_cook takes no training steps by gradient"),
    ],
)
def test_a_mistaken_start_is_one_line(capsys: pytest.CaptureFixture[str], typed: list[str], said: str) -> None:
    assert main(["speed", "startup", *typed]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
