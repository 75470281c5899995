"""Files that are whole or not there, and careful reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.errors import BenchError, EnvironmentFault


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there.

    Raises:
        EnvironmentFault: the folder is read-only or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise EnvironmentFault(f"{path} could not be written: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        BenchError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is damaged ({error})") from error
