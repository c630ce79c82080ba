"""A folder of what this machine's GPU libraries made: rebuilt plans, and compiled kernels.

An entry is one file: a line of JSON with the SHA-256 of what follows it. It is written to a
temporary name and renamed, and checked when it is read, so that neither a crash nor a full disk
leaves a wrong plan behind. A lock file makes a second process wait for the first one's build. When
the folder holds more than its limit, the entries that were used longest ago go first.

Entries are loaded by native libraries, and so are trusted as far as the folder is: it is made for
the user alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionrt.atomic import replacing
from visionrt.errors import InputDataError, MissingDependencyError

FOLDER_VARIABLE = "VISIONRT_CACHE"
LIMIT_BYTES = 4 << 30
_SUFFIX = ".cached"
_MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Entry:
    """What was kept: ``header`` as it was given to :meth:`PlanCache.write`, and the bytes."""

    header: Mapping[str, Any]
    data: bytes


def cache_folder() -> Path:
    """``$VISIONRT_CACHE``, or ``visionrt/plans`` in the user's cache folder; may not exist.

    Raises:
        MissingDependencyError: the user has no home folder.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise MissingDependencyError(
            "a home folder for the cache",
            got=str(error),
            fix=f"Set {FOLDER_VARIABLE} to a folder that can be written.",
        ) from error
    return Path(base) / "visionrt" / "plans"


def key_of(parts: Mapping[str, Any]) -> str:
    """A name for an entry: the SHA-256 of everything that it depends on."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class PlanCache:
    """The entries in a folder, which is made when something is first kept.

    Safe with several threads and processes.

    Args:
        folder: of the entries; nothing else in it is touched.
        limit_bytes: of all entries together; one larger than that is kept alone.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self._limit = limit_bytes

    def path(self, key: str) -> Path:
        """Where an entry is, or would be."""
        return self.folder / f"{key}{_SUFFIX}"

    def read(self, key: str) -> Entry | None:
        """An entry, checked; None where there is none. A damaged one is removed.

        Raises:
            InputDataError: the folder or the file cannot be read.
        """
        path = self.path(key)
        try:
            with path.open("rb") as stream:
                line = stream.readline(_MAX_HEADER_BYTES)
                data = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(f"a readable cache entry {path}", error) from error
        header = _checked(line, data)
        if header is None:
            self.remove(key)
            return None
        with contextlib.suppress(OSError):  # in a folder that is only readable, age is unknown
            os.utime(path)
        return Entry(header, data)

    def write(self, key: str, header: Mapping[str, Any], data: bytes) -> None:
        """Keep an entry, and remove old ones while there is too much.

        Raises:
            InputDataError: the folder cannot be written, or the disk is full.
        """
        self._make_folder()
        stored = {"header": dict(header), "sha256": hashlib.sha256(data).hexdigest()}
        with replacing(self.path(key)) as stream:
            stream.write(json.dumps(stored).encode() + b"\n")
            stream.write(data)
        self._remove_oldest(but=self.path(key))

    def remove(self, key: str) -> None:
        """Forget an entry, if there is one.

        Raises:
            InputDataError: the folder cannot be written.
        """
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(f"to remove {self.path(key)}", error) from error

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Be the only one, of all processes and threads, that makes an entry; blocks until then.

        A process that dies lets go of its lock.

        Raises:
            InputDataError: the folder cannot be written.
        """
        self._make_folder()
        path = self.folder / f"{key}.lock"
        with contextlib.ExitStack() as stack:
            try:
                while True:
                    stream = stack.enter_context(path.open("ab"))
                    fcntl.flock(stream, fcntl.LOCK_EX)
                    # Whoever held it before has removed it: another process may have a new one.
                    if _is_at(stream.fileno(), path):
                        break
                    stack.close()
            except OSError as error:
                raise _unusable(f"to lock {path}", error) from error
            # Removed while it is held, and closed, which unlocks it, after.
            stack.callback(_remove_lock, path)
            yield

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(f"a cache folder {self.folder}", error) from error

    def _remove_oldest(self, *, but: Path) -> None:
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            # Another process was quicker, or owns it: a folder above its limit still serves.
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            if path != but:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= size


def _remove_lock(path: Path) -> None:
    # A lock file that stays behind costs nothing: it is the lock on it that counts.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _checked(line: bytes, data: bytes) -> Mapping[str, Any] | None:
    """The header of an entry whose bytes are what was written, else None."""
    try:
        stored = json.loads(line)
        header, digest = stored["header"], stored["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(header, dict) or digest != hashlib.sha256(data).hexdigest():
        return None
    return header


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _unusable(expected: str, error: Exception) -> InputDataError:
    return InputDataError(
        expected,
        got=getattr(error, "strerror", None) or str(error),
        fix=f"Set {FOLDER_VARIABLE} to a folder that can be written.",
    )
