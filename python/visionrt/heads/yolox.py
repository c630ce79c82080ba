"""The ``yolox`` head: boxes relative to grid cells of several strides, objectness, class scores.

Output: [n, A, 5 + C], as the exporter writes it without ``decode_in_inference``; A is the number
of cells of all strides. Scores are probabilities already.

Head options:
    output: name of the output; needed when there are several.
    strides: default [8, 16, 32].
    multi_label: whether one anchor may give several classes; default false.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import (
    as_float32,
    bad_option,
    bad_shape,
    check_options,
    choice,
    output_named,
)
from visionrt.heads.boxes import NO_LIMIT, CandidateHead, Candidates, class_count
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_layout import CandidateBuffers


class YoloxHead(CandidateHead):
    """See the module. Decodes on the device as well."""

    constant = None
    decodes_on_device = True
    reads_float16 = True

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, ("output", "strides", "multi_label"))
        self._recipe = recipe
        self._output = output_named(recipe, outputs).name
        self._multi_label = choice(recipe, "multi_label", (False, True), False)
        strides = options.get("strides", [8, 16, 32])
        if not (
            isinstance(strides, (list, tuple))
            and strides
            and all(isinstance(s, int) and s >= 1 for s in strides)
        ):
            raise bad_option(recipe, "strides", "a list of integers above 0", strides)
        self._strides = list(strides)
        height, width = recipe.preprocess.size
        self._cells = sum((height // s) * (width // s) for s in strides)

    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[Candidates]:
        raw = as_float32(outputs[self._output])
        classes = self._class_count(raw.shape, batch)
        for image in raw:
            yield _core.decode_yolox(
                image,
                self._recipe.preprocess.size,
                classes,
                confidence,
                strides=self._strides,
                multi_label=self._multi_label,
                max_candidates=NO_LIMIT,
            )

    def _class_count(self, shape: tuple[int, ...], batch: int | None = None) -> int:
        fits = len(shape) == 3 and shape[1] == self._cells and shape[2] > 5
        if not fits or batch not in (None, shape[0]):
            rows = "n" if batch is None else batch
            raise bad_shape(self._output, f"[{rows}, {self._cells}, 5 + classes]", shape)
        return class_count(shape[2], 5, self._recipe)

    def capacity(self, outputs: Mapping[str, DeviceTensor]) -> int:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        classes = self._class_count(outputs[self._output].shape)
        return _core.decode_capacity(self._cells, classes, self._multi_label)

    def enqueue_decode(
        self,
        outputs: Mapping[str, DeviceTensor],
        batch: int,
        confidence: float,
        candidates: CandidateBuffers,
        constant: int,
        stream: int,
    ) -> None:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        output = outputs[self._output]
        _core.cuda_decode_yolox(
            output.address,
            batch,
            self._recipe.preprocess.size,
            self._cells,
            output.shape[2],
            self._class_count(output.shape),
            confidence,
            candidates.addresses(),
            candidates.capacity,
            stream,
            strides=self._strides,
            multi_label=self._multi_label,
            is_float16=output.dtype == np.float16,
        )
