"""The ``yolo_pose`` head: boxes, each with its keypoints.

Output: a form of :mod:`visionrt.heads.yolo_columns` with E = K * 3 more columns, x, y in tensor
pixels and a confidence for each keypoint; or K * 2 without confidences (YOLOv8 to v26).

It looks like: [1, 56, 8400] for one class and 17 keypoints; [1, 300, 57] end to end.

Head options:
    output: name of the output; needed when there are several.
    form: default ``v8``.
    dims: 3 (default), or 2 for keypoints without confidence.
    classes: number of classes; default: of the labels, or 1. With ``end2end`` it is not needed.
    names, skeleton: of the keypoints; default: COCO's when K is 17.

The recipe's labels are the classes of objects. ``confidence`` is that of the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
from visionrt.heads.keypoints import points_named
from visionrt.heads.yolo_columns import FORMS, Rows, columns_of, kept_rows, rows_above
from visionrt.heads.yolo_device import Layout, YoloOnDevice
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image, points_to_image
from visionrt.recipe import Recipe
from visionrt.results import Keypoints

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_result_pool import KeptMemory

_SEEN = 0.5  # keypoints' confidence, from which pictures show them


class YoloPoseHead(YoloOnDevice):
    """See the module. Decodes on the device as well, unless the model suppresses by itself."""

    kept_output = None

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        known = ("output", "form", "dims", "classes", "names", "skeleton")
        options = check_options(recipe, known)
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._form = choice(recipe, "form", FORMS, "v8")
        self._dims = choice(recipe, "dims", (3, 2), 3)
        classes = options.get("classes", len(recipe.labels) or 1)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
            raise bad_option(recipe, "classes", "an integer above 0", classes)
        self._classes = 0 if self._form == "end2end" else classes

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Keypoints]:
        """One :class:`Keypoints` per frame, the surest object first."""
        raw = as_float32(outputs[self._output])
        self._points(raw.shape, len(frames))
        results = []
        for i, frame in enumerate(frames):
            rows = rows_above(raw[i], self._form, self._classes, options)
            rows = kept_rows(rows, self._form, options, class_agnostic=self._recipe.class_agnostic)
            results.append(self._result(rows, frame))
        return results

    def _points(self, shape: tuple[int, ...], batch: int) -> None:
        """Check that the output's columns are those of whole keypoints."""
        least = self._classes + self._dims
        extra = columns_of(self._form, self._output, shape, batch, least) - self._classes
        _, skeleton = points_named(self._recipe, extra // self._dims)
        top = max((max(pair) for pair in skeleton), default=-1)
        if extra % self._dims or top >= extra // self._dims:
            wanted = f"{self._dims} columns for each keypoint, more than {top} of them"
            raise bad_shape(self._output, wanted, shape)

    def _result(self, rows: Rows, frame: Frame) -> Keypoints:
        count = rows.extra.shape[1] // self._dims
        names, skeleton = points_named(self._recipe, count)
        given = rows.extra.reshape(len(rows.score), count, self._dims)
        points = np.ones((*given.shape[:2], 3), np.float32)
        points[..., : self._dims] = given
        points[..., :2] = points_to_image(frame.geometry, points[..., :2])
        return Keypoints(
            image_hw=frame.image_hw,
            names=names,
            keypoints=points,
            skeleton=skeleton,
            threshold=_SEEN,
            xyxy=boxes_to_image(frame.geometry, rows.xyxy),
            score=rows.score,
            class_id=rows.class_id,
            object_names=self._recipe.labels,
        )

    def result(
        self, rows: Rows, frame: Frame, kept: KeptMemory | None, image: int, shape: tuple[int, ...]
    ) -> Keypoints:
        """See :class:`visionrt.gpu_boxes.DeviceColumnsHead`."""
        return self._result(rows, frame)

    def _layout(self, outputs: Mapping[str, DeviceTensor]) -> Layout:
        shape = outputs[self._output].shape
        self._points(shape, shape[0] if shape else 0)
        return self._layout_with(shape, classes=self._classes)
