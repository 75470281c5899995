"""The fixtures of the command line's tests: a run that trains nothing but remembers what it was asked for."""

from tests.config.conftest import asked, cli

__all__ = ["asked", "cli"]
