"""Tiny detectors whose right boxes are known by construction, as in dense_models.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from dense_models import SIZE, Case, yolo

# Boxes in binary fractions, so that nothing is rounded on the way.
_CENTRES = [[20, 16, 24, 16], [21, 16, 24, 16], [44, 40, 8, 32]]  # the second overlaps the first
_XYXY = [[8, 8, 32, 24], [40, 24, 48, 56]]
_ANSWER = {"xyxy": _XYXY, "confidence": [0.875, 0.5], "class_id": [0, 1]}


def _grid(form: str) -> Case:
    scores = [[0.875, 0.125], [0.75, 0], [0, 0.5]]
    objectness = [[1.0]] if form == "v5" else [[]]
    rows = [[*b, *objectness[0], *s] for b, s in zip(_CENTRES, scores, strict=True)]
    out = yolo(rows, len(rows[0]), form)
    return Case({"y": out}, "detect", "yolo", {"output": "y", "form": form}, _ANSWER)


def _end2end() -> Case:
    out = np.zeros((1, 300, 6), np.float32)
    out[0, :2] = [[*_XYXY[1], 0.5, 1], [*_XYXY[0], 0.875, 0]]
    return Case({"y": out}, "detect", "end2end", {"output": "y"}, _ANSWER)


def _detr(activation: str) -> Case:
    queries = 100 if activation == "softmax" else 20
    logits = np.full((1, queries, 3), -30, np.float32)
    if activation == "softmax":
        # The last column is no object: alone in most queries, a share of 1 - p in two.
        logits[..., 2] = 0
        logits[0, 3, 0], logits[0, 7, 1] = np.log(7), 0
    else:
        logits[0, 3, 0], logits[0, 7, 1] = np.log(7), 0
    boxes = np.full((1, queries, 4), 0.25)
    boxes[0, [3, 7]] = np.array([_CENTRES[0], _CENTRES[2]]) / SIZE
    outputs = {"logits": logits, "boxes": np.log(boxes / (1 - boxes)).astype(np.float32)}
    options = {"logits": "logits", "boxes": "boxes", "activation": activation}
    return Case(outputs, "detect", "detr", options, _ANSWER, last={"boxes": "Sigmoid"})


def _torchvision() -> Case:
    outputs = {
        "boxes": np.array([*_XYXY, [0, 0, 4, 4]], np.float32),
        "labels": np.array([0, 1, 1], np.int64),
        "scores": np.array([0.875, 0.5, 0.125], np.float32),
    }
    options = {"boxes": "boxes", "scores": "scores", "classes": "labels"}
    return Case(outputs, "detect", "nms_inside", options, _ANSWER)


def _tensorflow() -> Case:
    boxes = np.zeros((1, 10, 4), np.float32)
    boxes[0, :3] = np.array([*_XYXY, _XYXY[0]])[:, [1, 0, 3, 2]] / SIZE
    scores = np.zeros((1, 10), np.float32)
    scores[0, :3] = 0.875, 0.5, 0.75  # the third is past the count
    classes = np.zeros((1, 10), np.float32)
    classes[0, :3] = 0, 1, 1
    outputs = {
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
        "num_detections": np.array([2], np.float32),
    }
    options: dict[str, Any] = {
        "boxes": "detection_boxes",
        "scores": "detection_scores",
        "classes": "detection_classes",
        "count": "num_detections",
        "form": "yxyx",
        "units": "normalised",
    }
    return Case(outputs, "detect", "nms_inside", options, _ANSWER)


def _boxes_scores() -> Case:
    boxes = np.zeros((1, 50, 4), np.float32)
    boxes[0, [4, 9, 20]] = _CENTRES
    scores = np.zeros((1, 2, 50), np.float32)
    scores[0, :, [4, 9, 20]] = [0.875, 0.125], [0.75, 0], [0, 0.5]
    options = {"boxes": "boxes", "scores": "scores", "layout": "columns", "form": "cxcywh"}
    outputs = {"boxes": boxes, "scores": scores}
    return Case(outputs, "detect", "boxes_scores", options, _ANSWER)


DETECTORS = {
    "yolo v8": _grid("v8"),
    "yolo v5": _grid("v5"),
    "yolo end to end": _end2end(),
    "detr by softmax": _detr("softmax"),
    "detr by sigmoid": _detr("sigmoid"),
    "torchvision's detectors": _torchvision(),
    "tensorflow's detection api": _tensorflow(),
}
# Nothing in its shapes gives this one away: the user names it.
NAMED = {"boxes and scores": _boxes_scores()}
