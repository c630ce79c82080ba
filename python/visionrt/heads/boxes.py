"""What all box heads do after decoding: filter classes, NMS, and back to the image's pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import Frame, choice
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image
from visionrt.recipe import Recipe
from visionrt.results import Detections

# xyxy float32 [k, 4] in tensor pixels, score float32 [k], class id int32 [k], anchor int32 [k].
Candidates: TypeAlias = tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]
]

MAX_CANDIDATES = 30_000  # the best usable ones of an image, that an NMS looks at
NO_LIMIT = 2**31 - 1


class CandidateHead(ABC):
    """A head that finds candidates in each image; filters and the NMS are those of all."""

    _recipe: Recipe

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        found = self._candidates(outputs, len(frames), options.confidence)
        return [
            detections_from(candidates, frame, options, self._recipe)
            for candidates, frame in zip(found, frames, strict=True)
        ]

    @abstractmethod
    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[Candidates]:
        """Of each image, all that score above ``confidence``.

        Raises:
            ModelError: an output of another shape than the head's layout, or another batch.
        """


def detections_from(
    candidates: Candidates, frame: Frame, options: PredictOptions, recipe: Recipe
) -> Detections:
    """Candidates above the threshold to final detections, best first.

    ``classes`` filters before the NMS, so an unwanted class suppresses nothing.
    """
    boxes, scores, class_ids, _ = candidates
    # FP16 can overflow to infinite or NaN codes; such a box has no place in an image.
    usable = np.isfinite(boxes).all(axis=1)
    if options.classes is not None:
        usable &= np.isin(class_ids, options.classes)
    if not usable.all():
        boxes, scores, class_ids = boxes[usable], scores[usable], class_ids[usable]
    groups = None if recipe.class_agnostic else class_ids
    keep = _core.nms(
        boxes, scores, groups, options.iou, options.max_det, max_candidates=MAX_CANDIDATES
    )
    return Detections(
        image_hw=frame.image_hw,
        names=recipe.labels,
        xyxy=boxes_to_image(frame.geometry, boxes[keep]),
        confidence=scores[keep],
        class_id=class_ids[keep],
    )


def class_count(columns: int, box_columns: int, recipe: Recipe) -> int:
    """Number of classes of an output with ``columns`` columns, by the labels where there are any.

    Extra columns (mask coefficients) are allowed only when the labels say where classes end.
    """
    classes = columns - box_columns
    return min(classes, len(recipe.labels)) if recipe.labels else classes


BOX_FORMS = ("xyxy", "yxyx", "cxcywh")


def whole_ids(classes: NDArray[Any]) -> NDArray[np.int32]:
    """Class ids, of any number type, to the nearest integer; -1 where FP16 broke one."""
    numbers = classes.astype(np.float64)
    limit = np.iinfo(np.int32).max
    return np.where(np.abs(numbers) <= limit, np.rint(numbers), -1).astype(np.int32)


def corners_of(boxes: NDArray[np.float32], form: str) -> NDArray[np.float32]:
    """Boxes [k, 4] of one of ``BOX_FORMS`` as x0, y0, x1, y1, in the same unit."""
    if form == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if form == "cxcywh":
        half = boxes[:, 2:] * np.float32(0.5)
        return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)
    return boxes


def pixel_scale(recipe: Recipe) -> NDArray[np.float32]:
    """What corners are multiplied by to be tensor pixels, by the head option ``units``."""
    if choice(recipe, "units", ("pixels", "normalised"), "pixels") == "pixels":
        return np.ones(4, np.float32)
    height, width = recipe.preprocess.size
    return np.array([width, height, width, height], np.float32)


def final_detections(
    candidates: Candidates, frame: Frame, options: PredictOptions, recipe: Recipe
) -> Detections:
    """Candidates of a model that suppresses by itself: filtered, best first, no NMS.

    A class id below 0 is what such models fill their last rows with, or their background.
    """
    boxes, scores, class_ids, _ = candidates
    kept = np.isfinite(boxes).all(axis=1) & (scores > options.confidence) & (class_ids >= 0)
    if options.classes is not None:
        kept &= np.isin(class_ids, options.classes)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(-scores[rows], kind="stable")][: options.max_det]
    return Detections(
        image_hw=frame.image_hw,
        names=recipe.labels,
        xyxy=boxes_to_image(frame.geometry, np.ascontiguousarray(boxes[rows])),
        confidence=scores[rows],
        class_id=class_ids[rows],
    )
