"""How far the results of one model agree with those of another on the same images.

The reference is what the candidate should give: the float32 model when a conversion is verified.
One accumulator per task; each takes the results of an image at a time and keeps only counts.

==========  ==================  ==============================================================
task        metric              agreement
==========  ==================  ==============================================================
classify    ``top1``            share of images with the same best class
detect      ``box_f1``          F1 of the boxes, matched at IoU 0.5 within a class
segment     ``pixel``           share of pixels of the same class
keypoints   ``keypoint_f1``     F1 of the seen keypoints, matched within 5 % of the image's side
instances   ``box_f1``          as detect; ``mean_mask_iou`` of the matches beside it
obb         ``box_f1``          as detect, of the upright boxes; ``mean_rotated_iou`` beside it
==========  ==================  ==============================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.errors import UsageError
from visionrt.results import (
    Classification,
    Detections,
    Keypoints,
    Result,
    RotatedDetections,
    Segmentation,
)

BOX_IOU = 0.5
KEYPOINT_RADIUS = 0.05


@dataclass(frozen=True)
class Agreement:
    """How well a candidate agrees with a reference.

    Attributes:
        metric: name of the main figure; see the module.
        images: that were compared.
        agreement: the main figure, 0…1.
        cosine: mean cosine of the raw outputs; None where outputs were not compared.
        details: further figures by name.
        warnings: what to know before trusting the figures.
    """

    metric: str
    images: int
    agreement: float
    cosine: float | None = None
    details: Mapping[str, float | int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Metric, images, agreement, cosine and the details as one flat object."""
        head: dict[str, Any] = {"metric": self.metric, "images": self.images}
        return head | {"agreement": self.agreement, "cosine": self.cosine} | dict(self.details)


class Accumulator(Protocol):
    """Counts over images; ``update`` once per image, then ``agreement``."""

    metric: str

    def update(self, reference: Any, candidate: Any) -> None:
        """Take the two results of one image."""
        ...

    def agreement(self) -> Agreement:
        """The figures so far; they leave ``cosine`` to the caller."""
        ...


def accumulator_for(task: str) -> Accumulator:
    """An empty accumulator for a task. Raises UsageError for an unknown one."""
    classes: dict[str, type[Any]] = {
        "classify": TopOneAgreement,
        "detect": BoxAgreement,
        "segment": PixelAgreement,
        "keypoints": KeypointAgreement,
        "instances": MaskAgreement,
        "obb": RotatedAgreement,
    }
    if task not in classes:
        raise UsageError(f"a task: {' | '.join(classes)}", got=task, fix="Name one of them.")
    made: Accumulator = classes[task]()
    return made


def compare(task: str, references: Sequence[Result], candidates: Iterable[Result]) -> Agreement:
    """Agreement of two lists of results, pair by pair.

    Raises:
        ValueError: the lists differ in length.
        UsageError: an unknown task.
    """
    accumulator = accumulator_for(task)
    for reference, candidate in zip(references, candidates, strict=True):
        accumulator.update(reference, candidate)
    return accumulator.agreement()


class TopOneAgreement:
    """Share of images whose best class is the same. An image without a class agrees with none."""

    metric = "top1"

    def __init__(self) -> None:
        self._images = 0
        self._same = 0
        self._shift = 0.0

    def update(self, reference: Classification, candidate: Classification) -> None:
        """Take the two results of one image."""
        self._images += 1
        if len(reference) and len(candidate):
            self._same += int(reference.class_id[0] == candidate.class_id[0])
            self._shift += abs(float(reference.confidence[0]) - float(candidate.confidence[0]))

    def agreement(self) -> Agreement:
        """Details: ``same``, and ``confidence_shift``, the mean change of the best score."""
        return Agreement(
            self.metric,
            self._images,
            _share(self._same, self._images),
            details={"same": self._same, "confidence_shift": _mean(self._shift, self._images)},
        )


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
            _share(2 * matched, self._references + self._candidates),
            details={
                "precision": _share(matched, self._candidates),
                "recall": _share(matched, self._references),
                "mean_iou": _mean(sum(self._overlaps), matched),
                "score_shift": _mean(self._shift, matched),
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
        mean = _mean(sum(self._shapes), len(self._shapes))
        return replace(found, details={**found.details, self._detail: mean})

    @staticmethod
    def _overlap(reference: Detections, candidate: Detections) -> float:
        a, b = reference.mask, candidate.mask
        if a is None or b is None:
            return 0.0
        return _share(float((a & b).sum()), float((a | b).sum()))


class RotatedAgreement(MaskAgreement):
    """:class:`BoxAgreement` of rotated boxes, and the IoU of the polygons of matched boxes."""

    _detail = "mean_rotated_iou"

    @staticmethod
    def _overlap(reference: Detections, candidate: Detections) -> float:
        pair = [_upright_and_angle(found) for found in (reference, candidate)]
        shared = float(_core.rotated_shared_areas(*pair)[0])
        areas = [float(np.prod(box[0, 2:4] - box[0, :2])) for box in pair]
        return _share(shared, sum(areas) - shared)


def _upright_and_angle(found: Detections) -> NDArray[np.float32]:
    assert isinstance(found, RotatedDetections)
    centre, half = found.xywhr[:, :2], found.xywhr[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half, found.xywhr[:, 4:]], axis=1)


class PixelAgreement:
    """Share of pixels with the same class; every image counts the same, whatever its size."""

    metric = "pixel"

    def __init__(self) -> None:
        self._images = 0
        self._shares = 0.0
        self._both: NDArray[np.int64] = np.zeros(0, np.int64)
        self._either: NDArray[np.int64] = np.zeros(0, np.int64)

    def update(self, reference: Segmentation, candidate: Segmentation) -> None:
        """Take the two results of one image, masks of one shape."""
        self._images += 1
        of_reference, of_candidate, both = pixel_counts(reference, candidate)
        self._shares += float(both.sum()) / max(reference.mask.size, 1)
        self._both = add_counts(self._both, both)
        self._either = add_counts(self._either, of_reference + of_candidate - both)

    def agreement(self) -> Agreement:
        """Details: ``mean_iou`` over the classes that either model found on any image."""
        present = self._either > 0
        overlaps = self._both[present] / self._either[present]
        return Agreement(
            self.metric,
            self._images,
            _share(self._shares, self._images),
            details={
                "mean_iou": _share(float(overlaps.sum()), overlaps.size),
                "classes": int(present.sum()),
            },
        )


class KeypointAgreement:
    """F1 of the seen keypoints.

    A keypoint is seen when its confidence reaches the result's ``threshold``. One that both see
    matches when the two places are within ``KEYPOINT_RADIUS`` of the image's longer side. Poses
    are paired nearest first, by the mean distance of their keypoints.
    """

    metric = "keypoint_f1"

    def __init__(self) -> None:
        self._images = 0
        self._references = 0
        self._candidates = 0
        self._matched = 0
        self._both = 0
        self._shift = 0.0

    def update(self, reference: Keypoints, candidate: Keypoints) -> None:
        """Take the two results of one image."""
        self._images += 1
        a, b = reference.keypoints, candidate.keypoints
        seen_a, seen_b = a[..., 2] >= reference.threshold, b[..., 2] >= candidate.threshold
        self._references += int(seen_a.sum())
        self._candidates += int(seen_b.sum())
        for i, j, shifts in pair_poses(reference, candidate):
            both = seen_a[i] & seen_b[j]
            self._both += int(both.sum())
            self._shift += float(shifts[both].sum())
            self._matched += int((shifts[both] <= KEYPOINT_RADIUS).sum())

    def agreement(self) -> Agreement:
        """Details: counts, and ``mean_shift`` of keypoints both see, as a share of the side."""
        return Agreement(
            self.metric,
            self._images,
            _share(2 * self._matched, self._references + self._candidates),
            details={
                "mean_shift": _mean(self._shift, self._both),
                "keypoints_reference": self._references,
                "keypoints_candidate": self._candidates,
                "keypoints_matched": self._matched,
            },
        )


class OutputCosine:
    """Mean cosine of raw float outputs: over the outputs of an image, then over images.

    Two outputs that are all zeros have cosine 1; a candidate with NaN or infinity has 0, as
    one of another shape (of models that choose how many boxes there are).
    ``broken`` counts the images on which only the candidate gives NaN or infinity.
    """

    def __init__(self) -> None:
        self._images = 0
        self._sum = 0.0
        self.broken = 0

    def update(
        self, reference: Mapping[str, NDArray[Any]], candidate: Mapping[str, NDArray[Any]]
    ) -> None:
        """Take the outputs of one image, by name."""
        cosines = []
        is_broken = False
        for name, array in reference.items():
            if array.dtype.kind != "f":
                continue
            other = candidate[name]
            is_finite = bool(np.isfinite(other).all())
            is_broken |= not is_finite and bool(np.isfinite(array).all())
            comparable = is_finite and array.shape == other.shape
            cosines.append(cosine(array, other) if comparable else 0.0)
        self.broken += is_broken
        if cosines:
            self._images += 1
            self._sum += sum(cosines) / len(cosines)

    def mean(self) -> float | None:
        """The mean; None where no float output was seen."""
        return self._sum / self._images if self._images else None


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine of the angle between two arrays, in float64. Two zero arrays have 1, one has 0."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    if norms == 0.0:
        return float(not x.any() and not y.any())
    return float(np.clip(float(x @ y) / norms, -1.0, 1.0))


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


def pixel_counts(
    reference: Segmentation, candidate: Segmentation
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels by class id of the reference, of the candidate, and where both say that class.

    Args:
        reference, candidate: with masks of one shape.
    """
    a, b = reference.mask.ravel(), candidate.mask.ravel()
    classes = max(int(a.max(initial=0)), int(b.max(initial=0))) + 1
    of_a, of_b, both = (np.bincount(ids, minlength=classes) for ids in (a, b, a[a == b]))
    return of_a, of_b, both


def add_counts(total: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two vectors by class id, of which either may be the longer one."""
    out: NDArray[np.int64] = np.zeros(max(len(total), len(counts)), np.int64)
    out[: len(total)] += total
    out[: len(counts)] += counts
    return out


def pair_poses(
    reference: Keypoints, candidate: Keypoints
) -> list[tuple[int, int, NDArray[np.floating]]]:
    """Pairs as ``(reference pose, candidate pose, shifts)``; see :class:`KeypointAgreement`.

    ``shifts`` [K] are distances of the keypoints as shares of the image's longer side.
    """
    a, b = reference.keypoints, candidate.keypoints
    if not len(a) or not len(b):
        return []
    shifts = np.linalg.norm(a[:, None, :, :2] - b[None, :, :, :2], axis=-1)
    shifts = shifts / max(reference.image_hw)
    return [(i, j, shifts[i, j]) for i, j in _pair_nearest(shifts.mean(axis=-1))]


def _pair_nearest(distances: NDArray[np.floating]) -> list[tuple[int, int]]:
    left = distances.copy()
    pairs = []
    for _ in range(min(left.shape)):
        i, j = (int(k) for k in np.unravel_index(int(np.argmin(left)), left.shape))
        pairs.append((i, j))
        left[i, :] = np.inf
        left[:, j] = np.inf
    return pairs


def _share(part: float, whole: float) -> float:
    """A share; 1 of nothing, as nothing differs."""
    return float(part) / whole if whole else 1.0


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0
