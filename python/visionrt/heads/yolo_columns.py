"""What the YOLO heads with more columns than boxes share: candidates, and the rest of their rows.

Forms, E more columns behind the C class scores; boxes are cx, cy, w, h in tensor pixels:
    ``v8``       [n, 4 + C + E, A]
    ``v8_rows``  [n, A, 4 + C + E]
    ``v5``       [n, A, 5 + C + E], with an objectness score that multiplies
    ``end2end``  [n, D, 6 + E]: x0, y0, x1, y1, score, class, after the model's own NMS
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.heads.base import bad_shape
from visionrt.heads.boxes import MAX_CANDIDATES, NO_LIMIT, whole_ids
from visionrt.options import PredictOptions

FORMS = ("v8", "v8_rows", "v5", "end2end")


@dataclass(frozen=True)
class Rows:
    """Boxes of one image, each with its further columns.

    Attributes:
        xyxy: float32 [k, 4], tensor pixels.
        score: float32 [k].
        class_id: int32 [k].
        extra: float32 [k, E].
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    extra: NDArray[np.float32]

    def __getitem__(self, index: Any) -> Rows:
        """Some of the rows."""
        return Rows(self.xyxy[index], self.score[index], self.class_id[index], self.extra[index])


def columns_of(form: str, name: str, shape: tuple[int, ...], batch: int, least: int) -> int:
    """Columns behind the box, and the score of an objectness or of ``end2end``.

    Raises:
        ModelError: not three axes, another batch, or fewer than ``least`` of them.
    """
    axis = 1 if form == "v8" else 2
    before = {"v5": 5, "end2end": 6}.get(form, 4)
    if len(shape) != 3 or shape[0] != batch or shape[axis] < before + least:
        wanted = f"{before} + {least} or more"
        layout = f"[{batch}, {wanted}, anchors]" if axis == 1 else f"[{batch}, anchors, {wanted}]"
        raise bad_shape(name, layout, shape)
    return shape[axis] - before


def rows_above(raw: NDArray[np.float32], form: str, classes: int, options: PredictOptions) -> Rows:
    """Rows of one image above the confidence, of the wanted classes, in the order of the output.

    Boxes with infinite or NaN numbers, which FP16 can give, are left out.
    """
    if form == "end2end":
        chosen = raw[raw[:, 4] > options.confidence]
        rows = Rows(chosen[:, :4], chosen[:, 4], whole_ids(chosen[:, 5]), chosen[:, 6:])
    else:
        boxes, scores, ids, anchors = _core.decode_yolo(
            raw, form, classes, options.confidence, max_candidates=NO_LIMIT
        )
        first = classes + (5 if form == "v5" else 4)
        extra = raw[first:, anchors].T if form == "v8" else raw[anchors, first:]
        rows = Rows(boxes, scores, ids, np.ascontiguousarray(extra))
    usable = np.isfinite(rows.xyxy).all(axis=1) & (rows.class_id >= 0)
    if options.classes is not None:
        usable &= np.isin(rows.class_id, options.classes)
    return rows if usable.all() else rows[usable]


def kept_rows(rows: Rows, form: str, options: PredictOptions, *, class_agnostic: bool) -> Rows:
    """The rows that survive NMS, best first; of ``end2end``, the best ones."""
    if form == "end2end":
        return rows[np.argsort(-rows.score, kind="stable")[: options.max_det]]
    groups = None if class_agnostic else rows.class_id
    return rows[
        _core.nms(
            rows.xyxy,
            rows.score,
            groups,
            options.iou,
            options.max_det,
            max_candidates=MAX_CANDIDATES,
        )
    ]
