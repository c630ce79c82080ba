"""The ``classifier`` head: one score per class.

Output: [n, C], or any shape that holds n * C values, e.g. [n, C, 1, 1].

Head options:
    output: name of the output; needed when there are several.
    activation: ``softmax`` (default), ``sigmoid``, or ``none`` for outputs that are probabilities.
    offset: 1 for a model with a background class before the first label (1001-class models); the
        softmax runs over all outputs. Default 0.

``confidence`` drops classes below it; ``classes`` ranks only those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _fastpath
from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, choice, output_named
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Classification

_FLOAT32 = np.dtype(np.float32)


class ClassifierHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "activation", "offset"))
        self._output = output_named(recipe, outputs).name
        self._activation = choice(recipe, "activation", ("softmax", "sigmoid", "none"), "softmax")
        self._offset = choice(recipe, "offset", (0, 1), 0)
        self._names = recipe.labels

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Classification]:
        """One :class:`Classification` per frame; ``logits`` are without the background."""
        raw = outputs[self._output]
        is_one_row = len(frames) == 1 and raw.shape[:1] == (1,) and raw.size > self._offset
        if is_one_row and raw.dtype is _FLOAT32:
            return [self._one(raw, frames[0], options)]
        raw = as_float32(raw)
        if raw.size == 0 or raw.size % len(frames) or (raw.ndim > 1 and len(raw) != len(frames)):
            raise bad_shape(self._output, f"[{len(frames)}, classes]", raw.shape)
        rows = raw.reshape(len(frames), -1)
        if rows.shape[1] <= self._offset:
            raise bad_shape(self._output, f"[{len(frames)}, classes]", raw.shape)
        return [self._one(row, f, options) for row, f in zip(rows, frames, strict=True)]

    def _one(
        self, logits: NDArray[np.float32], frame: Frame, options: PredictOptions
    ) -> Classification:
        allowed = None
        if options.classes is not None:
            allowed = np.zeros(logits.size - self._offset, np.uint8)
            allowed[[c for c in options.classes if c < len(allowed)]] = 1
        softmax = self._activation == "softmax"
        # Back ends may reuse the memory of their outputs: what is kept is a copy.
        ids, values, kept = _fastpath.softmax_top_k(
            logits, options.top_k, self._offset, softmax, allowed
        )
        if self._activation == "sigmoid":
            values = sigmoid(values)
        if options.confidence > 0:
            keep = int((values >= options.confidence).sum())
            ids, values = ids[:keep], values[:keep]
        return Classification(
            image_hw=frame.image_hw,
            names=self._names,
            class_id=ids,
            confidence=values,
            logits=kept,
        )


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), -x)), dtype=np.float32)
