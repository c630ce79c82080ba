"""The ``obb`` head: rotated boxes.

Output: a form of :mod:`visionrt.heads.yolo_columns` with E = 1 more column, the angle in radians:
[n, 4 + C + 1, A] (YOLOv8 and v11). cx, cy, w, h are those of the box before it is turned about its
centre; the w side runs along (cos, sin), y downwards. ``end2end``: [n, D, 7] of cx, cy, w, h,
score, class, angle (YOLO26, or an export with NMS inside).

It looks like: [1, 20, 21504] for DOTA's 15 classes at 1024 x 1024.

NMS is greedy by the IoU of the polygons (csrc/nms/nms_rotated.h), not by the probabilistic IoU that
Ultralytics takes: a threshold means the same as for upright boxes.

Head options:
    output: name of the output; needed when there are several.
    form: default ``v8``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.boxes import MAX_CANDIDATES
from visionrt.heads.yolo_columns import FORMS, Rows, columns_of, kept_rows, rows_above
from visionrt.heads.yolo_device import Layout, YoloOnDevice
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import Geometry
from visionrt.recipe import Recipe
from visionrt.results.rotated import RotatedDetections, corners_of

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_boxes import Angles

_LARGEST_ANGLE = 8192  # as csrc/nms/rotated.h has it


class ObbHead(YoloOnDevice):
    """See the module. Decodes on the device as well, unless the model suppresses by itself."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "form"))
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._form = choice(recipe, "form", FORMS, "v8")

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[RotatedDetections]:
        """One :class:`RotatedDetections` per frame. A score must be above ``confidence``."""
        raw = as_float32(outputs[self._output])
        is_final = self._form == "end2end"
        found = columns_of(self._form, self._output, raw.shape, len(frames), 1 if is_final else 2)
        if is_final and found != 1:
            raise bad_shape(self._output, f"[{len(frames)}, boxes, 7]", raw.shape)
        return [
            self._result(self._rows(raw[i], found - 1, options), frame)
            for i, frame in enumerate(frames)
        ]

    def _rows(self, raw: NDArray[np.float32], classes: int, options: PredictOptions) -> Rows:
        rows = rows_above(raw, self._form, classes, options)
        if self._form == "end2end":
            rows = kept_rows(rows, self._form, options, class_agnostic=True)
            half = rows.xyxy[:, 2:] / 2
            corners = np.concatenate([rows.xyxy[:, :2] - half, rows.xyxy[:, :2] + half], axis=1)
            rows = Rows(corners, rows.score, rows.class_id, rows.extra)
            return rows[np.abs(rows.extra[:, 0]) <= _LARGEST_ANGLE]
        groups = None if self._recipe.class_agnostic else rows.class_id
        angles = np.ascontiguousarray(rows.extra[:, 0])
        return rows[
            _core.nms_rotated(
                rows.xyxy,
                angles,
                rows.score,
                groups,
                options.iou,
                options.max_det,
                max_candidates=MAX_CANDIDATES,
            )
        ]

    def angles(self, outputs: Mapping[str, DeviceTensor]) -> Angles:
        """See :class:`visionrt.gpu_boxes.DeviceRotatedHead`."""
        from visionrt.gpu_boxes import Angles

        at = self.columns(outputs)
        return Angles(at.address, at.image_stride, at.anchor_stride, at.classes)

    def result(
        self,
        upright: NDArray[np.float32],
        angles: NDArray[np.float32],
        score: NDArray[np.float32],
        class_id: NDArray[np.int32],
        frame: Frame,
    ) -> RotatedDetections:
        """See :class:`visionrt.gpu_boxes.DeviceRotatedHead`."""
        return self._result(Rows(upright, score, class_id, angles[:, None]), frame)

    def _layout(self, outputs: Mapping[str, DeviceTensor]) -> Layout:
        return self._layout_with(outputs[self._output].shape, extra=1)

    def _result(self, rows: Rows, frame: Frame) -> RotatedDetections:
        boxes = boxes_in_image(frame.geometry, rows.xyxy, rows.extra[:, 0])
        corners = corners_of(boxes)
        height, width = frame.image_hw
        around = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return RotatedDetections(
            image_hw=frame.image_hw,
            names=self._recipe.labels,
            xyxy=np.clip(around, 0, np.array([width, height] * 2, np.float32)),
            confidence=rows.score,
            class_id=rows.class_id,
            xywhr=boxes,
        )


def boxes_in_image(
    geometry: Geometry, upright: NDArray[np.float32], angles: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Centre, sides and angle float32 [n, 5] in pixels of the image, the longer side first.

    Where an image was stretched unevenly, the box's sides keep the directions and lengths that they
    map to; they are then no longer quite square to each other, and the second angle is dropped.

    Args:
        geometry: of the image the tensor was made from.
        upright: float32 [n, 4], corners in tensor pixels before the turn.
        angles: float32 [n], radians.
    """
    scale = np.array([geometry.scale_x, geometry.scale_y])
    low, high = upright[:, :2].astype(np.float64), upright[:, 2:].astype(np.float64)
    centres = ((low + high) / 2 - [geometry.offset_x, geometry.offset_y]) * scale
    turn = angles.astype(np.float64)
    along = np.stack([np.cos(turn), np.sin(turn)], axis=1) * scale
    across = np.stack([-np.sin(turn), np.cos(turn)], axis=1) * scale
    sides = np.maximum(high - low, 0)
    first = sides[:, 0] * np.hypot(along[:, 0], along[:, 1])
    second = sides[:, 1] * np.hypot(across[:, 0], across[:, 1])
    swapped = second > first
    angle = np.arctan2(along[:, 1], along[:, 0]) + np.where(swapped, np.pi / 2, 0)
    longer, shorter = np.maximum(first, second), np.minimum(first, second)
    boxes = np.column_stack([centres, longer, shorter, angle % np.pi])
    return boxes.astype(np.float32)
