"""Which head a graph has, told from the shapes of its outputs.

Each rule is a function that returns what it found, or None; see ``head_guess.py``. A rule is sure
only where the shapes leave no doubt; where several heads look alike, the user is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtconvert.detection_rules import RULES as DETECTION
from trtconvert.head_guess import (
    CERTAIN,
    LIKELY,
    HeadGuess,
    Outputs,
    Rule,
    activation_of,
    choose_guess,
    said,
)
from trtconvert.instance_rules import RULES as INSTANCES
from trtconvert.pyramid_rules import RULES as PYRAMIDS

_V5_ANCHORS_PER_CELL = 3
# Anchors of the TensorFlow SSD models at 300×300: 19² × 3 + 10² × 6 + 5² × 6 + 3² × 6 + 2² × 6 + 6.
_TF_SSD_300_ANCHORS = 1917
_ANCHOR_FORMS = (
    '{"anchors": {"feature_maps": [[19, 19], …], "scales": [0.2, …]}}, or {"levels": [3, 7], …}, '
    "or the rows themselves; see visionrt/heads/ssd.py"
)


def guess_head(outputs: Outputs) -> HeadGuess | None:
    """The surest answer of every rule, or None."""
    return choose_guess(outputs, RULES)


def classifier(outputs: Outputs) -> HeadGuess | None:
    """One output of 1000 or 1001 scores (with a background class 0); other axes have size 1."""
    if len(outputs.infos) != 1:
        return None
    sizes = [size for size in outputs.infos[0].shape[1:] if size != 1]
    if sizes not in ([1000], [1001]):
        return None
    return classifier_guess(outputs, f"one output of {sizes[0]} class scores")


def classifier_guess(outputs: Outputs, reason: str) -> HeadGuess:
    """A classifier on the first output, whose number of classes its shape gives."""
    info = outputs.infos[0]
    sizes = [size for size in info.shape[1:] if size != 1]
    classes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], int) else None
    options = {
        "output": info.name,
        "activation": activation_of(outputs.last_op[info.name], "softmax"),
        "offset": 1 if classes == 1001 else 0,
    }
    why = {
        "activation": f"the graph ends in {outputs.last_op[info.name]}",
        "offset": "1001 scores are 1000 classes after a background" if classes == 1001 else "",
    }
    sure = CERTAIN if classes in (1000, 1001) else LIKELY
    return HeadGuess(
        "classify", "classifier", options, reason, classes, why=said(why), confidence=sure
    )


def ssd(outputs: Outputs) -> HeadGuess | None:
    """A pair [b, N, 4] and [b, N, C]: box codes and class scores."""
    if len(outputs.infos) != 2:
        return None
    shapes = [info.shape for info in outputs.infos]
    if any(len(shape) != 3 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        return None
    boxes = [info for info in outputs.infos if info.shape[2] == 4]
    if len(boxes) != 1:
        return None
    scores = next(info for info in outputs.infos if info is not boxes[0])
    options: dict[str, Any] = {
        "boxes": boxes[0].name,
        "scores": scores.name,
        "activation": activation_of(outputs.last_op[scores.name], "softmax"),
        "background": 0,
    }
    reason = f"box codes and class scores for {boxes[0].shape[1]} anchors"
    why = {"activation": f"the scores end in {outputs.last_op[scores.name]}"}
    if boxes[0].shape[1] == _TF_SSD_300_ANCHORS and outputs.size == (300, 300):
        options["anchors"] = "tf_ssd_300"
        why["anchors"] = "1917 at 300×300 are those of the TensorFlow SSD models"
    classes = scores.shape[2] if isinstance(scores.shape[2], int) else None
    missing = {} if "anchors" in options else {"anchors": _ANCHOR_FORMS}
    return HeadGuess("detect", "ssd", options, reason, classes, why=why, missing=missing)


def yolo(outputs: Outputs) -> HeadGuess | None:
    """One output [b, 4 + C, N] (v8 form) or [b, N, 5 + C] (with objectness), N from the grid."""
    if len(outputs.infos) != 1 or len(outputs.infos[0].shape) != 3:
        return None
    (info,) = outputs.infos
    rows, columns = info.shape[1:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    cells = outputs.cells()
    fits: list[tuple[str, int, str, tuple[str, ...]]] = []
    if columns in cells and rows > 4:
        fits.append(("v8", rows - 4, f"4 + {rows - 4} classes, {columns} grid cells", ()))
    if rows in cells and columns > 5:
        # With one anchor per cell, YOLOX's raw grid and YOLOv6's decoded boxes look the same.
        layout = f"{rows} grid cells, 5 + {columns - 5} classes"
        fits.append(("v5", columns - 5, layout, ("yolox", "yolo")))
    if rows % _V5_ANCHORS_PER_CELL == 0 and rows // 3 in cells and columns > 5:
        layout = f"3 anchors × {rows // 3} grid cells, 5 + {columns - 5} classes"
        fits.append(("v5", columns - 5, layout, ()))
    if not fits:
        return None
    form, classes, layout, heads = fits[0]
    if len(fits) > 1:
        heads = ("yolo", "yolox")
    options = {"output": info.name, "form": form}
    return HeadGuess("detect", "yolo", options, f"one output [b, {layout}]", classes, heads)


def movenet(outputs: Outputs) -> HeadGuess | None:
    """One output [b, 1, 17, 3]: y, x and score of each keypoint of one person."""
    if len(outputs.infos) != 1 or outputs.infos[0].shape[1:] != (1, 17, 3):
        return None
    options = {"output": outputs.infos[0].name, "form": "movenet"}
    reason = "one output of 17 keypoints (y, x, score)"
    return HeadGuess("keypoints", "keypoints", options, reason, confidence=CERTAIN)


def segmentation(outputs: Outputs) -> HeadGuess | None:
    """One map of the image's size: class ids, or a score per class in either layout."""
    if len(outputs.infos) != 1:
        return None
    (info,) = outputs.infos
    layout = "nhwc" if len(info.shape) == 4 and outputs.size == info.shape[1:3] else "nchw"
    is_ids = info.shape[1:] == outputs.size and not info.dtype.startswith("float")
    is_map = len(info.shape) == 4 and outputs.size in (info.shape[2:4], info.shape[1:3])
    if is_ids or (is_map and not info.dtype.startswith("float")):
        options = {"output": info.name, "form": "argmax", "layout": layout}
        return HeadGuess("segment", "logits", options, "one map of class ids, of the image's size")
    if not is_map:
        return None
    channels = info.shape[1 if layout == "nchw" else 3]
    form = "probability" if outputs.last_op[info.name] in ("Sigmoid", "Softmax") else "logits"
    options = {"output": info.name, "form": form, "layout": layout}
    reason = f"one map of the image's size with {channels} channel(s)"
    # One channel is the score of the foreground: two class ids.
    classes = 2 if channels == 1 else channels
    why = {"form": f"the graph ends in {outputs.last_op[info.name]}"}
    count = classes if isinstance(classes, int) else None
    return HeadGuess("segment", "logits", options, reason, count, why=why)


# Of two that are equally sure, the earlier one is named first when the user is asked.
RULES: Sequence[Rule] = (
    *INSTANCES,
    *DETECTION,
    *PYRAMIDS,
    classifier,
    movenet,
    ssd,
    yolo,
    segmentation,
)
