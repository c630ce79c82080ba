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

from collections.abc import Iterable, Sequence
from typing import Any

from visionrt.errors import UsageError
from visionrt.metrics.base import Accumulator, Agreement
from visionrt.metrics.boxes import (
    BOX_IOU,
    BoxAgreement,
    MaskAgreement,
    RotatedAgreement,
    box_iou,
    match_boxes,
)
from visionrt.metrics.classification import TopOneAgreement
from visionrt.metrics.cosine import OutputCosine, cosine
from visionrt.metrics.keypoints import KEYPOINT_RADIUS, KeypointAgreement, pair_poses
from visionrt.metrics.pixels import PixelAgreement, add_counts, pixel_counts
from visionrt.results import Result

__all__ = [
    "BOX_IOU",
    "KEYPOINT_RADIUS",
    "Accumulator",
    "Agreement",
    "BoxAgreement",
    "KeypointAgreement",
    "MaskAgreement",
    "OutputCosine",
    "PixelAgreement",
    "RotatedAgreement",
    "TopOneAgreement",
    "accumulator_for",
    "add_counts",
    "box_iou",
    "compare",
    "cosine",
    "match_boxes",
    "pair_poses",
    "pixel_counts",
]


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
