"""Data sets as uint8 tensors in a memory-mapped cache, and as augmented batches on the device.

What needs torch is imported on first use, so that configs, `list` and run identities stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.data.cache import Dataset, identity, open_dataset, prepare_named, status
from bench.data.config import DataConfig
from bench.data.source import DATASETS, Raw, Source

if TYPE_CHECKING:
    from bench.data.batches import Batches
    from bench.data.splits import Splits, prepare

__all__ = [
    "DATASETS",
    "Batches",
    "DataConfig",
    "Dataset",
    "Raw",
    "Source",
    "Splits",
    "identity",
    "open_dataset",
    "prepare",
    "prepare_named",
    "status",
]

_LAZY = {"Batches": "batches", "Splits": "splits", "prepare": "splits"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
