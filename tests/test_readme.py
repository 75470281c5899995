"""The README keeps its word: its example works, its tables are those of the registry, its commands exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.commands.catalog import write_into
from bench.config.compose import compose
from bench.registry import REGULARIZERS
from bench.report import headline
from docs import methods, picture

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def example(page: str, what: str, path: Path) -> dict[str, str]:
    """The environment in which a page's example, written to a file, is a plugin."""
    found = re.search(
        rf"<!-- example of {what} -->\n```python\n(.+?)```", (ROOT / "docs" / page).read_text(), re.DOTALL
    )
    assert found is not None
    path.write_text(found[1])
    return {"BENCH_PLUGINS": str(path)}


def test_the_example_is_a_regularizer(
    bench: Callable[..., subprocess.CompletedProcess[str]], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """The file of the README in a process that knows it by $BENCH_PLUGINS alone."""
    found = re.search(r"<!-- example -->\n```python\n(.+?)```", README, re.DOTALL)
    assert found is not None
    plugin = tmp_path / "rateband.py"
    plugin.write_text(found[1])
    env = {"BENCH_PLUGINS": str(plugin)}
    # High above what a network without it does, so that the band must be what lowers the rate.
    rates = {}
    for weight in ("0", "300"):
        options = ("reg.rateband.low=0", "reg.rateband.high=0.01", f"reg.rateband.weight={weight}")
        done = bench("run", *tiny, "reg=rateband", *options, "trainer.epochs=6", "optim.lr=0.02", env=env)
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "runs").rglob("result.json"):
        result = json.loads(path.read_text())
        rates[result["strength"]] = result["test"]["spike_rate"]
    assert rates[300.0] < 0.7 * rates[0.0]
    listed = json.loads(bench("list", "regs", "--json", env=env).stdout)
    assert any("Zenke & Vogels" in entry["source"] for entry in listed["regs"] if entry["name"] == "rateband")
    refused = bench("run", "reg=rateband", "reg.rateband.weight=-1", env=env)
    assert refused.returncode == 2
    assert "reg.rateband.weight is -1" in refused.stderr


def test_the_example_of_a_step_runs(
    bench: Callable[..., subprocess.CompletedProcess[str]], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    env = example("contributing-a-regularizer.md", "a step", tmp_path / "gradnoise.py")
    losses = {}
    for sigma in ("0", "0.01", "10"):
        done = bench("run", *tiny, "reg=gradnoise", f"reg.gradnoise.sigma={sigma}", "trainer.epochs=3",
                     env=env)  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = bench("run", *tiny, "reg=none", "trainer.epochs=3")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "runs").rglob("result.json"):
        result = json.loads(path.read_text())
        losses[result["strength"]] = result["train"]["loss"]
    # Without noise it is the baseline to the last bit; a little changes little, and much drowns the gradients.
    assert losses[0.0] == losses[None]
    assert losses[0.01] != losses[0.0]
    assert losses[10.0] > losses[0.0] + 0.1


@pytest.mark.slow
def test_the_example_that_reads_potentials_keeps_the_contract(tmp_path: Path) -> None:
    """Slow: the contract's tests in a process of their own."""
    env = os.environ | example("your-own.md", "potentials", tmp_path / "quietpotential.py")
    tests = "tests/regularizers/test_regularizers_contract.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", tests, "-k", "quietpotential"],
        capture_output=True, text=True, env=env, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 30


def test_the_example_of_a_network_learns(
    bench: Callable[..., subprocess.CompletedProcess[str]], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    env = example("your-own.md", "a network", tmp_path / "twoconv.py")
    own = ("model=twoconv", "model.channels=8", "reg=spikepen", "data.limit=200", "trainer.epochs=12", "optim.lr=0.02")
    other = [word for word in tiny if not word.startswith(("model", "data.limit", "trainer.epochs"))]
    done = bench("run", *other, *own, env=env)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(path.read_text())
    assert result["train"]["loss"] < 2.2, "ln 10 is what a network begins with"
    assert [layer["name"] for layer in result["layers"]] == ["first_neurons", "second_neurons"]
    assert result["synops_per_image"] > 0


def test_the_tables_follow_from_the_registry(tmp_path: Path) -> None:
    copy = tmp_path / "catalog.md"
    copy.write_text((ROOT / "docs" / "catalog.md").read_text())
    assert not write_into(copy), "make readme"


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_the_results_follow_from_the_submitted_records(name: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    copy = tmp_path / name
    copy.write_text((ROOT / name).read_text())
    # As people do it, from the checkout's own folder: links go by where the file is.
    assert not headline.write_into(copy, tmp_path / "reports"), "make readme"


def test_the_pages_of_methods_follow_from_the_code() -> None:
    made = methods.files()
    assert {path.name: path.read_text() for path in methods.FOLDER.iterdir()} == made, "make readme"
    pages = {name.removesuffix(".md") for name in made if name.endswith(".md")} - {"README"}
    assert pages == {
        name for name in REGULARIZERS.names() if REGULARIZERS.declaration(name).target.startswith("bench.")
    }
    assert "![activity, loss](acts-on-activity-loss.svg)" in made["spikepen.md"]
    assert "| `reg.spikepen.weight` | `0.1` | 0.05 (nandan2022, table 3.1" in made["spikepen.md"]
    assert "![network](" in made["dropout.md"]
    assert "![update, evaluation](" in made["ema.md"]


def test_the_results_of_methods_follow_from_the_submitted_records(tmp_path: Path) -> None:
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    shutil.copytree(ROOT / "docs" / "methods", tmp_path / "docs" / "methods")
    assert not headline.write_into(tmp_path / "docs" / "methods", tmp_path / "reports"), "make readme"
    page = tmp_path / "docs" / "methods" / "spikepen.md"
    page.write_text(re.sub(r"\| \d\d\.\d\d \[", "| 11.11 [", page.read_text(), count=1))
    assert headline.write_into(tmp_path / "docs" / "methods", tmp_path / "reports")


def test_the_commands_compose() -> None:
    """Every `run` line of the README, each with one value of what it sweeps."""
    lines = re.findall(r"^(?:BENCH_PLUGINS\S+ )?bench run (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        # How a grid is started is no setting of its runs.
        words = [word for word in line.split() if not word.startswith(("-", "hydra/")) and word != "job"]
        if "rateband" in line:
            continue
        compose([word if "[" in word else word.split(",")[0] for word in words])


def test_it_is_read_in_minutes_and_says_bench() -> None:
    assert README.count("\n") <= 150
    assert "python -m bench" not in README
    # The answer is in the first screen.
    assert README.index("<!-- bench report leaderboard/mnist-1k -->") < 300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def words_of(svg: str) -> list[str]:
    """The texts of a picture but for outcomes, which are a machine's: the run's name, the epochs with every number as
    0, and what has no number."""
    texts = [text.replace("&#160;", " ").strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    epochs = [re.sub(r" +", " ", re.sub(r"\d[\d,.]*", "0", text)) for text in texts if text.startswith("epoch")]
    names = [text for text in texts if "spikepen-s" in text]
    # How many neurons are dead is none, or a share and the layer with the most.
    return [*epochs, *names, *(text for text in texts if not re.search(r"\d|^none$", text))]


def test_the_picture_is_the_demos(tmp_path: Path) -> None:
    """`make demo` trains for real, learns, and shows in the terminal what the README shows."""
    assert "bench run model=sew reg=spikepen" in (ROOT / "Makefile").read_text()
    run = picture.demo(tmp_path / "runs")
    result = json.loads((run / "result.json").read_text())
    assert result["test"]["acc"] > 80
    assert words_of(picture.draw(run)) == words_of(picture.PICTURE.read_text()), "python docs/picture.py"
