"""Finds TensorRT or TensorRT-RTX, and hides what differs between their versions.

The only file that imports either. Enum members and flags are looked up by name, because their
numbers moved between major versions.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from typing import Any

from visionrt.errors import MissingDependencyError

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt_rtx"

# INT8 as Q/DQ in a strongly typed network parses from 10.12 on. The names that are used were
# compared with the bindings of 10.12 and 11.4, and with RTX 1.4 and 1.7.
_OLDEST = {TENSORRT: (10, 12), TENSORRT_RTX: (1, 4)}
_TITLE = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}
_CURE = {
    TENSORRT: 'Run: pip install "trtconvert[tensorrt]"',
    TENSORRT_RTX: 'Run: pip install "trtconvert[rtx]"',
}
_KEPT_MESSAGES = 64


def load_library(name: str) -> Any:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        MissingDependencyError: not installed, broken or too old; the message has the command.
    """
    if name not in _TITLE:
        raise MissingDependencyError(
            f"a library that runs plans ({', '.join(_TITLE)})",
            got=repr(name),
            fix="Upgrade visionrt, or build the plan again.",
        )
    title, cure = _TITLE[name], _CURE[name]
    wanted = f"{title} {'.'.join(map(str, _OLDEST[name]))} or later"
    try:
        library = _import(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(wanted, got=f"no module {error.name}", fix=cure) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            f"a working {title}", got=f"{type(error).__name__}: {error}", fix=cure
        ) from error
    if not hasattr(library, "Runtime") or not hasattr(library, "__version__"):
        raise MissingDependencyError(
            f"a complete {title}",
            got=f"a module {name} without bindings",
            fix=f"An uninstall left it half removed. {cure} --force-reinstall",
        )
    if version_of(library) < _OLDEST[name]:
        raise MissingDependencyError(wanted, got=library.__version__, fix=f"{cure} --upgrade")
    return library


def _import(name: str) -> Any:
    if name == TENSORRT_RTX:
        import tensorrt_rtx

        return tensorrt_rtx
    import tensorrt

    return tensorrt


def version_of(library: Any) -> tuple[int, ...]:
    """``(10, 13, 2, 6)`` from ``10.13.2.6``; what follows the first non-number is dropped."""
    numbers = []
    for part in str(library.__version__).split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def member(enum: Any, name: str) -> Any | None:
    """An enum's member by name, or None where this version has no such member."""
    return enum.__members__.get(name)


def create(library: Any, kind: str) -> Any:
    """A new ``Builder`` or ``Runtime`` that logs to :func:`logger_of`.

    Raises:
        MissingDependencyError: the library could not make one, which it does where it finds no
            usable driver or GPU.
    """
    logger, log = logger_of(library)
    mark = log.mark()
    try:
        made = getattr(library, kind)(logger)
    except TypeError:
        # How the bindings tell that the native factory returned nothing.
        made = None
    if not made:
        raise MissingDependencyError(
            f"a machine on which {library.__name__} {library.__version__} can make a {kind}",
            got=log.quote_since(mark),
            fix="Run visionrt doctor; the driver must be as new as the library's CUDA.",
        )
    return made


class MessageLog:
    """Keeps what the library logs at warning level or worse, so that an error can quote it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: deque[tuple[int, bool, str]] = deque(maxlen=_KEPT_MESSAGES)
        self._count = 0

    def add(self, *, is_error: bool, text: str) -> None:
        """Keep one message. Called from the library's threads."""
        with self._lock:
            self._count += 1
            self._messages.append((self._count, is_error, " ".join(text.split())))

    def mark(self) -> int:
        """A position, for :meth:`since`."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> tuple[str, ...]:
        """The errors logged after a mark; the warnings where no error was logged."""
        with self._lock:
            recent = [(is_error, text) for n, is_error, text in self._messages if n > mark]
        errors = [text for is_error, text in recent if is_error]
        return tuple(errors or [text for _, text in recent])

    def quote_since(self, mark: int) -> str:
        """The last three of :meth:`since` as one line, for an error's ``got``."""
        return "; ".join(self.since(mark)[-3:]) or "no message from the library"


@functools.cache
def logger_of(library: Any) -> tuple[Any, MessageLog]:
    """The library's ``ILogger`` and the log behind it; one per process.

    TensorRT keeps the first logger it is given while any of its objects lives and ignores later
    ones, so a logger per engine would lose messages.
    """
    log = MessageLog()
    severity = library.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)
    kept = (*errors, severity.WARNING)

    class _Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in kept:
                log.add(is_error=severity in errors, text=msg)

    return _Logger(), log
