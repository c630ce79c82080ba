"""The recipe that an exporter wrote into the ONNX file itself."""

from __future__ import annotations

import ast
import json

from onnx import ModelProto

from trtconvert.graph import image_inputs, tensor_info
from trtconvert.model_api import PREFIX, recipe_from_model_info, says_size, says_spec
from visionrt.errors import EngineFileError, ModelError
from visionrt.recipe import Recipe
from visionrt.ultralytics import recipe_from_metadata

# Together they tell Ultralytics' exports from others.
_TELLING_KEYS = frozenset({"names", "stride", "task"})


def recipe_in(model: ModelProto) -> Recipe | None:
    """The recipe in Ultralytics' or Model API's metadata, or None where the file has none.

    Raises:
        ModelError: a task or an export that is not supported, or metadata that cannot be read.
    """
    entries = {entry.key: _literal(entry.value) for entry in model.metadata_props}
    if not entries.keys() >= _TELLING_KEYS:
        return recipe_from_model_info(_texts(model))
    try:
        return recipe_from_metadata(entries)
    except EngineFileError as error:
        raise ModelError(error.expected, got=error.got, fix="Export the model again.") from error


def spec_text(model: ModelProto, recipe: Recipe) -> str | None:
    """What ``--preprocess`` would take, of the metadata's recipe. Exports differ in layout and
    type, which are the graph's to say, as the size is where the metadata has none.

    Returns:
        None where the metadata contradicts the graph.
    """
    texts = _texts(model)
    if not says_spec(texts, tensor_info(image_inputs(model.graph)[0]).dtype):
        return None
    silent = {"layout", "dtype"}
    if any(key.startswith(PREFIX) for key in texts) and not says_size(texts):
        silent.add("size")
    fields = recipe.preprocess.to_json()
    return json.dumps({key: value for key, value in fields.items() if key not in silent})


def _texts(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _literal(text: str) -> object:
    """The exporter writes lists and dicts as Python literals, and plain words as they are."""
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value
