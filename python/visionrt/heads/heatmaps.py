"""The ``heatmaps`` head: one map for each keypoint of one person.

Output: [n, K, h, w], or [n, h, w, K]. A keypoint is at the largest value of its map, a quarter of a
cell towards the larger neighbour along each axis (Xiao et al. 2018, "Simple Baselines"), times the
tensor's pixels per cell; its confidence is that value, held within 0…1. At the map's edge, where a
neighbour is missing, that axis is left as it is. The whole image is the person.

It looks like: one output with four axes, a quarter of the tensor's height and width.

Head options:
    output: name of the output; needed when there are several.
    layout: ``nchw`` (default) or ``nhwc``.
    activation: ``none`` (default) or ``sigmoid``.
    names, skeleton: of the keypoints; default: COCO's when K is 17.

A pose is kept when at least one keypoint reaches ``confidence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.classifier import sigmoid
from visionrt.heads.keypoints import one_pose, points_named
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Keypoints


class HeatmapsHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "layout", "activation", "names", "skeleton"))
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._layout = choice(recipe, "layout", ("nchw", "nhwc"), "nchw")
        self._activation = choice(recipe, "activation", ("none", "sigmoid"), "none")

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Keypoints]:
        """One :class:`Keypoints` per frame, of at most one pose."""
        raw = as_float32(outputs[self._output])
        if raw.ndim != 4 or len(raw) != len(frames) or raw.size == 0:
            raise bad_shape(self._output, f"[{len(frames)}, …] with 4 axes", raw.shape)
        if self._layout == "nhwc":
            raw = np.moveaxis(raw, 3, 1)
        sides = np.array(self._recipe.preprocess.size[::-1], np.float32)
        per_cell = np.divide(sides, np.array(raw.shape[:1:-1]), dtype=np.float32)
        named = points_named(self._recipe, raw.shape[1])
        results = []
        for maps, frame in zip(raw, frames, strict=True):
            points = peaks(maps)
            points[:, :2] *= per_cell
            if self._activation == "sigmoid":
                points[:, 2] = sigmoid(points[:, 2])
            points[:, 2] = np.clip(points[:, 2], 0, 1)
            results.append(one_pose(points, frame, options, *named))
        return results


def peaks(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each of the maps [K, h, w]: x and y in cells, refined, and the value, float32 [K, 3]."""
    count, h, w = maps.shape
    flat = maps.reshape(count, -1)
    best = flat.argmax(axis=1)
    rows, columns, which = best // w, best % w, np.arange(count)
    out = np.stack([columns, rows, flat[which, best]], axis=1).astype(np.float32)
    inner = (columns > 0) & (columns < w - 1)
    right, left = np.minimum(columns + 1, w - 1), np.maximum(columns - 1, 0)
    out[:, 0] += 0.25 * inner * np.sign(maps[which, rows, right] - maps[which, rows, left])
    inner = (rows > 0) & (rows < h - 1)
    low, top = np.minimum(rows + 1, h - 1), np.maximum(rows - 1, 0)
    out[:, 1] += 0.25 * inner * np.sign(maps[which, low, columns] - maps[which, top, columns])
    return out
