"""The settings of a run, typed, each with its default and what it means."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from bench.config.component import Component
from bench.data import DataConfig
from bench.neurons import NeuronConfig
from bench.ops import Backend


class Optimizer(StrEnum):
    """`sgd` with momentum, or `adamw`; `local` for networks with a rule of their own, whose changes the rate scales."""

    sgd = "sgd"
    adamw = "adamw"
    local = "local"


class Schedule(StrEnum):
    """Learning rate over the run: `cosine` to 0 at the end, or `constant`."""

    cosine = "cosine"
    constant = "constant"


class Precision(StrEnum):
    """Numbers of the forward pass: `fp32`, `bf16` (autocast), or `auto`, bf16 where the processor has it."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Accelerator(StrEnum):
    """Where to train: `auto` takes a GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class LoggerName(StrEnum):
    """Weights & Biases, trackio (a dashboard on this machine), files of Lightning's own loggers, or none beside the
    record."""

    wandb = "wandb"
    trackio = "trackio"
    csv = "csv"
    tensorboard = "tensorboard"
    none = "none"


class WandbMode(StrEnum):
    """`auto` is $WANDB_MODE if set, online if a key exists and the server answers, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class OptimConfig:
    """The optimizer.

    Attributes:
        name: sgd or adamw.
        lr: learning rate of the first step.
        momentum: of sgd.
        betas: of adamw.
        schedule: learning rate over the run.
        clip: largest norm of the whole gradient; null does not clip.
    """

    name: Optimizer = MISSING
    lr: float = MISSING
    momentum: float = 0.9
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    schedule: Schedule = Schedule.cosine
    clip: float | None = None


@dataclass
class TrainerConfig:
    """How long and on what.

    Attributes:
        epochs: passes over the training set.
        batch_size: images a step.
        max_train_images: at most this many training images where neither data.limit nor data.per_class is set (a
            budget's cap: unlike data.limit, it may exceed what there is).
        precision: of the forward pass.
        accelerator: auto, cpu or gpu.
        devices: how many of them share each batch.
        sync_batchnorm: batch statistics over all of them, GPUs only; else each has its own.
        limit_train_batches: steps an epoch; null is all.
        limit_test_batches: batches of an evaluation, of images drawn by the seed; null is all.
        eval_every: epochs between evaluations.
        cuda_graph: on a GPU, capture a step once and replay it, where the regularizers allow it.
    """

    epochs: int = MISSING
    batch_size: int = MISSING
    max_train_images: int | None = None
    precision: Precision = Precision.auto
    accelerator: Accelerator = Accelerator.auto
    devices: int = 1
    sync_batchnorm: bool = False
    limit_train_batches: int | None = None
    limit_test_batches: int | None = None
    eval_every: int = 1
    cuda_graph: bool = True


@dataclass
class LoggerConfig:
    """Where the curves go beside the record.

    Attributes:
        name: wandb, trackio, csv, tensorboard or none; of several the last.
        chosen: each that is chosen, as `logger=[csv,wandb]` chooses two; where `name` is none of them it stands alone.
        mode: of W&B.
        project: of W&B or trackio; $WANDB_PROJECT if set.
        entity: W&B team or user; null is the key's own.
        job_type: what the run is made for, as W&B groups by it: train, tune, tune-final or probe.
    """

    name: LoggerName = LoggerName.wandb
    chosen: dict[str, bool] = field(default_factory=dict)
    mode: WandbMode = WandbMode.auto
    project: str = os.environ.get("WANDB_PROJECT") or "snn-regularizers"
    entity: str | None = None
    job_type: str = "train"


@dataclass
class Config:
    """One run.

    Attributes:
        budget: smoke, quick, cpu or paper; its file sets what follows from it.
        data: data set and augmentation.
        model: network, one of `bench list models`.
        neuron: the neuron of every spiking layer.
        time_steps: T, how often the network sees an image.
        reg: regularizers by name, from `bench list regs`.
        optim: the optimizer.
        trainer: how long and on what.
        logger: where the curves go beside the record.
        seed: every random number of the run derives from it.
        init_seed: of the weights a network is built with, so that runs of several seeds have one start; null is `seed`.
        force: run again what is finished.
        ops: which kernels; changes numbers only as far as the order of a sum does.
        runs: the folder of the records.
    """

    budget: str = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    model: Component = MISSING
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    time_steps: int = 4
    reg: dict[str, Component] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0
    init_seed: int | None = None
    force: bool = False
    ops: Backend = Backend.auto
    runs: str = "${oc.env:BENCH_RUNS,runs}"
    experiment: Any = None
