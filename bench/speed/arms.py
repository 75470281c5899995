"""The networks that `bench speed` times, ours and the peers', ready to train on one batch from the same weights."""

from __future__ import annotations

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
from bench.data import Batches, Dataset, Splits, prepare, status
from bench.data.batches import Augment
from bench.errors import BenchError, one_line
from bench.models.base import Spec, SpikingNetwork
from bench.ops.allocator import keep_freed_memory
from bench.records.identity import best_precision
from bench.registry import MODELS
from bench.seeds import generator
from bench.speed import measure
from bench.speed.peers import PEERS, copy_weights, network
from bench.speed.settings import WAYS_OF
from bench.speed.ways import take

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
        kept = measure.saved_bytes(self.loss, known)
        self.after()
        return kept


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


def way_arm(cfg: DictConfig, facts: dict[str, Any], splits: Splits, batch: tuple[Tensor, Tensor], device: str) -> Arm:
    """SpikingJelly's plain training loop at our precision, with its users' way of a set of regularizers."""
    from spikingjelly.activation_based import functional

    x, y = batch
    model = peer_model(cfg, WAYS_OF, model_of(cfg, splits))
    way = take(model, cfg.reg)
    model = model.to(device)

    def loss() -> Tensor:
        with mixed(device, facts["precision"] == "bf16"):
            logits = model(x)
        return F.cross_entropy(logits.float(), y) + way.penalty()

    return Arm(batch, model, loss, way.optimizer(cfg, model), lambda: functional.reset_net(model), [])


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
    # As before the first step of a run.
    images = task.images()
    for regularizer in task.regs:
        regularizer.initialize(task.model, images)
    task.model.initialize(images)
    # Lightning keeps none either.
    return BenchArm(task, batch, mixed(device, facts["precision"] == "bf16", keep_casts=False))


def above_roof(cfg: DictConfig, model: nn.Module, device: str) -> list[str]:
    """What lets our network pass the roof, in a line, if anything does."""
    compiled = ops.resolve(cfg.ops, device)[0] is ops.Backend.compiled
    if not compiled or not any(ops.winograd.supported(module) for module in model.modules()):
        return []
    return ["3x3 convolutions by Winograd, 16 products where the roof counts 36"]
