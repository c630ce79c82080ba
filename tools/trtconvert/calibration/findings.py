"""What an audit of calibration images finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a set of images, or with how the model is fed.

    Attributes:
        code: stable, for programs: ``color-order``, ``scale``, ``near-duplicates``, ``one-class``,
            ``one-scene``, ``dark``, ``blown-out``, ``too-few``, ``spec-differs``, ``unreadable`` or
            ``overlap``.
        message: a sentence for people.
        files: the images it is about; empty where it is about all of them.
    """

    code: str
    message: str
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        return {"code": self.code, "message": self.message, "files": [str(f) for f in self.files]}


def named(files: Sequence[Path]) -> str:
    """The names of the first few files, for a sentence."""
    shown = ", ".join(file.name for file in files[:_NAMED])
    return shown if len(files) <= _NAMED else f"{shown} and {len(files) - _NAMED} more"
