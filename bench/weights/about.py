"""What a file of weights says of its network: all that it takes to build it again without its run or its data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from bench import __version__
from bench.config.component import build, component_name
from bench.config.compose import named_component
from bench.declarations import LiveDeclaration
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.models.spec import Spec
from bench.neurons import NeuronConfig
from bench.records import provenance
from bench.records.identity import arguments_of, plugins_of, precision_of
from bench.registry import MODELS, REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.seeds import seed_everything

if TYPE_CHECKING:
    from bench.data import Splits
    from bench.models.diehl_cook import DiehlCook

FORMAT = 1
"""Of what is said of a network; raised when an older suite could no longer build it."""

About = dict[str, Any]
"""See `about`: plain values, as JSON has them."""

KEYS = (
    "format", "suite", "numerics", "commit", "model", "neuron", "time_steps", "regs", "plugins", "image_shape",
    "raw_shape", "classes", "mean", "std", "posterize", "precision", "seed", "init_seed", "data", "data_copy",
    "data_checksum",
)  # fmt: skip


def about(cfg: DictConfig, splits: Splits) -> About:
    """What a run's network is.

    Args:
        cfg: of the run.
        splits: its data.

    Returns:
        The keys of `KEYS`: the network and its arguments, neuron, T, regularizers (some leave something in the
        network), hashes of plugins' files, shapes of the images that it takes and of the data set's, classes' names,
        normalization, precision, seeds, data set.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # type: ignore[assignment]
    sample = splits.dataset.train_images
    return {
        "format": FORMAT,
        "suite": __version__,
        "numerics": provenance.NUMERICS,
        "commit": None,
        "model": {"name": component_name(MODELS, cfg.model), "args": arguments_of(plain["model"])},
        "neuron": plain["neuron"],
        "time_steps": plain["time_steps"],
        "regs": {name: arguments_of(node) for name, node in plain["reg"].items()},
        "plugins": {plugin.name: plugin.sha256 for kind, plugin in plugins_of(cfg) if kind != "data"},
        "image_shape": list(splits.image_shape),
        "raw_shape": list(sample.shape[1:]),
        "classes": list(splits.dataset.classes),
        "mean": list(splits.mean),
        "std": list(splits.std),
        "posterize": plain["data"]["posterize"],
        "precision": precision_of(plain["trainer"]),
        "seed": plain["seed"],
        "init_seed": plain["seed"] if plain["init_seed"] is None else plain["init_seed"],
        "data": plain["data"]["name"],
        "data_copy": splits.dataset.copy,
        "data_checksum": splits.dataset.checksum,
    }


def check(said: Any, where: str) -> About:
    """What is said of a network, if this suite understands it.

    Args:
        said: of `about`, as it was read.
        where: it was read, for messages.

    Raises:
        BenchError: it is nothing of this suite's, of a later format, or not whole.
    """
    if not isinstance(said, dict) or not isinstance(said.get("format"), int):
        raise BenchError(f"{where} does not say what network its weights are of: it is none of snn-bench's")
    if said["format"] != FORMAT:
        raise BenchError(
            f"{where} is of format {said['format']}, written by snn-bench {said.get('suite')}; this is {__version__}, "
            f"which reads format {FORMAT}"
        )
    if missing := [key for key in KEYS if key not in said]:
        raise BenchError(f"{where} is damaged: it does not say the network's {missing[0]}")
    return said


def spec_of(said: About) -> Spec:
    """What its network is built for."""
    channels, height, width = said["image_shape"]
    raw_channels, raw_height, raw_width = said["raw_shape"]
    return Spec(
        (channels, height, width),
        len(said["classes"]),
        said["time_steps"],
        NeuronConfig(**said["neuron"]),
        mean=tuple(said["mean"]),
        std=tuple(said["std"]),
        labels=tuple(map(str, said["classes"])),
        raw_shape=(raw_channels, raw_height, raw_width),
        posterize=said["posterize"],
        precision=said["precision"],
    )


def rebuild(said: About, where: str) -> tuple[SpikingNetwork, dict[str, Regularizer]]:
    """The network with its regularizers attached, as a run had them before its first step.

    Args:
        said: of `about`.
        where: it was read, for messages.

    Raises:
        BenchError: as `construct`.
    """
    model, regs = construct(said, where)
    # A local rule's regularizers leave its network alone.
    for reg in regs.values() if model.learning == "gradient" else ():
        reg.attach(model)
    return model, regs


def construct(said: About, where: str) -> tuple[SpikingNetwork, dict[str, Regularizer]]:
    """The network and the regularizers, which are not attached to it yet.

    Args:
        said: of `about`.
        where: it was read, for messages.

    Raises:
        BenchError: the network or a regularizer is of a plugin that is not there, or no longer the same; or this suite
            cannot build it.
    """
    try:
        check_plugins(said)
        regs = {
            name: build(REGULARIZERS, named_component(REGULARIZERS, name, arguments))
            for name, arguments in said["regs"].items()
        }
        node = named_component(MODELS, said["model"]["name"], said["model"]["args"])
        with aside():
            # Some of what a network is made of is drawn and never trained.
            seed_everything(said["init_seed"], "init")
            model: SpikingNetwork = build(MODELS, node, spec=spec_of(said)).to(memory_format=torch.channels_last)
    except (BenchError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{where}: its network cannot be built here: {error}") from error
    if model.learning == "local":
        local: DiehlCook = model  # type: ignore[assignment]
        local.answer_as(said["seed"], 0.0)
    return model, regs


def check_plugins(said: About) -> None:
    """Refuse a network that another version of a plugin would build.

    Raises:
        BenchError: names the plugin.
    """
    parts = [(MODELS, said["model"]["name"]), *((REGULARIZERS, name) for name in said["regs"])]
    for registry, name in parts:
        own, trained = registry.declaration(name), said["plugins"].get(name)
        if isinstance(own, LiveDeclaration) and trained not in (None, own.sha256):
            raise BenchError(
                f"plugin '{name}' was at {str(trained)[:8]} when it was trained, and is at {str(own.sha256)[:8]} now"
            )


@contextmanager
def aside() -> Iterator[None]:
    """While this context is open, whatever is drawn leaves the global generators as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
