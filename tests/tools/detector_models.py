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


def _mmdetection() -> Case:
    rows = [[*_XYXY[1], 0.5], [*_XYXY[0], 0.875], [0, 0, 4, 4, 0.125]]
    labels = np.array([[1, 0, 1]], np.int64)
    options = {"boxes": "dets", "classes": "labels"}
    outputs = {"dets": np.array([rows], np.float32), "labels": labels}
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


def _centernet(activation: str) -> Case:
    heat = np.full((1, 3, 16, 16), -30 if activation == "sigmoid" else 0, np.float32)
    size, offset = np.zeros((1, 2, 16, 16), np.float32), np.zeros((1, 2, 16, 16), np.float32)
    for row, column, class_id, score, (cx, cy, w, h) in (
        (4, 5, 0, 0.875, _CENTRES[0]), (10, 11, 1, 0.5, _CENTRES[2])
    ):  # fmt: skip
        logit = np.log(score / (1 - score))
        heat[0, class_id, row, column] = logit if activation == "sigmoid" else score
        # A neighbour that is not a peak.
        heat[0, class_id, row, column + 1] = 0 if activation == "sigmoid" else score - 0.125
        size[0, :, row, column] = w / 4, h / 4
        offset[0, :, row, column] = cx / 4 - column, cy / 4 - row
    if activation == "sigmoid":
        heat[0, 1, 10, 12] = -1
    outputs = {"hm": heat, "wh": size, "reg": offset}
    options = {"heatmap": "hm", "size": "wh", "offset": "reg", "activation": activation}
    return Case(outputs, "detect", "centernet", options, _ANSWER)


def _centerface() -> Case:
    maps = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}
    outputs = {name: np.zeros((1, c, 16, 16), np.float32) for name, c in maps.items()}
    cells = (((4, 5), 0.875, _XYXY[0]), ((4, 6), 0.75, _XYXY[0]), ((10, 11), 0.5, _XYXY[1]))
    for (row, column), score, (x0, y0, x1, y1) in cells:
        outputs["heatmap"][0, 0, row, column] = score
        outputs["scale"][0, :, row, column] = np.log([(y1 - y0) / 4, (x1 - x0) / 4])
        centre = [(y0 + y1) / 8 - row - 0.5, (x0 + x1) / 8 - column - 0.5]
        outputs["offset"][0, :, row, column] = centre
        # Landmark k is at (k / 8, k / 4) of the box's height and width.
        outputs["landmarks"][0, :, row, column] = np.ravel([(k / 8, k / 4) for k in range(5)])
    points = np.zeros((2, 5, 3))
    for face, (score, (x0, y0, x1, y1)) in enumerate(zip((0.875, 0.5), _XYXY, strict=True)):
        for k in range(5):
            points[face, k] = [x0 + k / 4 * (x1 - x0), y0 + k / 8 * (y1 - y0), score]
    options = {name if name != "scale" else "size": name for name in outputs}
    answer = {"keypoints": points, "xyxy": _XYXY, "confidence": [0.875, 0.5], "class_id": [0, 0]}
    return Case(outputs, "keypoints", "centerface", options, answer)


def _ssd() -> Case:
    # Codes of 0 are the anchors themselves; the last is moved by 15 / 10 and -5 / 10 of its height
    # and width, and made twice as high.
    anchors = [[cy / SIZE, cx / SIZE, h / SIZE, w / SIZE] for cx, cy, w, h in _CENTRES]
    anchors[2] = [(40 - 24) / SIZE, (44 + 4) / SIZE, 16 / SIZE, 8 / SIZE]
    codes = np.zeros((1, 3, 4), np.float32)
    codes[0, 2] = [15, -5, 5 * np.log(2), 0]
    scores = np.array([[[0, 0.875, 0.125], [0, 0.75, 0], [0.5, 0, 0.5]]], np.float32)
    options = {"boxes": "b", "scores": "s", "anchors": anchors, "activation": "none"}
    answer = _ANSWER | {"class_id": [1, 2]}
    return Case({"b": codes, "s": scores}, "detect", "ssd", options, answer)


def _yolox() -> Case:
    out = np.zeros((1, 84, 7), np.float32)
    # Two cells of stride 8, which come first, and one of stride 16.
    for row, (column, line, stride), scores, (cx, cy, w, h) in (
        (18, (2, 2, 8), (0.875, 0.125), _CENTRES[0]),
        (19, (3, 2, 8), (0.75, 0), _CENTRES[1]),
        (74, (2, 2, 16), (0, 0.5), _CENTRES[2]),
    ):
        place = [cx / stride - column, cy / stride - line]
        out[0, row] = [*place, *np.log([w / stride, h / stride]), 1, *scores]
    return Case({"y": out}, "detect", "yolox", {"output": "y"}, _ANSWER)


def _pyramid_anchors(ratios_hw: Any, centre: float) -> list[list[float]]:
    """cy, cx, h, w in pixels of nine anchors at each cell, from the papers' definitions."""
    rows = []
    for level in range(3, 8):
        stride = 2**level
        for y in range(-(-SIZE // stride)):
            for x in range(-(-SIZE // stride)):
                for octave in range(3):
                    side = 4 * stride * 2 ** (octave / 3)
                    for height, width in ratios_hw:
                        middle = [(y + centre) * stride, (x + centre) * stride]
                        rows.append([*middle, side * height, side * width])
    return rows


def _pyramid(kind: str, *, by_level: bool = False) -> Case:
    if kind == "efficientdet":
        anchors = np.array(_pyramid_anchors(((1, 1), (0.7, 1.4), (1.4, 0.7)), 0.5))
    else:
        root = 2**0.5
        shapes = ((1 / root, root), (1, 1), (root, 1 / root))
        anchors = np.array(_pyramid_anchors(shapes, 0.0))
    at = [100, 590, 760]  # on the finest level, the second and the fourth
    codes = np.zeros((1, len(anchors), 4))
    centres = np.array(_CENTRES, float)[:, [1, 0, 3, 2]]
    codes[0, at, :2] = (centres[:, :2] - anchors[at, :2]) / anchors[at, 2:]
    codes[0, at, 2:] = np.log(centres[:, 2:] / anchors[at, 2:])
    logits = np.full((1, len(anchors), 2), -30, np.float32)
    logits[0, at] = [[np.log(7), -2], [np.log(3), -9], [-9, 0]]
    options: dict[str, Any] = {"variances": [1, 1, 1, 1], "activation": "sigmoid"}
    options |= {"background": -1, "anchors": kind, "code": "yxhw"}
    if kind != "efficientdet":
        codes, options["code"] = codes[..., [1, 0, 3, 2]], "xywh"
    outputs = {"codes": codes.astype(np.float32), "logits": logits}
    if by_level:
        outputs, first = {}, 0
        for level in range(3, 8):
            side = -(-SIZE // 2**level)
            for name, rows in (("codes", codes), ("logits", logits)):
                part = rows[0, first : first + 9 * side * side].reshape(side, side, -1)
                chw = np.moveaxis(part, 2, 0)[None]
                outputs[f"{name}{level}"] = np.ascontiguousarray(chw, np.float32)
            first += 9 * side * side
        options |= {
            "boxes": [f"codes{level}" for level in range(3, 8)],
            "scores": [f"logits{level}" for level in range(3, 8)],
        }
    else:
        options |= {"boxes": "codes", "scores": "logits"}
    is_separable = kind == "efficientdet"
    return Case(outputs, "detect", "ssd", options, _ANSWER, separable=is_separable)


_YOLOV5_ANCHORS = (
    *(((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119))),
    ((116, 90), (156, 198), (373, 326)),
)


def _yolo_maps(form: str, activation: str = "sigmoid") -> Case:
    """Raw maps of 8² + 4² + 2² cells, three anchors each."""
    maps = [np.full((1, 3, n, n, 7), -30.0) for n in (8, 4, 2)]
    # Level, anchor, the score of both classes; of a box near the cell it is put in.
    placed = (
        (1, 0, 0, (0.875, 0.125)),
        (1, 0, 1, (0.75, 0.0625)),
        (0, 2, 2, (0.0625, 0.5)),
    )
    for level, anchor, box, scores in placed:
        stride = 8 << level
        cx, cy, width, height = _CENTRES[box]
        wide, high = _YOLOV5_ANCHORS[level][anchor]
        # The second box is of a neighbouring cell, whose reach is half a cell beyond its own.
        column, row = int(cx // stride), int(cy // stride) - (box == 1)
        shares = [
            (cx / stride - column + 0.5) / 2,
            (cy / stride - row + 0.5) / 2,
            (width / wide) ** 0.5 / 2,
            (height / high) ** 0.5 / 2,
            1 - 2**-30,
            *scores,
        ]
        values = np.array(shares)
        maps[level][0, anchor, row, column] = np.log(values / (1 - values))
    if form == "nchw":
        maps = [m.transpose(0, 1, 4, 2, 3).reshape(1, 21, *m.shape[2:4]) for m in maps]
    if form == "nhwc":
        maps = [m.transpose(0, 2, 3, 1, 4).reshape(1, *m.shape[2:4], 21) for m in maps]
    names = ["fine", "middle", "coarse"]
    # The graph's order is not that of the strides.
    outputs = {
        name: np.ascontiguousarray(m, np.float32)
        for name, m in reversed(list(zip(names, maps, strict=True)))
    }
    options = {"outputs": names, "activation": activation, "anchors": "yolov5"}
    last = dict.fromkeys(names, "Sigmoid") if activation == "none" else {}
    return Case(outputs, "detect", "yolo_maps", options, _ANSWER, last=last)


DETECTORS = {
    "yolo v8": _grid("v8"),
    "yolo v5": _grid("v5"),
    "yolo end to end": _end2end(),
    "detr by softmax": _detr("softmax"),
    "detr by sigmoid": _detr("sigmoid"),
    "torchvision's detectors": _torchvision(),
    "mmdetection's detectors": _mmdetection(),
    "tensorflow's detection api": _tensorflow(),
    "centernet": _centernet("sigmoid"),
    "centerface": _centerface(),
    "efficientdet": _pyramid("efficientdet"),
    "efficientdet by level": _pyramid("efficientdet", by_level=True),
    "retinanet": _pyramid("retinanet"),
    "retinanet by level": _pyramid("retinanet", by_level=True),
    "yolo maps": _yolo_maps("nkhwc"),
    "yolo maps, channels first": _yolo_maps("nchw"),
    "yolo maps, channels last": _yolo_maps("nhwc"),
    "yolo maps after a sigmoid": _yolo_maps("nkhwc", "none"),
}
# Their shapes do not give these away, or not all of it: the user names them.
NAMED = {"boxes and scores": _boxes_scores(), "ssd": _ssd(), "yolox": _yolox()}
