"""The ``logits`` head: semantic segmentation, a score per class and pixel.

Output, C classes: [n, C, h, w], [n, h, w, C], or [n, h, w]; h and w may be smaller than the tensor.
Scores are sampled bilinearly at the centre of each pixel of the image, then compared; a letterbox's
border is not read. Pixels outside a ``crop`` are class 0 with confidence 0.

Head options:
    output: name of the output; needed when there are several.
    form: ``logits`` (default), ``probability``, or ``argmax`` (class ids, sampled to the nearest).
    layout: ``nchw`` (default) or ``nhwc``.
    threshold: for one channel, the probability from which a pixel is class 1, not 0; default 0.5.

``confidence`` does not filter here. ``classes`` turns every other class into 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import (
    Frame,
    as_float32,
    bad_option,
    bad_shape,
    check_options,
    choice,
    output_named,
)
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Segmentation


class LogitsHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, ("output", "form", "layout", "threshold"))
        self._output = output_named(recipe, outputs).name
        self._form = choice(recipe, "form", ("logits", "probability", "argmax"), "logits")
        self._layout = choice(recipe, "layout", ("nchw", "nhwc"), "nchw")
        threshold = options.get("threshold", 0.5)
        if not (isinstance(threshold, (int, float)) and 0 < threshold < 1):
            raise bad_option(recipe, "threshold", "a number between 0 and 1", threshold)
        self._threshold = float(threshold)
        self._names = recipe.labels
        self._tensor_hw = recipe.preprocess.size

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Segmentation]:
        """One :class:`Segmentation` per frame, at the image's size."""
        raw = outputs[self._output]
        if raw.ndim == 3:
            raw = raw[:, None] if self._layout == "nchw" else raw[..., None]
        if raw.ndim != 4 or len(raw) != len(frames) or raw.size == 0:
            raise bad_shape(self._output, f"[{len(frames)}, …] with 3 or 4 axes", raw.shape)
        if self._layout == "nhwc":
            raw = np.moveaxis(raw, -1, 1)
        if self._form == "argmax" and raw.shape[1] != 1:
            raise bad_shape(self._output, "one class id per pixel", raw.shape)
        return [self._one(scores, f, options) for scores, f in zip(raw, frames, strict=True)]

    def _one(self, scores: NDArray[Any], frame: Frame, options: PredictOptions) -> Segmentation:
        x0, wx, y0, wy = _sampling(frame, self._tensor_hw, scores.shape[1:])
        mask: NDArray[np.uint8] | NDArray[np.uint16]
        if self._form == "argmax":
            mask, confidence = _nearest(scores[0], x0, wx, y0, wy)
            if mask.max() < 256:
                mask = mask.astype(np.uint8)
        elif len(scores) == 1:
            is_logit = self._form == "logits"
            mask, confidence = _core.binary_mask(
                as_float32(scores), is_logit, self._threshold, x0, wx, y0, wy
            )
        else:
            scores = as_float32(scores)
            values = _softmax(scores) if self._form == "logits" else None
            mask, confidence = _core.class_mask(scores, values, x0, wx, y0, wy)
        if options.classes is not None:
            mask[~np.isin(mask, options.classes)] = 0
        return Segmentation(
            image_hw=frame.image_hw,
            names=self._names,
            mask=mask,
            confidence=confidence,
        )


def _sampling(
    frame: Frame, tensor_hw: tuple[int, int], grid_hw: Sequence[int]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Where each column and row of the image samples the grid: (x0, wx, y0, wy).

    See :func:`visionrt._core.class_mask`.
    """
    g, (height, width) = frame.geometry, frame.image_hw
    x0, wx = _axis(width, g.scale_x, g.offset_x, g.resized_w, tensor_hw[1], grid_hw[1])
    y0, wy = _axis(height, g.scale_y, g.offset_y, g.resized_h, tensor_hw[0], grid_hw[0])
    return x0, wx, y0, wy


def _axis(
    image: int, scale: float, offset: int, resized: int, tensor: int, grid: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    cells_per_pixel = grid / tensor
    position = (np.arange(image) + 0.5) / scale + offset
    outside = (position < 0) | (position > tensor)
    # The cells whose centres the image covers; samples beyond them repeat the last.
    start, end = max(offset, 0), min(offset + resized, tensor)
    first = int(np.ceil(start * cells_per_pixel - 0.5))
    last = int(np.floor(end * cells_per_pixel - 0.5))
    if first > last:  # an image thinner than a cell
        first = last = min(int((start + end) / 2 * cells_per_pixel), grid - 1)
    cell = np.clip(position * cells_per_pixel - 0.5, first, last)
    low = np.floor(cell)
    index = low.astype(np.int32)
    index[outside] = -1
    return index, (cell - low).astype(np.float32)


def _nearest(
    ids: NDArray[Any],
    x0: NDArray[np.int32],
    wx: NDArray[np.float32],
    y0: NDArray[np.int32],
    wy: NDArray[np.float32],
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    # wx is 0 at the last cell, so that the index never passes it.
    columns, rows = x0 + (wx >= 0.5), y0 + (wy >= 0.5)
    mask = ids[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)].astype(np.uint16)
    inside = (y0 >= 0)[:, None] & (x0 >= 0)
    mask[~inside] = 0
    return mask, inside.astype(np.float32)


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(scores - scores.max(axis=0))
    return np.asarray(shifted / shifted.sum(axis=0), dtype=np.float32)
