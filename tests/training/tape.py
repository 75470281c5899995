"""A CUDA graph's stand-in on the CPU: the operations of some work, kept with their tensors and done on them again.

As with a graph, Python takes no part in a replay: a number it kept is what it was, results land in the tensors they
landed in, and random numbers are drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOOKS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class Tape(TorchDispatchMode):
    """Operations as they are done; a look at a value from Python is refused, as while a stream is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LOOKS:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.steps:
            memory = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            found = func(*args, **kwargs)
            for place, value in zip(tree_leaves(out), tree_leaves(found), strict=True):
                # Views and what is written in place are there already.
                if isinstance(place, Tensor) and place.untyped_storage().data_ptr() not in memory:
                    place.copy_(value)


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """In the place of `bench.training.graph.capture`: what `work` did stays in no tensor it was given."""
    tape = Tape()
    with tape:
        work()
    return tape.replay
