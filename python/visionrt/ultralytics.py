"""The recipe of a model that Ultralytics exported, from the metadata that its exporter writes.

It lies in front of a plan, or in the properties of an ONNX file. Outputs are called ``output0``;
prototypes, ``output1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionrt.errors import EngineFileError, ModelError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

_CLASSIFY = "classify"
_PREPROCESS = "yolo"
_PREPROCESS_OF_CLASSIFIERS = "imagenet,crop_ratio=1.0,mean=0,std=255"
# Its name of a task: ours, and the head.
_HEADS = {
    _CLASSIFY: ("classify", "classifier"),
    "detect": ("detect", "yolo"),
    "segment": ("instances", "proto_mask"),
    "pose": ("keypoints", "yolo_pose"),
    "obb": ("obb", "obb"),
}


def recipe_from_metadata(metadata: Mapping[str, Any]) -> Recipe:
    """Task, labels and preprocess spec as the exporter wrote them.

    Raises:
        ModelError: a task that is not supported.
        EngineFileError: metadata that lacks a field or is ill-typed.
    """
    task = metadata.get("task")
    if task not in _HEADS:
        raise ModelError(
            f"an Ultralytics engine for one of {', '.join(_HEADS)}",
            got=f"task {task!r}",
            fix="Give a recipe to load, if its outputs fit one of the heads.",
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
    text = _PREPROCESS_OF_CLASSIFIERS if task == _CLASSIFY else _PREPROCESS
    spec = PreprocessSpec.parse(text).replace(size=[height, width])
    ours, head = _HEADS[task]
    if task == "detect" and _is_end_to_end(metadata):
        head = "end2end"
    return Recipe(ours, head, spec, labels, head_options=_options(metadata, task))


def _is_end_to_end(metadata: Mapping[str, Any]) -> bool:
    """Whether boxes are final: a model without NMS, or an export with NMS inside."""
    arguments = metadata.get("args")
    has_nms = isinstance(arguments, Mapping) and arguments.get("nms")
    return bool(metadata.get("end2end") or has_nms)


def _options(metadata: Mapping[str, Any], task: str) -> dict[str, Any]:
    if task == _CLASSIFY:
        return {"activation": "none"}  # the exported graph ends in the softmax
    if task == "detect":
        return {}
    options: dict[str, Any] = {"output": "output0"}
    options["form"] = "end2end" if _is_end_to_end(metadata) else "v8"
    if task == "segment":
        options["prototypes"] = "output1"
    if task == "pose":
        options["dims"] = _keypoint_dims(metadata)
    return options


def _keypoint_dims(metadata: Mapping[str, Any]) -> int:
    shape = metadata.get("kpt_shape")
    if not isinstance(shape, Sequence) or len(shape) != 2 or shape[1] not in (2, 3):
        raise EngineFileError(
            "Ultralytics metadata with kpt_shape [keypoints, 2 or 3]",
            got=repr(shape),
            fix="Export it again, or give a recipe to load.",
        )
    return int(shape[1])
