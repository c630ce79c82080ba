"""What changed in an image: hand-made results with known differences."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tiny_models import CLASSES

from trtconvert.diff.boxes import BoxDiff
from trtconvert.diff.change import Change, WorstImages, p95, some
from trtconvert.diff.classes import TopOneDiff
from trtconvert.diff.pictures import MOST_SIDE, save_side_by_side
from trtconvert.diff.pixels import PixelDiff
from trtconvert.diff.points import KeypointDiff
from visionrt.errors import UsageError
from visionrt.metrics import compare
from visionrt.results import Classification, Detections, Keypoints, Segmentation

HW = (100, 200)
NAMES = ("cat", "dog", "bus, coach", "cup")


def boxes(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.asarray(rows, np.float32).reshape(-1, 6)
    return Detections(
        image_hw=HW,
        names=NAMES,
        xyxy=table[:, :4],
        confidence=table[:, 4],
        class_id=table[:, 5].astype(np.int32),
    )


def classes(class_id=None, confidence=0.9):
    ids = [] if class_id is None else [class_id]
    return Classification(
        image_hw=HW,
        names=NAMES,
        class_id=np.int32(ids),
        confidence=np.full(len(ids), confidence, np.float32),
        logits=np.zeros(CLASSES, np.float32),
    )


def mask(rows):
    array = np.asarray(rows, np.uint8)
    ones = np.ones(array.shape, np.float32)
    return Segmentation(image_hw=array.shape, names=NAMES, mask=array, confidence=ones)


def poses(*points):
    array = np.asarray(points, np.float32).reshape(len(points), -1, 3)
    names = ("nose", "left eye", "right eye")
    return Keypoints(image_hw=HW, names=names, keypoints=array, threshold=0.3)


def by_name(table):
    return {row["name"]: row for row in table.classes()}


# boxes


def test_matched_lost_new_and_flipped_boxes():
    reference = boxes(
        [0, 0, 10, 10, 0.9, 0],  # matched, moved and less sure
        [50, 0, 60, 10, 0.8, 0],  # lost
        [0, 50, 10, 60, 0.7, 1],  # becomes a bus
    )
    candidate = boxes(
        [0, 0, 10, 8, 0.7, 0],
        [0, 50, 10, 60, 0.6, 2],
        [80, 80, 90, 90, 0.5, 3],  # new
    )
    table = BoxDiff()
    change = table.update(reference, candidate)
    assert change.answers == 3
    assert change.shift == pytest.approx(0.8)  # the lost box
    assert change.reason == "1 flipped (dog → bus); 1 lost (cat 0.80); 1 new (cup 0.50)"
    rows = by_name(table)
    assert list(rows) == ["cat", "dog", "bus", "cup"]
    cat = rows["cat"]
    assert (cat["reference"], cat["candidate"], cat["matched"], cat["lost"]) == (2, 1, 1, 1)
    assert cat["mean_iou"] == pytest.approx(0.8)
    assert cat["iou_shift_p95"] == pytest.approx(0.2)
    assert cat["score_shift"] == pytest.approx(-0.2)
    assert cat["score_shift_p95"] == pytest.approx(0.2)
    assert (rows["dog"]["flipped_from"], rows["dog"]["lost"]) == (1, 0)
    assert (rows["bus"]["flipped_to"], rows["bus"]["new"]) == (1, 0)
    assert rows["bus"]["mean_iou"] is None
    assert (rows["cup"]["new"], rows["cup"]["candidate"]) == (1, 1)
    want = {"from_id": 1, "from": "dog", "to_id": 2, "to": "bus", "count": 1}
    assert table.flips() == [want]


def test_a_flip_needs_half_the_area_and_a_free_box():
    half, less = boxes([0, 0, 10, 5, 0.9, 1]), boxes([0, 0, 10, 4.99, 0.9, 1])
    reference = boxes([0, 0, 10, 10, 0.9, 0])
    for candidate, flips in ((half, 1), (less, 0)):
        table = BoxDiff()
        table.update(reference, candidate)
        assert len(table.flips()) == flips
    # The cat is matched, so the dog in its place is new, not a flip.
    table = BoxDiff()
    table.update(reference, boxes([0, 0, 10, 10, 0.5, 0], [0, 0, 10, 10, 0.9, 1]))
    assert table.flips() == []
    assert by_name(table)["dog"]["new"] == 1


def test_equal_boxes_and_no_boxes_do_not_differ():
    some_boxes = boxes([0, 0, 10, 10, 0.9, 0])
    for result in (boxes(), some_boxes):
        change = BoxDiff().update(result, result)
        assert (change.answers, change.shift, change.reason) == (0, 0, "no difference")


def test_a_moved_box_is_named():
    change = BoxDiff().update(boxes([0, 0, 10, 10, 0.9, 0]), boxes([0, 0, 10, 6, 0.8, 0]))
    assert (change.answers, change.reason) == (0, "cat 0.90 → 0.80, IoU 0.60")
    assert change.shift == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(20))
def test_counts_add_up_and_agree_with_the_metric(seed):
    rng = np.random.default_rng(seed)

    def some_boxes():
        low = rng.integers(0, 4, (rng.integers(0, 12), 2)) * 5.0
        size = rng.integers(1, 4, low.shape) * 5.0
        rest = np.stack([rng.uniform(0.2, 1, len(low)), rng.integers(0, 3, len(low))], axis=1)
        return boxes(*np.concatenate([low, low + size, rest], axis=1))

    table, pairs = BoxDiff(), [(some_boxes(), some_boxes()) for _ in range(4)]
    for reference, candidate in pairs:
        table.update(reference, candidate)
    found = compare("detect", *zip(*pairs, strict=True)).details
    rows = table.classes()
    for row in rows:
        assert row["reference"] == row["matched"] + row["lost"] + row["flipped_from"]
        assert row["candidate"] == row["matched"] + row["new"] + row["flipped_to"]
    for key in ("reference", "candidate", "matched"):
        assert sum(row[key] for row in rows) == found[f"boxes_{key}"]
    flips = sum(row["count"] for row in table.flips())
    assert flips == sum(row["flipped_from"] for row in rows)
    assert flips == sum(row["flipped_to"] for row in rows)


# classes, pixels, keypoints


def test_flips_of_the_best_class():
    table = TopOneDiff()
    changes = [
        table.update(classes(0, 0.9), classes(0, 0.6)),
        table.update(classes(0, 0.8), classes(1, 0.5)),
        table.update(classes(0, 0.4), classes(1, 0.5)),
        table.update(classes(2, 0.7), classes()),
        table.update(classes(), classes()),
    ]
    assert [change.answers for change in changes] == [0, 1, 1, 1, 0]
    # A sure answer that flips is worse than a doubtful one.
    assert changes[1].shift > changes[2].shift
    assert changes[0].reason == "cat 0.900 → 0.600"
    assert changes[1].reason == "cat 0.800 → dog 0.500"
    rows = by_name(table)
    assert (rows["cat"]["reference"], rows["cat"]["candidate"], rows["cat"]["same"]) == (3, 1, 1)
    assert rows["cat"]["score_shift"] == pytest.approx(-0.3)
    assert rows["dog"]["score_shift"] is None
    assert [(f["from"], f["to"], f["count"]) for f in table.flips()] == [
        ("cat", "dog", 2),
        ("bus", "(none)", 1),
    ]


def test_iou_of_each_class():
    table = PixelDiff()
    first = table.update(mask([[0, 0, 1, 1]]), mask([[0, 1, 1, 1]]))
    table.update(mask([[0, 0]]), mask([[0, 3]]))  # a class that comes late
    assert first.answers == pytest.approx(0.25)
    assert first.reason == "25.00% of pixels; IoU of cat 0.500"
    rows = by_name(table)
    assert rows["cat"]["iou"] == pytest.approx(2 / 4)
    assert rows["dog"]["iou"] == pytest.approx(2 / 3)
    assert rows["cup"] == {
        "class_id": 3,
        "name": "cup",
        "reference": 0,
        "candidate": 1,
        "both": 0,
        "iou": 0.0,
    }
    assert PixelDiff().update(mask([[1]]), mask([[1]])).answers == 0


def test_keypoints_lost_new_and_moved():
    # 5 % of 200 pixels is 10.
    reference = poses([[50, 50, 0.9], [80, 50, 0.9], [10, 10, 0.1]])
    candidate = poses([[61, 50, 0.8], [80, 50, 0.2], [10, 10, 0.5]])
    table = KeypointDiff()
    change = table.update(reference, candidate)
    assert change.answers == 3
    assert change.shift == pytest.approx(11 / 200)
    assert change.reason == "nose moved 5.5% of the side; 1 lost (left eye); 1 new (right eye)"
    rows = by_name(table)
    assert (rows["nose"]["moved"], rows["nose"]["lost"]) == (1, 0)
    assert rows["nose"]["shift"] == pytest.approx(11 / 200)
    assert rows["nose"]["score_shift"] == pytest.approx(-0.1)
    assert (rows["left eye"]["lost"], rows["left eye"]["shift"]) == (1, None)
    assert (rows["right eye"]["new"], rows["right eye"]["reference"]) == (1, 0)


def test_a_pose_without_a_partner_is_lost_point_by_point():
    one, two = [[10, 10, 0.9]] * 3, [[150, 90, 0.9]] * 3
    table = KeypointDiff()
    assert table.update(poses(one, two), poses(two)).answers == 3
    assert [row["lost"] for row in table.classes()] == [1, 1, 1]
    empty = Keypoints(image_hw=HW, keypoints=np.zeros((0, 3, 3), np.float32))
    assert table.update(empty, poses(one)).answers == 3


def test_other_skeletons_are_refused():
    with pytest.raises(UsageError, match="same keypoints"):
        KeypointDiff().update(poses([[1, 1, 1]] * 3), poses([[1, 1, 1]] * 2))


# the worst images


def test_worst_images_by_answers_then_shift_then_order(tmp_path):
    worst = WorstImages(4)
    changes = {"a": (0, 0.0), "b": (0, 0.5), "c": (2, 0.1), "d": (1, 0.9), "e": (2, 0.1)}
    for name, (answers, shift) in changes.items():
        worst.add(tmp_path / name, Change(answers, shift, f"why {name}"))
    assert [path.name for path, _ in worst.listed()] == ["c", "e", "d", "b"]
    assert worst.listed()[0][1] == "why c"


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_no_more_than_the_limit_are_kept(limit, tmp_path):
    worst = WorstImages(limit)
    for index in range(5):
        worst.add(tmp_path / str(index), Change(index + 1, 0.0, ""))
    assert [path.name for path, _ in worst.listed()] == ["4", "3", "2"][:limit]


def test_small_figures():
    assert p95([]) is None
    assert p95([-3.0]) == 3.0
    assert some(["a"]) == "a"
    assert some(list("abcde")) == "a, b, c, and 2 more"


def test_the_picture_holds_both_halves_under_their_titles(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    box, nothing = boxes([10, 10, 50, 50, 0.9, 0]), boxes()
    box.image_hw = nothing.image_hw = (60, 90)
    save_side_by_side(
        tmp_path / "out.png", tmp_path / "image.png", [nothing, box], ["A: left", "B: right"]
    )
    drawn = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(drawn[-60:, :90], pixels)
    right = box.plot(tmp_path / "image.png")[..., ::-1]
    np.testing.assert_array_equal(drawn[-60:, -90:], right)
    strips = drawn[:-60, :90], drawn[:-60, -90:]
    assert all(strip.size and strip.min() < 100 for strip in strips)
    assert (strips[0] != strips[1]).any()


def test_large_pictures_are_scaled_down(tmp_path):
    Image.new("RGB", (3 * MOST_SIDE, 300)).save(tmp_path / "wide.png")
    result = boxes()
    result.image_hw = (300, 3 * MOST_SIDE)
    save_side_by_side(tmp_path / "out.png", tmp_path / "wide.png", [result] * 2, "AB")
    width, height = Image.open(tmp_path / "out.png").size
    assert 2 * MOST_SIDE <= width <= 2 * MOST_SIDE + 20
    assert 100 <= height <= 150
