"""The ``nms_inside`` head: final boxes of a graph with its own NMS. No other NMS is applied.

Outputs, in any order and of any number type:
    boxes    [n, K, 4], or [K, 4] without a batch (torchvision's models; K depends on the image)
    scores   [n, K] or [K], probabilities
    classes  [n, K] or [K]
    count    [n] or [n, 1]: how many of the K are real; left out where all are

Where no output of scores is named, boxes have five columns, the last of which is the score, as
MMDetection exports them.

Head options:
    boxes, classes: names of the outputs; needed.
    scores: name of the output, needed where boxes have four columns.
    count: name of the output that counts (EfficientNMS, TensorFlow's detection API); default: none.
    form: of a box: ``xyxy`` (default; torchvision), ``yxyx`` (TensorFlow) or ``cxcywh``.
    units: ``pixels`` of the tensor (default) or ``normalised`` to 0…1 (TensorFlow).
    first_class: what is taken from class ids, so that the first label is 0; default 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import (
    Frame,
    as_float32,
    bad_shape,
    check_options,
    choice,
    output_named,
)
from visionrt.heads.boxes import (
    BOX_FORMS,
    corners_of,
    final_detections,
    pixel_scale,
    whole_ids,
)
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections


class NmsInsideHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        known = ("boxes", "scores", "classes", "count", "form", "units", "first_class")
        options = check_options(recipe, known)
        self._recipe = recipe
        self._boxes = output_named(recipe, outputs, "boxes").name
        self._classes = output_named(recipe, outputs, "classes").name
        scored = options.get("scores") is not None
        self._scores = output_named(recipe, outputs, "scores").name if scored else None
        counted = options.get("count") is not None
        self._count = output_named(recipe, outputs, "count").name if counted else None
        self._form = choice(recipe, "form", BOX_FORMS, "xyxy")
        self._scale = pixel_scale(recipe)
        self._first_class = choice(recipe, "first_class", (0, 1), 0)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        boxes, classes = as_float32(outputs[self._boxes]), outputs[self._classes]
        batch, columns = len(frames), 4 if self._scores else 5
        if boxes.ndim == 2:
            boxes, classes = boxes[None], classes[None]
        if boxes.ndim != 3 or len(boxes) != batch or boxes.shape[2] != columns:
            wanted = f"[{batch}, boxes, {columns}]"
            raise bad_shape(self._boxes, wanted, outputs[self._boxes].shape)
        boxes, scores = boxes[..., :4], boxes[..., -1]
        if self._scores:
            scores = as_float32(outputs[self._scores])
            scores = scores[None] if scores.ndim == 1 else scores
        for name, array in ((self._scores or self._boxes, scores), (self._classes, classes)):
            if array.shape != boxes.shape[:2]:
                raise bad_shape(name, f"[{batch}, {boxes.shape[1]}]", outputs[name].shape)
        counts = np.full(batch, boxes.shape[1])
        if self._count is not None:
            counts = outputs[self._count].reshape(-1)
            if counts.shape != (batch,):
                raise bad_shape(self._count, f"[{batch}]", outputs[self._count].shape)
            counts = np.clip(whole_ids(counts), 0, boxes.shape[1])
        return [
            self._one(boxes[i], scores[i], classes[i], int(counts[i]), frame, options)
            for i, frame in enumerate(frames)
        ]

    def _one(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        classes: NDArray[Any],
        count: int,
        frame: Frame,
        options: PredictOptions,
    ) -> Detections:
        class_ids = whole_ids(classes[:count]) - np.int32(self._first_class)
        corners = corners_of(boxes[:count], self._form) * self._scale
        anchors = np.arange(len(corners), dtype=np.int32)
        found = corners, scores[:count], class_ids, anchors
        return final_detections(found, frame, options, self._recipe)
