"""Decoding and NMS against OpenCV and NumPy."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from harness import OURS, Case
from other_python import torchvision_call
from visionrt import _core
from visionrt.nms import nms

CLASSES = 80


def clustered_boxes(
    count: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Boxes in clusters of about ten of one class, as a detector gives them."""
    rng = np.random.default_rng(count)
    clusters = max(1, count // 10)
    owner = rng.integers(0, clusters, count)
    centre = rng.uniform(0, 640, (clusters, 2))[owner] + rng.normal(0, 4, (count, 2))
    size = rng.uniform(16, 128, (clusters, 2))[owner] * rng.uniform(0.9, 1.1, (count, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    class_ids = rng.integers(0, CLASSES, clusters)[owner]
    scores = rng.uniform(0.25, 1, count)
    return boxes.astype(np.float32), scores.astype(np.float32), class_ids.astype(np.int32)


def head_output() -> NDArray[np.float32]:
    """A raw [1, 84, 8400] head in which 1 % of the anchors pass 0.25."""
    rng = np.random.default_rng(0)
    out = np.empty((84, 8400), np.float32)
    out[:4] = rng.uniform(10, 630, (4, 8400))
    out[4:] = rng.uniform(0, 0.2, (80, 8400))
    hot = rng.choice(8400, 84, replace=False)
    out[4 + rng.integers(0, 80, 84), hot] = rng.uniform(0.3, 1, 84)
    return out[None]


def classes_first_decode(output: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """In Ultralytics' order: the best score of each anchor as it lies, corners, and then the rest.

    Only anchors above the threshold are transposed and asked for their class.
    """
    is_candidate = output[0, 4:].max(0) > 0.25
    xy, wh = output[0, :2], output[0, 2:4] / 2
    corners = np.concatenate([xy - wh, xy + wh])
    rows = output[0, 4:, is_candidate]
    class_ids = rows.argmax(1)
    scores = rows[np.arange(len(rows)), class_ids]
    return corners.T[is_candidate], scores, class_ids


def numpy_decode(output: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """The shorter script: transpose, best class, threshold, corners."""
    rows = output[0].T
    class_ids = rows[:, 4:].argmax(1)
    scores = rows[np.arange(len(rows)), 4 + class_ids]
    keep = scores > 0.25
    xy, wh = rows[keep, :2], rows[keep, 2:4] / 2
    return np.concatenate([xy - wh, xy + wh], axis=1), scores[keep], class_ids[keep]


def nms_case(count: int) -> Case:
    """NMS of clustered boxes; OpenCV takes corner and size."""
    boxes, scores, class_ids = clustered_boxes(count)
    xywh = boxes.copy()
    xywh[:, 2:] -= xywh[:, :2]
    return Case(
        f"NMS, {count} clustered boxes of {CLASSES} classes",
        {
            OURS: lambda: nms(boxes, scores, class_ids, iou_threshold=0.45, max_det=300),
            "cv2.dnn.NMSBoxesBatched": lambda: cv2.dnn.NMSBoxesBatched(
                xywh, scores, class_ids, 0.0, 0.45
            ),
            **torchvision_call(
                "ops.batched_nms",
                boxes=boxes,
                scores=scores,
                class_ids=class_ids,
                iou=np.array(0.45),
            ),
        },
        targets={"cv2.dnn.NMSBoxesBatched": 10, "torchvision.ops.batched_nms": 5},
        floor=lambda: np.argsort(-scores),  # the walk needs the order
    )


def cases() -> list[Case]:
    """Every case of this stage; one thread each."""
    cv2.setNumThreads(1)
    output = head_output()
    return [
        Case(
            "decode 84×8400, 1 % above 0.25",
            {
                OURS: lambda: _core.decode_yolo(output[0], "v8", CLASSES, 0.25),
                "NumPy": lambda: numpy_decode(output),
                "NumPy as Ultralytics": lambda: classes_first_decode(output),
            },
            targets={"NumPy": 20, "NumPy as Ultralytics": 20},
            floor=output.max,  # every score is read once
            why="every one of the 672,000 scores has to be read",
            tried="one pass in vectors over the scores as they lie, with no transposed copy",
        ),
        *(nms_case(count) for count in (300, 2_000, 10_000)),
    ]
