"""Detectors, instances and rotated boxes: boxes matched one to one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.metrics.base import Agreement, mean, share
from visionrt.results import Detections, RotatedDetections

BOX_IOU = 0.5


class BoxAgreement:
    """F1 of a detector's boxes against the reference's, above the thresholds both were run with.

    Boxes are matched image by image within a class, the candidate's best score first, each to the
    free reference box with the largest IoU if that is at least ``BOX_IOU``.
    """

    metric = "box_f1"

    def __init__(self) -> None:
        self._images = 0
        self._references = 0
        self._candidates = 0
        self._overlaps: list[float] = []
        self._shift = 0.0

    def update(self, reference: Detections, candidate: Detections) -> None:
        """Take the two results of one image."""
        self._images += 1
        self._references += len(reference)
        self._candidates += len(candidate)
        for c, r, overlap in match_boxes(reference, candidate):
            self._overlaps.append(overlap)
            self._shift += float(candidate.confidence[c]) - float(reference.confidence[r])

    def agreement(self) -> Agreement:
        """Details: counts, precision, recall, mean IoU and mean score shift of the matches."""
        matched = len(self._overlaps)
        return Agreement(
            self.metric,
            self._images,
            share(2 * matched, self._references + self._candidates),
            details={
                "precision": share(matched, self._candidates),
                "recall": share(matched, self._references),
                "mean_iou": mean(sum(self._overlaps), matched),
                "score_shift": mean(self._shift, matched),
                "boxes_reference": self._references,
                "boxes_candidate": self._candidates,
                "boxes_matched": matched,
            },
        )


class MaskAgreement(BoxAgreement):
    """:class:`BoxAgreement` of instances, and how well the masks of matched boxes agree."""

    _detail = "mean_mask_iou"

    def __init__(self) -> None:
        super().__init__()
        self._shapes: list[float] = []

    def update(self, reference: Detections, candidate: Detections) -> None:
        """Take the two results of one image."""
        super().update(reference, candidate)
        for c, r, _ in match_boxes(reference, candidate):
            self._shapes.append(self._overlap(reference[r], candidate[c]))

    def agreement(self) -> Agreement:
        """Details as of the boxes, and the mean overlap of the matches."""
        found = super().agreement()
        overlap = mean(sum(self._shapes), len(self._shapes))
        return replace(found, details={**found.details, self._detail: overlap})

    @staticmethod
    def _overlap(reference: Detections, candidate: Detections) -> float:
        a, b = reference.mask, candidate.mask
        if a is None or b is None:
            return 0.0
        return share(float((a & b).sum()), float((a | b).sum()))


class RotatedAgreement(MaskAgreement):
    """:class:`BoxAgreement` of rotated boxes, and the IoU of the polygons of matched boxes."""

    _detail = "mean_rotated_iou"

    @staticmethod
    def _overlap(reference: Detections, candidate: Detections) -> float:
        pair = [_upright_and_angle(found) for found in (reference, candidate)]
        shared = float(_core.rotated_shared_areas(*pair)[0])
        areas = [float(np.prod(box[0, 2:4] - box[0, :2])) for box in pair]
        return share(shared, sum(areas) - shared)


def _upright_and_angle(found: Detections) -> NDArray[np.float32]:
    assert isinstance(found, RotatedDetections)
    centre, half = found.xywhr[:, :2], found.xywhr[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half, found.xywhr[:, 4:]], axis=1)


def match_boxes(
    reference: Detections, candidate: Detections, *, any_class: bool = False
) -> list[tuple[int, int, float]]:
    """Matches as ``(candidate row, reference row, IoU)``; see :class:`BoxAgreement`.

    With ``any_class``, boxes of different classes match too.
    """
    overlaps = box_iou(candidate.xyxy, reference.xyxy)
    if not any_class:
        overlaps[candidate.class_id[:, None] != reference.class_id[None, :]] = 0.0
    matches = []
    for row in np.argsort(-candidate.confidence, kind="stable"):
        if not len(reference):
            break
        best = int(np.argmax(overlaps[row]))
        if overlaps[row, best] >= BOX_IOU:
            matches.append((int(row), best, float(overlaps[row, best])))
            overlaps[:, best] = 0.0
    return matches


def box_iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """IoU of boxes [n, 4] and [m, 4], xyxy: float64 [n, m]. Boxes without area have IoU 0."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [np.prod(np.maximum(x[:, 2:] - x[:, :2], 0.0), axis=-1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    out: NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, union, out=out, where=union > 0)
    return out
