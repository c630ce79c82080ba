"""The ``ssd`` head: box codes relative to anchors, and one score per anchor and class.

Outputs: codes [n, A, 4] (ty, tx, th, tw) and scores [n, A, C].

Head options:
    boxes, scores: names of the outputs. Default: by their last sizes, 4 and not 4.
    anchors: ``tf_ssd_300``; a list of A rows [cy, cx, h, w] normalised to 0…1; or
        ``{"feature_maps": [[h, w], …], "scales": [s, …], "ratios": [1, 2, 0.5, …],
        "reduce_lowest": false}`` with one scale more than maps.
    variances: what the codes are divided by; default [10, 10, 5, 5].
    activation: ``none`` (default, scores are probabilities), ``sigmoid`` or ``softmax``.
    background: column of the background class, or -1; default 0. Class ids are the columns, the
        background's included, so that labels count it.
    multi_label: whether one anchor may give several classes; default false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads import ssd_anchors
from visionrt.heads.base import (
    Frame,
    as_float32,
    bad_option,
    bad_shape,
    check_options,
    choice,
    output_named,
)
from visionrt.heads.boxes import NO_LIMIT, detections_from
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections

if TYPE_CHECKING:
    from visionrt.backends.base import DeviceTensor
    from visionrt.gpu_layout import CandidateBuffers

_GRID_KEYS = {"feature_maps", "scales", "ratios", "reduce_lowest"}
OPTIONS = ("boxes", "scores", "anchors", "variances", "activation", "background", "multi_label")


class SsdHead:
    """See the module. Decodes on the device as well; ``constant`` holds the anchors."""

    decodes_on_device = True
    reads_float16 = True

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        options = check_options(recipe, OPTIONS)
        self._recipe = recipe
        self._boxes = _output(recipe, outputs, "boxes").name
        self._scores = _output(recipe, outputs, "scores").name
        self.constant = anchors_from(recipe)
        self._activation = choice(recipe, "activation", ("none", "sigmoid", "softmax"), "none")
        self._multi_label = choice(recipe, "multi_label", (False, True), False)
        self._background = options.get("background", 0)
        if not isinstance(self._background, int) or self._background < -1:
            raise bad_option(recipe, "background", "a column, or -1", self._background)
        self._variances = _floats(recipe, "variances", options.get("variances", [10, 10, 5, 5]), 4)
        if min(self._variances) <= 0:
            raise bad_option(recipe, "variances", "numbers above 0", self._variances)

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> list[Detections]:
        """One :class:`Detections` per frame. A score must be above ``confidence``."""
        codes, scores = as_float32(outputs[self._boxes]), as_float32(outputs[self._scores])
        self._class_count(codes.shape, scores.shape, len(frames))
        return [
            detections_from(
                _core.decode_ssd(
                    codes[i],
                    scores[i],
                    self.constant,
                    self._recipe.preprocess.size,
                    options.confidence,
                    variances=self._variances,
                    activation=self._activation,
                    background=self._background,
                    multi_label=self._multi_label,
                    max_candidates=NO_LIMIT,
                ),
                frame,
                options,
                self._recipe,
            )
            for i, frame in enumerate(frames)
        ]

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
            is_float16=scores.dtype == np.float16,
        )


def anchors_from(recipe: Recipe) -> NDArray[np.float32]:
    """The anchors that the head options describe, float32 [A, 4]: cy, cx, h, w in 0…1.

    Raises:
        UsageError: no anchors, an unknown preset, or ill-formed ones.
    """
    value = recipe.head_options.get("anchors")
    forms = f"{' | '.join(ssd_anchors.PRESETS)}, rows [cy, cx, h, w], or feature_maps and scales"
    if isinstance(value, str) and value in ssd_anchors.PRESETS:
        return ssd_anchors.PRESETS[value]()
    if isinstance(value, Mapping) and set(value) <= _GRID_KEYS:
        maps, scales = value.get("feature_maps", ()), value.get("scales", ())
        if maps and len(scales) == len(maps) + 1 and all(len(m) == 2 for m in maps):
            grids = ssd_anchors.grids_from_scales(
                [(int(h), int(w)) for h, w in maps],
                _floats(recipe, "scales", scales, len(scales)),
                _floats(recipe, "ratios", r := value.get("ratios", [1.0, 2.0, 0.5]), len(r)),
                reduce_lowest=bool(value.get("reduce_lowest", False)),
            )
            return ssd_anchors.anchors_from_grids(grids)
    elif isinstance(value, (list, tuple)) and value:
        return np.array([_floats(recipe, "anchors", row, 4) for row in value], np.float32)
    raise bad_option(recipe, "anchors", forms, value)


def _floats(recipe: Recipe, key: str, value: Any, count: int) -> list[float]:
    try:
        out = [float(v) for v in value]
    except (TypeError, ValueError) as error:
        raise bad_option(recipe, key, f"{count} numbers", value) from error
    if len(out) != count:
        raise bad_option(recipe, key, f"{count} numbers", value)
    return out


def _output(recipe: Recipe, outputs: Sequence[TensorInfo], key: str) -> TensorInfo:
    if key in recipe.head_options:
        return output_named(recipe, outputs, key)
    fitting = [o for o in outputs if len(o.shape) == 3 and (o.shape[2] == 4) == (key == "boxes")]
    if len(fitting) != 1:
        raise bad_option(recipe, key, f"one of {[o.name for o in outputs]}", None)
    return fitting[0]
