"""The commands of `bench`: a module each, with `parser()` for its command line and `main(arguments)`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: under `bench.commands`. It imports what is slow inside `main`, so that help and completion are quick.
        summary: what it does, in a line.
    """

    module: str
    summary: str

    def load(self) -> ModuleType:
        """The module."""
        return importlib.import_module(f"bench.commands.{self.module}")


COMMANDS = {
    "run": Command("run", "train one configuration, or with -m a grid of them; `run --help` says more"),
    "reproduce": Command("reproduce", "a paper's table: run what has no record yet, then write its report"),
    "tune": Command("tune", "regularizers at equal tuning budgets: search, choose on validation, retrain"),
    "list": Command(
        "catalog", "models, regularizers, data sets, experiments and probes: what they are, their source and defaults"
    ),
    "runs": Command("runs", "the runs on this machine as a table; filtered by any number or setting of their records"),
    "compare": Command("compare", "two runs side by side: settings that differ, outcomes, curves, layers"),
    "eval": Command("evaluate", "probes of finished runs: noise, attacks, corruptions; into the run's folder"),
    "predict": Command("predict", "classify images by a trained network: labels, probabilities by time step, spikes"),
    "export": Command("export", "a trained network for elsewhere: NIR, ONNX, the Hugging Face hub, the zoo"),
    "data": Command("data", "what data is on disk; download and check it"),
    "speed": Command(
        "speed", "training images/s, memory and share of the roof, beside networks built from public packages"
    ),
    "report": Command(
        "report", "records into tables, figures and one page; --check says whether those in reports/ still follow"
    ),
    "submit": Command("submit", "check finished runs and copy their records to where the reports find them"),
    "dashboard": Command(
        "dashboard", "build the W&B workspace and report over a project's runs, or with --json write them to a file"
    ),
    "sync": Command("sync", "upload offline W&B runs"),
    "completion": Command("completion", "print the script that makes TAB complete in bash, zsh or fish"),
}
