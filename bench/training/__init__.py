"""From settings to a trained network and its record."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from bench.lazy import defer


def _metric(module: str, name: str) -> Any:
    import_module("torchmetrics.utilities")  # first: these two import each other
    return getattr(import_module(f"torchmetrics.{module}"), name)


# All that Lightning wants of it; the rest brings SciPy's statistics and torchvision's networks, a fifth of the start.
defer(
    "torchmetrics",
    {
        "__version__": lambda: import_module("torchmetrics.__about__").__version__,
        "_logger": lambda: logging.getLogger("torchmetrics"),
        "Metric": lambda: _metric("metric", "Metric"),
        "MetricCollection": lambda: _metric("collections", "MetricCollection"),
    },
)
