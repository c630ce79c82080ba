"""The ``yolo_maps`` head: raw maps of YOLOv5 and YOLOv7, before their boxes are decoded.

Outputs, one for each stride s, of an image of H × W, C classes and K anchors a cell (three):
[n, K, H/s, W/s, 5 + C], [n, K·(5 + C), H/s, W/s] or that with channels last. The columns are
x, y, w, h, objectness and the classes, all before a sigmoid. With σ(t) = 1 / (1 + e^-t), the cell
(column, row) and an anchor of pw × ph pixels:

    cx = (2σ(x) - 0.5 + column) · s        w = (2σ(w))² · pw
    cy = (2σ(y) - 0.5 + row) · s           h = (2σ(h))² · ph        score = σ(objectness) · σ(class)

Source: Wang et al., YOLOv7 (2022), and Ultralytics' documentation of YOLOv5. Darknet's YOLOv3 and
v4 have maps of the same shapes and other formulas: their boxes would be wrong here.

Head options:
    outputs: their names, the finest first. Default: those of the graph, by size.
    anchors: ``yolov5`` (YOLOv7-tiny too), ``yolov7``, ``yolov5_p6``, or [[[pw, ph], …], …] for
        each stride, in pixels.
    strides: default [8, 16, 32], and 64 where the anchors are for four.
    activation: ``sigmoid`` (default), or ``none`` where the graph has applied it.
    multi_label: whether one anchor may give several classes; default false.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.anchor_options import numbers_of
from visionrt.heads.base import as_float32, bad_option, check_options, choice
from visionrt.heads.boxes import NO_LIMIT, CandidateHead, Candidates, class_count
from visionrt.heads.level_maps import logit_floor, maps_by_anchor
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe

_Level = tuple[tuple[float, float], ...]
PRESETS: Mapping[str, tuple[_Level, ...]] = {
    "yolov5": (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    ),
    "yolov7": (
        ((12, 16), (19, 36), (40, 28)),
        ((36, 75), (76, 55), (72, 146)),
        ((142, 110), (192, 243), (459, 401)),
    ),
    "yolov5_p6": (
        ((19, 27), (44, 40), (38, 94)),
        ((96, 68), (86, 152), (180, 137)),
        ((140, 301), (303, 264), (238, 542)),
        ((436, 615), (739, 380), (925, 792)),
    ),
}
_OPTIONS = ("outputs", "anchors", "strides", "activation", "multi_label")


class YoloMapsHead(CandidateHead):
    """See the module. Only the rows whose objectness can pass are read further."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, _OPTIONS)
        self._recipe = recipe
        self._anchors = [np.array(level, np.float32) for level in _anchors(recipe)]
        self._strides = options.get("strides", [8, 16, 32, 64][: len(self._anchors)])
        if (
            not isinstance(self._strides, (list, tuple))
            or len(self._strides) != len(self._anchors)
            or not all(type(stride) is int and stride >= 1 for stride in self._strides)
        ):
            wanted = f"{len(self._anchors)} integers above 0, as many as there are anchors' levels"
            raise bad_option(recipe, "strides", wanted, self._strides)
        self._names = _names(recipe, outputs, len(self._anchors))
        self._activation = choice(recipe, "activation", ("sigmoid", "none"), "sigmoid")
        self._multi_label = choice(recipe, "multi_label", (False, True), False)

    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[Candidates]:
        maps = self._maps(outputs, batch)
        classes = class_count(maps[0].shape[2], 5, self._recipe)
        for image in range(batch):
            yield _core.decode_yolo(
                np.concatenate(list(self._rows(maps, image, classes, confidence))),
                "v5",
                classes,
                confidence,
                multi_label=self._multi_label,
                max_candidates=NO_LIMIT,
            )

    def _maps(self, outputs: Mapping[str, NDArray[Any]], batch: int) -> list[NDArray[np.float32]]:
        """The outputs as [n, K, 5 + C, h, w]."""
        height, width = self._recipe.preprocess.size
        cells = [
            (-(-height // stride), -(-width // stride), len(anchors))
            for stride, anchors in zip(self._strides, self._anchors, strict=True)
        ]
        allowed, said = range(6, sys.maxsize), "(5 + classes)"
        return maps_by_anchor(outputs, self._names, cells, batch, allowed, said)

    def _rows(
        self, maps: Sequence[NDArray[np.float32]], image: int, classes: int, confidence: float
    ) -> Iterator[NDArray[np.float32]]:
        """Of each level, rows [k, 5 + C] in pixels and probabilities that may pass, in order."""
        is_raw = self._activation == "sigmoid"
        floor = np.float32(logit_floor(confidence) if is_raw else confidence)
        for level, anchors, stride in zip(maps, self._anchors, self._strides, strict=True):
            values = level[image]
            shapes, rows, columns = np.nonzero(values[:, 4] > floor)
            chosen = values[shapes, : 5 + classes, rows, columns]
            if is_raw:
                chosen = _sigmoid(chosen)
            cells = np.stack((columns, rows), axis=1).astype(np.float32)
            centre = chosen[:, :2] * 2 + (cells - np.float32(0.5))
            chosen[:, :2] = centre * np.float32(stride)
            chosen[:, 2:4] = np.square(chosen[:, 2:4] * 2) * anchors[shapes]
            yield np.ascontiguousarray(chosen)


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # e^-t may be infinite: the quotient is 0 then
        return as_float32(1 / (1 + np.exp(-values)))


def _anchors(recipe: Recipe) -> Sequence[Sequence[Sequence[float]]]:
    value = recipe.head_options.get("anchors")
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]
    levels = []
    for level in value if isinstance(value, (list, tuple)) else ():
        if not isinstance(level, (list, tuple)) or not level:
            break
        levels.append([numbers_of(recipe, "anchors", pair, 2) for pair in level])
    else:
        if levels and min(number for level in levels for pair in level for number in pair) > 0:
            return levels
    wanted = f"{' | '.join(PRESETS)}, or pairs of pixels for each stride"
    raise bad_option(recipe, "anchors", wanted, value)


def _names(recipe: Recipe, outputs: Sequence[TensorInfo], count: int) -> list[str]:
    """Names of the outputs, the finest first."""
    names = recipe.head_options.get("outputs")
    if names is None:
        sized = [(size_of(info), info.name) for info in outputs]
        names = [name for _, name in sorted(sized, key=lambda pair: -pair[0])]
    known = {info.name for info in outputs}
    is_list = isinstance(names, (list, tuple))
    if not is_list or len(names) != count or any(name not in known for name in map(str, names)):
        raise bad_option(recipe, "outputs", f"{count} of {sorted(known)}", names)
    return list(names)


def size_of(info: TensorInfo) -> int:
    """Elements of an output without its batch, open axes counted as one."""
    sizes = [size for size in info.shape[1:] if isinstance(size, int)]
    return int(np.prod(sizes))
