"""Which regularizers go together in one run."""

from __future__ import annotations

from collections.abc import Mapping

from bench.errors import BenchError
from bench.regularizers.base import Regularizer

ALONE = {"loss": "loss", "around_step": "step", "eval_weights": "weights that are judged"}
"""Hooks that only one regularizer of a run can have, with what each replaces."""


def owners(regularizers: Mapping[str, Regularizer]) -> dict[str, str]:
    """Who replaces what, by the names of hooks and of parts of the training.

    Args:
        regularizers: of a run, by name, none of them attached.

    Raises:
        BenchError: two replace the same part, or one makes several passes a step and another takes each for a step.
    """
    found: dict[str, str] = {}
    for name, reg in regularizers.items():
        for part in [*(hook for hook in ALONE if reg.acts(hook)), *([] if reg.off else reg.replaces)]:
            other = found.setdefault(part, name)
            if other != name:
                what = ALONE.get(part, part)
                raise BenchError(f"reg=[{other},{name}]: each replaces the {what}, and only one can; keep one of them")
    counting = [name for name, reg in regularizers.items() if reg.counts_passes and not reg.off]
    if "around_step" in found and counting:
        stepping = found["around_step"]
        both = ",".join(name for name in regularizers if name in {stepping, *counting})
        raise BenchError(
            f"reg=[{both}]: {stepping} makes several passes a step, and {counting[0]} takes each for a step; "
            "keep one of them"
        )
    return found
