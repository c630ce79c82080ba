"""The ``ssd`` head: box codes relative to anchors, and one score per anchor and class.

SSDs, RetinaNets and EfficientDets. Outputs: codes [n, A, 4] and scores [n, A, C]; or both for each
level of a pyramid, [n, K·4, h, w] and [n, K·C, h, w] or with channels last, K anchors a cell.

Head options:
    boxes, scores: names of the outputs. Default: by their last sizes, 4 and not 4. Lists of names
        where each level has outputs of its own, the finest first.
    anchors: one of:
        ``tf_ssd_300``;
        ``retinanet`` (Detectron2), ``retinanet_mmdet``, ``retinanet_torchvision``;
        ``efficientdet`` (D0 to D6, Lite3, Lite4), ``efficientdet_lite`` (Lite0 to Lite2, Lite3x),
        ``efficientdet_d7``, ``efficientdet_d7x``;
        a list of A rows [cy, cx, h, w] normalised to 0…1;
        ``{"feature_maps": [[h, w], …], "scales": [s, …], "ratios": [1, 2, 0.5, …],
        "reduce_lowest": false}`` with one scale more than maps;
        ``{"levels": [3, 7], "scales": [4, …], "ratios": [2, 1, 0.5], "inner": "ratios",
        "centre": 0.5, "strides": "powers"}``, a pyramid as in ``pyramid_anchors.py``. Ratios are
        width over height, or [width, height].
    code: order of a code, ``yxhw`` (default) or ``xywh``.
    variances: what the codes of y, x, h and w are divided by; default [10, 10, 5, 5].
    activation: ``none`` (default, scores are probabilities), ``sigmoid`` or ``softmax``.
    background: column of the background class, or -1; default 0. Class ids are the columns, the
        background's included, so that labels count it.
    multi_label: whether one anchor may give several classes; default false.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.anchor_options import anchors_from, numbers_of
from visionrt.heads.base import (
    as_float32,
    bad_option,
    bad_shape,
    check_options,
    choice,
    output_named,
)
from visionrt.heads.boxes import NO_LIMIT, CandidateHead, Candidates
from visionrt.heads.level_maps import LevelMaps
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_layout import CandidateBuffers

OPTIONS = (
    *("boxes", "scores", "anchors", "code", "variances", "activation", "background", "multi_label"),
)


class SsdHead(CandidateHead):
    """See the module. Decodes on the device as well; ``constant`` holds the anchors."""

    decodes_on_device = True
    reads_float16 = True

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, OPTIONS)
        self._recipe = recipe
        anchors = anchors_from(recipe)
        self.constant = anchors.all()
        self._levels: LevelMaps | None = None
        if isinstance(options.get("boxes"), (list, tuple)):
            self._levels = LevelMaps.of(recipe, outputs, anchors.levels)
            self.decodes_on_device = False  # the kernel reads rows
        else:
            self._boxes = _output(recipe, outputs, "boxes").name
            self._scores = _output(recipe, outputs, "scores").name
        self._activation = choice(recipe, "activation", ("none", "sigmoid", "softmax"), "none")
        self._code = choice(recipe, "code", ("yxhw", "xywh"), "yxhw")
        self._multi_label = choice(recipe, "multi_label", (False, True), False)
        self._background = options.get("background", 0)
        if not isinstance(self._background, int) or self._background < -1:
            raise bad_option(recipe, "background", "a column, or -1", self._background)
        given = options.get("variances", [10, 10, 5, 5])
        self._variances = numbers_of(recipe, "variances", given, 4)
        if min(self._variances) <= 0:
            raise bad_option(recipe, "variances", "numbers above 0", self._variances)

    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[Candidates]:
        for codes, scores, anchors in self._rows(outputs, batch, confidence):
            yield _core.decode_ssd(
                codes,
                scores,
                anchors,
                self._recipe.preprocess.size,
                confidence,
                variances=self._variances,
                activation=self._activation,
                background=self._background,
                multi_label=self._multi_label,
                max_candidates=NO_LIMIT,
                code=self._code,
            )

    def _rows(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Codes, scores and anchors of each image: all of them, or those that can pass."""
        if self._levels is not None:
            given = batch, confidence, self._activation, self._background
            yield from self._levels.rows(outputs, *given)
            return
        codes, scores = as_float32(outputs[self._boxes]), as_float32(outputs[self._scores])
        self._class_count(codes.shape, scores.shape, batch)
        for of_image in zip(codes, scores, strict=True):
            yield (*of_image, self.constant)

    def _class_count(
        self, codes: tuple[int, ...], scores: tuple[int, ...], batch: int | None = None
    ) -> int:
        """Columns of the scores, once both shapes are checked."""
        rows = "n" if batch is None else batch
        anchors = len(self.constant)
        if len(codes) != 3 or codes[1:] != (anchors, 4) or batch not in (None, codes[0]):
            raise bad_shape(self._boxes, f"[{rows}, {anchors}, 4]", codes)
        if len(scores) != 3 or scores[:2] != codes[:2] or self._background >= scores[2]:
            raise bad_shape(self._scores, f"[{rows}, {anchors}, classes]", scores)
        return scores[2]

    def capacity(self, outputs: Mapping[str, DeviceTensor]) -> int:
        """See :class:`visionrt.gpu_boxes.DeviceBoxHead`."""
        shapes = outputs[self._boxes].shape, outputs[self._scores].shape
        classes = self._class_count(*shapes)
        return _core.decode_capacity(len(self.constant), classes, self._multi_label)

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
        codes, scores = outputs[self._boxes], outputs[self._scores]
        _core.cuda_decode_ssd(
            codes.address,
            scores.address,
            constant,
            batch,
            len(self.constant),
            self._class_count(codes.shape, scores.shape),
            self._recipe.preprocess.size,
            confidence,
            candidates.addresses(),
            candidates.capacity,
            stream,
            variances=self._variances,
            activation=self._activation,
            background=self._background,
            multi_label=self._multi_label,
            code=self._code,
            is_float16=scores.dtype == np.float16,
        )


def _output(recipe: Recipe, outputs: Sequence[TensorInfo], key: str) -> TensorInfo:
    if key in recipe.head_options:
        return output_named(recipe, outputs, key)
    fitting = [o for o in outputs if len(o.shape) == 3 and (o.shape[2] == 4) == (key == "boxes")]
    if len(fitting) != 1:
        raise bad_option(recipe, key, f"one of {[o.name for o in outputs]}", None)
    return fitting[0]
