"""Downloads through torchvision that end in bounded time and fail in one line."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

from bench.data.source import Source, say
from bench.errors import EnvironmentFault

TIMEOUT = 15.0
"""Seconds without an answer after which a download is given up."""


def download(source: Source, dataset: Callable[..., Any]) -> None:
    """Have torchvision's `dataset` class bring its files to the data root; it checks their MD5.

    Raises:
        EnvironmentFault: no network, no answer, or not the file that was expected.
    """
    say(f"downloading {source.name} to {source.root}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        # torchvision prints each failed try; the message below says it once.
        with contextlib.redirect_stdout(io.StringIO()):
            dataset(str(source.root), download=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        http.client.HTTPException,
        tarfile.TarError,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EnvironmentFault(
            f"{source.name} is not in {source.root} and could not be downloaded ({reason}): "
            f"put {source.wanted} there, or set data.root"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
