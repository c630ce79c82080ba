"""Rows that an engine in FP16 broke, or that a model fills up with: left out, without a warning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from head_calls import decode, recipe_of

from visionrt.errors import ModelError

pytestmark = pytest.mark.filterwarnings("error")

LABELS = ("cat", "dog")
BOX = [8.0, 8.0, 40.0, 40.0]
# Class and score of each row; the third and the last are whole.
CLASSES = [np.nan, np.inf, 1.0, -1.0, -np.inf, 3e38, 0.0]
SCORES = [0.9, 0.8, 0.7, 0.6, 0.55, 0.52, 0.51]


def rows(*extra: float) -> np.ndarray:
    """[1, 7, 6 + extra]: boxes, scores, classes and what is given."""
    made = [[*BOX, score, cls, *extra] for score, cls in zip(SCORES, CLASSES, strict=True)]
    return np.array([made], np.float32)


def split(count: Any = None) -> dict[str, np.ndarray]:
    table = rows()
    parts = {"boxes": table[..., :4], "scores": table[..., 4], "classes": table[..., 5]}
    return parts if count is None else parts | {"count": np.array([count])}


NAMES = {"boxes": "boxes", "scores": "scores", "classes": "classes"}


def classes_of(result: Any) -> list[int]:
    return result.class_id.tolist()


def test_end2end() -> None:
    assert classes_of(decode(recipe_of("end2end", labels=LABELS), {"y": rows()})[0]) == [1, 0]


def test_nms_inside() -> None:
    assert classes_of(decode(recipe_of("nms_inside", labels=LABELS, **NAMES), split())[0]) == [1, 0]


@pytest.mark.parametrize(
    ("count", "kept"),
    [(-3, []), (0, []), (3, [1]), (99, [1, 0]), (np.float32(3), [1]), (np.float32(np.nan), [])],
)
def test_counts_beyond_the_rows(count: Any, kept: list[int]) -> None:
    recipe = recipe_of("nms_inside", labels=LABELS, count="count", **NAMES)
    assert classes_of(decode(recipe, split(count))[0]) == kept


def test_a_background_class_is_no_label() -> None:
    outputs = split() | {"classes": np.array([[0, 1, 2, 0, 0, 0, 0]], np.int64)}
    recipe = recipe_of("nms_inside", labels=LABELS, first_class=1, **NAMES)
    assert classes_of(decode(recipe, outputs)[0]) == [0, 1]


@pytest.mark.parametrize(("head", "columns"), [("yolo_pose", 51), ("obb", 1)])
def test_final_rows_with_more_columns(head: str, columns: int) -> None:
    recipe = recipe_of(head, labels=LABELS, form="end2end")
    (result,) = decode(recipe, {"y": rows(*[0.5] * columns)})
    assert classes_of(result) == [1, 0]


def test_mask_rcnn() -> None:
    outputs = {
        "boxes": split()["boxes"],
        "scores": split()["scores"],
        "ids": split()["classes"],
        "masks": np.ones((1, 7, 28, 28), np.float32),
    }
    options = {"boxes": "boxes", "scores": "scores", "masks": "masks"}
    recipe = recipe_of("mask_rcnn", **options)
    recipe = replace(recipe, labels=LABELS, head_options={**options, "labels": "ids"})
    assert classes_of(decode(recipe, outputs)[0]) == [1, 0]


def faces() -> dict[str, np.ndarray]:
    """Maps of 16 × 24 cells with three faces; sizes of the first overflow."""
    maps = {"heatmap": 1, "size": 2, "offset": 2, "landmarks": 10}
    made = {name: np.zeros((1, count, 16, 24), np.float32) for name, count in maps.items()}
    for at, score in (((4, 5), 0.9), ((9, 12), 0.8), ((12, 20), 0.7)):
        made["heatmap"][0, 0, at[0], at[1]] = score
        made["size"][0, :, at[0], at[1]] = np.log([3, 2])
        made["offset"][0, :, at[0], at[1]] = [0.25, -0.25]
        made["landmarks"][0, :, at[0], at[1]] = np.linspace(0.1, 1, 10)
    made["size"][0, :, 4, 5] = 200
    made["landmarks"][0, 3, 12, 20] = np.inf
    return made


def test_centerface() -> None:
    outputs = faces()
    (result,) = decode(recipe_of("centerface", **{name: name for name in outputs}), outputs)
    # The cell in row 9 and column 12, of 4 pixels: the middle, and the sides.
    cy, cx, h, w = 4 * (9 + 0.5 + 0.25), 4 * (12 + 0.5 - 0.25), 4 * 3.0, 4 * 2.0
    box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    np.testing.assert_allclose(result.xyxy, [box], rtol=1e-5)
    places = np.linspace(0.1, 1, 10).reshape(5, 2)
    points = np.column_stack([box[0] + places[:, 1] * w, box[1] + places[:, 0] * h])
    np.testing.assert_allclose(result.keypoints[0, :, :2], points, rtol=1e-5)
    assert result.score.tolist() == np.float32([0.8]).tolist()


@pytest.mark.parametrize("shape", [(1, 9, 16, 24), (1, 10, 16, 23), (10, 16, 24)])
def test_landmarks_of_another_shape(shape: tuple[int, ...]) -> None:
    outputs = faces()
    names = {name: name for name in outputs}
    recipe = recipe_of("centerface", **names)
    outputs["landmarks"] = np.zeros(shape, np.float32)
    with pytest.raises(ModelError, match=r"landmarks of shape \[1, 2 K, h, w\]"):
        decode(recipe, outputs)
