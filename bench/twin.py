"""The non-spiking twin that a converted network starts from: its settings, its own run, its weights."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bench.config import component_name, schema
from bench.console import say
from bench.errors import BenchError, Busy, nearest
from bench.facts import science
from bench.neurons import NeuronConfig
from bench.registry import MODELS
from bench.results import RunFolder, run_id

if TYPE_CHECKING:
    from torch import Tensor

POLL = 2.0  # seconds between looks at a twin that another process trains


def wants_twin(cfg: DictConfig) -> bool:
    """Whether the network starts from a twin; the twin itself does not."""
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


def folder_of(cfg: DictConfig) -> RunFolder | None:
    """Where the twin of a run is, which is trained first where need be; None for a run that starts from none.

    Raises:
        BenchError: the twin that was asked for has not finished, or is of another network or data set.
    """
    if not wants_twin(cfg):
        return None
    return trained(twin_of(cfg)) if cfg.model.twin == "auto" else chosen(cfg)


def start(cfg: DictConfig, model: Any) -> None:
    """Hand the twin's weights to a network that starts from one; under `auto` a twin without record is trained first.

    Args:
        cfg: of the spiking run.
        model: its network, freshly made, with its regularizers attached.

    Raises:
        BenchError: as `folder_of`, or the twin's weights are missing or do not fit.
    """
    folder = folder_of(cfg)
    if folder is None:
        return
    import torch

    path = folder.checkpoint_path
    if not path.exists():
        raise BenchError(f"{folder.path} has a record but no weights under checkpoints/: without them it is no twin")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # torch raises whatever the damage makes zipfile and pickle stumble over
        raise BenchError(f"{path} is damaged ({type(error).__name__}): without its weights it is no twin") from error
    weights: dict[str, Tensor] = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    try:
        model.start_from(weights)
    except BenchError as error:
        raise BenchError(f"model.twin={cfg.model.twin}, {folder.name}: {error}") from error


def trained(twin: DictConfig) -> RunFolder:
    """The folder of a twin that has finished: now, earlier, or in another process.

    Raises:
        BenchError: it diverged.
    """
    from bench.run import run

    folder = RunFolder(Path(twin.runs), run_id(science(twin)))
    say(f"this run starts from its non-spiking twin, {folder.name}")
    waiting = False
    while True:
        try:
            result = run(twin)
            break
        except Busy:
            if not waiting:
                say(f"waiting for the twin {folder.name}, which another process trains")
            waiting = True
            time.sleep(POLL)
    if result["status"] != "finished":
        raise BenchError(f"the twin {folder.name} diverged ({result['status_reason']}); lower model.twin_lr")
    return folder


def chosen(cfg: DictConfig) -> RunFolder:
    """The folder of the finished run that `model.twin` names.

    Raises:
        BenchError: there is none, or it is no twin of this network on this data.
    """
    name, path = cfg.model.twin, Path(cfg.model.twin)
    folder = RunFolder(path.parent, path.name) if "/" in name else RunFolder(Path(cfg.runs), name)
    result = folder.finished()
    if result is None or result["status"] != "finished":
        records = folder.path.parent.glob(f"*-{component_name(MODELS, cfg.model)}-*/result.json")
        twins = [record.parent.name for record in records if '"neuron": "relu"' in record.read_text()]
        hint = nearest(folder.name, twins) if twins else "There is none; auto trains one."
        raise BenchError(f"model.twin={name}: no run of that name has finished in {folder.path.parent}. {hint}")
    facts = science(cfg)
    own = {"model": facts["model"]["name"], "neuron": "relu", "data": facts["data"]["checksum"]}
    own |= {key: facts["model"][key] for key in MODELS.get(own["model"]).twin_arguments}
    found = {"model": result["model"], "neuron": result["neuron"], "data": result["data_checksum"]}
    found |= result["model_args"]
    for key, value in own.items():
        if found.get(key) != value:
            raise BenchError(f"model.twin={name} is no twin of this run: its {key} is {found.get(key)}, not {value}")
    return folder
