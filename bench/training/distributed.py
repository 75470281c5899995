"""What the processes of one run do together: who they are, what they gather, average and agree on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Which of the run's processes this is, from 0; 0 writes the record and speaks."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def ranks() -> int:
    """How many processes, each with a device of its own, train the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def agree(value: Any) -> Any:
    """What rank 0 calls this with, on every rank."""
    if ranks() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """What each rank calls this with, in their order."""
    values = [value] * ranks()
    if ranks() > 1:
        dist.all_gather_object(values, value)
    return values


def everywhere(flag: Tensor) -> Tensor:
    """Whether a boolean scalar is true on every rank."""
    if ranks() == 1:
        return flag
    least = flag.to(torch.int32)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    return least.bool()


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Put the mean over the ranks into floating point tensors, in place; the same bits on every rank."""
    if ranks() == 1:
        return
    alike: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            alike.setdefault(tensor.dtype, []).append(tensor)
    for group in alike.values():
        # One message: a network has dozens of small buffers.
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, (flat / ranks()).split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))
