"""The ``proto_mask`` head: boxes with coefficients, and prototypes that they are multiplied with.

Outputs, C classes and M prototypes: the boxes in a form of :mod:`visionrt.heads.yolo_columns` with
E = M coefficients, and prototypes [n, M, h, w]. A mask is where the sum of coefficient times
prototype is above 0, a probability of one half (YOLACT, Bolya et al. 2019; YOLOv5, v8, v11, v26).
The sums are sampled at the image's own pixels, once, and masks are made when they are asked for.

It looks like: one output with three axes, one with four whose second is 32 in all known models.

Head options:
    output, prototypes: names of the two outputs; needed when they are not the only ones.
    form: default ``v8``.
    threshold: of the sum; default 0.
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
from visionrt.heads.yolo_columns import FORMS, columns_of, kept_rows, rows_above
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image
from visionrt.recipe import Recipe
from visionrt.results.instances import Instances, PrototypeMasks


class ProtoMaskHead:
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, ("output", "prototypes", "form", "threshold"))
        self._recipe = recipe
        self._form = choice(recipe, "form", FORMS, "v8")
        by_axes = {axes: [o for o in outputs if len(o.shape) == axes] for axes in (3, 4)}
        self._boxes = output_named(
            recipe, outputs if "output" in options else by_axes[3], "output"
        ).name
        self._prototypes = output_named(
            recipe, outputs if "prototypes" in options else by_axes[4], "prototypes"
        ).name
        threshold = options.get("threshold", 0.0)
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise bad_option(recipe, "threshold", "a number", threshold)
        self._threshold = float(threshold)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Instances]:
        """One :class:`Instances` per frame. A score must be above ``confidence``."""
        raw = as_float32(outputs[self._boxes])
        prototypes = as_float32(outputs[self._prototypes])
        if prototypes.ndim != 4 or len(prototypes) != len(frames) or prototypes.size == 0:
            raise bad_shape(self._prototypes, f"[{len(frames)}, masks, h, w]", prototypes.shape)
        masks = prototypes.shape[1]
        classes_at_least = 0 if self._form == "end2end" else 1
        found = columns_of(
            self._form, self._boxes, raw.shape, len(frames), masks + classes_at_least
        )
        if self._form == "end2end" and found != masks:
            raise bad_shape(self._boxes, f"[{len(frames)}, boxes, 6 + {masks}]", raw.shape)
        return [
            self._one(raw[i], found - masks, prototypes[i], frame, options)
            for i, frame in enumerate(frames)
        ]

    def _one(
        self,
        raw: NDArray[np.float32],
        classes: int,
        prototypes: NDArray[np.float32],
        frame: Frame,
        options: PredictOptions,
    ) -> Instances:
        rows = rows_above(raw, self._form, classes, options)
        rows = kept_rows(rows, self._form, options, class_agnostic=self._recipe.class_agnostic)
        g, sides = frame.geometry, self._recipe.preprocess.size
        cells = [n / side for n, side in zip(prototypes.shape[1:], sides, strict=True)]
        # tensor = image / scale + offset, prototype = tensor * cells
        masks = PrototypeMasks(
            # Back ends may reuse the memory of their outputs, and masks are made later.
            prototypes.copy() if len(rows.score) else prototypes[:, :1, :1].copy(),
            np.ascontiguousarray(rows.extra),
            scale=(cells[0] / g.scale_y, cells[1] / g.scale_x),
            shift=(cells[0] * g.offset_y, cells[1] * g.offset_x),
            threshold=self._threshold,
        )
        return Instances(
            masks,
            image_hw=frame.image_hw,
            names=self._recipe.labels,
            xyxy=boxes_to_image(frame.geometry, rows.xyxy),
            confidence=rows.score,
            class_id=rows.class_id,
        )
