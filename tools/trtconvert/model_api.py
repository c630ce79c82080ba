"""The recipe in the metadata of OpenVINO's Model API, as training tools write it into ONNX files.

Properties are called ``model_info KEY``. Model API reads images as BGR, subtracts ``mean_values``
and divides by ``scale_values`` after ``reverse_input_channels``; ``resize_type`` is ``standard``
(stretch), ``fit_to_window_letterbox``, ``fit_to_window`` (padded below and to the right) or
``crop`` (all of the shorter side). With ``intensity_mode`` ``scale_to_unit`` pixels are divided by
their largest value first. With ``embedded_processing`` the graph does all of it, of a uint8 input.
Version 0.4.7 says so, too, of ONNX files that it saves with the graph as it was; then nothing is
known of how images are fed.

The model type tells the head only in part: where the outputs tell it, they are believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from visionrt.errors import ModelError, UsageError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

PREFIX = "model_info "
_RESIZES: dict[str, dict[str, Any]] = {
    "standard": {"resize": "stretch"},
    "fit_to_window_letterbox": {"resize": "letterbox"},
    "fit_to_window": {"resize": "letterbox", "letterbox_align": "top_left"},
    "crop": {"resize": "crop", "crop_ratio": 1.0},
}
_TASKS = {
    "classification": "classify",
    "detection": "detect",
    "segmentation": "segment",
    "semantic_segmentation": "segment",
    "instance_segmentation": "instances",
    "keypoint_detection": "keypoints",
}
# Of a model type, lower case without "_": task and head.
_TYPES = {
    "classification": ("classify", "classifier"),
    "segmentation": ("segment", "logits"),
    "ssd": ("detect", "nms_inside"),
    "yolox": ("detect", "yolox"),
    "yolo": ("detect", "yolo"),
    "yolov8": ("detect", "yolo"),
    "yolo11": ("detect", "yolo"),
    "maskrcnn": ("instances", "mask_rcnn"),
    "keypointdetection": ("keypoints", "simcc"),
}
_YES = ("true", "yes", "1")
_LARGEST = {"u8": 255.0}  # of images' own type; we feed no other
_USUAL_HEADS = {
    "classify": "classifier",
    "detect": "nms_inside",
    "segment": "logits",
    "instances": "mask_rcnn",
    "keypoints": "simcc",
}


def recipe_from_model_info(entries: Mapping[str, str]) -> Recipe | None:
    """The recipe that the properties tell; None where they are not Model API's.

    The spec's size is only meant where ``orig_width`` and ``orig_height`` are there.

    Raises:
        ModelError: a task that is not supported, or a value of another form.
    """
    info = {k.removeprefix(PREFIX): v for k, v in entries.items() if k.startswith(PREFIX)}
    if not info.keys() & {"model_type", "task_type"}:
        return None
    task, head = _task_and_head(info)
    try:
        limits: dict[str, Any] = {
            key: float(info[name])
            for key, name in (("confidence", "confidence_threshold"), ("iou", "iou_threshold"))
            if name in info and 0 < float(info[name]) < 1
        }
        activation = {"activation": "sigmoid"} if _is_true(info, "multilabel") else {}
        options = activation if head == "classifier" else {}
        return Recipe(task, head, _spec(info), _labels(info), head_options=options, **limits)
    except (ValueError, KeyError, UsageError) as error:
        raise ModelError(
            "Model API's metadata with numbers and known names",
            got=f"{type(error).__name__}: {error}",
            fix="Export the model again, or give --task, --head and --preprocess.",
        ) from error


def says_spec(entries: Mapping[str, str], input_dtype: str) -> bool:
    """Whether the metadata is to be believed on how images are fed, by the input's type."""
    embedded = entries.get(PREFIX + "embedded_processing", "").lower() in _YES
    return input_dtype == "uint8" or not embedded


def says_size(entries: Mapping[str, str]) -> bool:
    """Whether the metadata has an input size."""
    return {PREFIX + "orig_width", PREFIX + "orig_height"} <= entries.keys()


def _task_and_head(info: Mapping[str, str]) -> tuple[str, str]:
    kind = info.get("model_type", "").lower().replace("_", "")
    task = _TASKS.get(info.get("task_type", "").lower())
    found = _TYPES.get(kind)
    if found is not None and task in (None, found[0]):
        return found
    if task is None:
        raise ModelError(
            f"a model of Model API for one of {', '.join(_TASKS)}",
            got=f"model_type {info.get('model_type')!r}, task_type {info.get('task_type')!r}",
            fix="Give --task and --head, if its outputs fit one of the heads.",
        )
    return task, _USUAL_HEADS[task]


def _spec(info: Mapping[str, str]) -> PreprocessSpec:
    spec: dict[str, Any] = dict(_RESIZES[info.get("resize_type", "standard")])
    spec["pad_value"] = int(info.get("pad_value", 0))
    spec["color"] = "rgb" if _is_true(info, "reverse_input_channels") else "bgr"
    spec["mean"], spec["std"] = [0.0], [1.0]
    if not _is_true(info, "embedded_processing"):
        unit = 1.0
        if (mode := info.get("intensity_mode", "none")) == "scale_to_unit":
            unit = float(info.get("intensity_max_value") or _LARGEST[info.get("input_dtype", "u8")])
        elif mode != "none":
            raise ValueError(f"intensity_mode {mode!r}")
        spec["mean"] = [unit * x for x in _numbers(info, "mean_values")] or [0.0]
        spec["std"] = [unit * x for x in _numbers(info, "scale_values")] or [unit]
    else:
        spec["color"] = "bgr"
    if {"orig_width", "orig_height"} <= info.keys():
        spec["size"] = [int(info["orig_height"]), int(info["orig_width"])]
    return PreprocessSpec.from_json(spec)


def _labels(info: Mapping[str, str]) -> tuple[str, ...]:
    """``label_info`` keeps blanks in names; ``labels`` is a list with blanks between."""
    if "label_info" in info:
        names = json.loads(info["label_info"]).get("label_names", [])
        if names:
            return tuple(map(str, names))
    return tuple(name.replace("_", " ") for name in info.get("labels", "").split())


def _numbers(info: Mapping[str, str], key: str) -> list[float]:
    text = info.get(key, "").strip("[]()").replace(",", " ")
    return [float(part) for part in text.split()]


def _is_true(info: Mapping[str, str], key: str) -> bool:
    return info.get(key, "").lower() in _YES
