"""What exporters write about a model into the ONNX file itself."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from onnx import ModelProto

from visionrt.errors import ModelError


@dataclass(frozen=True)
class ExportMetadata:
    """Ultralytics' metadata; every field is empty where the file has none.

    Attributes:
        task: ``detect``, ``classify``, or another of theirs.
        labels: class names by class id.
        size: height and width, pixels.
    """

    task: str = ""
    labels: tuple[str, ...] = ()
    size: tuple[int, int] | None = None


def read_metadata(model: ModelProto) -> ExportMetadata:
    """Read the model's metadata.

    Raises:
        ModelError: the class names are there but cannot be read.
    """
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if not {"names", "stride", "task"} <= entries.keys():
        return ExportMetadata()
    names = _literal(entries["names"])
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names) != list(range(len(names))):
        raise ModelError(
            "class names in the model's metadata as {0: name, 1: name, …}",
            got=repr(entries["names"][:80]),
            fix="Give --labels, --task and --preprocess, or export the model again.",
        )
    size = _literal(entries.get("imgsz", ""))
    square = isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)
    return ExportMetadata(
        task=entries["task"],
        labels=tuple(str(names[index]) for index in range(len(names))),
        size=(size[0], size[1]) if square and isinstance(size, list) else None,
    )


def _literal(text: str) -> object:
    """A Python literal, which is how the exporter writes lists and dicts; None if it is not one."""
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value
