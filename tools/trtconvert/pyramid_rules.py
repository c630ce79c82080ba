"""Rules for detectors on a feature pyramid whose outputs are codes of anchors, or raw maps.

Told by the count of rows, or by the maps: 9 anchors at each cell of levels 3 to 7 of RetinaNet and
EfficientDet, or 3 to 8 of EfficientDet-D7x. EfficientDet is told by its separable convolutions, and
the scale of its anchors by the activation and the image's size where one published model alone has
these. RetinaNets of different libraries differ in nothing but the order and place of their anchors,
so the user is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtconvert.head_guess import CERTAIN, LIKELY, HeadGuess, Outputs, Rule, activation_of
from visionrt.heads.pyramid_anchors import OWNERS, PRESETS, PyramidScheme
from visionrt.heads.yolo_maps import size_of
from visionrt.manifest import TensorInfo

_SCHEMES = PRESETS["retinanet"], PRESETS["efficientdet_d7x"]
_PER_CELL = _SCHEMES[0].per_cell()
_V8_CHANNELS = 64 + 80
# Of EfficientDet-Lite, by the sides of a square image; at 640 there are two.
_LITE_ANCHORS = dict.fromkeys((320, 384, 448), "efficientdet_lite") | {512: "efficientdet"}
_D7_SIDE = 1536


def _choices(*names: str) -> str:
    return " | ".join(f'{{"anchors": "{name}"}} for {OWNERS[name]}' for name in names)


RETINANETS = _choices("retinanet", "retinanet_mmdet", "retinanet_torchvision")


def joined(outputs: Outputs) -> HeadGuess | None:
    """[b, N, 4] and [b, N, C] of N anchors, nine a cell."""
    infos = outputs.infos
    if len(infos) != 2 or any(len(info.shape) != 3 for info in infos):
        return None
    boxes = [info for info in infos if info.shape[2] == 4]
    if len(boxes) != 1 or infos[0].shape[1] != infos[1].shape[1]:
        return None
    scores = next(info for info in infos if info is not boxes[0])
    for scheme in _SCHEMES:
        count = sum(h * w for h, w in scheme.grids(outputs.size)) * _PER_CELL
        if scores.shape[1] == count:
            said = f"box codes and class scores for {count} anchors, 9 a cell"
            classes = scores.shape[2] if isinstance(scores.shape[2], int) else None
            return _guess(outputs, scheme, boxes[0].name, scores.name, scores, classes, said)
    return None


def by_level(outputs: Outputs) -> HeadGuess | None:
    """Two maps for each level: nine times 4 channels, and nine times C."""
    for scheme in _SCHEMES:
        if len(outputs.infos) == 2 * len(scheme.grids(outputs.size)):
            return _of_levels(outputs, scheme)
    return None


def _of_levels(outputs: Outputs, scheme: PyramidScheme) -> HeadGuess | None:
    boxes, scores, classes = [], [], set()
    left = list(outputs.infos)
    for grid in scheme.grids(outputs.size):
        pair = [(info, n) for info in left if (n := _columns(info, grid)) is not None]
        # Two levels may have one size; the graph's order is that of the levels then.
        codes = [info for info, n in pair if n == 4][:1]
        rest = [(info, n) for info, n in pair if n != 4][:1]
        if not codes or not rest:
            return None
        boxes.append(codes[0])
        scores.append(rest[0][0])
        classes.add(rest[0][1])
        left = [info for info in left if info is not codes[0] and info is not rest[0][0]]
    if len(classes) != 1:
        return None
    said = "maps of box codes and of class scores, 9 anchors a cell"
    names = [info.name for info in boxes], [info.name for info in scores]
    return _guess(outputs, scheme, *names, scores[0], classes.pop(), said)


def _columns(info: TensorInfo, grid: tuple[int, int]) -> int | None:
    """Channels for each of nine anchors of a map of this size, or None."""
    if len(info.shape) != 4:
        return None
    channels: int | str = -1
    if info.shape[2:] == grid:
        channels = info.shape[1]
    elif info.shape[1:3] == grid:
        channels = info.shape[3]
    if not isinstance(channels, int) or channels <= 0 or channels % _PER_CELL:
        return None
    return channels // _PER_CELL


def _guess(
    outputs: Outputs,
    scheme: PyramidScheme,
    boxes: str | list[str],
    scores: str | list[str],
    of_scores: TensorInfo,
    classes: int | None,
    said: str,
) -> HeadGuess:
    last = outputs.last_op[of_scores.name]
    options: dict[str, Any] = {
        "boxes": boxes,
        "scores": scores,
        "variances": [1, 1, 1, 1],
        "activation": activation_of(last, "sigmoid"),
        "background": -1,
    }
    why = {
        "activation": f"the scores end in {last}",
        "background": "classes of such models are told by a sigmoid each",
    }
    missing = {}
    before = outputs.separable.get(of_scores.name)
    if before is None:
        options["code"] = "xywh"
        missing["anchors"] = RETINANETS
    else:
        options["code"] = "yxhw"
        why["code"] = "the scores come from a separable convolution, as EfficientDet's do"
        name, reason = _efficientdet_anchors(scheme, before, outputs.size)
        if name is None:
            missing["anchors"] = reason
        else:
            options["anchors"], why["anchors"] = name, reason
    first, last_level = scheme.levels
    return HeadGuess(
        *("detect", "ssd", options, f"{said}, for levels {first} to {last_level}", classes),
        why=why,
        confidence=CERTAIN,
        missing=missing,
    )


def _efficientdet_anchors(
    scheme: PyramidScheme, activation: str, size_hw: tuple[int, int]
) -> tuple[str | None, str]:
    """The preset and why; or None, and what there is to choose from."""
    height, width = size_hw
    side = height if height == width else None
    if scheme is PRESETS["efficientdet_d7x"]:
        return "efficientdet_d7x", "of EfficientDets D7x alone has a level 8"
    if activation != "Sigmoid":
        if side in _LITE_ANCHORS:
            return _LITE_ANCHORS[side], f"EfficientDet-Lite of {side}×{side} has these"
        return None, _choices("efficientdet", "efficientdet_lite")
    if side == _D7_SIDE:
        return None, _choices("efficientdet", "efficientdet_d7")
    return "efficientdet", "an EfficientDet with swish, of another size than D7"


def yolo_maps(outputs: Outputs) -> HeadGuess | None:
    """Three or four maps at strides 8, 16, 32 (and 64), with 3·(5 + C) numbers a cell."""
    infos = sorted(outputs.infos, key=size_of, reverse=True)
    if len(infos) not in (3, 4):
        return None
    height, width = outputs.size
    found = set()
    for info, stride in zip(infos, (8, 16, 32, 64), strict=False):
        grid = -(-height // stride), -(-width // stride)
        found.add(_yolo_columns(info.shape, grid))
    columns = found.pop()
    if found or columns is None or columns <= 5:
        return None
    # YOLOv8's own maps have 64 + C channels, and no anchors.
    if len(infos[0].shape) == 4 and 3 * columns == _V8_CHANNELS:
        return None
    last = outputs.last_op[infos[0].name]
    names = [info.name for info in infos]
    options = {"outputs": names, "activation": activation_of(last, "sigmoid")}
    reason = f"{len(infos)} maps of 3 anchors × (5 + {columns - 5} classes) a cell"
    choices = (
        '{"anchors": "yolov5"}, for YOLOv7-tiny too | {"anchors": "yolov7"}, or pairs of pixels'
        if len(infos) == 3
        else '{"anchors": "yolov5_p6"}, for YOLOv7 with four levels too, or pairs of pixels'
    )
    return HeadGuess(
        *("detect", "yolo_maps", options, reason, columns - 5),
        why={"activation": f"the maps end in {last}"},
        confidence=CERTAIN if columns == 85 else LIKELY,
        missing={"anchors": choices},
    )


def _yolo_columns(shape: tuple[int | str, ...], grid: tuple[int, int]) -> int | None:
    """Columns of each of three anchors, or None."""
    if len(shape) == 5 and shape[1] == 3 and shape[2:4] == grid:
        return shape[4] if isinstance(shape[4], int) else None
    if len(shape) != 4 or grid not in (shape[2:], shape[1:3]):
        return None
    channels = shape[1] if shape[2:] == grid else shape[3]
    return channels // 3 if isinstance(channels, int) and channels % 3 == 0 else None


RULES: Sequence[Rule] = (joined, by_level, yolo_maps)
