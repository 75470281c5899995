"""Files that are whole or not there, and careful reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.errors import BenchError, EnvironmentFault


def at_home(path: Path, what: str) -> Path:
    """A path in which a leading `~` is the user's home.

    Args:
        path: as it was named.
        what: it is, for the message.

    Raises:
        BenchError: the home of that user is not known.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise BenchError(f"{what}, {path}: there is no home of that user") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another place to write a file or a folder to, which takes its own place once all is written.

    Processes that write the same at once do not meet; of an attempt that failed nothing stays.

    Args:
        path: where it is to be; a file may be there, a folder not.

    Raises:
        EnvironmentFault: the folder is read-only or the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise EnvironmentFault(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):
                part.unlink()


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there.

    Raises:
        EnvironmentFault: the folder is read-only or the disk is full.
    """
    with whole(path) as part, part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        BenchError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is damaged ({error})") from error
