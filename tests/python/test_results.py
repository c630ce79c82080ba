"""Result objects: words, tables, JSON, COCO, supervision and pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import CHELSEA

from visionrt import image_io
from visionrt.errors import InputDataError, MissingDependencyError
from visionrt.results import Classification, Detections, ImageRef, Keypoints, Result, Segmentation
from visionrt.results.base import run_lengths

RNG = np.random.default_rng(11)
SCENE = RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)
NAMES = ("background", "cat, house cat", "dog")


def classification() -> Classification:
    return Classification(
        image_hw=(120, 160),
        names=NAMES,
        speed={"preprocess": 1.0, "inference": 2.5},
        class_id=np.array([2, 1], np.int32),
        confidence=np.array([0.75, 0.25], np.float32),
        logits=np.zeros(3, np.float32),
    )


def detections(count: int = 3, *, mask: bool = False) -> Detections:
    boxes = np.array([[10, 20, 50, 60], [0, 0, 160, 120], [150, 110, 160, 120]], np.float32)
    return Detections(
        image_hw=(120, 160),
        names=NAMES,
        xyxy=boxes[:count],
        confidence=np.array([0.9, 0.8, 0.5], np.float32)[:count],
        class_id=np.array([1, 2, 7], np.int32)[:count],
        mask=RNG.random((count, 120, 160)) > 0.5 if mask else None,
        data={"track": np.arange(count)},
    )


def segmentation() -> Segmentation:
    mask = np.zeros((120, 160), np.uint8)
    mask[20:70, 30:90] = 2
    mask[0, 0] = 1
    confidence = np.where(mask == 2, 0.75, 0.5).astype(np.float32)
    return Segmentation(image_hw=(120, 160), names=NAMES, mask=mask, confidence=confidence)


def keypoints(count: int = 1) -> Keypoints:
    points = np.array([[10, 20, 0.75], [80, 90, 0.5], [159, 119, 0.25]], np.float32)
    return Keypoints(
        image_hw=(120, 160),
        names=("nose", "left eye", "right eye"),
        keypoints=np.repeat(points[None], count, 0),
        skeleton=((0, 1), (1, 2)),
        threshold=0.4,
    )


ALL: list[Result] = [
    classification(),
    detections(),
    detections(0),
    detections(mask=True),
    segmentation(),
    keypoints(),
    keypoints(0),
    keypoints(2),
]


def test_words() -> None:
    text = str(classification())
    assert text == "160x120: dog 0.750, cat, house cat 0.250 (3.5 ms)"
    assert repr(classification()) == f"<Classification {text}>"
    assert str(detections()) == "160x120: 1 cat, house cat, 1 dog, 1 7"
    assert str(detections(0)) == "160x120: nothing found"
    assert "dog 15.6%" in str(segmentation())
    assert str(keypoints()) == "160x120: 1 pose (2 of 3 keypoints)"
    assert str(keypoints(0)) == "160x120: 0 poses"
    named = classification()
    named.source = ImageRef("folder/coffee.png", "bgr")
    assert str(named).startswith("coffee.png 160x120: dog")


@pytest.mark.parametrize("result", ALL, ids=lambda r: f"{type(r).__name__}")
def test_json_tables_and_pictures_of_every_task(result: Result) -> None:
    body = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert body["image"] == {"height": 120, "width": 160}
    assert set(body["speed_ms"]) == set(result.speed)
    for row in result.rows():
        assert all(isinstance(v, (str, int, float)) for v in row.values())
    json.dumps(result.to_coco(3))
    before = SCENE.copy()
    picture = result.plot(SCENE)
    np.testing.assert_array_equal(SCENE, before)
    assert picture.shape == SCENE.shape
    assert picture.dtype == np.uint8
    changed = (picture != SCENE).any()
    assert changed == bool(result.rows())


def test_rows() -> None:
    assert classification().rows()[0] == {"class_id": 2, "name": "dog", "confidence": 0.75}
    assert detections().rows()[2] == {
        "class_id": 7,
        "name": "7",
        "confidence": 0.5,
        "x0": 150.0,
        "y0": 110.0,
        "x1": 160.0,
        "y1": 120.0,
    }
    shares = {row["class_id"]: row["share"] for row in segmentation().rows()}
    assert shares == {0: 16199 / 19200, 2: 3000 / 19200, 1: 1 / 19200}
    assert list(shares) == [0, 2, 1]
    assert keypoints(2).rows()[4]["pose"] == 1
    assert keypoints().to_json()["poses"][0]["keypoints"][0]["name"] == "nose"


def test_detections_index_and_iterate() -> None:
    found = detections(mask=True)
    assert len(found[0]) == len(found[-1]) == 1
    assert found[-1].class_id.tolist() == [7]
    assert found[[True, False, True]].class_id.tolist() == [1, 7]
    assert found[np.array([2, 0])].data["track"].tolist() == [2, 0]
    assert found[1:].mask is not None
    assert found[found.confidence > 0.6].xyxy.shape == (2, 4)
    assert len(found[3:]) == 0
    for index in (3, -4):
        with pytest.raises(IndexError):
            found[index]
    xyxy, mask, confidence, class_id, name = next(iter(found))
    assert xyxy.tolist() == [10, 20, 50, 60]
    assert mask is not None
    assert (class_id, name) == (1, "cat, house cat")
    assert confidence == pytest.approx(0.9)


def decoded_rle(rle: dict[str, Any]) -> np.ndarray:
    """COCO's uncompressed RLE, by its definition."""
    height, width = rle["size"]
    values = [i % 2 for i, n in enumerate(rle["counts"]) for _ in range(n)]
    return np.array(values, bool).reshape((height, width), order="F")


@pytest.mark.parametrize("fill", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 7)])
def test_run_lengths(shape: tuple[int, int], fill: float) -> None:
    for _ in range(20):
        mask = RNG.random(shape) < fill
        rle = run_lengths(mask)
        np.testing.assert_array_equal(decoded_rle(rle), mask)
        assert 0 not in rle["counts"][1:]


def test_coco_entries() -> None:
    box = detections(mask=True).to_coco(42, category_ids=[0, 17, 18, 0, 0, 0, 0, 90])[0]
    assert box["bbox"] == [10, 20, 40, 40]
    assert (box["image_id"], box["category_id"]) == (42, 17)
    assert decoded_rle(box["segmentation"]).shape == (120, 160)
    assert detections().to_coco(42)[2]["category_id"] == 7
    with pytest.raises(InputDataError, match="category id"):
        detections().to_coco(42, category_ids=[1, 2, 3])
    segments = segmentation().to_coco(1)
    assert [s["category_id"] for s in segments] == [0, 2, 1]
    assert segments[1]["score"] == 0.75
    np.testing.assert_array_equal(
        decoded_rle(segments[1]["segmentation"]), segmentation().mask == 2
    )
    (pose,) = keypoints().to_coco(1)
    assert pose["keypoints"] == [10, 20, 1, 80, 90, 1, 159, 119, 1]
    assert (pose["score"], pose["category_id"]) == (0.5, 1)


def test_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    out = detections(mask=True).to_supervision()
    assert isinstance(out, supervision.Detections)
    assert out["class_name"].tolist() == ["cat, house cat", "dog", "7"]
    assert out["track"].tolist() == [0, 1, 2]
    assert out.class_id.tolist() == [1, 2, 7]
    assert len(detections(0).to_supervision()) == 0


def test_supervision_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match="pip install supervision"):
        detections().to_supervision()


def test_plot_uses_the_image_of_the_call(tmp_path: Path) -> None:
    result = classification()
    with pytest.raises(InputDataError, match="plot"):
        result.plot()
    with pytest.raises(InputDataError, match="160x120"):
        result.plot(SCENE[:50])
    bgr = result.plot(SCENE)
    result.source = ImageRef(np.ascontiguousarray(SCENE[..., ::-1]), "rgb")
    np.testing.assert_array_equal(result.plot(), bgr)
    result.save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_io.decode(tmp_path / "a.png"), bgr)
    path = tmp_path / "gone.png"
    result.source = ImageRef(path, "bgr")
    with pytest.raises(InputDataError, match=r"gone\.png"):
        result.plot()


def test_boxes_are_where_they_should_be() -> None:
    grey = np.full((240, 320, 3), 128, np.uint8)
    found = Detections(
        image_hw=(240, 320),
        xyxy=np.array([[100, 100, 200, 180]], np.float32),
        confidence=np.array([0.9], np.float32),
        class_id=np.array([1], np.int32),
    )
    changed = (found.plot(grey) != 128).any(axis=2)
    assert changed[100, 100:200].all()
    assert changed[179, 100:200].all()
    assert changed[100:180, 100].all()
    assert changed[100:180, 199].all()
    assert not changed[110:170, 110:190].any()
    assert not changed[180:].any()
    assert not changed[:, 200:].any()


def test_masks_tint_their_pixels_only() -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)
    found = segmentation()
    # Class 1 is one pixel in the corner, under the legend.
    changed = (found.plot(grey) != 128).any(axis=2)
    assert changed[60:70, 30:90].all()
    assert not changed[71:].any()
    assert not changed[60:, 91:].any()
    named = segmentation()
    named.names = ("road", "car", "dog")
    assert (named.plot(grey) != 128).any(axis=2).all()


def test_poses_draw_seen_points_only() -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)
    changed = (keypoints().plot(grey) != 128).any(axis=2)
    assert changed[20, 10]
    assert changed[90, 80]
    assert changed[55, 45]
    assert not changed[115:, 150:].any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 5000), (5000, 1), (30, 40), (2000, 1500)])
def test_pictures_of_any_size(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    height, width = shape
    long = "a very long class name that cannot fit into a small picture at all"
    box = np.array([[0, 0, width, height], [width / 2, height / 2, width, height]], np.float32)
    everything: list[Result] = [
        Detections(
            image_hw=shape,
            names=(long, ""),
            xyxy=box,
            confidence=np.ones(2, np.float32),
            class_id=np.array([0, 1], np.int32),
        ),
        Classification(
            image_hw=shape,
            names=(long,) * 30,
            class_id=np.arange(30, dtype=np.int32),
            confidence=np.ones(30, np.float32),
            logits=np.ones(30, np.float32),
        ),
        Segmentation(
            image_hw=shape,
            names=("background", long),
            mask=np.ones(shape, np.uint8),
            confidence=np.ones(shape, np.float32),
        ),
        Keypoints(
            image_hw=shape,
            keypoints=np.array([[[0, 0, 1], [width, height, 1]]], np.float32),
            skeleton=((0, 1),),
        ),
    ]
    for result in everything:
        picture = result.plot(image)
        assert picture.shape == image.shape
        assert min(shape) < 30 or (picture != image).any()


def test_labels_stay_inside_and_apart() -> None:
    from visionrt.plot_canvas import Canvas

    canvas = Canvas(np.zeros((200, 300, 3), np.uint8))
    for rect in ((0, 0, 40, 40), (1, 1, 40, 40), (280, 180, 299, 199), (290, 0, 300, 9)):
        canvas.label(rect, "person 0.99", (255, 0, 0))
    places = canvas._labels
    for x0, y0, x1, y1 in places:
        assert 0 <= x0 < x1 < 300
        assert 0 <= y0 < y1 < 200
    for i, a in enumerate(places):
        for b in places[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_class_colors_of_neighbours_differ() -> None:
    from visionrt.plot_canvas import class_color, text_color

    colors = np.array([class_color(i) for i in range(91)], int)
    gaps = np.abs(colors[1:] - colors[:-1]).sum(axis=1)
    assert gaps.min() > 100
    assert text_color((255, 255, 255)) != text_color((0, 0, 0))


def test_a_file_is_decoded_again_for_its_picture() -> None:
    pixels = image_io.decode(CHELSEA)
    result = Classification(
        image_hw=(pixels.shape[0], pixels.shape[1]),
        source=ImageRef(CHELSEA, "rgb"),
        class_id=np.zeros(0, np.int32),
        confidence=np.zeros(0, np.float32),
        logits=np.zeros(0, np.float32),
    )
    np.testing.assert_array_equal(result.plot(), pixels)
