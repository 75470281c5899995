"""What a few steps come to, by network, kernel and regularizer; `python tests/training/golden.py` renews golden.json.

A change that moves these numbers moves results: raise `NUMERICS` in bench/records/provenance.py, then renew the file;
it is not renewed under a number that it has already.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("golden.json")

NETWORKS = ("cnn", "sew", "convmixer")
KERNELS = ("reference/fp32", "compiled/fp32", "compiled/bf16")
OTHERS = {
    "mlp": ("model=mlp",),
    "srm": ("model=srm",),
    "diet": ("model=diet",),
    "diehl_cook": ("model=diehl_cook",),
    "cnn of relu": ("model=cnn", "neuron=relu"),
    "mlp, poisson": ("model=mlp", "model.encoding=poisson"),
    "cnn by sgd": ("model=cnn", "optim=sgd"),
}

ELSEWHERE = {"stochdepth": "sew"}
"""The network of a regularizer that does nothing on `cnn`."""


def cases(regularizers: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and overrides of every run."""
    for network in NETWORKS:
        for kernel in KERNELS:
            ops, precision = kernel.split("/")
            yield f"{network}, {kernel}", (f"model={network}", f"ops={ops}", f"trainer.precision={precision}")
    plain = ("ops=reference", "trainer.precision=fp32")
    for name, overrides in OTHERS.items():
        yield name, (*overrides, *plain)
    for reg in regularizers:
        network = ELSEWHERE.get(reg, "cnn")
        yield f"{network}, {reg}", (f"model={network}", f"reg={reg}", *plain)


def machine() -> str:
    """What the last digits depend on: where it is the same, outcomes are."""
    import torch

    facts = [platform.machine(), torch.__version__, torch.backends.cpu.get_cpu_capability()]
    info = Path("/proc/cpuinfo")
    kept = ("cpu family", "model", "stepping", "cache size", "flags")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    facts += [line for line in lines if line.split("\t")[0].split(":")[0].strip() in kept]
    try:
        facts.append(subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False).stdout)
    except OSError:
        facts.append("no compiler")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def measure(overrides: tuple[str, ...], root: Path) -> dict[str, float | None]:
    """The outcome of four steps of eight digits each, on one thread: mean loss and spike rate while training, and the
    test loss after them."""
    import torch

    from bench.config.compose import compose
    from bench.training.run import run

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result: dict[str, Any] = run(
            compose(
                [
                    *overrides,
                    "budget=smoke",
                    "data.limit=32",
                    "data.test_limit=16",
                    "logger=none",
                    f"runs={root}",
                    "trainer.accelerator=cpu",
                ]
            )
        )
    finally:
        torch.set_num_threads(threads)
    train, test = result["train"], result["test"]
    return {"train loss": train["loss"], "spike rate": train["spike_rate"], "test loss": test["loss"]}


def main() -> None:
    """Renew the file for the present number of numerics."""
    from bench.records.provenance import NUMERICS
    from bench.registry import REGULARIZERS

    there = json.loads(FILE.read_text()) if FILE.exists() else {"numerics": 0}
    with tempfile.TemporaryDirectory() as folder:
        # A folder each: kernels are no part of a run's id.
        runs = enumerate(cases(sorted(REGULARIZERS.names())))
        found = {name: measure(overrides, Path(folder) / str(place)) for place, (name, overrides) in runs}
    # What is new may join under the present number.
    moved = any(found.get(name, outcome) != outcome for name, outcome in there.get("outcomes", {}).items())
    if there["numerics"] == NUMERICS and there["machine"] == machine() and moved:
        sys.exit(f"the file has other outcomes of numerics {NUMERICS}; raise it in bench/records/provenance.py")
    FILE.write_text(json.dumps({"numerics": NUMERICS, "machine": machine(), "outcomes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
