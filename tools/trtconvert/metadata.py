"""The recipe that an exporter wrote into the ONNX file itself."""

from __future__ import annotations

import ast

from onnx import ModelProto

from visionrt.errors import EngineFileError, ModelError
from visionrt.recipe import Recipe
from visionrt.ultralytics import recipe_from_metadata

# Together they tell Ultralytics' exports from others.
_TELLING_KEYS = frozenset({"names", "stride", "task"})


def recipe_in(model: ModelProto) -> Recipe | None:
    """The recipe in Ultralytics' metadata, or None where the file has none.

    Raises:
        ModelError: a task or an export that is not supported, or metadata that cannot be read.
    """
    entries = {entry.key: _literal(entry.value) for entry in model.metadata_props}
    if not entries.keys() >= _TELLING_KEYS:
        return None
    try:
        return recipe_from_metadata(entries)
    except EngineFileError as error:
        raise ModelError(error.expected, got=error.got, fix="Export the model again.") from error


def _literal(text: str) -> object:
    """The exporter writes lists and dicts as Python literals, and plain words as they are."""
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value
