"""Regularizers for spiking neural networks, compared honestly.

From Python, each with an example in its docstring:

- `bench.load(run)`: a trained network; `network.predict(images)`.
- `bench.create_model("cnn", image_shape=(1, 28, 28))`: a network to be trained.
- `bench.attach(network, "spikepen", weight=0.1)`: a regularizer in one's own training loop.
- `bench.activity(network)`: spikes, SynOps and energy of forward passes.
- `bench.records()`: the records as rows of a data frame.
- `bench.list_models()`, `bench.list_regularizers()`: what there is.

Nothing slow is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.lazy import public

if TYPE_CHECKING:
    from bench.face.catalog import list_models, list_regularizers
    from bench.face.handles import attach
    from bench.face.networks import create_model, load
    from bench.face.table import records
    from bench.face.watch import activity

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "activity",
    "attach",
    "create_model",
    "list_models",
    "list_regularizers",
    "load",
    "records",
]


_FACE = {
    "activity": "face.watch",
    "attach": "face.handles",
    "create_model": "face.networks",
    "list_models": "face.catalog",
    "list_regularizers": "face.catalog",
    "load": "face.networks",
    "records": "face.table",
}

if not TYPE_CHECKING:
    __getattr__ = public(__name__, _FACE)


def __dir__() -> list[str]:
    """What the face has."""
    return sorted(__all__)
