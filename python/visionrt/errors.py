"""One exception class per exit code of the command line tools.

Every message has three parts: what was expected, what came, and what to do about it.
"""

from __future__ import annotations


class VisionrtError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        expected: what the code needed, as a noun phrase ("a 3-channel uint8 image").
        got: what it found instead ("float64 array of shape (2, 2)").
        fix: what the reader can do about it, as an imperative sentence.
    """

    exit_code = 1

    def __init__(self, expected: str, *, got: str, fix: str) -> None:
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(f"expected {expected}, got {got}. {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.expected, self.got, self.fix))


def _rebuild(cls: type[VisionrtError], expected: str, got: str, fix: str) -> VisionrtError:
    # Pickling (multiprocessing, Ray) calls the class with positional args only.
    return cls(expected, got=got, fix=fix)


class UsageError(VisionrtError, ValueError):
    """A wrong flag, argument or combination of them."""

    exit_code = 2


class ModelError(VisionrtError):
    """The model is broken, or uses something that is not supported."""

    exit_code = 3


class AccuracyError(VisionrtError):
    """The converted model is less accurate than was asked for."""

    exit_code = 4


class BuildError(VisionrtError):
    """An engine builder failed on a model that looked buildable."""

    exit_code = 5


class MissingDependencyError(VisionrtError):
    """A library, driver or device that is needed is not on this machine."""

    exit_code = 6


class EngineFileError(VisionrtError):
    """The engine file is damaged, tampered with, unsafe, or of another version."""

    exit_code = 7


class InputDataError(VisionrtError, ValueError):
    """An image or a data set cannot be used."""

    exit_code = 8
