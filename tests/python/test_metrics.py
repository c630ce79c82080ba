"""Agreement of results: hand-made cases with known figures, awkward ones first."""

from __future__ import annotations

import numpy as np
import pytest

from visionrt.errors import UsageError
from visionrt.metrics import (
    OutputCosine,
    accumulator_for,
    box_iou,
    compare,
    cosine,
    match_boxes,
)
from visionrt.results import Classification, Detections, Keypoints, Segmentation

HW = (100, 200)


def classes(*ids, confidence=0.9):
    return Classification(
        image_hw=HW,
        class_id=np.int32(ids),
        confidence=np.full(len(ids), confidence, np.float32),
        logits=np.zeros(10, np.float32),
    )


def boxes(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.asarray(rows, np.float32).reshape(-1, 6)
    return Detections(
        image_hw=HW,
        xyxy=table[:, :4],
        confidence=table[:, 4],
        class_id=table[:, 5].astype(np.int32),
    )


def mask(rows):
    array = np.asarray(rows, np.uint8)
    return Segmentation(
        image_hw=array.shape, mask=array, confidence=np.ones(array.shape, np.float32)
    )


def poses(*points):
    array = np.asarray(points, np.float32).reshape(len(points), -1, 3)
    return Keypoints(image_hw=HW, keypoints=array, threshold=0.3)


def test_nothing_to_compare_agrees():
    for task in ("classify", "detect", "segment", "keypoints"):
        found = compare(task, [], [])
        assert (found.images, found.agreement, found.cosine) == (0, 1.0, None)


def test_an_unknown_task_and_lists_of_different_length_are_refused():
    with pytest.raises(UsageError, match="classify"):
        accumulator_for("dream")
    with pytest.raises(ValueError, match="shorter"):
        compare("classify", [classes(1)], [])


def test_top1_is_the_share_of_same_best_classes():
    references = [classes(1, 2), classes(3), classes(), classes(4)]
    candidates = [classes(1, 9), classes(2, 3), classes(), classes()]
    found = compare("classify", references, candidates)
    assert (found.metric, found.images, found.agreement) == ("top1", 4, 0.25)
    assert found.details["same"] == 1
    assert found.to_json()["agreement"] == 0.25


def test_confidence_shift_is_the_mean_change_of_the_best_score():
    found = compare("classify", [classes(1), classes(2)], [classes(1, confidence=0.5)] * 2)
    assert found.details["confidence_shift"] == pytest.approx(0.4)


def test_iou_by_hand():
    a = np.float32([[0, 0, 10, 10], [5, 5, 5, 9], [0, 0, 1e6, 1e6]])
    b = np.float32([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 5, 9]])
    want = [[50 / 150, 1, 0, 0], [0, 0, 0, 0], [1e-10, 1e-10, 1e-10, 0]]
    np.testing.assert_allclose(box_iou(a, b), want, rtol=1e-9)


def test_a_match_at_exactly_half_counts_and_below_does_not():
    reference = boxes([0, 0, 10, 10, 0.9, 1])
    half = boxes([0, 0, 10, 5, 0.9, 1])
    less = boxes([0, 0, 10, 4.99, 0.9, 1])
    assert match_boxes(reference, half) == [(0, 0, 0.5)]
    assert match_boxes(reference, less) == []


def test_boxes_of_other_classes_match_on_request():
    reference = boxes([0, 0, 10, 10, 0.9, 1], [0, 0, 10, 8, 0.9, 2])
    candidate = boxes([0, 0, 10, 9, 0.5, 3])
    assert match_boxes(reference, candidate) == []
    assert match_boxes(reference, candidate, any_class=True) == [(0, 0, pytest.approx(0.9))]


def test_boxes_match_once_within_a_class_best_score_first():
    reference = boxes([0, 0, 10, 10, 0.9, 1], [50, 50, 60, 60, 0.8, 2])
    candidate = boxes(
        [0, 0, 10, 9, 0.5, 1],  # as good, but a lower score than the next
        [0, 0, 10, 8, 0.7, 1],
        [50, 50, 60, 60, 0.6, 3],  # another class
    )
    assert [m[:2] for m in match_boxes(reference, candidate)] == [(1, 0)]
    found = compare("detect", [reference], [candidate])
    assert found.agreement == pytest.approx(2 / 5)
    assert found.details["precision"] == pytest.approx(1 / 3)
    assert found.details["recall"] == pytest.approx(1 / 2)
    assert found.details["mean_iou"] == pytest.approx(0.8)
    assert found.details["score_shift"] == pytest.approx(-0.2)


def test_no_boxes_on_either_side():
    some = boxes([0, 0, 10, 10, 0.9, 1])
    assert compare("detect", [boxes()], [boxes()]).agreement == 1.0
    assert compare("detect", [boxes()], [some]).agreement == 0.0
    assert compare("detect", [some], [boxes()]).agreement == 0.0


def test_f1_pools_boxes_over_images():
    one, two = boxes([0, 0, 10, 10, 0.9, 1]), boxes([0, 0, 9, 9, 0.9, 1], [40, 0, 50, 9, 0.9, 1])
    found = compare("detect", [one, two], [one, boxes()])
    assert found.agreement == pytest.approx(2 * 1 / (3 + 1))


def test_pixels_and_mean_iou():
    found = compare("segment", [mask([[0, 0, 1, 2]])], [mask([[0, 1, 1, 0]])])
    assert found.agreement == 0.5
    # Class 0: 1 of 3; class 1: 1 of 2; class 2: 0 of 1.
    assert found.details["mean_iou"] == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert found.details["classes"] == 3


def test_every_image_counts_the_same_whatever_its_size():
    small, large = mask([[0]]), mask(np.zeros((50, 50)))
    other = mask(np.ones((50, 50)))
    assert compare("segment", [small, large], [small, other]).agreement == 0.5


def test_keypoints_within_five_percent_of_the_longer_side():
    # 5 % of 200 pixels is 10.
    reference = poses([[50, 50, 0.9], [80, 50, 0.9], [90, 90, 0.9], [10, 10, 0.1]])
    candidate = poses([[60, 50, 0.9], [80, 61, 0.9], [90, 90, 0.2], [10, 10, 0.1]])
    found = compare("keypoints", [reference], [candidate])
    # Seen: 3 and 2; both see two of them; one of those is near enough.
    assert found.details["keypoints_matched"] == 1
    assert found.agreement == pytest.approx(2 * 1 / (3 + 2))
    assert found.details["mean_shift"] == pytest.approx((10 + 11) / 2 / 200)


def test_poses_pair_with_the_nearest():
    left, right = [[10, 10, 0.9]], [[150, 10, 0.9]]
    found = compare("keypoints", [poses(left, right)], [poses(right, left)])
    assert found.agreement == 1.0
    empty = Keypoints(image_hw=HW, keypoints=np.zeros((0, 1, 3), np.float32))
    assert compare("keypoints", [poses(left)], [empty]).agreement == 0.0
    assert compare("keypoints", [empty], [empty]).agreement == 1.0


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ([1, 0], [0, 1], 0),
        ([1, 1], [-2, -2], -1),
        ([0, 0], [0, 0], 1),
        ([0, 0], [1, 0], 0),
        ([3e38, 3e38], [1e-30, 1e-30], 1),
    ],
)
def test_cosine(a, b, want):
    assert cosine(np.float32(a), np.float32(b)) == pytest.approx(want, abs=1e-12)


def test_output_cosine_averages_outputs_then_images():
    total = OutputCosine()
    assert total.mean() is None
    one, up = np.float32([1, 0]), np.float32([0, 1])
    ids = np.int64([5])
    total.update({"a": one, "b": one, "i": ids}, {"a": one, "b": up, "i": ids})
    assert total.mean() == pytest.approx(0.5)
    total.update({"a": one, "b": one}, {"a": one, "b": np.float32([np.nan, 0])})
    assert total.mean() == pytest.approx(0.5)
    assert total.broken == 1


def test_outputs_of_another_shape_have_no_likeness() -> None:
    total = OutputCosine()
    total.update({"y": np.ones((3, 4), np.float32)}, {"y": np.ones((2, 4), np.float32)})
    assert total.mean() == 0
    assert total.broken == 0
