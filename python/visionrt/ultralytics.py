"""The recipe of an engine that Ultralytics exported, from the metadata in front of its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionrt.errors import EngineFileError, ModelError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

_PREPROCESS = {"detect": "yolo", "classify": "imagenet,crop_ratio=1.0,mean=0,std=255"}


def recipe_from_metadata(metadata: Mapping[str, Any]) -> Recipe:
    """Task, labels and preprocess spec as the exporter wrote them.

    Raises:
        ModelError: a task, or an export with its own NMS, that is not supported.
        EngineFileError: metadata that lacks a field or is ill-typed.
    """
    task = metadata.get("task")
    if task not in _PREPROCESS:
        raise ModelError(
            f"an Ultralytics engine for one of {', '.join(_PREPROCESS)}",
            got=f"task {task!r}",
            fix="Give a recipe to load, if its outputs fit one of the heads.",
        )
    arguments = metadata.get("args")
    has_nms = metadata.get("end2end") or (isinstance(arguments, Mapping) and arguments.get("nms"))
    if task == "detect" and has_nms:
        raise ModelError(
            "an export without NMS inside",
            got="one with end-to-end outputs",
            fix="Export it again with nms=False.",
        )
    try:
        names = {int(k): str(v) for k, v in dict(metadata["names"]).items()}
        height, width = (int(side) for side in metadata["imgsz"])
        labels = tuple(names[i] for i in range(len(names)))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineFileError(
            "Ultralytics metadata with names and imgsz",
            got=f"{type(error).__name__}: {error}",
            fix="Export it again, or give a recipe to load.",
        ) from error
    spec = PreprocessSpec.parse(_PREPROCESS[task]).replace(size=[height, width])
    if task == "classify":
        # The exported graph ends in the softmax.
        options = {"activation": "none"}
        return Recipe("classify", "classifier", spec, labels, head_options=options)
    return Recipe("detect", "yolo", spec, labels)
