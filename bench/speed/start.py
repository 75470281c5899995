"""`bench speed startup`: from Enter to the end of the first training step, in processes of their own.

`python -m bench.speed.start FILE OVERRIDE ...` is such a process: a run that ends after its first step.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import startup

WORD = "startup"
DEFAULTS = {"model": "cnn", "data": "digits", "logger": "none"}
MODULES = ("torch", "lightning", "torchmetrics", "torchvision", "scipy", "matplotlib", "hydra", "spikingjelly", "timm")
"""Of which it is told whether they were imported."""


def measure(overrides: Sequence[str], rounds: int) -> dict[str, Any]:
    """Start a run `rounds` times, and once before that, so that its files are warm.

    Args:
        overrides: of the run.
        rounds: how often.

    Returns:
        env and startup, as the JSON file holds them.

    Raises:
        BenchError: an override names nothing that exists.
        EnvironmentFault: a run ended before its first step.
    """
    from bench.config.component import component_name
    from bench.config.compose import compose
    from bench.console import say
    from bench.errors import BenchError, EnvironmentFault
    from bench.records import provenance
    from bench.registry import MODELS
    from bench.speed.crew import environment, why_died
    from bench.speed.summary import spread

    given = {line.partition("=")[0]: line for line in overrides}
    chosen = list(({key: f"{key}={value}" for key, value in DEFAULTS.items()} | given).values())
    cfg = compose(chosen)
    model = component_name(MODELS, cfg.model)
    if MODELS.get(model).learning != "gradient":
        raise BenchError(f"model={model} takes no training steps by gradient: name another")
    found = []
    for turn in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "started.json"
            command = [sys.executable, "-m", "bench.speed.start", str(file), *chosen, f"runs={folder}/runs"]
            began = time.time()
            done = subprocess.run(command, capture_output=True, text=True, env=environment())
            if not file.exists():
                raise EnvironmentFault(f"the run took no step: {why_died(done.returncode, done.stderr)}")
            told = json.loads(file.read_text())
        told["seconds"] = told.pop("at") - began
        if turn:
            found.append(told)
            say(f"round {turn}/{rounds}  {told['seconds']:.2f} s, {told['cpu_s']:.2f} s of them computing")
    commit, dirty, _ = provenance.commit()
    return {
        "env": {
            "date": provenance.now(),
            "hardware": provenance.hardware("cpu"),
            "versions": provenance.versions(),
            "commit": commit,
            "dirty": dirty,
            "rounds": rounds,
            "model": model,
            "data": cfg.data.name,
        },
        "startup": {
            "seconds": spread([one["seconds"] for one in found]),
            "cpu_s": spread([one["cpu_s"] for one in found]),
            "rounds": [one["seconds"] for one in found],
            "modules": found[-1]["modules"],
            "imported": found[-1]["imported"],
        },
    }


def text(measured: dict[str, Any]) -> list[str]:
    """What was measured, in lines."""
    found, env = measured["startup"], measured["env"]
    seconds, cpu = found["seconds"], found["cpu_s"]
    return [
        f"{env['model']}, {env['data']}: from Enter to the end of the first training step {seconds['median']:.2f} s "
        f"({seconds['min']:.2f} - {seconds['max']:.2f}), warm files, n = {env['rounds']}",
        f"computing {cpu['median']:.2f} s ({cpu['min']:.2f} - {cpu['max']:.2f}); {found['modules']:,} modules, of "
        f"{', '.join(found['imported'])} among others",
        f"{env['hardware']}; commit {(env['commit'] or 'none')[:8]}{', changed since' if env['dirty'] else ''}",
    ]


def tell(file: Path) -> None:
    """Write down when it is, and what it took to come here, and end the process."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    imported = [name for name in MODULES if name in sys.modules]
    told = {"at": time.time(), "cpu_s": used.ru_utime + used.ru_stime, "modules": len(sys.modules)}
    file.write_text(json.dumps(told | {"imported": imported}))
    os._exit(0)


if __name__ == "__main__":
    startup.at_first_step(partial(tell, Path(sys.argv[1])))
    sys.argv = ["bench", "run", *sys.argv[2:]]
    runpy.run_module("bench", run_name="__main__")  # as `python -m bench` does it
