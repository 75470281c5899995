"""Training steps captured as a CUDA graph and replayed: one launch in place of hundreds, and no Python between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.errors import first_line

WARM_STEPS = 3  # done one by one before: they choose kernels and make the optimizer's state
AGREE = 1e-2  # largest difference of a replayed step from one done by itself, as a share of what the step changes


Replay = Callable[[], None]
"""What was captured; a call does it again, on the same tensors."""


def capture(work: Callable[[], None]) -> Replay:
    """Capture what `work` asks of the GPU, without doing it.

    Random numbers are drawn anew at each replay, from the generators as they are then.

    Raises:
        RuntimeError: something in it cannot be captured, such as a look at a value from the CPU.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Replay = graph.replay
    return replay


class CapturedStep:
    """Does a training step by itself a few times, then captures it, and from there on replays it.

    The first replay is checked against the same step done by itself from the same state. If they disagree, or nothing
    can be captured, all of `state` is put back and steps go on being done one by one; `fault` says why. What is in no
    tensor of `state` is neither checked nor put back: what Python counts at each step has counted that step twice.

    Args:
        step: all that a step of a batch x, y does on the device. It writes into tensors of `state` and of its own, and
            what it does depends on values in tensors alone: numbers that Python keeps stay as they were captured.
        state: the tensors that hold what steps leave behind.
        seed: puts the random generators where the step under way finds them.
        capture: `capture`, or what a test puts in its place.

    Attributes:
        fault: why steps are not replayed; None as long as nothing speaks against it.
        live: whether they are.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor], None],
        state: Callable[[], Sequence[Tensor]],
        seed: Callable[[], None],
        capture: Callable[[Callable[[], None]], Replay] = capture,
    ) -> None:
        self.step, self.state, self.seed, self.capture = step, state, seed, capture
        self.warm = 0
        self.fault: str | None = None
        self._replay: Replay | None = None
        self._batch: tuple[Tensor, Tensor] | None = None

    @property
    def live(self) -> bool:
        return self._replay is not None

    def run(self, x: Tensor, y: Tensor) -> None:
        """Do one step, after `seed`. Python may see it once, twice or not at all."""
        if self._replay is not None and self._take(x, y):
            self._replay()
        elif self._replay is None and self.fault is None and self.warm >= WARM_STEPS:
            self._start(x, y)
        else:
            self.step(x, y)
            self.warm += 1

    def _take(self, x: Tensor, y: Tensor) -> bool:
        """Put a batch where the captured step reads it, if it is of the captured kind."""
        assert self._batch is not None
        for place, given in zip(self._batch, (x, y), strict=True):
            if place.shape != given.shape or place.dtype is not given.dtype:
                return False
        for place, given in zip(self._batch, (x, y), strict=True):
            place.copy_(given)
        return True

    def _start(self, x: Tensor, y: Tensor) -> None:
        """Do a step by itself, then capture it and see whether the replay does the same."""
        before = [tensor.detach().clone() for tensor in self.state()]
        self.step(x, y)
        state = list(self.state())
        after = [tensor.detach().clone() for tensor in state]
        if len(before) != len(after):
            self.fault = "a step makes tensors that outlive it"
            return
        self._batch = (x.clone(), y.clone())
        batch = self._batch
        try:
            # Casts kept from the step above would be read, and never made again.
            with _no_kept_casts():
                replay = self.capture(lambda: self.step(*batch))
            _put(before, state)
            self.seed()
            replay()
            replayed = list(self.state())
            stayed = len(replayed) == len(state) and all(a is b for a, b in zip(replayed, state, strict=True))
            agreed = stayed and all(map(agree, before, after, replayed))
            self.fault = None if agreed else "a replayed step does not do what a step by itself does"
        # Whatever a user's hooks make of being captured: the run must go on.
        except Exception as error:
            self.fault = f"a step cannot be recorded: {first_line(error)}"
        if self.fault is None:
            self._replay = replay
        else:
            self._batch = None
        _put(after, list(self.state()))


def agree(before: Tensor, after: Tensor, replayed: Tensor) -> bool:
    """Whether `replayed` is `after` up to rounding, measured by the change from `before`."""
    if not after.is_floating_point():
        return bool((after == replayed).all())
    tensors = (after - before, after, replayed.detach() - after)
    change, size, off = (float(torch.linalg.vector_norm(tensor.double())) for tensor in tensors)
    return off <= AGREE * change + 1e-6 * size


def _put(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for value, place in zip(values, into, strict=True):
            place.copy_(value)


@contextmanager
def _no_kept_casts() -> Iterator[None]:
    """Autocast makes every cast anew while this context is open."""
    torch.clear_autocast_cache()
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
