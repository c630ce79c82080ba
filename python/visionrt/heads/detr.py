"""The ``detr`` head: DETR, RT-DETR and RF-DETR, one box and class scores per query.

Outputs: logits [n, Q, C] and boxes [n, Q, 4], cx, cy, w, h in 0…1. No NMS is applied.

Head options:
    logits, boxes: names of the outputs; needed.
    activation: ``sigmoid`` (default; RT-DETR, RF-DETR): every pair of a query and a class competes,
        so a query may give several boxes; or ``softmax`` (DETR): the best class of each query.
    background: column that is no object; -1 for none. Default: the last under ``softmax``, none
        under ``sigmoid``. Class ids are the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import (
    Frame,
    as_float32,
    bad_option,
    bad_shape,
    check_options,
    choice,
    output_named,
)
from visionrt.heads.boxes import (
    corners_of,
    final_detections,
)
from visionrt.heads.classifier import sigmoid
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections


class DetrHead:
    """See the module. Source: Carion et al. 2020 (softmax); Zhao et al. 2024 (sigmoid, top-k)."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, ("logits", "boxes", "activation", "background"))
        self._recipe = recipe
        self._logits = output_named(recipe, outputs, "logits").name
        self._boxes = output_named(recipe, outputs, "boxes").name
        self._softmax = choice(recipe, "activation", ("sigmoid", "softmax"), "sigmoid") == "softmax"
        self._background = options.get("background", None if self._softmax else -1)
        if self._background is not None and (
            not isinstance(self._background, int) or self._background < -1
        ):
            raise bad_option(recipe, "background", "a column, or -1", self._background)
        height, width = recipe.preprocess.size
        self._scale = np.array([width, height, width, height], np.float32)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        logits, boxes = as_float32(outputs[self._logits]), as_float32(outputs[self._boxes])
        batch = len(frames)
        if logits.ndim != 3 or len(logits) != batch or (self._background or 0) >= logits.shape[2]:
            raise bad_shape(self._logits, f"[{batch}, queries, classes]", logits.shape)
        if boxes.shape != (*logits.shape[:2], 4):
            raise bad_shape(self._boxes, f"[{batch}, {logits.shape[1]}, 4]", boxes.shape)
        return [self._one(logits[i], boxes[i], f, options) for i, f in enumerate(frames)]

    def _one(
        self,
        logits: NDArray[np.float32],
        boxes: NDArray[np.float32],
        frame: Frame,
        options: PredictOptions,
    ) -> Detections:
        scores = softmax_rows(logits) if self._softmax else sigmoid(logits)
        background = logits.shape[1] - 1 if self._background is None else self._background
        if background >= 0:
            scores[:, background] = 0
        if self._softmax:
            best = scores.argmax(axis=1)
            only = np.zeros_like(scores)
            at = np.arange(len(scores)), best
            only[at] = scores[at]
            scores = only
        queries, class_ids = np.nonzero(scores > options.confidence)
        found = (
            corners_of(boxes[queries], "cxcywh") * self._scale,
            scores[queries, class_ids],
            class_ids.astype(np.int32),
            queries.astype(np.int32),
        )
        return final_detections(found, frame, options, self._recipe)


def softmax_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis."""
    shares = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True), dtype=np.float32)
