"""The ``simcc`` head: one distribution over x and one over y for each keypoint of one person.

Outputs: [n, K, W * s] and [n, K, H * s] for a tensor of H x W (SimCC, Li et al. 2022; RTMPose). A
keypoint is at the largest bin of each, divided by s, the bins per pixel; its confidence is the
smaller of the two values, held within 0…1, as MMPose's codec has it. The whole image is the person.

It looks like: two outputs with three axes and one number of rows, whose columns are the tensor's
width and height times one number, 2 in all known models.

Head options:
    x, y: names of the outputs; needed.
    activation: ``none`` (default) or ``softmax``, over the bins.
    names, skeleton: of the keypoints; default: COCO's when K is 17.

A pose is kept when at least one keypoint reaches ``confidence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import Frame, as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.keypoints import one_pose, points_named
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Keypoints


class SimccHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("x", "y", "activation", "names", "skeleton"))
        self._recipe = recipe
        self._axes = [output_named(recipe, outputs, axis).name for axis in ("x", "y")]
        self._activation = choice(recipe, "activation", ("none", "softmax"), "none")

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Keypoints]:
        """One :class:`Keypoints` per frame, of at most one pose."""
        height, width = self._recipe.preprocess.size
        places, values = [], []
        for name, side in zip(self._axes, (width, height), strict=True):
            bins = as_float32(outputs[name])
            if bins.ndim != 3 or len(bins) != len(frames) or 0 in bins.shape:
                raise bad_shape(name, f"[{len(frames)}, keypoints, bins]", bins.shape)
            if self._activation == "softmax":
                shifted = np.exp(bins - bins.max(axis=2, keepdims=True))
                bins = shifted / shifted.sum(axis=2, keepdims=True)
            places.append(bins.argmax(axis=2) * np.float32(side / bins.shape[2]))
            values.append(bins.max(axis=2))
        if places[0].shape != places[1].shape:
            shape = outputs[self._axes[1]].shape
            raise bad_shape(self._axes[1], f"{places[0].shape[1]} keypoints", shape)
        score = np.clip(np.minimum(*values), 0, 1)
        points = np.stack([*places, score], axis=2).astype(np.float32)
        named = points_named(self._recipe, points.shape[1])
        return [one_pose(p, f, options, *named) for p, f in zip(points, frames, strict=True)]
