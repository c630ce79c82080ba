"""The ``cpu`` target: the engine file carries a graph for the CPU twin, and no plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trtconvert.targets.base import BuiltPlan, ProgressCallback, ShapeRange
from visionrt.errors import UsageError


@dataclass(frozen=True)
class CpuTarget:
    """Asks for the CPU twin. It has nothing to build."""

    name: str = "cpu"
    backend: str = "cpu"

    def check(self) -> None:
        """The twin's library is a dependency of the runtime, so there is nothing to check."""

    def build(
        self, model: bytes, shapes: Mapping[str, ShapeRange], progress: ProgressCallback | None
    ) -> BuiltPlan:
        """Always refused: the CPU runs the graph itself.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a target with a plan",
            got="cpu",
            fix="Write an engine file, whose CPU twin is the graph, or name an rtx target.",
        )
