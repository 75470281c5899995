"""Weights on disk: written by a run that has finished, read from a run, a record, a hub folder or the zoo."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.config.component import settings
from bench.config.compose import read_config
from bench.errors import BenchError, EnvironmentFault
from bench.files import read_json, whole, write_atomic
from bench.models.base import SpikingNetwork
from bench.records.folder import WEIGHTS, RunFolder, reports_folders, runs_folder
from bench.regularizers.base import Regularizer, bake
from bench.weights.about import About, about, check, rebuild
from bench.weights.card import card

CONFIG = "config.json"
"""What stands in the file's own metadata, for those that cannot read these."""

KEY = "snn-bench"
"""Of the file's metadata, the only one: safetensors writes several in any order, and equal weights are to be equal
files."""

ZOO = "weights"
"""The folder under reports/ with trained networks by workload, network and regularizer."""


def keep(
    folder: RunFolder, model: SpikingNetwork, regs: Iterable[Regularizer], said: About, result: Mapping[str, Any]
) -> None:
    """Leave a trained network in its run's folder: what regularizers did is folded into its weights.

    Args:
        folder: of the run.
        model: as it was judged; changed.
        regs: its regularizers, with their state.
        said: of `bench.weights.about.about`.
        result: the run's record.

    Raises:
        BenchError: a regularizer cannot be folded in; the folder has no weights then.
    """
    bake(model, regs)
    said = {**said, "run_id": folder.name, "commit": result["commit"]}
    write_weights(folder.weights_path, model, said)
    write_atomic(folder.card_path, card(result, said, folder.name))


def write_weights(path: Path, model: nn.Module, said: About) -> None:
    """Write a network's parameters and buffers, and what it is, as safetensors.

    Raises:
        EnvironmentFault: the folder is read-only or the disk is full.
    """
    tensors = {
        # A copy of each: tensors that share memory are refused.
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    with whole(path) as part:
        # safetensors writes for its owner only; what lies beside it follows the umask.
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file(tensors, part, metadata={KEY: json.dumps(said)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        part.chmod(mode)


def read_weights(path: Path) -> tuple[About, dict[str, Tensor]]:
    """A file of weights: what its network is, and its tensors by name.

    Raises:
        BenchError: it is damaged, none of this suite's, or of a later format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = json.loads(metadata[KEY]) if KEY in metadata else None
    except (SafetensorError, ValueError) as error:
        raise BenchError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be read: {error.strerror or error}") from error
    beside = path.with_name(CONFIG)
    if said is None and beside.is_file():
        said = read_json(beside)
    return check(said, str(path)), tensors


def load(run: str | os.PathLike[str], device: str = "cpu") -> SpikingNetwork:
    """A trained network in eval mode, built from its weights alone: neither its data nor its run need be there.

    Nothing is unpickled: weights are safetensors, and of a checkpoint only tensors and plain values are read.

    Args:
        run: the id of a run on this machine or of a submitted record that has weights, a folder of one or of
            `bench export --hub`, or a name in the zoo such as `mnist-1k/cnn/none`.
        device: where to put it.

    Returns:
        The network; regularizers are folded into its weights, and what they leave in it (a norm of their own, a
        dropout, which acts in train mode alone) is there. `about` says what it is and where it comes from.

    Raises:
        BenchError: there is no such run, it has no weights, or they do not fit.

    Examples:
        >>> import bench
        >>> from PIL import Image
        >>> from sklearn.datasets import load_digits
        >>> network = bench.load("digits/cnn/none")
        >>> seven = Image.fromarray((load_digits().images[7] * 15.9).astype("uint8"))  # 8 x 8 of 17 levels
        >>> network.predict(seven.resize((32, 32), Image.Resampling.BILINEAR)).labels
        ('7',)
    """
    path = find(run)
    if path.is_file():
        model, said = _from_weights(path)
    elif (path / WEIGHTS).is_file():
        model, said = _from_weights(path / WEIGHTS)
    elif RunFolder(path.parent, path.name).checkpoint_path.is_file():
        model, said = _from_checkpoint(path)
    elif (path / "result.json").is_file():
        raise BenchError(
            f"{path} has a record but no {WEIGHTS}: it was trained before runs kept their weights, or came without; "
            "run its settings again (config.yaml) with force=true"
        )
    else:
        raise BenchError(f"{path} holds neither {WEIGHTS} nor a run's checkpoint")
    model.about = said
    return model.to(device).eval()


def find(run: str | os.PathLike[str]) -> Path:
    """The folder that a run, a record, or a network of the zoo lies in, or a file of weights itself.

    Raises:
        BenchError: there is none; names the nearest.
    """
    path = Path(run).expanduser()
    if path.is_dir() or (path.suffix == ".safetensors" and path.is_file()):
        return path.resolve()
    places = [runs_folder(), *(reports / part for reports in reports_folders() for part in ("records", ZOO))]
    for place in places:
        if str(run) and (place / path).is_dir():
            return (place / path).resolve()
    raise BenchError(f"no run, record, folder or network of the zoo is called '{run}'. {_nearest(str(run), places)}")


def zoo() -> list[str]:
    """The names of the trained networks in the zoo.

    Examples:
        >>> import bench.weights.store
        >>> all(name.count("/") == 2 for name in bench.weights.store.zoo())
        True
    """
    found = {
        path.parent.relative_to(reports / ZOO).as_posix()
        for reports in reports_folders()
        for path in (reports / ZOO).rglob(WEIGHTS)
    }
    return sorted(found)


def _nearest(name: str, places: list[Path]) -> str:
    """The end of the message; a machine may have thousands of runs."""
    known = {path.parent.name for path in runs_folder().glob(f"*/{WEIGHTS}")} | set(zoo())
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"{runs_folder()} has {len(known - set(zoo()))} with weights, the zoo {len(zoo())}."


def _from_weights(path: Path) -> tuple[SpikingNetwork, About]:
    said, tensors = read_weights(path)
    model, regs = rebuild(said, str(path))
    # It changes modules as it did in the trained network; the weights that it writes are replaced.
    bake(model, regs.values())
    fill(model, tensors, str(path))
    return model, said


def _from_checkpoint(path: Path) -> tuple[SpikingNetwork, About]:
    file = RunFolder(path.parent, path.name).checkpoint_path
    said, state, _ = read_checkpoint(file)
    if said is None:
        said = _about_run(path)
    model, regs = rebuild(said, str(file))
    fill(model, {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}, str(file))
    for name, reg in regs.items():
        prefix = f"regularizers.{name}."
        fill(reg, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, str(file))
    bake(model, regs.values())
    return model, {**said, "run_id": path.name}


def opened(file: Path, *needed: str) -> dict[str, Any]:
    """The content of a checkpoint; nothing is unpickled but tensors and plain values.

    Args:
        file: the checkpoint.
        needed: keys without which it is none.

    Raises:
        BenchError: it is damaged.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        for key in needed:
            checkpoint[key]
    except Exception as error:  # torch raises whatever the damage makes zipfile and pickle stumble over
        raise BenchError(f"{file} is damaged ({type(error).__name__})") from error
    return checkpoint


def read_checkpoint(file: Path) -> tuple[About | None, dict[str, Tensor], dict[str, Any]]:
    """A checkpoint: what its network is, None where it does not say so, the state of network and regularizers, and the
    other arguments of its task.

    Raises:
        BenchError: it is damaged.
    """
    checkpoint = opened(file, "state_dict")
    state = checkpoint["state_dict"]
    kept = dict(checkpoint.get("hyper_parameters", {}))
    said = kept.pop("about", None)
    return None if said is None else check(said, str(file)), state, kept


def _about_run(path: Path) -> About:
    """What the network of a run is whose checkpoint does not say so: its data do.

    Raises:
        BenchError: they are not on this machine.
    """
    from bench.data import prepare

    cfg = read_config(path / "config.yaml")
    try:
        splits = prepare(
            settings(cfg.data), seed=cfg.seed, batch_size=cfg.trainer.batch_size,
            max_train_images=cfg.trainer.max_train_images,
        )  # fmt: skip
    except BenchError as error:
        raise BenchError(
            f"{path.name} was trained before runs kept their weights, and its checkpoint needs its data: {error}"
        ) from error
    return about(cfg, splits)


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a module its trained values, all of them.

    Args:
        module: of the right structure.
        tensors: by name.
        where: they were read, for messages.

    Raises:
        BenchError: one is missing, too many, or of another shape.
    """
    own = module.state_dict()
    name = unfit(own, tensors)
    if name is not None:
        lacks = "lacks" if name not in tensors else "has a strange" if name not in own else "has another shape of"
        raise BenchError(f"{where}: the weights do not fit their network: it {lacks} '{name}'")
    module.load_state_dict(dict(tensors))


def unfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """The first tensor that a module lacks among those given, has not, or has in another shape; None if all fit.

    Args:
        own: the module's, by name.
        given: to take their place.
    """
    names = [*own, *given]
    return next((n for n in names if n not in given or n not in own or given[n].shape != own[n].shape), None)
