"""The ``mask_rcnn`` head: boxes, classes, scores and a small mask for each box.

Outputs: boxes [n, D, 4] (x0, y0, x1, y1 in tensor pixels), scores [n, D], labels [n, D], masks
[n, D, 1, h, w] or [n, D, h, w] of probabilities. torchvision's export of Mask R-CNN (He et al.
2017) has no batch axis: [D, 4], [D], [D] and [D, 1, 28, 28]. NMS is the model's own. A mask is
stretched over its box and cut at one half, when it is asked for.

It looks like: four outputs that share their first axes, of which one has 4 columns and one, two
equal sides.

Head options:
    boxes, scores, labels, masks: names of the outputs; needed.
    normalised: whether boxes are in 0…1 of the tensor; default false.
    order: ``xyxy`` (default) or ``yxyx``, as TensorFlow has them.
    offset: subtracted from the labels: 1 for models whose class 0 is the background; default 0.
    region: what a mask covers: its ``box`` (default), or the whole ``image``, where the graph has
        pasted it, as torchvision's export does.
    threshold: of the masks; default 0.5.
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
from visionrt.heads.boxes import whole_ids
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image
from visionrt.recipe import Recipe
from visionrt.results.instances import Instances, PastedMasks

_PARTS = ("boxes", "scores", "labels", "masks")


class MaskRcnnHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        known = (*_PARTS, "normalised", "order", "offset", "region", "threshold")
        options = check_options(recipe, known)
        self._recipe = recipe
        self._names = {part: output_named(recipe, outputs, part).name for part in _PARTS}
        self._normalised = choice(recipe, "normalised", (False, True), False)
        self._order = choice(recipe, "order", ("xyxy", "yxyx"), "xyxy")
        self._fills_image = choice(recipe, "region", ("box", "image"), "box") == "image"
        self._offset = choice(recipe, "offset", (0, 1), 0)
        threshold = options.get("threshold", 0.5)
        if not (isinstance(threshold, (int, float)) and 0 < threshold < 1):
            raise bad_option(recipe, "threshold", "a number between 0 and 1", threshold)
        self._threshold = float(threshold)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Instances]:
        """One :class:`Instances` per frame, best first. A score must be above ``confidence``."""
        parts = {part: outputs[name] for part, name in self._names.items()}
        if parts["boxes"].ndim == 2:
            parts = {part: array[None] for part, array in parts.items()}
        boxes, masks = as_float32(parts["boxes"]), as_float32(parts["masks"])
        if masks.ndim == 5 and masks.shape[2] == 1:
            masks = masks[:, :, 0]
        head = boxes.shape[:2]
        fits = boxes.shape == (len(frames), head[-1], 4) and masks.ndim == 4
        for part, array in (("scores", parts["scores"]), ("labels", parts["labels"])):
            if array.shape != head or not fits:
                raise bad_shape(self._names[part], f"[{len(frames)}, boxes]", array.shape)
        if masks.shape[:2] != head or 0 in masks.shape[2:]:
            raise bad_shape(self._names["masks"], f"[{len(frames)}, boxes, h, w]", masks.shape)
        scores, labels = as_float32(parts["scores"]), whole_ids(parts["labels"])
        return [
            self._one(boxes[i], scores[i], labels[i] - self._offset, masks[i], frame, options)
            for i, frame in enumerate(frames)
        ]

    def _one(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        labels: NDArray[np.int32],
        masks: NDArray[np.float32],
        frame: Frame,
        options: PredictOptions,
    ) -> Instances:
        usable = (scores > options.confidence) & np.isfinite(boxes).all(axis=1) & (labels >= 0)
        if options.classes is not None:
            usable &= np.isin(labels, options.classes)
        rows = np.flatnonzero(usable)
        rows = rows[np.argsort(-scores[rows], kind="stable")][: options.max_det]
        tensor = boxes[rows] if self._order == "xyxy" else boxes[rows][:, [1, 0, 3, 2]]
        if self._normalised:
            height, width = self._recipe.preprocess.size
            tensor = tensor * np.array([width, height] * 2, np.float32)
        covered = tensor
        if self._fills_image:
            height, width = self._recipe.preprocess.size
            covered = np.broadcast_to(np.array([0, 0, width, height], np.float32), tensor.shape)
        g = frame.geometry
        scale = np.array([g.scale_x, g.scale_y] * 2, np.float32)
        whole = (covered - np.array([g.offset_x, g.offset_y] * 2, np.float32)) * scale
        return Instances(
            PastedMasks(masks[rows].copy(), whole, self._threshold),
            image_hw=frame.image_hw,
            names=self._recipe.labels,
            xyxy=boxes_to_image(g, tensor),
            confidence=scores[rows],
            class_id=labels[rows],
        )
