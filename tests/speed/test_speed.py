"""`bench speed`: its contract on tiny networks, its counts against hand-worked ones; no timing is asserted."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.__main__ import main
from bench.config.compose import compose
from bench.errors import BenchError, EnvironmentFault
from bench.speed import arms, command, measure, peers, settings, show, worker

TINY = ["model.channels=8", "model.depth=2", "time_steps=2", "batch_size=4", "seconds=0", "rounds=2"]
SMALL = {
    "cnn": ["model.channels=8", "model.depth=2"],
    "sew": ["model.channels=6", "model.depth=2"],
    "convmixer": ["model.width=8", "model.depth=2", "model.kernel=5", "model.patch=2"],
}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Work is done in this process (imports take seconds) on an empty data root; the jobs, as they come."""
    jobs: list[dict[str, Any]] = []

    def work(job: dict[str, Any]) -> dict[str, Any]:
        jobs.append(json.loads(json.dumps(job)))
        found = worker.JOBS[job["job"]](compose(job["overrides"]), jobs[-1])
        return json.loads(json.dumps(found))

    monkeypatch.setattr(command, "work", work)
    monkeypatch.setattr(measure, "ceilings", lambda device: dict.fromkeys(CEILINGS, 1e11))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return jobs


CEILINGS = ("conv_fp32_flops", "conv_bf16_flops", "copy_bytes")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("peers=spikingjely_eager", "no peer is called 'spikingjely_eager'. Did you mean 'spikingjelly_eager'"),
        ("peers=nrose", "Did you mean 'norse'"),
        ("round=3", "no setting is called 'round'. Did you mean 'rounds'"),
        ("lr=1", "no setting is called 'lr'. Did you mean 'optim.lr=1'?\n"),
        ("T=2", "no setting is called 'T'. Did you mean 'time_steps=2'?\n"),
        ("batchsize=8", "no setting is called 'batchsize'. Did you mean 'batch_size' or"),
        ("trainer.batch_size=8", "bench speed has a setting of its own for that, batch_size=8\n"),
        ("modell=cnn", "no setting is called 'modell'. Did you mean 'model'?"),
        ("model=swe", "no model is called 'swe'. Did you mean 'sew'?"),
        ("data=cifar", "no data set is called 'cifar'. Did you mean 'cifar10'"),
        ("model.chanels=8", "model has no setting 'chanels'. Did you mean 'channels'?"),
        ("rounds=0", "rounds is 0, it must be at least 1"),
        ("rounds=many", "rounds is 'many', it must be a whole number"),
        ("seconds=long", "seconds is 'long', it must be a number"),
        ("batch_size=1.5", "batch_size is '1.5', it must be a whole number"),
        ("cnn", "cannot read 'cnn': write key=value"),
        ("--jsn x", "unrecognized arguments: --jsn"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], typed: str, said: str) -> None:
    status = main(["speed", *typed.split()])
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_quotes_are_taken_off_as_hydra_does() -> None:
    asked = settings.parse(["rounds='3'", 'peers="norse",snntorch', 'seconds="0.5"', 'model="sew"'])
    assert (asked.rounds, asked.peers, asked.seconds) == (3, ("norse", "snntorch"), 0.5)
    assert 'model="sew"' in asked.overrides


def test_json_table_and_chart(here: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "new" / "speed.json"
    chosen = ["spikingjelly_eager", "snntorch", "norse"]
    assert main(["speed", *TINY, f"peers={','.join(chosen)}", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert set(found) >= {"env", "arms", "ratios"}
    assert [(row["name"], row["mode"]) for row in found["arms"]] == [
        ("bench", "resident"),
        ("bench", "epoch"),
        *((name, "resident") for name in chosen),
    ]
    for row in found["arms"]:
        assert set(row) >= {"name", "mode", "batch_size", "images_per_s", "peak_memory_bytes", "share_of_roof"}
        images = row["images_per_s"]
        assert (row["batch_size"], len(row["rounds"]), set(images)) == (4, 2, {"median", "min", "max"})
        assert 0 < images["min"] <= images["median"] <= images["max"]
        # Both work counts are known, and all ceilings are 1e11.
        bound = max(found["env"]["flops_per_image"], found["env"]["bytes_per_image"]) / 1e11
        assert math.isclose(row["share_of_roof"], images["median"] * bound)
        assert row["peak_memory_bytes"] > 10**7
    by = {row["name"]: row for row in found["arms"] if row["mode"] == "resident"}
    assert set(found["ratios"]) == {*chosen, "epoch_over_resident"}
    for name in chosen:
        ours, theirs = (statistics.median(by[key]["rounds"]) for key in ("bench", name))
        assert math.isclose(found["ratios"][name], ours / theirs)
    env = found["env"]
    assert {"hardware", "versions", "commit", "rounds", "ceilings", "flops_per_image", "date"} <= set(env)
    assert {"torch", "snntorch", "norse", "spikingjelly"} <= set(env["versions"])
    assert (env["model_args"], env["data_copy"], env["rounds"]) == ({"channels": 8, "depth": 2}, "random", 2)
    assert "cifar10 is not on disk: random images of its shape" in env["notes"]
    # Arms alternate.
    order = [job["arm"] for job in here if job["job"] == "arm"]
    assert order == 2 * ["bench", *chosen]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert re.search(r"round 2/2  norse +resident [\d,.]+ img/s\n", out)
    shown = [line for line in out.splitlines() if not line.startswith("wrote ")]
    assert not [line for line in shown if len(line) > 100]


def test_a_page_of_all_that_was_measured(here: list[dict[str, Any]], tmp_path: Path) -> None:
    """Two networks measured into one folder: a line each, whose ratio is that of the JSON file."""
    for size in (4, 6):
        asked = [word for word in TINY if not word.startswith("batch_size")]
        assert main(["speed", *asked, f"batch_size={size}", "peers=spikingjelly_eager", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    files = sorted(tmp_path.glob("*.json"))
    assert [path.stem for path in files] == ["cnn-cifar10-b4-cpu", "cnn-cifar10-b6-cpu"]
    for path in files:
        found = json.loads(path.read_text())
        (stock,) = [row for row in found["arms"] if row["name"] == "spikingjelly_eager"]
        # Half the bytes in bf16, as far as convolutions go; the same where we train in fp32 too.
        own, given = stock["saved_bytes_at_our_precision"], stock["saved_bytes_for_backward"]
        assert own < given if found["env"]["precision"] == "bf16" else own == given
        line = f"| cnn | cifar10, {found['env']['batch_size']} | "
        (row,) = [row for row in page.splitlines() if row.startswith(line)]
        assert f" {found['ratios']['spikingjelly_eager']:.2f} x | - |" in row
        assert f"![{path.stem}]({path.stem}.png)" in page
        assert path.with_suffix(".png").exists()


@pytest.mark.parametrize("model", sorted(peers.NETWORKS))
def test_spikingjelly_computes_the_same(here: list[dict[str, Any]], model: str) -> None:
    overrides = [f"model={model}", *SMALL[model], "data=cifar10", "budget=paper", "trainer.batch_size=4"]
    job = {"job": "overview", "overrides": overrides, "peers": list(peers.PEERS)}
    found = command.work(job)
    parity = found["parity_max_abs"]
    assert set(parity) == {"spikingjelly_eager", "spikingjelly_best", "norse"}
    assert max(parity["spikingjelly_eager"], parity["norse"]) <= 1e-9


@pytest.mark.parametrize("model", sorted(peers.NETWORKS))
@pytest.mark.parametrize("name", ["snntorch", "norse", "spikingjelly_eager"])
def test_a_peer_trains_every_network(here: list[dict[str, Any]], name: str, model: str) -> None:
    overrides = [f"model={model}", *SMALL[model], "data=cifar10", "budget=paper", "trainer.batch_size=4"]
    cfg = compose(overrides)
    splits = arms.splits_of(cfg, 4, "cpu")
    arm = arms.peer_arm(cfg, name, splits, next(iter(splits.train)), "cpu")
    # A conv bias before batch norm has no gradient.
    weights = {key: value for key, value in arm.model.named_parameters() if value.ndim > 1}
    before = {key: value.detach().clone() for key, value in weights.items()}
    # Twice: state that a step forgot to reset would carry its graph into the next.
    arm.step()
    arm.step()
    assert arm.saved_bytes() > 0
    assert not [key for key, value in weights.items() if torch.equal(value, before[key])]


def test_another_function_is_refused(here: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Louder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1.001 * x

    def other(*args: Any) -> peers.PeerNetwork:
        net = peers.cnn(*args)
        net.body.append(Louder())
        return net

    def build(kit: peers.Kit, spec: Any, channels: int, depth: int) -> peers.PeerNetwork:
        return other(kit, spec, channels, depth)

    monkeypatch.setitem(peers.NETWORKS, "cnn", build)
    with pytest.raises(EnvironmentFault, match=r"logits of spikingjelly_eager differ from ours by .* nothing was meas"):
        command.speed(settings.parse([*TINY, "peers=spikingjelly_eager"]))
    assert [job["job"] for job in here] == ["overview"]


def test_peers_that_cannot_take_part_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(*arguments: str) -> tuple[list[str], list[str]]:
        asked = settings.parse(arguments)
        return command.able(asked, compose(asked.overrides))

    assert left() == (list(peers.PEERS), [])
    assert left("peers=none") == ([], [])
    fit, lines = left("neuron=lif")
    assert fit == ["spikingjelly_eager", "spikingjelly_best"]
    assert lines[0] == "snntorch is left out: it cannot express neuron=lif with these settings"
    monkeypatch.setattr(peers, "find_spec", lambda package: None if package == "norse" else package)
    assert left()[1] == ["norse is left out: norse is not installed; pip install 'snn-bench[speed]' brings it"]
    monkeypatch.delitem(peers.NETWORKS, "sew")
    fit, lines = left("model=sew", "peers=norse")
    assert (fit, lines) == ([], ["norse is left out: it has no sew; peers have cnn, convmixer"])


def test_without_a_compiler_the_best_settings_go_on_without(
    here: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(arms, "keep_freed_memory", lambda: None)
    cfg = compose(["model=cnn", *SMALL["cnn"], "data=cifar10", "budget=paper", "trainer.batch_size=4"])
    splits = arms.splits_of(cfg, 4, "cpu")
    monkeypatch.setattr(arms, "best_precision", lambda accelerator: "bf16")
    arm = arms.peer_arm(cfg, "spikingjelly_best", splits, next(iter(splits.train)), "cpu")
    arm.step()
    assert arm.notes == ["torch.compile failed (RuntimeError: no compiler here): without it"]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_best_settings_take_bf16_where_the_processor_has_it(
    here: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(arms, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(arms, "best_precision", lambda accelerator: precision)
    cfg = compose(["model=cnn", *SMALL["cnn"], "data=cifar10", "budget=paper", "trainer.batch_size=4"])
    splits = arms.splits_of(cfg, 4, "cpu")
    arm = arms.peer_arm(cfg, "spikingjelly_best", splits, next(iter(splits.train)), "cpu")
    seen: set[torch.dtype] = set()
    for module in arm.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    arm.step()
    assert seen == {dtype}
    assert arm.notes == ([] if precision == "bf16" else ["fp32: this processor has no bf16"])


def test_help_knows_the_peers(capsys: pytest.CaptureFixture[str]) -> None:
    """It must answer without importing torch, so it has a list of its own."""
    assert main(["speed", "--help"]) == 0
    assert f" {','.join(peers.PEERS)}\n" in capsys.readouterr().out


def measured(pace: float) -> dict[str, Any]:
    """What the worker says of an arm."""
    one = {"images_per_s": pace, "peak_memory_bytes": 1, "step_memory_bytes": 1, "saved_bytes_for_backward": 1}
    return {"resident": one | {"compile_s": 0.0, "first_step_s": 1.0}, "notes": []}


def test_out_of_memory_says_what_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    about = dict.fromkeys(("flops_per_image", "bytes_per_image"), 1e9)
    about |= {"hardware": "a GPU", "device": "cuda", "threads": 1, "precision": "bf16", "ops": "triton"}
    epoch = {"images_per_s": 1.0, "peak_memory_bytes": 1, "epoch_images": 1, "epochs": 1}
    answers: dict[str, Any] = {
        "overview": about | {"parity_max_abs": {}, "params": 1, "data_copy": "original"},
        "ceilings": dict.fromkeys(CEILINGS, 1e11),
        "bench": measured(200.0) | {"epoch": epoch},
        "norse": {"oom": 12},
        "snntorch": measured(50.0),
    }
    monkeypatch.setattr(command, "work", lambda job: answers[job.get("arm", job["job"])])
    asked = settings.parse(["rounds=2", "peers=norse,snntorch"])
    found = command.speed(asked)
    assert set(found["ratios"]) == {"snntorch", "epoch_over_resident"}
    assert found["ratios"]["snntorch"] == 4.0
    assert "norse: out of GPU memory at batch_size=50; batch_size=12 would fit" in found["env"]["notes"]
    assert capsys.readouterr().out.count("norse") == 2  # the list of arms, and once that it is out
    answers["bench"] = {"oom": 30}
    with pytest.raises(EnvironmentFault, match="out of GPU memory at batch_size=50; batch_size=30 would fit"):
        command.speed(asked)


def test_a_worker_s_fault_arrives_as_it_was(shared_data: Path) -> None:
    """The one test through real processes: digits has 1,437 training images."""
    overrides = ["model=cnn", "model.channels=4", "model.depth=2", "data=digits", f"data.root={shared_data}"]
    job = {"overrides": [*overrides, "budget=paper", "trainer.batch_size=2000"], "peers": []}
    with pytest.raises(
        BenchError, match=r"^batch_size=2000 is more than the 1437 training images there are$"
    ) as caught:
        command.work({**job, "job": "overview"})
    assert caught.value.code == 2
    with pytest.raises(EnvironmentFault, match="measuring nothing failed: KeyError: 'nothing'"):
        command.work({**job, "job": "nothing"})


def test_the_roof_is_worked_out_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(100, 10))
    flops, moved = measure.work_per_image(net, torch.zeros(1, 3, 5, 5))
    assert flops == 3 * 2 * (25 * 4 * 27 + 100 * 10)
    assert moved == 2 * (5 * 75 + 6 * 100 + 5 * 100 + 6 * 10)
    top = {"conv_fp32_flops": 1e9, "conv_bf16_flops": 2e9, "copy_bytes": 1e9}
    # 1e6 FLOP take 0.5 ms, 1e6 bytes 1 ms.
    roof = measure.roof_images_per_s(1e6, 1e6, top)
    assert math.isclose(roof["overlapped"], 1000)
    assert math.isclose(roof["serial"], 1000 / 1.5)
    # 100 bytes, and 30 an image: 95 % of 1,000 hold 28.3 images.
    assert measure.fitting_batch(((10, 400), (20, 700)), 1000) == 28


def test_saved_bytes_count_each_storage_once() -> None:
    weight, x = torch.ones(100, requires_grad=True), torch.ones(100)

    def loss() -> Tensor:
        y = weight * x  # keeps weight and x
        return (y.sin() + y.view(10, 10).cos().view(100)).sum()  # both keep y

    assert measure.saved_bytes(loss, [weight, x]) == 400
    assert measure.saved_bytes(loss, [weight]) == 800


def test_a_chart_without_matplotlib_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert show.chart({"env": {}, "arms": []}, tmp_path / "x.png") is None
