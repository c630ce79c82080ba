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
from typing import TYPE_CHECKING, Any, TypeAlias

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
from visionrt.heads.yolo_columns import FORMS, Rows, columns_of, kept_rows, rows_above
from visionrt.heads.yolo_device import Layout, YoloOnDevice
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image
from visionrt.recipe import Recipe
from visionrt.results.instances import Instances, MaskSource, PrototypeMasks

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_result_pool import KeptMemory

Pair: TypeAlias = tuple[float, float]


class ProtoMaskHead(YoloOnDevice):
    """See the module. Decodes on the device as well, unless the model suppresses by itself.

    There the prototypes stay in GPU memory, and masks are made there when they are asked for.
    """

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, ("output", "prototypes", "form", "threshold"))
        self._recipe = recipe
        self._form = choice(recipe, "form", FORMS, "v8")
        by_axes = {axes: [o for o in outputs if len(o.shape) == axes] for axes in (3, 4)}
        self._output = output_named(
            recipe, outputs if "output" in options else by_axes[3], "output"
        ).name
        self._prototypes = output_named(
            recipe, outputs if "prototypes" in options else by_axes[4], "prototypes"
        ).name
        threshold = options.get("threshold", 0.0)
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise bad_option(recipe, "threshold", "a number", threshold)
        self._threshold = float(threshold)
        self.kept_output = self._prototypes

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Instances]:
        """One :class:`Instances` per frame. A score must be above ``confidence``."""
        raw = as_float32(outputs[self._output])
        prototypes = as_float32(outputs[self._prototypes])
        if prototypes.ndim != 4 or len(prototypes) != len(frames) or prototypes.size == 0:
            raise bad_shape(self._prototypes, f"[{len(frames)}, masks, h, w]", prototypes.shape)
        masks = prototypes.shape[1]
        classes_at_least = 0 if self._form == "end2end" else 1
        found = columns_of(
            self._form, self._output, raw.shape, len(frames), masks + classes_at_least
        )
        if self._form == "end2end" and found != masks:
            raise bad_shape(self._output, f"[{len(frames)}, boxes, 6 + {masks}]", raw.shape)
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
        scale, shift = self._places(prototypes.shape[1:], frame)
        masks = PrototypeMasks(
            # Back ends may reuse the memory of their outputs, and masks are made later.
            prototypes.copy() if len(rows.score) else prototypes[:, :1, :1].copy(),
            np.ascontiguousarray(rows.extra),
            scale=scale,
            shift=shift,
            threshold=self._threshold,
        )
        return self._instances(masks, rows, frame)

    def _places(self, cells_hw: tuple[int, ...], frame: Frame) -> tuple[Pair, Pair]:
        """Scale and shift, (y, x): tensor = image / scale + offset, prototype = tensor * cells."""
        g, sides = frame.geometry, self._recipe.preprocess.size
        cells = [n / side for n, side in zip(cells_hw, sides, strict=True)]
        scale = (cells[0] / g.scale_y, cells[1] / g.scale_x)
        return scale, (cells[0] * g.offset_y, cells[1] * g.offset_x)

    def _instances(self, masks: MaskSource, rows: Rows, frame: Frame) -> Instances:
        return Instances(
            masks,
            image_hw=frame.image_hw,
            names=self._recipe.labels,
            xyxy=boxes_to_image(frame.geometry, rows.xyxy),
            confidence=rows.score,
            class_id=rows.class_id,
        )

    def result(
        self, rows: Rows, frame: Frame, kept: KeptMemory | None, image: int, shape: tuple[int, ...]
    ) -> Instances:
        """See :class:`visionrt.gpu_boxes.DeviceColumnsHead`."""
        from visionrt.gpu_masks import DevicePrototypeMasks

        scale, shift = self._places(shape[2:], frame)
        if kept is None:
            nothing = np.zeros((rows.extra.shape[1], 1, 1), np.float32)
            masks = PrototypeMasks(nothing, rows.extra, scale, shift, self._threshold)
            return self._instances(masks, rows, frame)
        _, channels, height, width = shape
        start = image * channels * height * width * np.dtype(np.float32).itemsize
        on_device = DevicePrototypeMasks(
            memory=kept,
            address=kept.address + start,
            shape=(channels, height, width),
            coefficients=rows.extra,
            scale=scale,
            shift=shift,
            threshold=self._threshold,
        )
        return self._instances(on_device, rows, frame)

    def _layout(self, outputs: Mapping[str, DeviceTensor]) -> Layout:
        prototypes = outputs[self._prototypes].shape
        if len(prototypes) != 4 or 0 in prototypes:
            raise bad_shape(self._prototypes, "[n, masks, h, w]", prototypes)
        return self._layout_with(outputs[self._output].shape, extra=prototypes[1])
