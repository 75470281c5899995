"""What hooks of regularizers and networks have to return; a plugin's mistake is one line that names the hook.

Only types and shapes are looked at, never values: no check makes the CPU wait for a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.activity import Activity
from bench.errors import BenchError, nearest
from bench.models.base import SpikingNetwork
from bench.neurons import SPIKES, Read
from bench.regularizers import needs
from bench.regularizers.base import Regularizer

READERS = ("penalty", "after_step")
"""The hooks of a regularizer that read what the spiking layers did."""


def reads(name: str, reg: Regularizer, model: SpikingNetwork | None = None) -> frozenset[Read]:
    """What a regularizer's hooks read of the spiking layers.

    Args:
        name: its name.
        reg: the regularizer.
        model: the network that has to have it.

    Raises:
        BenchError: its `reads` is no collection of the names of `Read`, or the network's neurons have no potentials.
    """
    declared = reg.reads
    if declared is None:
        hooks = any(reg.has(hook) for hook in READERS)
        return SPIKES if hooks else frozenset()
    where, known = f"regularizer '{name}'", [read.value for read in Read]
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise BenchError(f'{where}: its reads is {_what(declared)}, it must be a tuple of names, as ("rate",)')
    for read in declared:
        if read not in known:
            raise BenchError(f"{where}: its reads has {read!r}. {nearest(str(read), known)}")
    found = frozenset(Read(read) for read in declared)
    if model is not None and Read.potential in found:
        needs.spiking(name, model, "potentials")
    return found


def asks_penalty(reg: Regularizer, reads: frozenset[Read], activity: Activity) -> bool:
    """Whether a regularizer's `penalty` is asked for: not at strength 0, nor where it reads what no layer has.

    Args:
        reg: the regularizer.
        reads: what its hooks read.
        activity: of the pass; the ReLU twin has none.
    """
    return not reg.off and bool(activity or not reads)


def images_and_labels(reg: str, returned: Any, before: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What a regularizer's `batch` made of images `[N, C, H, W]` and their labels.

    Args:
        reg: its name.
        returned: by the hook.
        before: the images it was given.
        classes: of the data set.

    Raises:
        BenchError: they are not images of the same size, and a label or a row of class weights for each.
    """
    if isinstance(returned, tuple | list) and len(returned) == 2:
        x, y = returned
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            fits = x.dtype == before.dtype and x.shape[1:] == before.shape[1:] and len(x) > 0
            soft = y.is_floating_point()
            if fits and y.shape == ((len(x), classes) if soft else (len(x),)) and (soft or y.dtype == torch.int64):
                return x, y
    size = ", ".join(map(str, before.shape[1:]))
    wanted = f"images [N, {size}] of {_dtype(before)} and labels, [N] of int64 or [N, {classes}] of floats"
    raise _refusal(f"regularizer '{reg}'", "batch", returned, wanted)


def loss(reg: str, returned: Any, logits_t: Tensor) -> Tensor:
    """What a regularizer's `loss` made of logits `[T, N, classes]`.

    Raises:
        BenchError: it is no scalar, or has no gradient where the logits have one.
    """
    if not isinstance(returned, Tensor) or returned.numel() != 1 or not returned.is_floating_point():
        raise _refusal(f"regularizer '{reg}'", "loss", returned, "a scalar tensor of floats")
    if logits_t.requires_grad and not returned.requires_grad:
        raise BenchError(f"regularizer '{reg}': its loss has no gradient, so nothing could be trained by it")
    return returned.reshape(())


def penalties(reg: str, returned: Any) -> dict[str, Tensor]:
    """What a regularizer's `penalty` is to add to the loss.

    Raises:
        BenchError: it is no dict of scalar tensors by name.
    """
    wanted = "{name: scalar}, of tensors"
    if not isinstance(returned, dict):
        raise _refusal(f"regularizer '{reg}'", "penalty", returned, wanted)
    for name, term in returned.items():
        if not isinstance(name, str):
            raise BenchError(f"regularizer '{reg}': its penalty names a term {name!r}, it must return {wanted}")
        if not isinstance(term, Tensor) or term.numel() != 1:
            given = f"of shape {list(term.shape)}" if isinstance(term, Tensor) else _what(term)
            raise BenchError(f"regularizer '{reg}': its penalty's '{name}' is {given}, it must return {wanted}")
    return returned


def grouped(
    model: SpikingNetwork,
    parameters: Iterable[nn.Parameter],
    regs: Mapping[str, Regularizer],
    optimizer: type[torch.optim.Optimizer],
) -> list[dict[str, Any]]:
    """One optimizer group for each distinct set of options that regularizers ask for.

    Args:
        model: the network.
        parameters: of network and regularizers; those that are not trained are left out.
        regs: by name.
        optimizer: that is to train them.

    Raises:
        BenchError: as `groups`.
    """
    options: dict[nn.Parameter, dict[str, Any]] = {p: {} for p in parameters if p.requires_grad}
    for name, reg in regs.items():
        for group in groups(name, reg.param_groups(model), options, optimizer):
            for parameter in group["params"]:
                options[parameter].update({k: v for k, v in group.items() if k != "params"})
    made: dict[str, dict[str, Any]] = {}
    for parameter, option in options.items():
        made.setdefault(repr(sorted(option.items())), {**option, "params": []})["params"].append(parameter)
    return list(made.values())


def groups(
    reg: str, returned: Any, known: Iterable[nn.Parameter], optimizer: type[torch.optim.Optimizer]
) -> list[dict[str, Any]]:
    """What a regularizer's `param_groups` asks for, its parameters as lists.

    Args:
        reg: its name.
        returned: by the hook.
        known: the parameters that are trained.
        optimizer: that trains them.

    Raises:
        BenchError: it is no list of dicts, or a group has no parameters, some that are not trained, or an option that
            the optimizer does not know: torch itself would pass over it.
    """
    wanted = '[{"params": [...], "weight_decay": 0.1}]'
    where, trained = f"regularizer '{reg}'", {id(parameter) for parameter in known}
    options = set(inspect.signature(optimizer).parameters) - {"params"}
    if not isinstance(returned, list | tuple):
        raise _refusal(where, "param_groups", returned, wanted)
    made = []
    for group in returned:
        if not isinstance(group, dict):
            raise BenchError(f"{where}: its param_groups has {_what(group)} among the groups, it must return {wanted}")
        params = group.get("params")
        if params is None or isinstance(params, Tensor | str) or not isinstance(params, Iterable):
            given = "without 'params'" if "params" not in group else f"whose 'params' is {_what(params)}"
            raise BenchError(f"{where}: its param_groups has a group {given}, it must return {wanted}")
        params = list(params)
        for parameter in params:
            if id(parameter) not in trained:
                raise BenchError(
                    f"{where}: its param_groups names {_what(parameter)}, which is none of the network's parameters "
                    "that are trained"
                )
        for option, value in group.items():
            if option != "params" and option not in options:
                raise BenchError(f"{where}: its param_groups sets '{option}'. {nearest(str(option), options)}")
            if option in ("lr", "weight_decay") and not isinstance(value, int | float | Tensor):
                raise BenchError(f"{where}: its param_groups sets {option} to {_what(value)}, it must be a number")
        made.append({**group, "params": params})
    return made


def head(model: SpikingNetwork) -> None:
    """See that a network has a head.

    Raises:
        BenchError: it has none.
    """
    if not isinstance(getattr(model, "head", None), nn.Module):
        raise BenchError(f"model {_class(model)} has no `head`: it must be a linear layer from features to classes")


def features(model: SpikingNetwork, returned: Any, images: int) -> Tensor:
    """What a network's `features` made of images `[N, C, H, W]`.

    Args:
        model: the network.
        returned: by the method.
        images: N, how many it was given.

    Raises:
        BenchError: they are not `[T, N, F]`, or the head takes another F.
    """
    size = getattr(model.head, "in_features", None)
    right = isinstance(returned, Tensor) and returned.shape[:-1] == (model.time_steps, images)
    if not right or (size is not None and returned.shape[2] != size):
        last = "F" if size is None else f"F={size} as its head takes it"
        raise _refusal(f"model {_class(model)}", "features", returned, f"[T={model.time_steps}, N={images}, {last}]")
    return returned


def logits(model: SpikingNetwork, returned: Any, images: int) -> Tensor:
    """What a network answers.

    Args:
        model: the network.
        returned: by `logits` or `read`.
        images: N, how many it was given.

    Raises:
        BenchError: they are not `[N, classes]`.
    """
    if not isinstance(returned, Tensor) or returned.shape != (images, model.spec.classes):
        where = f"model {_class(model)}"
        raise BenchError(f"{where}: its logits are {_what(returned)}, they must be [N={images}, {model.spec.classes}]")
    return returned


def _refusal(who: str, hook: str, returned: Any, wanted: str) -> BenchError:
    return BenchError(f"{who}: its {hook} returns {_what(returned)}, it must return {wanted}")


def _what(value: Any) -> str:
    """What came, as a message says it."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {_dtype(value)}"
    if value is None:
        return "None"
    if isinstance(value, tuple) and 0 < len(value) < 4:
        return f"({', '.join(map(_what, value))})"
    return f"a {type(value).__name__}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _class(model: SpikingNetwork) -> str:
    return type(model).__name__
