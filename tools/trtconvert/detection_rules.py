"""Rules for detectors whose outputs are final boxes or queries, as in head_rules.py.

``boxes_scores`` has no rule: nothing in its shapes tells decoded boxes from an SSD's box codes.
``--head`` must name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtconvert.head_guess import CERTAIN, LIKELY, HeadGuess, Outputs, Rule, said
from visionrt.manifest import TensorInfo

_MOST_BOXES = 1000  # of models that need no NMS; grids have more cells
_DETR_QUERIES = 100  # DETR alone has so few, and it alone scores by softmax
_CENTRE_CELL = 4  # pixels of the tensor per cell of a heat map
_FACE_LANDMARKS = 10
_SIZE_WORDS = ("wh", "size", "scale")
_ACTIVATIONS = ("Sigmoid", "Softmax")
# Names of boxes, scores, classes and count where an NMS is in the graph, and the form of a box.
_NAMED = (
    # TensorFlow's detection API.
    (
        ("detection_boxes", "detection_scores", "detection_classes", "num_detections"),
        {"form": "yxyx", "units": "normalised"},
    ),
    # Exporters that end a YOLO in EfficientNMS.
    (("det_boxes", "det_scores", "det_classes", "num_dets"), {"form": "xyxy", "units": "pixels"}),
)


def end2end(outputs: Outputs) -> HeadGuess | None:
    """One output [b, K, 6] with fewer rows than a grid has cells: box, score and class."""
    if len(outputs.infos) != 1 or len(outputs.infos[0].shape) != 3:
        return None
    (info,) = outputs.infos
    rows, columns = info.shape[1:]
    if columns != 6 or not isinstance(rows, int) or rows > _MOST_BOXES:
        return None
    if rows in outputs.cells() or rows in {3 * cells for cells in outputs.cells()}:
        return None
    reason = f"{rows} final boxes with score and class"
    return HeadGuess("detect", "end2end", {"output": info.name}, reason)


def detr(outputs: Outputs) -> HeadGuess | None:
    """Raw logits [b, Q, C] and boxes [b, Q, 4] that end in a sigmoid, so lie in 0…1."""
    if len(outputs.infos) != 2 or any(len(info.shape) != 3 for info in outputs.infos):
        return None
    boxes = [
        info
        for info in outputs.infos
        if info.shape[2] == 4 and outputs.last_op[info.name] == "Sigmoid"
    ]
    if len(boxes) != 1:
        return None
    logits = next(info for info in outputs.infos if info is not boxes[0])
    queries = boxes[0].shape[1]
    if logits.shape[1] != queries or not isinstance(queries, int) or queries > _MOST_BOXES:
        return None
    if outputs.last_op[logits.name] in _ACTIVATIONS:
        return None
    by_softmax = queries == _DETR_QUERIES
    options = {
        "logits": logits.name,
        "boxes": boxes[0].name,
        "activation": "softmax" if by_softmax else "sigmoid",
    }
    why = {"activation": f"{queries} queries, as DETR has" if by_softmax else ""}
    columns = logits.shape[2]
    classes = columns - by_softmax if isinstance(columns, int) else None
    reason = f"logits and boxes in 0…1 of {queries} queries"
    return HeadGuess("detect", "detr", options, reason, classes, why=said(why), confidence=CERTAIN)


def nms_inside(outputs: Outputs) -> HeadGuess | None:
    """Boxes, scores and classes after an NMS, told by their names or by having no batch."""
    return _by_names(outputs) or _torchvision(outputs) or _mmdetection(outputs)


def _by_names(outputs: Outputs) -> HeadGuess | None:
    names = {info.name.rsplit("/", 1)[-1].split(":")[0]: info.name for info in outputs.infos}
    for (*needed, count), form in _NAMED:
        if not set(needed) <= set(names):
            continue
        options: dict[str, Any] = dict(
            zip(("boxes", "scores", "classes"), (names[key] for key in needed), strict=True)
        )
        if count in names:
            options["count"] = names[count]
        reason = f"outputs called {', '.join(needed)}"
        return HeadGuess("detect", "nms_inside", {**options, **form}, reason, confidence=CERTAIN)
    return None


def _torchvision(outputs: Outputs) -> HeadGuess | None:
    """[K, 4] boxes, [K] integer labels and [K] scores of one image."""
    boxes = [o for o in outputs.infos if len(o.shape) == 2 and o.shape[1] == 4]
    rows = [o for o in outputs.infos if len(o.shape) == 1]
    labels = [o for o in rows if o.dtype.startswith("int")]
    scores = [o for o in rows if o.dtype.startswith("float")]
    if len(outputs.infos) != 3 or not len(boxes) == len(labels) == len(scores) == 1:
        return None
    options = {"boxes": boxes[0].name, "scores": scores[0].name, "classes": labels[0].name}
    reason = "boxes, integer labels and scores without a batch, as torchvision's detectors give"
    return HeadGuess("detect", "nms_inside", options, reason, confidence=LIKELY)


def _mmdetection(outputs: Outputs) -> HeadGuess | None:
    """[b, K, 5] boxes with a score and [b, K] integer labels; or both without the batch."""
    if len(outputs.infos) != 2:
        return None
    boxes = [o for o in outputs.infos if len(o.shape) in (2, 3) and o.shape[-1] == 5]
    labels = [o for o in outputs.infos if o.dtype.startswith("int")]
    if len(boxes) != 1 or len(labels) != 1 or len(labels[0].shape) != len(boxes[0].shape) - 1:
        return None
    options = {"boxes": boxes[0].name, "classes": labels[0].name}
    reason = "boxes with a score, and integer labels, as MMDetection exports them"
    return HeadGuess("detect", "nms_inside", options, reason, confidence=CERTAIN)


def centernet(outputs: Outputs) -> HeadGuess | None:
    """Maps of one size: class scores, and twice two channels; ten more are CenterFace's."""
    shapes = {info.shape[2:] for info in outputs.infos}
    if len(outputs.infos) not in (3, 4) or any(len(info.shape) != 4 for info in outputs.infos):
        return None
    height, width = outputs.size
    if shapes != {(height // _CENTRE_CELL, width // _CENTRE_CELL)}:
        return None
    pairs = [info for info in outputs.infos if info.shape[1] == 2]
    rest = [info for info in outputs.infos if info.shape[1] != 2]
    landmarks = [info for info in rest if info.shape[1] == _FACE_LANDMARKS]
    heat = [info for info in rest if info not in landmarks]
    if len(pairs) != 2 or len(heat) != 1 or len(landmarks) != len(outputs.infos) - 3:
        return None
    size, offset, why = _size_and_offset(pairs)
    options = {"heatmap": heat[0].name, "size": size.name, "offset": offset.name}
    if landmarks and heat[0].shape[1] == 1:
        options["landmarks"] = landmarks[0].name
        reason = "a heat map, sizes, offsets and five landmarks at a quarter of the image's size"
        return HeadGuess("keypoints", "centerface", options, reason, why=why, confidence=CERTAIN)
    if landmarks:
        return None
    options["activation"] = "none" if outputs.last_op[heat[0].name] == "Sigmoid" else "sigmoid"
    classes = heat[0].shape[1] if isinstance(heat[0].shape[1], int) else None
    reason = "a heat map per class, sizes and offsets at a quarter of the image's size"
    return HeadGuess("detect", "centernet", options, reason, classes, why=why, confidence=CERTAIN)


def _size_and_offset(pairs: Sequence[TensorInfo]) -> tuple[TensorInfo, TensorInfo, dict[str, str]]:
    """Which of two outputs is the size: told by its name, else the first."""
    is_size = [any(word in info.name.lower() for word in _SIZE_WORDS) for info in pairs]
    if is_size == [False, True]:
        return pairs[1], pairs[0], {"size": "by its name"}
    how = "by its name" if is_size == [True, False] else "the first of two outputs of one shape"
    return pairs[0], pairs[1], {"size": how}


RULES: Sequence[Rule] = (end2end, detr, nms_inside, centernet)
