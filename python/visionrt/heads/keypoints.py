"""The ``keypoints`` head: a pose as coordinates.

Output of the form ``movenet``: [n, 1, K, 3] or [n, P, K, 3]: y, x, score in 0…1 of the tensor.

Head options:
    output: name of the output; needed when there are several.
    form: ``movenet``, the only one so far.
    skeleton: pairs of keypoint indices to join; default: COCO's when K is 17.
    names: of the keypoints; default: the labels, or COCO's when K is 17.

A pose is kept when at least one keypoint reaches ``confidence``: half of a body may be out of
sight. ``classes`` does not filter here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import points_to_image
from visionrt.recipe import Recipe
from visionrt.results import Keypoints

# COCO's person keypoints: the nose, then pairs, left before right.
_PAIRED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_NAMES = ("nose", *(f"{side} {part}" for part in _PAIRED for side in ("left", "right")))
_LIMBS = "0-1 0-2 1-3 2-4 5-6 5-7 7-9 6-8 8-10 5-11 6-12 11-12 11-13 13-15 12-14 14-16"
COCO_SKELETON = tuple((int(a), int(b)) for a, b in (limb.split("-") for limb in _LIMBS.split()))


def points_named(
    recipe: Recipe, count: int | str | None, names: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Names and skeleton of ``count`` keypoints by the head options ``names`` and ``skeleton``.

    Args:
        recipe: with the options; without them, COCO's stand for 17 keypoints.
        count: None where it is not known.
        names: to take where the option is missing.

    Raises:
        UsageError: ill-typed, or an index that is negative.
    """
    options, is_coco = recipe.head_options, count == len(COCO_NAMES)
    found = options.get("names", names or (COCO_NAMES if is_coco else ()))
    if not all(isinstance(name, str) for name in found):
        raise bad_option(recipe, "names", "a list of strings", found)
    skeleton = options.get("skeleton", COCO_SKELETON if is_coco else ())
    try:
        pairs = tuple((int(a), int(b)) for a, b in skeleton)
    except (TypeError, ValueError) as error:
        raise bad_option(recipe, "skeleton", "pairs of indices", skeleton) from error
    if any(min(pair) < 0 for pair in pairs):
        raise bad_option(recipe, "skeleton", "indices from 0 on", skeleton)
    return tuple(found), pairs


def one_pose(
    points: NDArray[np.float32],
    frame: Frame,
    options: PredictOptions,
    names: tuple[str, ...],
    skeleton: tuple[tuple[int, int], ...],
) -> Keypoints:
    """The result of a model that looks at one person: [K, 3] in tensor pixels, kept if one is seen.

    Raises:
        ModelError: the skeleton names a keypoint that there is not.
    """
    if any(max(pair) >= len(points) for pair in skeleton):
        raise bad_shape("keypoints", "the skeleton's keypoints", points.shape)
    poses = points[None][: int((points[:, 2] >= options.confidence).any())].copy()
    poses[..., :2] = points_to_image(frame.geometry, poses[..., :2])
    return Keypoints(
        image_hw=frame.image_hw,
        names=names,
        keypoints=poses,
        skeleton=skeleton,
        threshold=options.confidence,
    )


class KeypointsHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, ("output", "form", "skeleton", "names"))
        choice(recipe, "form", ("movenet",), "movenet")
        info = output_named(recipe, outputs)
        self._output = info.name
        self._tensor_hw = recipe.preprocess.size
        points = info.shape[2] if len(info.shape) == 4 else None
        self._names, self._skeleton = points_named(recipe, points, recipe.labels)
        self._top = max((max(pair) for pair in self._skeleton), default=0)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Keypoints]:
        """One :class:`Keypoints` per frame."""
        raw = as_float32(outputs[self._output])
        if raw.ndim != 4 or len(raw) != len(frames) or raw.shape[3] != 3:
            raise bad_shape(self._output, f"[{len(frames)}, poses, keypoints, 3]", raw.shape)
        if raw.shape[2] <= self._top:
            raise bad_shape(self._output, f"more than {self._top} keypoints", raw.shape)
        return [self._one(poses, f, options) for poses, f in zip(raw, frames, strict=True)]

    def _one(self, poses: NDArray[np.float32], frame: Frame, options: PredictOptions) -> Keypoints:
        poses = poses[(poses[..., 2] >= options.confidence).any(axis=1)]
        height, width = self._tensor_hw
        tensor_xy = poses[..., 1::-1] * np.array([width, height], np.float32)
        points = np.empty_like(poses)
        points[..., :2] = points_to_image(frame.geometry, tensor_xy)
        points[..., 2] = poses[..., 2]
        return Keypoints(
            image_hw=frame.image_hw,
            names=self._names,
            keypoints=points,
            skeleton=self._skeleton,
            threshold=options.confidence,
        )
