"""The ``end2end`` head: final boxes in one output, as YOLOv10's and YOLO26's exporters write it.

Output: [n, K, 6]: a box, a score in 0…1 and a class id, K usually 300. No NMS is applied.

Head options:
    output: name of the output; needed when there are several.
    boxes: ``xyxy`` (default), ``yxyx`` or ``cxcywh``.
    units: ``pixels`` of the tensor (default) or ``normalised`` to 0…1.
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


class End2EndHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "boxes", "units"))
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._form = choice(recipe, "boxes", BOX_FORMS, "xyxy")
        self._scale = pixel_scale(recipe)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        raw = as_float32(outputs[self._output])
        if raw.ndim != 3 or len(raw) != len(frames) or raw.shape[2] != 6:
            raise bad_shape(self._output, f"[{len(frames)}, boxes, 6]", raw.shape)
        return [self._one(rows, f, options) for rows, f in zip(raw, frames, strict=True)]

    def _one(self, rows: NDArray[np.float32], frame: Frame, options: PredictOptions) -> Detections:
        boxes = corners_of(rows[:, :4], self._form) * self._scale
        class_ids = whole_ids(rows[:, 5])
        anchors = np.arange(len(rows), dtype=np.int32)
        found = boxes, rows[:, 4], class_ids, anchors
        return final_detections(found, frame, options, self._recipe)
