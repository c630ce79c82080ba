"""The ``yolo`` and ``yolox`` heads on outputs made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from head_calls import SIZE, decode, frame_of, letterboxed, recipe_of

from visionrt.heads import Frame
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

BOXES = np.array([[10, 8, 50, 40], [60, 20, 90, 70], [12, 9, 52, 41]], np.float64)
SCORES = np.array([0.9, 0.6, 0.7])
CLASSES = np.array([2, 0, 2])


def yolo_rows(frame: Frame, *, objectness: bool, classes: int = 3) -> np.ndarray:
    tensor = letterboxed(frame, BOXES)
    rows = np.zeros((40, 4 + objectness + classes), np.float32)
    at = [5, 17, 33]
    rows[at, :2] = (tensor[:, :2] + tensor[:, 2:]) / 2
    rows[at, 2:4] = tensor[:, 2:] - tensor[:, :2]
    if objectness:
        rows[at, 4] = 0.95
    rows[at, 4 + objectness + CLASSES] = SCORES
    return rows


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5"])
@pytest.mark.parametrize("image_hw", [(80, 100), (300, 120), (64, 96)])
def test_yolo(form: str, image_hw: tuple[int, int]) -> None:
    recipe = recipe_of("yolo", labels=("cat", "dog", "owl"), form=form)
    frame = frame_of(recipe, *image_hw)
    rows = yolo_rows(frame, objectness=form == "v5")
    output = {"y": (rows.T if form == "v8" else rows)[None]}
    (result,) = decode(recipe, output, frame)
    # The third box overlaps the first one, of its class.
    assert result.class_id.tolist() == [2, 0]
    sure = 0.95 if form == "v5" else 1
    np.testing.assert_allclose(result.confidence, SCORES[:2] * sure, rtol=1e-6)
    # Some roundings of float32 at coordinates up to 100, stretched by up to 300 / 64.
    limit = np.array([image_hw[1], image_hw[0]] * 2)
    np.testing.assert_allclose(result.xyxy, np.clip(BOXES[:2], 0, limit), atol=1e-3)
    assert [row.name for row in result] == ["owl", "cat"]


def test_yolo_filters() -> None:
    recipe = recipe_of("yolo", labels=("cat", "dog", "owl"))
    frame = frame_of(recipe, 80, 100)
    output = {"y": yolo_rows(frame, objectness=False).T[None]}
    assert decode(recipe, output, frame, confidence=0.65)[0].class_id.tolist() == [2]
    assert decode(recipe, output, frame, confidence=1)[0].xyxy.shape == (0, 4)
    assert decode(recipe, output, frame, iou=1)[0].class_id.tolist() == [2, 2, 0]
    assert decode(recipe, output, frame, max_det=1)[0].class_id.tolist() == [2]
    assert decode(recipe, output, frame, classes=["cat"])[0].class_id.tolist() == [0]
    assert len(decode(recipe, output, frame, classes=[])[0]) == 0


@pytest.mark.parametrize("agnostic", [False, True])
def test_classes_suppress_each_other_only_when_the_recipe_says_so(agnostic: bool) -> None:
    recipe = Recipe("detect", "yolo", PreprocessSpec(size=SIZE), class_agnostic=agnostic)
    output = np.zeros((1, 6, 2), np.float32)
    output[0, :4] = [[40], [30], [20], [10]]
    output[0, 4:] = [[0.9, 0], [0, 0.8]]
    (result,) = decode(recipe, {"y": output})
    assert result.class_id.tolist() == ([0] if agnostic else [0, 1])
    # A class that is not wanted suppresses nothing either.
    (wanted,) = decode(recipe, {"y": output}, classes=[1])
    assert wanted.class_id.tolist() == [1]


def test_yolo_clips_and_leaves_out_boxes_that_overflowed() -> None:
    recipe = recipe_of("yolo")
    output = np.zeros((1, 5, 3), np.float16)
    output[0, :, 0] = [48, 32, 500, 500, 0.9]
    output[0, :, 1] = [np.inf, 32, 5, 5, 0.8]
    output[0, :, 2] = [np.nan, 32, 5, 5, 0.7]
    (result,) = decode(recipe, {"y": output})
    assert result.xyxy.tolist() == [[0, 0, SIZE[1], SIZE[0]]]


def test_yolox() -> None:
    spec = PreprocessSpec.parse("yolox,size=64x96")
    recipe = recipe_of("yolox", labels=("a", "b"), spec=spec)
    cells = [(s, y, x) for s in (8, 16, 32) for y in range(64 // s) for x in range(96 // s)]
    rows = np.zeros((len(cells), 7), np.float32)
    boxes = []
    for i, class_id in ((3, 0), (100, 1), (len(cells) - 1, 1)):
        stride, y, x = cells[i]
        rows[i] = [0.25, 0.5, np.log(1.5), np.log(0.75), 0.8, 0, 0]
        rows[i, 5 + class_id] = 0.9 - i / 1000
        center = np.array([(x + 0.25) * stride, (y + 0.5) * stride])
        half = np.array([1.5, 0.75]) * stride / 2
        boxes.append(np.concatenate((center - half, center + half)))
    # A top left letterbox at scale 1/2.
    (result,) = decode(recipe, {"y": rows[None]}, frame_of(recipe, 128, 150), iou=1)
    assert result.class_id.tolist() == [0, 1, 1]
    np.testing.assert_allclose(
        result.confidence, [0.8 * (0.9 - i / 1000) for i in (3, 100, len(cells) - 1)], rtol=1e-6
    )
    expected = np.clip(np.array(boxes) * 2, 0, [150, 128, 150, 128])
    np.testing.assert_allclose(result.xyxy, expected, atol=1e-3)
