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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.boxes import NO_LIMIT, class_count, detections_from
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_layout import CandidateBuffers


class YoloHead:
    """See the module. Decodes on the device as well."""

    constant = None
    decodes_on_device = True
    reads_float16 = True

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
        _, _, classes = self._layout(raw.shape, len(frames))
        return [
            detections_from(
                _core.decode_yolo(
                    raw[i],
                    self._form,
                    classes,
                    options.confidence,
                    multi_label=self._multi_label,
                    max_candidates=NO_LIMIT,
                ),
                frame,
                options,
                self._recipe,
            )
            for i, frame in enumerate(frames)
        ]

    def _layout(self, shape: tuple[int, ...], batch: int | None = None) -> tuple[int, int, int]:
        """Anchors, columns and classes of an output of a shape, checked."""
        box_columns = 5 if self._form == "v5" else 4
        columns = shape[1 if self._form == "v8" else 2] if len(shape) == 3 else 0
        if columns <= box_columns or batch not in (None, shape[0]):
            wanted = f"{box_columns} + classes"
            wanted = f"[n, {wanted}, anchors]" if self._form == "v8" else f"[n, anchors, {wanted}]"
            raise bad_shape(self._output, wanted, shape)
        anchors = shape[2 if self._form == "v8" else 1]
        return anchors, columns, class_count(columns, box_columns, self._recipe)

    def capacity(self, outputs: Mapping[str, DeviceTensor]) -> int:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        anchors, _, classes = self._layout(outputs[self._output].shape)
        return _core.decode_capacity(anchors, classes, self._multi_label)

    def enqueue_decode(
        self,
        outputs: Mapping[str, DeviceTensor],
        batch: int,
        confidence: float,
        candidates: CandidateBuffers,
        constant: int,
        stream: int,
    ) -> None:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        output = outputs[self._output]
        anchors, columns, classes = self._layout(output.shape)
        _core.cuda_decode_yolo(
            output.address,
            batch,
            self._form,
            anchors,
            columns,
            classes,
            confidence,
            candidates.addresses(),
            candidates.capacity,
            stream,
            multi_label=self._multi_label,
            is_float16=output.dtype == np.float16,
        )
