"""What every conversion target has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from visionrt.errors import BuildError
from visionrt.manifest import PlanInfo


@dataclass(frozen=True)
class ShapeRange:
    """Smallest, most common and largest shape of one input; a fixed size stands in all three."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @classmethod
    def fixed(cls, shape: tuple[int, ...]) -> ShapeRange:
        """A range of one shape."""
        return cls(shape, shape, shape)


@dataclass(frozen=True)
class BuiltPlan:
    """The bytes a builder returned, and what the manifest says about them."""

    data: bytes
    info: PlanInfo


class ProgressCallback(Protocol):
    """Told how far a build is.

    Called in the thread that called ``build``; an exception it raises cancels the build and
    leaves ``build`` as it is.
    """

    def __call__(self, done: float, text: str) -> bool:
        """``done`` grows from 0 to 1, ``text`` names the phase. Return False to cancel."""
        ...


class BuildCancelledError(BuildError):
    """The progress callback asked for the build to stop."""


class Target(Protocol):
    """Something a model can be built for."""

    @property
    def name(self) -> str:
        """As given to ``--target``, e.g. ``rtx:sm86``."""
        ...

    @property
    def backend(self) -> str:
        """``tensorrt_rtx``, ``tensorrt`` or ``cpu``."""
        ...

    def check(self) -> None:
        """Return when this machine can build for the target.

        Raises:
            MissingDependencyError: a library or a device is missing; the message has the cure.
        """
        ...

    def build(
        self, model: bytes, shapes: Mapping[str, ShapeRange], progress: ProgressCallback | None
    ) -> BuiltPlan:
        """Build a plan; blocks until it is done, and an interrupt leaves nothing behind.

        Args:
            model: a serialized, precision-typed ONNX graph without external data.
            shapes: by input name; every input with a dynamic size needs one.
            progress: told how far the build is, or None.

        Raises:
            ModelError: the parser refused a node.
            UsageError: a shape range is missing, unknown or impossible.
            BuildError: the builder failed.
            MissingDependencyError: see :meth:`check`.
        """
        ...
