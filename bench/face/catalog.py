"""What there is, by name."""

from __future__ import annotations

from bench.registry import MODELS, REGULARIZERS


def list_models() -> list[str]:
    """The names that `bench.create_model` takes; `bench list models` says what they are.

    Examples:
        >>> import bench
        >>> "sew" in bench.list_models()
        True
    """
    return MODELS.names()


def list_regularizers() -> list[str]:
    """The names that `bench.attach` takes, those of plugins too; `bench list regs` says what they are.

    Examples:
        >>> import bench
        >>> "spikepen" in bench.list_regularizers()
        True
    """
    return REGULARIZERS.names()
