"""Heads of models that need no NMS of ours, and of boxes left before one, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from head_calls import SIZE, decode, frame_of, letterboxed, recipe_of

from visionrt.errors import ModelError, UsageError

BOXES = np.array([[10, 8, 50, 40], [60, 20, 90, 70], [12, 9, 52, 41]], np.float64)
IMAGE_HW = (80, 100)
PIXELS = np.array([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])


def coded(boxes: np.ndarray, form: str, units: str) -> np.ndarray:
    """Corners in tensor pixels as a model of that form gives them, float32."""
    x0, y0, x1, y1 = (boxes / (PIXELS if units == "normalised" else 1)).T
    parts = {
        "xyxy": (x0, y0, x1, y1),
        "yxyx": (y0, x0, y1, x1),
        "cxcywh": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
    }
    return np.stack(parts[form], axis=1).astype(np.float32)


def near(got: np.ndarray, wanted: np.ndarray) -> None:
    # Some float32 roundings at coordinates up to 100.
    np.testing.assert_allclose(got, np.clip(wanted, 0, [100, 80, 100, 80]), atol=1e-4)


@pytest.mark.parametrize("units", ["pixels", "normalised"])
@pytest.mark.parametrize("form", ["xyxy", "yxyx", "cxcywh"])
def test_end2end(form: str, units: str) -> None:
    recipe = recipe_of("end2end", labels=("cat", "dog", "owl"), boxes=form, units=units)
    frame = frame_of(recipe, *IMAGE_HW)
    rows = np.zeros((1, 6, 6), np.float32)
    rows[0, [4, 1, 2], :4] = coded(letterboxed(frame, BOXES), form, units)
    rows[0, [4, 1, 2], 4:] = [[0.5, 2], [0.9, 0], [0.7, 2]]
    rows[0, 5] = [np.inf, 0, 1, 1, 0.99, 0]
    (result,) = decode(recipe, {"y": rows}, frame)
    # Best first, and boxes that overlap stay.
    assert result.class_id.tolist() == [0, 2, 2]
    assert result.confidence.tolist() == np.float32([0.9, 0.7, 0.5]).tolist()
    near(result.xyxy, BOXES[[1, 2, 0]])
    assert decode(recipe, {"y": rows}, frame, max_det=2)[0].class_id.tolist() == [0, 2]
    assert decode(recipe, {"y": rows}, frame, classes=["owl"])[0].class_id.tolist() == [2, 2]
    # A score must be above the threshold.
    assert decode(recipe, {"y": rows}, frame, confidence=0.5)[0].class_id.tolist() == [0, 2]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("background", [None, 0, -1])
def test_detr(activation: str, background: int | None) -> None:
    rng = np.random.default_rng(7)
    options: dict[str, Any] = {"logits": "logits", "boxes": "boxes", "activation": activation}
    if background is not None:
        options["background"] = background
    recipe = recipe_of("detr", **options)
    frame = frame_of(recipe)
    corners = np.sort(rng.uniform(0, 1, (30, 2, 2)), axis=1).reshape(30, 4) * PIXELS
    logits = rng.normal(-1, 2, (1, 30, 9)).astype(np.float32)
    boxes = coded(corners, "cxcywh", "normalised")
    outputs = {"logits": logits, "boxes": boxes[None]}
    (result,) = decode(recipe, outputs, frame, confidence=0.3, max_det=25)

    x = logits[0].astype(np.float64)
    shares = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    scores = shares if activation == "softmax" else 1 / (1 + np.exp(-x))
    ignored = {0: 0, -1: None, None: 8 if activation == "softmax" else None}[background]
    pairs = []
    for query in range(30):
        classes = [c for c in range(9) if c != ignored]
        if activation == "softmax":
            classes = [max(classes, key=lambda c: scores[query, c])]
        pairs += [(scores[query, c], query, c) for c in classes if scores[query, c] > 0.3]
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:25]
    assert len(pairs) > 5
    assert result.class_id.tolist() == [c for _, _, c in pairs]
    np.testing.assert_allclose(result.confidence, [s for s, _, _ in pairs], rtol=2e-6)
    np.testing.assert_allclose(result.xyxy, corners[[q for _, q, _ in pairs]], atol=1e-4)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("count", [None, (1,), (1, 1)])
@pytest.mark.parametrize("integer", [np.int64, np.float32])
def test_nms_inside(batched: bool, count: Any, integer: Any) -> None:
    options = {"boxes": "b", "scores": "s", "classes": "c", "form": "yxyx", "units": "normalised"}
    if count is not None:
        options["count"] = "n"
    recipe = recipe_of("nms_inside", labels=("cat", "dog"), first_class=1, **options)
    frame = frame_of(recipe, *IMAGE_HW)
    parts = {
        "b": coded(letterboxed(frame, BOXES), "yxyx", "normalised"),
        "s": np.array([0.9, 0.6, 0.8], np.float32),
        "c": np.array([2, 1, 2], integer),
    }
    outputs = {name: array[None] if batched else array for name, array in parts.items()}
    if count is not None:
        outputs["n"] = np.full(count, 2, integer)
    (result,) = decode(recipe, outputs, frame)
    order = [0, 1] if count is not None else [0, 2, 1]
    assert [row.name for row in result] == [("dog", "cat", "dog")[i] for i in order]
    assert result.confidence.tolist() == parts["s"][order].tolist()
    near(result.xyxy, BOXES[order])


def test_nms_inside_that_found_nothing() -> None:
    recipe = recipe_of("nms_inside", boxes="b", scores="s", classes="c")
    empty = {"b": np.zeros((0, 4), np.float32), "s": np.zeros(0, np.float32)}
    (result,) = decode(recipe, {**empty, "c": np.zeros(0, np.int64)})
    assert result.xyxy.shape == (0, 4)


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("form", ["xyxy", "yxyx", "cxcywh"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_boxes_scores(layout: str, form: str, multi_label: bool) -> None:
    options = {"boxes": "b", "scores": "s", "layout": layout, "form": form, "background": 0}
    recipe = recipe_of("boxes_scores", multi_label=multi_label, units="normalised", **options)
    frame = frame_of(recipe, *IMAGE_HW)
    boxes = coded(letterboxed(frame, BOXES), form, "normalised")
    scores = np.array([[1, 0.6, 0.9], [1, 0.8, 0.3], [1, 0.2, 0.7]], np.float32)
    if form == "yxyx":  # any diagonal will do
        boxes[1] = boxes[1, [2, 1, 0, 3]]
    outputs = {"b": boxes[None], "s": (scores.T if layout == "columns" else scores)[None]}
    (result,) = decode(recipe, outputs, frame, confidence=0.25)
    # The third box overlaps the first one, of its class.
    expected = [(0, 2), (1, 1), (0, 1), (1, 2)] if multi_label else [(0, 2), (1, 1)]
    assert result.class_id.tolist() == [c for _, c in expected]
    assert result.confidence.tolist() == [float(scores[at]) for at in expected]
    near(result.xyxy, BOXES[[i for i, _ in expected]])


@pytest.mark.parametrize(
    ("head", "shapes", "options"),
    [
        ("end2end", {"y": (1, 300, 7)}, {}),
        ("end2end", {"y": (2, 300, 6)}, {}),
        ("detr", {"l": (1, 9, 3), "b": (1, 8, 4)}, {"logits": "l", "boxes": "b"}),
        ("detr", {"l": (1, 9, 3), "b": (1, 9, 4)},
         {"logits": "l", "boxes": "b", "background": 3}),
        ("boxes_scores", {"b": (1, 9, 4), "s": (1, 3, 9)}, {"boxes": "b", "scores": "s"}),
        ("boxes_scores", {"b": (1, 9, 5), "s": (1, 9, 3)}, {"boxes": "b", "scores": "s"}),
        ("nms_inside", {"b": (9, 4), "s": (8,), "c": (9,)},
         {"boxes": "b", "scores": "s", "classes": "c"}),
        ("nms_inside", {"b": (9, 5), "s": (9,), "c": (9,)},
         {"boxes": "b", "scores": "s", "classes": "c"}),
    ],
)  # fmt: skip
def test_other_layouts_are_model_errors(
    head: str, shapes: dict[str, tuple[int, ...]], options: dict[str, Any]
) -> None:
    outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(ModelError, match="output"):
        decode(recipe_of(head, **options), outputs)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("end2end", {"boxes": "ltrb"}),
        ("end2end", {"units": "percent"}),
        ("detr", {}),
        ("detr", {"logits": "y", "boxes": "y", "background": "last"}),
        ("boxes_scores", {"boxes": "y", "scores": "y", "layout": "nchw"}),
        ("boxes_scores", {"boxes": "y", "scores": "y", "background": -2}),
        ("nms_inside", {"boxes": "y", "scores": "y"}),
        ("nms_inside", {"boxes": "y", "scores": "y", "classes": "y", "first_class": 2}),
    ],
)
def test_bad_options(head: str, options: dict[str, Any]) -> None:
    outputs = {name: np.zeros((1, 5, 6), np.float32) for name in "yz"}
    with pytest.raises(UsageError, match="head option"):
        decode(recipe_of(head, output="y", **options) if head == "end2end"
               else recipe_of(head, **options), outputs)  # fmt: skip
