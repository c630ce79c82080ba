"""The ``yolo`` head: one column (or row) per anchor with a box and class scores, already decoded.

Output, C classes and A anchors; boxes are cx, cy, w, h in tensor pixels:
    ``v8``       [n, 4 + C, A]   YOLOv8 to v12, as their exporters write it
    ``v8_rows``  [n, A, 4 + C]   the same, transposed
    ``v5``       [n, A, 5 + C]   YOLOv5 and v7, with an objectness score that multiplies

Head options:
    output: name of the output; needed when there are several.
    form: as above; default ``v8``.
    multi_label: whether one anchor may give several classes; default false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.boxes import class_count, detections_from
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections


class YoloHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "form", "multi_label"))
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._form = choice(recipe, "form", ("v8", "v8_rows", "v5"), "v8")
        self._multi_label = choice(recipe, "multi_label", (False, True), False)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        raw = as_float32(outputs[self._output])
        box_columns = 5 if self._form == "v5" else 4
        columns = raw.shape[1 if self._form == "v8" else 2] if raw.ndim == 3 else 0
        if columns <= box_columns or len(raw) != len(frames):
            shape = f"{box_columns} + classes"
            shape = f"[n, {shape}, anchors]" if self._form == "v8" else f"[n, anchors, {shape}]"
            raise bad_shape(self._output, shape, raw.shape)
        classes = class_count(columns, box_columns, self._recipe)
        return [
            detections_from(
                _core.decode_yolo(
                    raw[i], self._form, classes, options.confidence, multi_label=self._multi_label
                ),
                frame,
                options,
                self._recipe,
            )
            for i, frame in enumerate(frames)
        ]
