"""The ``centerface`` head: faces with five landmarks (Xu et al. 2019, "CenterFace").

Outputs: those of :mod:`visionrt.heads.centernet` with one class, and landmarks [n, 10, h, w]: y, x
of each landmark, from the box's upper left corner, in box heights and widths. Channels of size and
offset are y, x; sizes are logarithms; offsets count from a cell's middle.

Head options:
    heatmap, size, offset, landmarks: names of the outputs; needed.
    names, skeleton: of the landmarks; default: eyes, nose and corners of the mouth.

Every cell above the threshold is a candidate; NMS with the recipe's ``iou`` follows. ``confidence``
is that of the face; landmarks have none of their own, and get the face's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, output_named
from visionrt.heads.boxes import Candidates
from visionrt.heads.centernet import CentreMaps
from visionrt.heads.keypoints import points_named
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image, points_to_image
from visionrt.recipe import Recipe
from visionrt.results import Keypoints

_NAMES = ("right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth")


class CenterFaceHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("heatmap", "size", "offset", "landmarks", "names", "skeleton"))
        self._recipe = recipe
        form = {"order": "yx", "size_form": "log", "shift": 0.5}
        options = {key: value for key, value in recipe.head_options.items() if key != "landmarks"}
        self._maps = CentreMaps(replace(recipe, head_options=options | form), outputs)
        self._landmarks = output_named(recipe, outputs, "landmarks").name

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Keypoints]:
        """One :class:`Keypoints` per frame, the surest face first."""
        heat, sizes, offsets = self._maps.arrays(outputs, len(frames))
        landmarks = as_float32(outputs[self._landmarks])
        channels = landmarks.shape[1] if landmarks.ndim == 4 else 1
        if channels % 2 or landmarks.shape != (len(frames), channels, *heat.shape[2:]):
            raise bad_shape(self._landmarks, f"[{len(frames)}, 2 K, h, w]", landmarks.shape)
        results = []
        for i, frame in enumerate(frames):
            found = np.nonzero(heat[i] > options.confidence)
            candidates = self._maps.boxes(found, heat[i], sizes[i], offsets[i])
            _, rows, columns = found
            places = landmarks[i][:, rows, columns].T.reshape(-1, channels // 2, 2)[..., ::-1]
            results.append(self._one(candidates, places, frame, options))
        return results

    def _one(
        self,
        candidates: Candidates,
        places: NDArray[np.float32],
        frame: Frame,
        options: PredictOptions,
    ) -> Keypoints:
        """The faces among candidates; ``places`` [k, K, 2] are x, y of landmarks in their boxes."""
        boxes, scores, classes, _ = candidates
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(places).all(axis=(1, 2))
        if options.classes is not None:
            usable &= np.isin(classes, options.classes)
        picked = np.flatnonzero(usable)
        picked = picked[
            _core.nms(boxes[picked], scores[picked], None, options.iou, options.max_det)
        ]
        boxes, scores, places = boxes[picked], scores[picked], places[picked]
        corners, extent = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        points = np.empty((*places.shape[:2], 3), np.float32)
        points[..., :2] = points_to_image(frame.geometry, corners + places * extent)
        points[..., 2] = scores[:, None]
        usual = _NAMES if places.shape[1] == len(_NAMES) else ()
        names, skeleton = points_named(self._recipe, places.shape[1], usual)
        return Keypoints(
            image_hw=frame.image_hw,
            names=names,
            keypoints=points,
            skeleton=skeleton,
            threshold=options.confidence,
            xyxy=boxes_to_image(frame.geometry, boxes),
            score=scores,
            class_id=classes[picked],
            object_names=self._recipe.labels or ("face",),
        )
