"""Tiny models whose right answer is known by construction: their outputs are constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIZE = 64
CELLS = 84  # 8² + 4² + 2²


@dataclass(frozen=True)
class Case:
    """Outputs of an image, and the answer for an image of the tensor's size.

    Attributes:
        outputs: by name; their dtypes are kept.
        task, head, options: as the rules should find them.
        answer: field of the result -> value; a callable takes the result.
        last: by output name, the operator that it ends in; its constants are that operator's input.
        separable: whether the outputs come from a swish and a depthwise separable convolution.
    """

    outputs: Mapping[str, np.ndarray]
    task: str
    head: str
    options: Mapping[str, Any]
    answer: Mapping[str, Any]
    last: Mapping[str, str] = field(default_factory=dict)
    separable: bool = False


def model_of(case: Case) -> ModelProto:
    """[1, 3, 64, 64] images in; the outputs are the constants, plus nothing of the image's mean."""
    nodes = []
    values = [numpy_helper.from_array(np.zeros(1, np.float32), "zero")]
    seen = "image"
    if case.separable:
        seen = "pointwise"
        nodes.append(helper.make_node("Sigmoid", ["image"], ["gate"]))
        nodes.append(helper.make_node("Mul", ["image", "gate"], ["swish"]))
        nodes.append(helper.make_node("Conv", ["swish", "deep_w"], ["depthwise"], group=3))
        nodes.append(helper.make_node("Conv", ["depthwise", "point_w"], [seen]))
        for name, shape in (("deep_w", (3, 1, 3, 3)), ("point_w", (2, 3, 1, 1))):
            values.append(numpy_helper.from_array(np.full(shape, 0.25, np.float32), name))
    nodes += [
        helper.make_node("ReduceMean", [seen], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    outs = []
    for name, array in case.outputs.items():
        wide = array.astype(np.float32)
        values.append(numpy_helper.from_array(wide, f"{name}_fixed"))
        is_float = array.dtype == np.float32
        added = name if is_float and name not in case.last else f"{name}_float"
        nodes.append(helper.make_node("Add", ["nothing", f"{name}_fixed"], [added]))
        if name in case.last:
            nodes.append(helper.make_node(case.last[name], [added], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        if not is_float:
            nodes.append(helper.make_node("Cast", [added], [name], to=kind))
        outs.append(helper.make_tensor_value_info(name, kind, array.shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    graph = helper.make_graph(nodes, "dense", [image], outs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def yolo(rows: list[list[float]], columns: int, form: str) -> np.ndarray:
    """Rows at scattered anchors of an output of a form, the others zeros."""
    out = np.zeros((3 * CELLS if form == "v5" else CELLS, columns), np.float32)
    out[[5, 17, 33, 60][: len(rows)]] = rows
    return out.T[None].copy() if form == "v8" else out[None]


# Boxes in binary fractions, so that nothing is rounded on the way.
_BOXES = [[20, 16, 24, 16], [21, 16, 24, 16], [44, 40, 8, 32]]  # cx, cy, w, h; the second overlaps
_XYXY = [[8, 8, 32, 24], [40, 24, 48, 56]]


def _prototypes() -> np.ndarray:
    planes = np.full((32, 16, 16), -1, np.float32)
    planes[0, :, :5] = 1  # left of x = 20
    planes[1] = 1
    return planes[None]


def _mask_rows() -> list[list[float]]:
    coefficients = np.zeros((3, 32))
    coefficients[[0, 1], 0] = 1
    coefficients[2, 1] = 2
    scores = [[0.875, 0.125], [0.75, 0], [0, 0.5]]
    parts = zip(_BOXES, scores, coefficients.tolist(), strict=True)
    return [[*box, *score, *c] for box, score, c in parts]


def _masks() -> np.ndarray:
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 8:24, 8:20] = True
    masks[1, 24:56, 40:48] = True
    return masks


def _instances(form: str) -> Case:
    rows = _mask_rows()
    columns = 4 + 2 + 32
    if form == "v5":
        rows = [[*row[:4], 1.0, *row[4:]] for row in rows]
        columns += 1
    if form == "end2end":
        picked = (rows[0], 0.875, 0), (rows[2], 0.5, 1)
        rows = [[*b, s, c, *row[6:]] for (row, s, c), b in zip(picked, _XYXY, strict=True)]
        out = np.zeros((1, 300, 38), np.float32)
        out[0, :2] = rows
    else:
        out = yolo(rows, columns, form)
    options = {"output": "boxes", "prototypes": "protos", "form": form}
    answer = {"xyxy": _XYXY, "confidence": [0.875, 0.5], "class_id": [0, 1], "mask": _masks()}
    outputs = {"boxes": out, "protos": _prototypes()}
    return Case(outputs, "instances", "proto_mask", options, answer)


def _rcnn() -> Case:
    small = np.zeros((3, 1, 28, 28), np.float32)
    small[0, :, :, :14] = 1  # the left half of its box
    small[1] = 1
    boxes = np.array([*_XYXY, [0, 0, 4, 4]], np.float32)
    outputs = {
        "boxes": boxes,
        "labels": np.array([1, 2, 1], np.int64),
        "scores": np.array([0.5, 0.875, 0.125], np.float32),
        "masks": small,
    }
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 24:56, 40:48] = True
    masks[1, 8:24, 8:20] = True
    options = {name: name for name in outputs}
    answer = {"xyxy": _XYXY[::-1], "confidence": [0.875, 0.5], "class_id": [2, 1], "mask": masks}
    return Case(outputs, "instances", "mask_rcnn", options, answer)


def _pasted() -> Case:
    case = _rcnn()
    large = np.zeros((3, 1, SIZE, SIZE), np.float32)
    large[0, 0, :, :20] = 1  # its box begins at 8 and ends at 32
    large[1] = 1
    options = {**case.options, "region": "image"}
    return Case({**case.outputs, "masks": large}, case.task, case.head, options, case.answer)


def _points() -> np.ndarray:
    k = np.arange(17)
    return np.stack([10 + k, 12 + k / 2, np.where(k % 2, 0.75, 0.25)], axis=1)


def _pose(form: str) -> Case:
    points = _points().ravel().tolist()
    if form == "end2end":
        out = np.zeros((1, 300, 57), np.float32)
        out[0, 0] = [*_XYXY[0], 0.875, 0, *points]
    else:
        rows = [[*box, s, *points] for box, s in zip(_BOXES[:2], (0.875, 0.75), strict=True)]
        out = yolo(rows, 56, form)
    answer = {
        "keypoints": _points()[None],
        "xyxy": _XYXY[:1],
        "confidence": [0.875],
        "class_id": [0],
    }
    options = {"output": "y", "form": form}
    return Case({"y": out}, "keypoints", "yolo_pose", options, answer)


def _simcc() -> Case:
    x, y = (np.zeros((1, 17, 2 * SIZE), np.float32) for _ in "xy")
    points = _points()
    for k, (column, row, score) in enumerate(points):
        x[0, k, int(2 * column)] = 1
        y[0, k, int(2 * row)] = score
    answer = {"keypoints": points[None]}
    return Case({"x": x, "y": y}, "keypoints", "simcc", {"x": "x", "y": "y"}, answer)


def _heatmaps() -> Case:
    maps = np.zeros((1, 17, 16, 16), np.float32)
    points = np.zeros((17, 3))
    for k in range(17):
        row, column = k % 14 + 1, 15 if k == 16 else 3
        maps[0, k, row, column] = 0.75
        if k != 16:
            maps[0, k, row, column + 1] = 0.5
        maps[0, k, row - 1, column] = 0.25
        shift = 0 if k == 16 else 0.25
        points[k] = [4 * (column + shift), 4 * (row - 0.25), 0.75]
    options = {"output": "y", "layout": "nchw", "activation": "none"}
    return Case({"y": maps}, "keypoints", "heatmaps", options, {"keypoints": points[None]})


def _obb(form: str) -> Case:
    quarter = np.float32(np.pi / 2)
    if form == "end2end":
        out = np.zeros((1, 300, 7), np.float32)
        out[0, :2] = [[44, 40, 8, 32, 0.5, 14, 0], [20, 16, 24, 16, 0.875, 2, 0]]
    else:
        rows = []
        # The third lies over the first and crosses it; the fourth is the first one turned half.
        boxes = [(_BOXES[0], 2, 0.875, 0.0), (_BOXES[2], 14, 0.5, 0.0)]
        boxes += [([20, 16, 16, 24], 2, 0.75, quarter), ([20, 16, 24, 16], 2, 0.25, 2 * quarter)]
        for box, class_id, score, angle in boxes:
            scores = np.zeros(15)
            scores[class_id] = score
            rows.append([*box, *scores, angle])
        out = yolo(rows, 20, form)
    answer = {
        # The longer side first: the second box's runs downwards.
        "xywhr": [[20, 16, 24, 16, 0], [44, 40, 32, 8, quarter]],
        "xyxy": _XYXY,
        "confidence": [0.875, 0.5],
        "class_id": [2, 14],
    }
    return Case({"y": out}, "obb", "obb", {"output": "y", "form": form}, answer)


def _classifier(shape: tuple[int, ...]) -> Case:
    scores = np.linspace(-4, 4, max(shape), dtype=np.float32)
    first = max(shape) - 1000
    shares = np.exp(scores.astype(np.float64))
    shares /= shares.sum()
    answer = {
        "class_id": np.arange(999, 994, -1),
        "confidence": shares[::-1][:5],
        "logits": scores[first:],
    }
    options = {"output": "y", "activation": "softmax", "offset": first}
    return Case({"y": scores.reshape(shape)}, "classify", "classifier", options, answer)


def _segmenter(form: str, layout: str) -> Case:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:24, 4:40] = 1
    if form == "argmax":
        out = mask[None].astype(np.int64)
    elif form == "probability":
        # The graph ends in a Sigmoid: its input is stored.
        out = np.where(mask, 1, -1).astype(np.float32)[None, None]
    else:
        mask[30:50] = 2
        out = 8 * (np.arange(3)[:, None, None] == mask).astype(np.float32)[None]
    if layout == "nhwc":
        out = np.moveaxis(out, 1, 3).copy()
    options = {"output": "y", "form": form, "layout": layout}
    last = {"y": "Sigmoid"} if form == "probability" else {}
    return Case({"y": out}, "segment", "logits", options, {"mask": mask}, last=last)


def _movenet() -> Case:
    points = _points()
    out = points[None, None][..., [1, 0, 2]] / [SIZE, SIZE, 1]
    options = {"output": "y", "form": "movenet"}
    outputs = {"y": out.astype(np.float32)}
    return Case(outputs, "keypoints", "keypoints", options, {"keypoints": points[None]})


CASES = {
    "classifier [1, C]": _classifier((1, 1000)),
    "classifier [1, C, 1, 1]": _classifier((1, 1001, 1, 1)),
    "classifier [1, 1, 1, C]": _classifier((1, 1, 1, 1001)),
    "segmentation by logits": _segmenter("logits", "nchw"),
    "segmentation by logits, channels last": _segmenter("logits", "nhwc"),
    "segmentation by one probability": _segmenter("probability", "nchw"),
    "segmentation by class ids": _segmenter("argmax", "nchw"),
    "movenet": _movenet(),
    "yolo-seg v8": _instances("v8"),
    "yolo-seg v5": _instances("v5"),
    "yolo-seg end to end": _instances("end2end"),
    "mask r-cnn": _rcnn(),
    "mask r-cnn, pasted": _pasted(),
    "yolo-pose v8": _pose("v8"),
    "yolo-pose end to end": _pose("end2end"),
    "simcc": _simcc(),
    "heat maps": _heatmaps(),
    "yolo-obb v8": _obb("v8"),
    "yolo-obb end to end": _obb("end2end"),
}
