"""The run that a network starts from, its non-spiking twin: whether there is one, its settings, folder and weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bench.config.component import component_name, schema
from bench.errors import BenchError, nearest
from bench.neurons import NeuronConfig
from bench.records.folder import RunFolder
from bench.records.identity import science
from bench.registry import MODELS

if TYPE_CHECKING:
    from torch import Tensor


def wants_source(cfg: DictConfig) -> bool:
    """Whether the network starts from a source run; a twin itself does not."""
    return cfg.model.get("twin", "none") != "none" and cfg.neuron.name != "relu"


def twin_of(cfg: DictConfig) -> DictConfig:
    """The settings of the twin's own run under `model.twin=auto`.

    They are those of the run with ReLU for the neurons and one time step, `model.twin_lr` and `model.twin_epochs`. What
    concerns spikes only is set to its default, so that runs which differ in no more than that share a twin.

    Args:
        cfg: of the spiking run.
    """
    twin = copy.deepcopy(cfg)
    name = component_name(MODELS, cfg.model)
    kept = {key: cfg.model[key] for key in MODELS.get(name).twin_arguments}
    twin.model = OmegaConf.merge(OmegaConf.structured(schema(MODELS, name)), kept, {"twin": "none"})
    twin.neuron = OmegaConf.structured(NeuronConfig(name="relu"))
    twin.time_steps = 1
    twin.optim.lr = cfg.model.twin_lr
    twin.trainer.epochs = cfg.model.twin_epochs or cfg.trainer.epochs
    # Forcing the spiking run again is no reason to train the twin again.
    twin.force = False
    return twin


def start(cfg: DictConfig, model: Any, source: RunFolder) -> None:
    """Hand the weights of a source run to the network that starts from it.

    Args:
        cfg: of the spiking run.
        model: its network, freshly made, with its regularizers attached.
        source: the folder of the source run, which has finished.

    Raises:
        BenchError: the source's weights are missing or do not fit.
    """
    import torch

    path = source.checkpoint_path
    if not path.exists():
        raise BenchError(f"{source.path} has a record but no weights under checkpoints/: without them it is no twin")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # torch raises whatever the damage makes zipfile and pickle stumble over
        raise BenchError(f"{path} is damaged ({type(error).__name__}): without its weights it is no twin") from error
    weights: dict[str, Tensor] = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    try:
        model.start_from(weights)
    except BenchError as error:
        raise BenchError(f"model.twin={cfg.model.twin}, {source.name}: {error}") from error


def chosen(cfg: DictConfig) -> RunFolder:
    """The folder of the finished run that `model.twin` names.

    Raises:
        BenchError: there is none, or it is no twin of this network on this data.
    """
    name, path = cfg.model.twin, Path(cfg.model.twin)
    folder = RunFolder(path.parent, path.name) if "/" in name else RunFolder(cfg.runs, name)
    result = folder.finished()
    if result is None or result["status"] != "finished":
        records = folder.path.parent.glob(f"*-{component_name(MODELS, cfg.model)}-*/result.json")
        twins = [record.parent.name for record in records if '"neuron": "relu"' in record.read_text()]
        hint = nearest(folder.name, twins) if twins else "There is none; auto trains one."
        raise BenchError(f"model.twin={name}: no run of that name has finished in {folder.path.parent}. {hint}")
    facts = science(cfg)
    own = {"model": facts["model"]["name"], "neuron": "relu", "data": facts["data"]["checksum"]}
    own |= {key: facts["model"][key] for key in MODELS.get(own["model"]).twin_arguments}
    theirs = {"model": result["model"], "neuron": result["neuron"], "data": result["data_checksum"]}
    theirs |= result["model_args"]
    for key, value in own.items():
        if theirs.get(key) != value:
            raise BenchError(f"model.twin={name} is no twin of this run: its {key} is {theirs.get(key)}, not {value}")
    return folder
