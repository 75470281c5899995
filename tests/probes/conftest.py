"""A trained network to probe: one run a session, copied for each test that changes its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.probes.base import Subject

# Three digits, all test images of them, one spiking layer behind Poisson inputs.
POISSON = (
    "data=digits", "data.classes=[7,4,6]", "data.crop=0", "model=mlp", "model.hidden=[24]",
    "model.encoding=poisson", "time_steps=6", "trainer.batch_size=32", "trainer.epochs=6", "optim.lr=0.01",
    "trainer.precision=fp32", "logger=none",
)  # fmt: skip
POISSON_REG = ("reg=uselose", "reg.uselose.form=literal", "reg.uselose.tau=10")
CONV = (
    "data=digits", "data.crop=0", "model=cnn", "model.channels=8", "model.depth=3", "time_steps=2", "data.limit=400",
    "trainer.batch_size=32", "trainer.epochs=4", "optim.lr=0.01", "trainer.precision=fp32", "logger=none",
)  # fmt: skip


def train(root: Path, runs: Path, *overrides: str) -> Path:
    """The folder of a finished run."""
    from bench.config.compose import compose
    from bench.training.run import run

    result = run(compose([*overrides, f"data.root={root}", f"runs={runs}"]))
    return runs / result["run_id"]


@pytest.fixture(scope="session")
def poisson_run(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Of a fully connected network under use-it-or-lose-it; not to be changed."""
    return train(shared_data, tmp_path_factory.mktemp("poisson"), *POISSON, *POISSON_REG)


@pytest.fixture(scope="session")
def conv_run(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Of a convolutional network on all digits, whose clocks tick; not to be changed."""
    return train(shared_data, tmp_path_factory.mktemp("conv"), *CONV, "reg=uselose", "reg.uselose.k_p=0.01")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """copied(run): the same run in a folder that may be damaged."""
    return lambda run: Path(shutil.copytree(run, tmp_path / "runs" / run.name))


@pytest.fixture
def subject_of() -> Callable[..., Subject]:
    """subject_of(run, *settings): what `bench eval` would give to a probe."""
    from bench.probes import evaluate

    def load(run: Path, *lines: str) -> Subject:
        return evaluate.load(run, evaluate.finished(run), evaluate.parse(["probe=noise", *lines]))

    return load
