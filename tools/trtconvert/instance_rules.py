"""Rules for instance masks, poses and rotated boxes, as in head_rules.py.

The shapes alone speak, so a rule is sure only where no known model of another kind has them; where
one does, ``ambiguous_with`` names its head.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtconvert.head_guess import CERTAIN, LIKELY, HeadGuess, Outputs, Rule
from visionrt.manifest import TensorInfo

_BOX = 4
_COCO_POINTS = 17
_V5_ANCHORS_PER_CELL = 3
_MOST_END2END_BOXES = 1000
_MASK_SIDES = (14, 28, 33, 56)
_CELL = 4  # pixels of the tensor per cell of a heat map, in every known model


def _sizes(info: TensorInfo) -> tuple[int, ...] | None:
    """The sizes behind the batch; None where one is not known."""
    sizes = tuple(size for size in info.shape[1:] if isinstance(size, int))
    return sizes if len(sizes) == len(info.shape) - 1 else None


def _form_of(outputs: Outputs, info: TensorInfo, before_end2end: int = 6) -> tuple[str, int] | None:
    """Form of a YOLO output and its columns behind the box (and objectness), by the grid."""
    sizes = _sizes(info)
    if sizes is None or len(sizes) != 2:
        return None
    rows, columns = sizes
    cells = outputs.cells()
    if columns in cells and rows > _BOX:
        return "v8", rows - _BOX
    if rows % _V5_ANCHORS_PER_CELL == 0 and rows // 3 in cells and columns > _BOX + 1:
        return "v5", columns - _BOX - 1
    if rows in cells and columns > _BOX:
        return "v8_rows", columns - _BOX
    if rows <= _MOST_END2END_BOXES and columns > before_end2end:
        return "end2end", columns - before_end2end
    return None


def proto_mask(outputs: Outputs) -> HeadGuess | None:
    """Boxes with M further columns, and prototypes [b, M, h, w] of a part of the tensor's size."""
    if len(outputs.infos) != 2:
        return None
    by_axes = sorted(outputs.infos, key=lambda info: len(info.shape))
    boxes, prototypes = by_axes
    sizes = _sizes(prototypes)
    if len(boxes.shape) != 3 or sizes is None or len(sizes) != 3:
        return None
    masks, h, w = sizes
    height, width = outputs.size
    if height % h or width % w or height // h != width // w:
        return None
    found = _form_of(outputs, boxes)
    if found is None:
        return None
    form, columns = found
    classes = columns - masks
    if classes < (0 if form == "end2end" else 1) or (form == "end2end" and classes):
        return None
    options = {"output": boxes.name, "prototypes": prototypes.name, "form": form}
    reason = f"boxes with {masks} coefficients, and as many prototypes of {h}×{w}"
    count = None if form == "end2end" else classes
    return HeadGuess("instances", "proto_mask", options, reason, count, confidence=CERTAIN)


def mask_rcnn(outputs: Outputs) -> HeadGuess | None:
    """Four outputs over the same boxes: [D, 4], two of [D], and masks [D, 1, s, s]."""
    if len(outputs.infos) != 4:
        return None
    boxes = [o for o in outputs.infos if o.shape[-1:] == (_BOX,) and len(o.shape) in (2, 3)]
    masks = [o for o in outputs.infos if len(o.shape) >= 4]
    if len(boxes) != 1 or len(masks) != 1:
        return None
    sides = masks[0].shape[-2:]
    # Sizes that inference cannot know are of masks that the graph pastes into its image.
    is_pasted = sides == outputs.size or any(isinstance(side, str) for side in sides)
    has_batch = len(boxes[0].shape) == 3
    axes = (4, 5) if has_batch else (4,)
    is_small = sides[0] == sides[1] and sides[0] in _MASK_SIDES
    if not (is_small or is_pasted) or len(masks[0].shape) not in axes:
        return None
    rest = [o for o in outputs.infos if o is not boxes[0] and o is not masks[0]]
    if any(len(o.shape) != len(boxes[0].shape) - 1 for o in rest):
        return None
    # Scores are float; labels are integers, or come from an operator that counts.
    labels = [o for o in rest if not o.dtype.startswith("float")]
    if len(labels) != 1:
        return None
    (scores,) = (o for o in rest if o is not labels[0])
    options = {
        "boxes": boxes[0].name,
        "scores": scores.name,
        "labels": labels[0].name,
        "masks": masks[0].name,
    }
    reason = f"boxes, scores and labels, and a mask of {sides[0]}×{sides[1]} for each"
    if is_pasted:
        options["region"] = "image"
        reason = "boxes, scores and labels, and a mask of the image's size for each"
    return HeadGuess("instances", "mask_rcnn", options, reason, confidence=CERTAIN)


def yolo_pose(outputs: Outputs) -> HeadGuess | None:
    """One output with 4 + 1 + 17 * 3 columns: one class and COCO's keypoints.

    Another number of keypoints looks like classes: there the metadata or ``--task`` must speak.
    """
    if len(outputs.infos) != 1:
        return None
    (info,) = outputs.infos
    found = _form_of(outputs, info)
    if found is None:
        return None
    form, columns = found
    points = 3 * _COCO_POINTS
    if columns != points + (0 if form == "end2end" else 1):
        return None
    options = {"output": info.name, "form": form}
    reason = "boxes with one class and 17 keypoints (x, y, confidence)"
    if form == "end2end":
        return HeadGuess("keypoints", "yolo_pose", options, reason, None, confidence=CERTAIN)
    # 52 classes would look the same; no public model has them.
    return HeadGuess("keypoints", "yolo_pose", options, reason, 1, confidence=CERTAIN)


def simcc(outputs: Outputs) -> HeadGuess | None:
    """Two outputs [b, K, W * s] and [b, K, H * s]."""
    if len(outputs.infos) != 2:
        return None
    sizes = [_sizes(info) for info in outputs.infos]
    if any(size is None or len(size) != 2 for size in sizes):
        return None
    (points_a, a), (points_b, b) = (size for size in sizes if size is not None)
    height, width = outputs.size
    if points_a != points_b:
        return None
    first, second = outputs.infos
    for x, y, columns, rows in ((first, second, a, b), (second, first, b, a)):
        if columns % width == 0 and rows % height == 0 and columns // width == rows // height:
            options = {"x": x.name, "y": y.name}
            reason = f"{points_a} distributions over {columns} columns and {rows} rows"
            if height == width:
                # Either may be x: exporters write it first.
                return HeadGuess(
                    "keypoints", "simcc", options, reason, confidence=LIKELY,
                    why={"x": "the first of two outputs of one shape"},
                )  # fmt: skip
            return HeadGuess("keypoints", "simcc", options, reason, confidence=CERTAIN)
    return None


def heatmaps(outputs: Outputs) -> HeadGuess | None:
    """One output [b, K, H / 4, W / 4]; a mask at a quarter of the size looks the same."""
    if len(outputs.infos) != 1:
        return None
    (info,) = outputs.infos
    sizes = _sizes(info)
    quarter = tuple(side // _CELL for side in outputs.size)
    if sizes is None or len(sizes) != 3 or quarter not in (sizes[1:], sizes[:2]):
        return None
    layout, points = ("nchw", sizes[0]) if sizes[1:] == quarter else ("nhwc", sizes[2])
    if points != _COCO_POINTS:
        return None
    options = {"output": info.name, "layout": layout, "activation": "none"}
    reason = f"{points} maps at a quarter of the image's size"
    both = ("heatmaps", "logits")
    return HeadGuess(
        "keypoints", "heatmaps", options, reason, ambiguous_with=both, confidence=LIKELY
    )


def obb(outputs: Outputs) -> HeadGuess | None:
    """One output of 4 + 15 + 1 columns at DOTA's sizes, or [b, 300, 7] end to end.

    Another number of classes looks like one class more: the metadata or --task must speak.
    """
    if len(outputs.infos) != 1:
        return None
    (info,) = outputs.infos
    found = _form_of(outputs, info)
    if found is None:
        return None
    form, columns = found
    options = {"output": info.name, "form": form}
    if form == "end2end" and columns == 1:
        reason = "boxes, score, class and an angle"
        return HeadGuess("obb", "obb", options, reason, None, confidence=CERTAIN)
    if form == "v8" and columns == 16:
        reason = "15 classes, as many as DOTA has, and an angle"
        both = ("obb", "yolo")
        return HeadGuess("obb", "obb", options, reason, 15, ambiguous_with=both, confidence=LIKELY)
    return None


RULES: Sequence[Rule] = (
    proto_mask,
    mask_rcnn,
    simcc,
    yolo_pose,
    obb,
    heatmaps,
)
