"""NMS of rotated boxes against polygons clipped in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rotated_reference as reference

from visionrt import _core

F32 = np.float32
Array = np.ndarray[Any, Any]


def nms(boxes: Array, scores: Array, ids: Array | None, iou: float, max_det: int = 300) -> Any:
    upright, angles = np.ascontiguousarray(boxes[:, :4]), np.ascontiguousarray(boxes[:, 4])
    return _core.nms_rotated(upright, angles, scores, ids, iou, max_det).tolist()


def rounding(a: Array, b: Array) -> Array:
    """What float32 may be off by: some 64 roundings of areas up to the extent of both, squared."""
    extent = np.abs(a[:, :4] - b[:, [0, 1, 0, 1]]).max(axis=1) + np.abs(b[:, 2:4] - b[:, :2]).max(1)
    # Coordinates up to 250 were rounded before their difference was taken.
    return 64 * 2.0**-24 * (extent**2 + 250 * extent)


@pytest.mark.parametrize("seed", range(3))
def test_shared_areas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = reference.random_boxes(rng, 700), reference.random_boxes(rng, 700)
    b[:300] = a[:300] + rng.choice([0, 1e-6, 0.5, 7], (300, 1)) * rng.normal(size=(300, 5))
    got = _core.rotated_shared_areas(a, b)
    expected = np.array([reference.shared_area(*pair) for pair in zip(a, b, strict=True)])
    assert (np.abs(got - expected) <= rounding(a, b)).all()
    assert (expected > 1).sum() > 250


def test_areas_known_by_hand() -> None:
    square = [-1, -1, 1, 1]
    octagon = 8 * (np.sqrt(2) - 1)  # a square and the same one turned by 45 degrees
    cases = [
        (square, 0, square, np.pi / 4, octagon),
        (square, 0.3, square, 0.3 + np.pi / 2, 4),
        (square, 0, [0, -1, 2, 1], 0, 2),
        (square, 0, [1, -1, 3, 1], 0, 0),  # side by side
        ([-5, -1, 5, 1], 0, [-5, -1, 5, 1], np.pi / 2, 4),  # a cross
        (square, 0, [0, 0, 0, 5], 0.2, 0),  # no width
        (square, 0, [3, 3, -3, -3], 0, 0),  # reversed
        ([-9, -9, 9, 9], 1.0, square, 0, 4),  # inside
    ]
    for a, angle_a, b, angle_b, area in cases:
        pair = [np.array([[*box, angle]], F32) for box, angle in ((a, angle_a), (b, angle_b))]
        for first, second in (pair, pair[::-1]):
            got = _core.rotated_shared_areas(first, second)
            np.testing.assert_allclose(got, [area], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept = dropped = 0
    for _ in range(25):
        n = int(rng.choice([1, 2, 7, 40]))
        boxes, scores = reference.random_boxes(rng, n), rng.random(n).astype(F32)
        ids = rng.integers(0, 2, n).astype(np.int32) if rng.random() < 0.5 else None
        threshold = float(rng.choice([0.1, 0.3, 0.5, 0.8]))
        expected = reference.nms(boxes, scores, ids, threshold)
        assert nms(boxes, scores, ids, threshold) == expected
        kept, dropped = kept + len(expected), dropped + n - len(expected)
    assert min(kept, dropped) > 80


def test_ties_bad_values_and_limits() -> None:
    boxes = np.array([[0, 0, 10, 4, 0.5]] * 6, F32)
    scores = np.array([0.5, 0.9, 0.9, np.nan, 0.4, 0.3], F32)
    assert nms(boxes, scores, None, 0.5) == [1]
    assert nms(boxes, scores, None, 1.0) == [1, 2, 0, 4, 5]  # 1 suppresses nothing
    assert nms(boxes, scores, None, 1.0, 2) == [1, 2]
    boxes[1, 4], boxes[2, 4], boxes[0, 0], boxes[4, 4] = np.nan, np.inf, np.nan, 9000
    assert nms(boxes, scores, None, 0.5) == [5]
    assert nms(np.zeros((0, 5), F32), np.zeros(0, F32), None, 0.5) == []
    with pytest.raises(ValueError, match="iou_threshold"):
        nms(boxes, scores, None, 1.5)
    with pytest.raises(ValueError, match="angles"):
        _core.nms_rotated(boxes[:, :4].copy(), boxes[:2, 4].copy(), scores, None, 0.5, 3)
