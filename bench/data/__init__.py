"""Data sets as uint8 tensors in a memory-mapped cache, and as augmented batches on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.data.cache import Dataset, identity, open_dataset, prepare_named, status
from bench.data.config import DataConfig
from bench.data.source import DATASETS, Raw, Source
from bench.lazy import face

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

__getattr__ = face(__name__, {"Batches": "batches", "Splits": "splits", "prepare": "splits"})
