"""Rotated boxes in float64: polygons clipped one by another; shares no code with the extension."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F32 = np.float32


def corners(box: Array) -> Array:
    """[4, 2] of an upright box and an angle (x1, y1, x2, y2, angle), turned about its centre."""
    x1, y1, x2, y2, angle = (float(v) for v in box)
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [(x2 - x1) / 2, (y2 - y1) / 2]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2]) + half @ turn


def polygon_area(points: Array) -> float:
    x, y = points.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def shared_area(a: Array, b: Array) -> float:
    """Sutherland and Hodgman (1974): the corners of a, cut by each side of b in turn."""
    points = list(corners(a))
    frame = corners(b)
    for start, end in zip(frame, np.roll(frame, -1, axis=0), strict=True):
        side = np.array([start[1] - end[1], end[0] - start[0]])  # points inwards
        distances = [float(side @ (p - start)) for p in points]
        kept = []
        for i, (point, d) in enumerate(zip(points, distances, strict=True)):
            before, d_before = points[i - 1], distances[i - 1]
            if (d >= 0) != (d_before >= 0):
                kept.append(before + (point - before) * (d_before / (d_before - d)))
            if d >= 0:
                kept.append(point)
        points = kept
        if len(points) < 3:
            return 0.0
    return polygon_area(np.array(points))


def iou(a: Array, b: Array) -> float:
    shared = shared_area(a, b)
    whole = polygon_area(corners(a)) + polygon_area(corners(b)) - shared
    return shared / whole if whole > 0 else 0.0


def nms(boxes: Array, scores: Array, ids: Array | None, threshold: float) -> list[int]:
    """Greedy, by score descending then index ascending."""
    kept: list[int] = []
    for i in np.lexsort((np.arange(len(scores)), -scores)).tolist():
        rivals = [k for k in kept if ids is None or ids[k] == ids[i]]
        if all(iou(boxes[k], boxes[i]) <= threshold for k in rivals):
            kept.append(i)
    return kept


def random_boxes(rng: np.random.Generator, count: int) -> Array:
    """Boxes in groups, of all angles, float32 [count, 5]; some are copies, some right angles."""
    groups = rng.uniform(0, 200, (max(1, count // 6), 2))
    centres = groups[rng.integers(0, len(groups), count)] + rng.normal(0, 6, (count, 2))
    half = rng.uniform(2, 40, (count, 2))
    angles = rng.uniform(-np.pi / 4, 3 * np.pi / 4, (count, 1))
    straight = rng.random(count) < 0.2
    angles[straight] = np.round(angles[straight] * 2) / 2 * np.pi / 2
    boxes = np.concatenate([centres - half, centres + half, angles], axis=1).astype(F32)
    copies = rng.random(count) < 0.1
    boxes[copies] = boxes[rng.integers(0, count, int(copies.sum()))]
    return boxes
