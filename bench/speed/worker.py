"""One measurement in a process of its own, `python -m bench.speed.worker JOB`; the last line it prints is JSON."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from bench import ops
from bench.config.component import build, component_name, settings
from bench.config.compose import compose
from bench.data import Batches, Dataset, Splits, prepare, status
from bench.data.batches import Augment, Chunks
from bench.errors import BenchError, first_line, one_line
from bench.models.base import Spec, SpikingNetwork
from bench.ops.allocator import keep_freed_memory
from bench.records import provenance
from bench.records.identity import best_precision, science
from bench.registry import MODELS
from bench.seeds import generator
from bench.speed import measure
from bench.speed.peers import PEERS, copy_weights, network

PARITY_IMAGES = 2
# Shapes and classes for random images where the data set itself is not on disk.
SHAPES = {
    "cifar10": (3, 32, 32, 10),
    "cifar100": (3, 32, 32, 100),
    "fashion_mnist": (1, 28, 28, 10),
    "kmnist": (1, 28, 28, 10),
    "mnist": (1, 28, 28, 10),
}


@dataclass
class Arm:
    """A network ready to train on its resident batch.

    Attributes:
        batch: x `[N, C, H, W]` and labels `[N]`.
        model: the network.
        loss: runs the forward pass; returns the loss.
        optimizer: of the weights.
        after: what a step ends with: resets, and what regularizers do.
        notes: what the reader should know, in lines.
    """

    batch: tuple[Tensor, Tensor]
    model: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    after: Callable[[], None]
    notes: list[str]

    def step(self) -> None:
        """zero_grad, forward, loss, backward, optimizer, reset."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        self.after()

    def saved_bytes(self) -> int:
        """What its forward pass keeps for backward, weights and images left out."""
        known = [*self.model.parameters(), *self.model.buffers(), *self.batch]
        found = measure.saved_bytes(self.loss, known)
        self.after()
        return found


# -- what all arms share ------------------------------------------------------------------------------


def device_of(cfg: DictConfig) -> str:
    """`cpu` or `cuda`, as `bench.training.setup.pick_device` chooses it, whose module takes seconds to import."""
    if cfg.trainer.devices != 1:
        raise BenchError("trainer.devices: bench speed measures one device; leave it out")
    wanted = cfg.trainer.accelerator.value
    if wanted == "gpu" and not torch.cuda.is_available():
        raise BenchError("trainer.accelerator=gpu, but torch sees no CUDA GPU here; use auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def on_disk(cfg: DictConfig) -> bool:
    """Whether the data set can be read without a network; one whose images' shape is not known must be."""
    name = cfg.data.name
    return name not in SHAPES or any(row["name"] == name and row["present"] for row in status(cfg.data.root))


def splits_of(cfg: DictConfig, images: int, device: str) -> Splits:
    """The first `images` training images (class-balanced), or random ones of the same shape.

    Raises:
        BenchError: there are too few of them for one batch.
    """
    batch = cfg.trainer.batch_size
    data = settings(cfg.data)
    if on_disk(cfg):
        splits = prepare(data, seed=cfg.seed, batch_size=batch, max_train_images=images, device=device)
        if splits.train.batch_size < batch:
            raise BenchError(f"batch_size={batch} is more than the {splits.train_images} training images there are")
        return splits
    *shape, classes = SHAPES[data.name]
    draw = generator("cpu", cfg.seed, "speed")
    pixels = torch.randint(256, (images, *shape), dtype=torch.uint8, generator=draw)
    labels = torch.randint(classes, (images,), generator=draw)
    names = tuple(map(str, range(classes)))
    dataset = Dataset(data.name, "random", "none", names, pixels, labels, pixels[:classes], labels[:classes])
    mean, std = ((0.5,) * shape[0], (0.25,) * shape[0])
    statistics: dict[str, Any] = {"mean": mean, "std": std, "device": device}
    train = Batches(pixels, labels, batch, augment=Augment(crop=data.crop, flip=data.flip), seed=cfg.seed, **statistics)
    clean = Batches(pixels[:batch], labels[:batch], batch, **statistics)
    return Splits(dataset, train, clean, None, clean, (shape[0], shape[1], shape[2]), mean, std)


def model_of(cfg: DictConfig, splits: Splits) -> SpikingNetwork:
    """Our network, with the weights that every arm starts from."""
    torch.manual_seed(cfg.seed)
    spec = Spec(splits.image_shape, splits.classes, cfg.time_steps, settings(cfg.neuron))
    model: SpikingNetwork = build(MODELS, cfg.model, spec=spec)
    return model


def peer_model(cfg: DictConfig, name: str, ours: SpikingNetwork) -> nn.Module:
    """A peer's network with our weights."""
    arguments: Any = OmegaConf.to_container(cfg.model, resolve=True, enum_to_str=True)
    del arguments["_target_"]
    model = network(PEERS[name], component_name(MODELS, cfg.model), ours.spec, arguments)
    copy_weights(ours, model)
    return model


def mixed(device: str, bf16: bool, keep_casts: bool = True) -> AbstractContextManager[Any]:
    """bf16 autocast, or nothing."""
    return torch.autocast(device, torch.bfloat16, cache_enabled=keep_casts) if bf16 else nullcontext()


# -- the arms -----------------------------------------------------------------------------------------


def peer_arm(cfg: DictConfig, name: str, splits: Splits, batch: tuple[Tensor, Tensor], device: str) -> Arm:
    """A peer's plain training loop."""
    from spikingjelly.activation_based import functional

    x, y = batch
    peer = PEERS[name]
    notes: list[str] = []
    # At its best a peer takes bf16 as we do: where it is emulated, it is many times slower.
    half = peer.best and best_precision(cfg.trainer.accelerator) == "bf16"
    if peer.best and not half:
        notes.append("fp32: this processor has no bf16")
    model = peer_model(cfg, name, model_of(cfg, splits)).to(device)
    call: Callable[[Tensor], Tensor] = model
    if peer.best:
        keep_freed_memory()
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        call = torch.compile(model)

    def loss() -> Tensor:
        with mixed(device, half):
            logits = call(x)
        return F.cross_entropy(logits.float(), y)

    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.optim.lr, momentum=cfg.optim.momentum)
    arm = Arm((x, y), model, loss, optimizer, lambda: functional.reset_net(model), notes)
    if peer.best:
        try:
            arm.step()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the compiler stumbles over
            call = model
            functional.reset_net(model)
            why = one_line(error)[:100]
            notes.append(f"torch.compile failed ({why}): without it")
    return arm


class BenchArm(Arm):
    """Ours: the task's own step, with all that a run does in it."""

    def __init__(self, task: Any, batch: tuple[Tensor, Tensor], precision: AbstractContextManager[Any]) -> None:
        super().__init__(batch, task, self._loss, task.make_optimizer(), task.model.forget, [])
        self.precision = precision
        task.on_train_epoch_start()
        task.replay_if_able(self.optimizer)

    def _loss(self) -> Tensor:
        with self.precision:
            total: Tensor = self.model.objective(*self.batch)[0]  # type: ignore[operator]
        return total

    def step(self) -> None:
        with self.precision:
            self.model.step(*self.batch, self.optimizer)  # type: ignore[operator]


def bench_arm(
    cfg: DictConfig, facts: dict[str, Any], splits: Splits, batch: tuple[Tensor, Tensor], device: str
) -> BenchArm:
    """Our task's own step."""
    from bench.training import setup

    setup.pick_kernels(cfg.ops, device)
    task = setup.make_task(cfg, splits).to(device)
    # Lightning keeps none either.
    made = BenchArm(task, batch, mixed(device, facts["precision"] == "bf16", keep_casts=False))
    compiled = ops.resolve(cfg.ops, device)[0] is ops.Backend.compiled
    if compiled and any(ops.winograd.supported(module) for module in task.model.modules()):
        made.notes.append("3x3 convolutions by Winograd, 16 products where the floor counts 36")
    return made


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


# -- the jobs -----------------------------------------------------------------------------------------


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
        resident: dict[str, Any] = measure.rate(made.step, size, seconds, device)
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
        notes = made.notes
    except torch.OutOfMemoryError:
        return {"oom": fitting(make, size)}
    out = {"resident": resident, "notes": notes}
    if name == "bench":
        del made
        out["epoch"] = epochs_of(cfg, facts, device, resident["images_per_s"], seconds)
    return out


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
}


def main(text: str) -> int:
    """Do the job; a fault of the input is JSON too."""
    warnings.filterwarnings("ignore")
    job = json.loads(text)
    try:
        found = JOBS[job["job"]](compose(job["overrides"]), job)
    except BenchError as error:
        found = {"error": str(error), "code": error.code}
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
