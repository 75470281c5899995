"""One measurement in a process of its own, `python -m bench.speed.worker JOB`; the last line it prints is JSON.

Without a job it takes jobs from standard input, one a line, and forks a fresh process for each: what takes seconds to
import is imported once.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from bench import ops
from bench.config.compose import compose
from bench.data.batches import Chunks
from bench.errors import BenchError, EnvironmentFault, first_line
from bench.neurons import Read
from bench.records import provenance
from bench.records.identity import science
from bench.speed import measure
from bench.speed.arms import (
    Arm,
    above_roof,
    bench_arm,
    device_of,
    mixed,
    model_of,
    on_disk,
    peer_arm,
    peer_model,
    splits_of,
    way_arm,
)
from bench.speed.peers import PEERS
from bench.speed.ways import expressed

PARITY_IMAGES = 2


def overview(cfg: DictConfig, job: dict[str, Any]) -> dict[str, Any]:
    """Hardware, work per image, and the largest distance of each peer's logits from ours in float64."""
    device = device_of(cfg)
    splits = splits_of(cfg, max(PARITY_IMAGES, cfg.trainer.batch_size, 10), "cpu")
    ours = model_of(cfg, splits)
    images = splits.train_clean.sample(PARITY_IMAGES, cfg.seed).double()
    # FLOPs inside kernels of our own would not be seen.
    with ops.using(ops.Backend.reference):
        flops, moved = measure.work_per_image(ours, images[:1].float())
    ours.forget()
    parity = {}
    theirs = {peer: peer_model(cfg, peer, ours) for peer in job["peers"] if PEERS[peer].float64}
    mine = ours.double()(images)
    for peer, net in theirs.items():
        parity[peer] = float((mine - net.double()(images)).detach().abs().max())
    facts = facts_of(cfg)
    return {
        "device": device,
        "hardware": provenance.hardware(device),
        "threads": torch.get_num_threads(),
        "precision": facts["precision"],
        "ops": ops.resolve(cfg.ops, device)[0].value,
        "data_copy": splits.dataset.copy,
        "flops_per_image": flops,
        "bytes_per_image": moved,
        "parity_max_abs": parity,
        "params": sum(p.numel() for p in ours.parameters()),
    }


def ceilings(cfg: DictConfig, job: dict[str, Any]) -> dict[str, Any]:
    """The machine's."""
    return measure.ceilings(device_of(cfg))


def arm(cfg: DictConfig, job: dict[str, Any]) -> dict[str, Any]:
    """One arm of one round: `resident`, and for ours `epoch`; or `oom` on a GPU too small."""
    name, seconds, device = job["arm"], job["seconds"], device_of(cfg)
    size = cfg.trainer.batch_size
    splits = splits_of(cfg, max(size, 10 * (device == "cpu")), device)
    x, y = next(iter(splits.train))
    facts = facts_of(cfg)

    def make(images: int) -> Arm:
        batch = x[:images], y[:images]
        if name == "bench":
            return bench_arm(cfg, facts, splits, batch, device)
        return peer_arm(cfg, name, splits, batch, device)

    before = provenance.peak_memory(device)
    began = time.perf_counter()
    try:
        made = make(size)
        took = time.perf_counter() - began
        resident: dict[str, Any] = measure.rate(made.step, size, seconds, device, job["steps"])
        compiled = PEERS[name].best if name in PEERS else False
        # torch.compile runs inside `make`, so that its failure is caught there.
        resident["compile_s"] = took if compiled else 0.0
        peak = provenance.peak_memory(device)
        resident |= {"peak_memory_bytes": peak, "step_memory_bytes": peak - before}
        resident["saved_bytes_for_backward"] = saved(made)
        if name in PEERS and not PEERS[name].best:
            # What it would keep in our numbers: a comparison at another precision says little.
            with mixed(device, facts["precision"] == "bf16"):
                resident["saved_bytes_at_our_precision"] = saved(made)
        notes = made.notes + (above_roof(cfg, made.model, device) if name == "bench" else [])
    except torch.OutOfMemoryError:
        return {"oom": fitting(make, size)}
    out = {"resident": resident, "notes": notes}
    if name == "bench":
        del made
        out["epoch"] = epochs_of(cfg, facts, device, resident["images_per_s"], seconds)
    return out


def method(cfg: DictConfig, job: dict[str, Any]) -> dict[str, Any]:
    """A set of regularizers on our network, or SpikingJelly's way of it: pace and memory on one resident batch."""
    device, size = device_of(cfg), cfg.trainer.batch_size
    splits = splits_of(cfg, max(size, 10 * (device == "cpu")), device)
    batch = next(iter(splits.train))
    measure.forget_peak()
    before = provenance.peak_memory(device)
    make = way_arm if job["peer"] else bench_arm
    try:
        made = make(cfg, facts_of(cfg), splits, batch, device)
        found: dict[str, Any] = measure.rate(made.step, size, job["seconds"], device, job["steps"])
    except torch.OutOfMemoryError:
        raise EnvironmentFault(f"reg={'+'.join(cfg.reg)} is out of GPU memory at batch_size={size}") from None
    peak = provenance.peak_memory(device)
    found |= {"peak_memory_bytes": peak, "step_memory_bytes": peak - before}
    return found | {"saved_bytes_for_backward": saved(made), "notes": made.notes}


def takes(cfg: DictConfig, job: dict[str, Any]) -> dict[str, Any]:
    """Whether the network takes a set of regularizers (a BenchError says why not), and what they cost by their word."""
    from bench.training import setup

    setup.pick_kernels(cfg.ops, device_of(cfg))
    task: Any = setup.make_task(cfg, splits_of(cfg, max(cfg.trainer.batch_size, 10), "cpu"))
    return {
        "passes_per_step": math.prod(reg.passes_per_step for reg in task.regs),
        "reads_potential": Read.potential in task.reads,
        "way": all(expressed(name, settings) for name, settings in cfg.reg.items()),
    }


def facts_of(cfg: DictConfig) -> dict[str, Any]:
    """What `run` settles before it makes a trainer, the precision above all."""
    known = cfg if on_disk(cfg) else OmegaConf.merge(cfg, {"data": {"name": "digits"}})
    return science(known)  # type: ignore[arg-type]


def epochs_of(cfg: DictConfig, facts: dict[str, Any], device: str, pace: float, seconds: float) -> dict[str, Any]:
    """Images per second of whole epochs through the Trainer that `run` makes; the first epoch is left out.

    Args:
        cfg: the run.
        facts: of `facts_of`.
        device: cpu or cuda.
        pace: images per second to expect.
        seconds: how long to measure, about.
    """
    import lightning as L

    from bench.training import fit, setup
    from bench.training.progress import Reporter

    batch = cfg.trainer.batch_size
    steps = max(2, round(pace * seconds / 2 / batch))
    splits = splits_of(cfg, max(steps * batch, 100 if on_disk(cfg) else batch), device)
    images = len(splits.train) * splits.train.batch_size
    epochs = max(1, round(pace * seconds / images))

    class Stopwatch(L.Callback):
        """In the Recorder's place: writes nothing."""

        times: list[float] = []  # noqa: RUF012

        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            self.began = measure.clock(device)

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            self.times.append(measure.clock(device) - self.began)

    cfg = OmegaConf.merge(cfg, {"trainer": {"epochs": epochs + 1, "eval_every": epochs + 2}})  # type: ignore[assignment]
    watch: Any = Stopwatch()
    reporter = Reporter(cfg.trainer.epochs)
    task = setup.make_task(cfg, splits, on_step=reporter.advance)
    trainer = fit.make_trainer(setup.settle_run(cfg, facts), [reporter, watch])
    # A loader for validation, which is never due: Lightning warns if there is none.
    trainer.fit(task, Chunks(splits.train), [splits.test])
    return {
        "images_per_s": epochs * images / sum(watch.times[1:]),
        "epoch_images": images,
        "epochs": epochs,
        "peak_memory_bytes": provenance.peak_memory(device),
    }


def saved(made: Arm) -> int | None:
    """Its saved bytes; None where the hooks cannot see them."""
    try:
        return made.saved_bytes()
    except RuntimeError as error:
        made.notes.append(f"bytes saved for backward unknown: {first_line(error)[:80]}")
        return None


def fitting(make: Callable[[int], Arm], size: int) -> int:
    """The batch size that should fit, from the peaks of two that do; 0 if not even one image does."""
    points: list[tuple[int, int]] = []
    while size > 1 and len(points) < 2:
        size //= 2
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            make(size).step()
        except torch.OutOfMemoryError:
            continue
        points.append((size, torch.cuda.max_memory_allocated()))
    if len(points) < 2:
        return len(points)
    return measure.fitting_batch((points[0], points[1]), torch.cuda.mem_get_info()[1])


JOBS: dict[str, Callable[[DictConfig, dict[str, Any]], dict[str, Any]]] = {
    "overview": overview,
    "ceilings": ceilings,
    "arm": arm,
    "takes": takes,
    "method": method,
}


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job; a fault of the input, or of the machine, is an answer too."""
    warnings.filterwarnings("ignore")
    try:
        return JOBS[job["job"]](compose(job["overrides"]), job)
    except BenchError as error:
        return {"error": str(error), "code": error.code}


def serve() -> None:
    """Answer the jobs of standard input, a line of JSON each, every one from a process of its own."""
    # What all of them need. No thread is started here: a fork would not take it along.
    from bench.training import fit, setup  # noqa: F401

    # Whatever a job prints goes where errors go: only answers come out.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        if ended:
            print(json.dumps({"died": os.waitstatus_to_exitcode(ended)}), file=answers, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Do the job that is named, or those of standard input."""
    if not arguments:
        serve()
    else:
        print(json.dumps(answer(json.loads(arguments[0]))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
