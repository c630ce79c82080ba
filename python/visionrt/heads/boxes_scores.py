"""The ``boxes_scores`` head: decoded boxes and class scores, what is left where an NMS was cut off.

Outputs: boxes [n, N, 4], and scores [n, N, C] (``rows``) or [n, C, N] (``columns``, as ONNX's
NonMaxSuppression takes them). Scores are probabilities.

Head options:
    boxes, scores: names of the outputs; needed.
    layout: ``rows`` (default) or ``columns``.
    form: of a box: ``xyxy`` (default), ``yxyx`` or ``cxcywh``. Corners may come in either order.
    units: ``pixels`` of the tensor (default) or ``normalised`` to 0…1.
    background: column of a class that never becomes a box, or -1 (default). Class ids are columns.
    multi_label: whether one box may have several classes, as in most NMS operators; default true.
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
    BOX_FORMS,
    corners_of,
    detections_from,
    pixel_scale,
)
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections


class BoxesScoresHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        known = ("boxes", "scores", "layout", "form", "units", "background", "multi_label")
        options = check_options(recipe, known)
        self._recipe = recipe
        self._boxes = output_named(recipe, outputs, "boxes").name
        self._scores = output_named(recipe, outputs, "scores").name
        self._columns = choice(recipe, "layout", ("rows", "columns"), "rows") == "columns"
        self._form = choice(recipe, "form", BOX_FORMS, "xyxy")
        self._scale = pixel_scale(recipe)
        self._multi_label = choice(recipe, "multi_label", (False, True), True)
        self._background = options.get("background", -1)
        if not isinstance(self._background, int) or self._background < -1:
            raise bad_option(recipe, "background", "a column, or -1", self._background)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        boxes, scores = as_float32(outputs[self._boxes]), as_float32(outputs[self._scores])
        batch = len(frames)
        if boxes.ndim != 3 or len(boxes) != batch or boxes.shape[2] != 4:
            raise bad_shape(self._boxes, f"[{batch}, boxes, 4]", boxes.shape)
        wanted = f"{boxes.shape[1]}, classes"
        if self._columns:
            wanted = f"classes, {boxes.shape[1]}"
            scores = scores.swapaxes(1, 2) if scores.ndim == 3 else scores
        fits = scores.ndim == 3 and scores.shape[:2] == boxes.shape[:2]
        if not fits or self._background >= scores.shape[2]:
            got = outputs[self._scores].shape
            raise bad_shape(self._scores, f"[{batch}, {wanted}]", got)
        return [self._one(boxes[i], scores[i], f, options) for i, f in enumerate(frames)]

    def _one(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        frame: Frame,
        options: PredictOptions,
    ) -> Detections:
        passes = scores > options.confidence
        if self._background >= 0:
            passes[:, self._background] = False
        if not self._multi_label:
            ranked = np.where(passes, scores, -np.inf)
            only = np.zeros_like(passes)
            only[np.arange(len(ranked)), ranked.argmax(axis=1)] = True
            passes &= only
        rows, class_ids = np.nonzero(passes)
        corners = corners_of(boxes[rows], self._form) * self._scale
        low, high = corners[:, :2], corners[:, 2:]
        ordered = np.concatenate((np.minimum(low, high), np.maximum(low, high)), axis=1)
        found = ordered, scores[rows, class_ids], class_ids.astype(np.int32), rows.astype(np.int32)
        return detections_from(found, frame, options, self._recipe)
