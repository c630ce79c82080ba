"""Writes a file so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from visionrt.errors import InputDataError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` for writing; rename it onto ``path`` on success.

    On any error, an interrupt included, the temporary file is removed and ``path`` is as it was.

    Raises:
        InputDataError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputDataError(
            f"to write {target}",
            got=error.strerror or str(error),
            fix="Free some space, or choose a folder that exists and can be written.",
        ) from error


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the content of ``path`` with ``data``. Raises as :func:`replacing` does."""
    with replacing(path) as stream:
        stream.write(data)
