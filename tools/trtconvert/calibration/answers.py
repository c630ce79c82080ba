"""A model's answer to an image as a unit vector, so that answers can be compared.

Each image is seen twice: whole, and the middle ``ZOOM`` of it enlarged. A model that is fed as it
was trained says the same of both, and something else of other images; one that is fed wrongly
changes its mind, or says the same of everything. The dot product of two answers is in 0…1:

=========  =====================================================================================
classify   square roots of the class probabilities (their dot product is the Bhattacharyya
           coefficient)
detect     the sum of the scores of each class
segment    the class at ``GRID``² places of the image's middle, times its confidence
keypoints  each keypoint of the best pose on a ``GRID``² raster of the middle, times its confidence
=========  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.backends.base import Backend
from visionrt.heads import Frame, head_for
from visionrt.options import options_for
from visionrt.pipeline import image_input
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.results import (
    Classification,
    Detections,
    Instances,
    Keypoints,
    RotatedDetections,
    Segmentation,
)
from visionrt.spec import PreprocessSpec

ZOOM = 0.75
GRID = 12
# Weak detections tell as much of how a model is fed as strong ones.
_LEAST_SCORE = 0.02
_MOST_CLASSES = 1 << 20
Answer = NDArray[np.float32]


class AnswerReader:
    """Runs one model on images under different preprocess specs."""

    def __init__(self, backend: Backend, recipe: Recipe) -> None:
        self._backend = backend
        self._recipe = recipe
        self._head = head_for(recipe, backend.outputs)
        info = image_input(recipe, backend.inputs)
        self._input = info.name
        self._batch = info.shape[0] if isinstance(info.shape[0], int) else 1
        least = {
            "detect": _LEAST_SCORE,
            "instances": _LEAST_SCORE,
            "obb": _LEAST_SCORE,
            "keypoints": 0.0,
        }.get(recipe.task)
        self._options = options_for(recipe, confidence=least, top_k=_MOST_CLASSES)
        self._preprocessors: dict[PreprocessSpec, Preprocessor] = {}

    def whole(self, pixels: NDArray[np.uint8], spec: PreprocessSpec) -> tuple[Answer, Any]:
        """The answer to an image (uint8 BGR ``[h, w, 3]``), and the result it came from."""
        result = self._result(pixels, spec)
        return self._answer(result, (1 - ZOOM) / 2), result

    def zoomed(self, pixels: NDArray[np.uint8], spec: PreprocessSpec) -> Answer:
        """The answer to the image's middle, comparable with :meth:`whole`."""
        height, width = pixels.shape[:2]
        rows, columns = (max(1, round(side * ZOOM)) for side in (height, width))
        top, left = (height - rows) // 2, (width - columns) // 2
        middle = np.ascontiguousarray(pixels[top : top + rows, left : left + columns])
        return self._answer(self._result(middle, spec), 0.0)

    def _result(self, pixels: NDArray[np.uint8], spec: PreprocessSpec) -> Any:
        preprocess = self._preprocessors.setdefault(spec, Preprocessor(spec))
        feed = np.repeat(preprocess([pixels]), self._batch, axis=0)
        outputs = self._backend.run({self._input: feed})
        # A wrong scale can overflow; such an answer is like no other.
        first = {
            name: np.nan_to_num(array[:1] if self._batch > 1 else array, posinf=0, neginf=0)
            for name, array in outputs.items()
        }
        frame = Frame(pixels.shape[:2], preprocess.geometry(*pixels.shape[:2]))
        return self._head.decode(first, [frame], self._options)[0]

    def _answer(self, result: Any, margin: float) -> Answer:
        makers: dict[type, Callable[[Any, float], Answer]] = {
            Classification: _of_classes,
            Detections: _of_boxes,
            Segmentation: _of_mask,
            Keypoints: _of_keypoints,
            Instances: _of_boxes,
            RotatedDetections: _of_boxes,
        }
        vector = makers[type(result)](result, margin)
        norm = float(np.linalg.norm(vector))
        return vector / np.float32(norm) if norm > 0 else vector


def _of_classes(result: Classification, _margin: float) -> Answer:
    scores = np.zeros(result.logits.size, np.float32)
    scores[result.class_id] = np.maximum(result.confidence, 0)
    return np.sqrt(scores)


def _of_boxes(result: Detections, _margin: float) -> Answer:
    # Lengths differ from image to image; the caller pads.
    scores = np.zeros(int(result.class_id.max(initial=0)) + 1, np.float32)
    np.add.at(scores, result.class_id, result.confidence)
    return scores


def _of_mask(result: Segmentation, margin: float) -> Answer:
    places = margin + (np.arange(GRID) + 0.5) / GRID * (1 - 2 * margin)
    rows, columns = ((places * side).astype(int) for side in result.mask.shape)
    classes = result.mask[np.ix_(rows, columns)].ravel().astype(int)
    sure = result.confidence[np.ix_(rows, columns)].ravel()
    raster = np.zeros((int(classes.max(initial=0)) + 1, GRID * GRID), np.float32)
    raster[classes, np.arange(GRID * GRID)] = sure
    return raster.ravel()


def _of_keypoints(result: Keypoints, margin: float) -> Answer:
    if not len(result.keypoints):
        return np.zeros(1, np.float32)
    best = result.keypoints[int(np.argmax(result.keypoints[..., 2].sum(axis=1)))]
    height, width = result.image_hw
    raster = np.zeros((len(best), GRID, GRID), np.float32)
    for keypoint, (x, y, score) in enumerate(best):
        place = (np.array([y / height, x / width]) - margin) / (1 - 2 * margin) * GRID - 0.5
        low = np.floor(place).astype(int)
        for dy in (0, 1):
            for dx in (0, 1):
                cell = low + np.array([dy, dx])
                if np.all((cell >= 0) & (cell < GRID)):
                    weight = np.prod(1 - np.abs(place - cell))
                    raster[keypoint, cell[0], cell[1]] = weight * score
    return raster.ravel()


def sureness(result: Any) -> float:
    """Mean confidence of a mask's pixels or of the best pose's keypoints; 0 for other results."""
    if isinstance(result, Segmentation):
        return float(result.confidence.mean())
    if isinstance(result, Keypoints) and len(result.keypoints):
        return float(result.keypoints[..., 2].mean(axis=1).max())
    return 0.0


def stacked(answers: list[Answer]) -> NDArray[np.float32]:
    """Answers as rows, padded with zeros to the longest."""
    longest = max(len(answer) for answer in answers)
    return np.stack([np.pad(answer, (0, longest - len(answer))) for answer in answers])
