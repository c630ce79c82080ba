"""The ``yolo_maps`` head against a float64 reference that goes cell by cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from head_calls import decode, frame_of, infos, recipe_of

from visionrt.errors import ModelError, UsageError
from visionrt.heads import head_for
from visionrt.spec import PreprocessSpec

ROUNDING = 2.0**-24
SIZE = (64, 136)  # 136 is no multiple of 16
CLASSES = 4
ANCHORS = {
    "yolov5": "10 13 16 30 33 23 30 61 62 45 59 119 116 90 156 198 373 326",
    "yolov7": "12 16 19 36 40 28 36 75 76 55 72 146 142 110 192 243 459 401",
}


def anchors_of(name: str) -> np.ndarray:
    return np.array([float(word) for word in ANCHORS[name].split()]).reshape(3, 3, 2)


def maps_of(rng: np.random.Generator) -> list[np.ndarray]:
    """[1, 3, h, w, 5 + C] of each stride: few pass, some are infinite or NaN."""
    maps = []
    for stride in (8, 16, 32):
        grid = math.ceil(SIZE[0] / stride), math.ceil(SIZE[1] / stride)
        raw = rng.normal(0, 2, (1, 3, *grid, 5 + CLASSES)).astype(np.float32)
        raw[..., 4] -= 1
        for value, share in ((np.nan, 0.02), (-np.inf, 0.02), (np.inf, 0.01), (-200, 0.01)):
            spots = rng.random(raw.shape) < share
            spots[..., :4] = False
            raw[spots] = value
        maps.append(raw)
    return maps


def sigmoid(value: float) -> float:
    return 0.0 if value < -700 else 1 / (1 + math.exp(-value))


def reference(
    maps: list[np.ndarray], name: str, confidence: float, multi_label: bool
) -> list[tuple[float, int, list[float]]]:
    """Score, class and corners of all that pass, from the formulas, best first."""
    found = []
    for level, raw in enumerate(maps):
        stride = 8 << level
        _, shapes, rows, columns, _ = raw.shape
        for at in np.ndindex(shapes, rows, columns):
            x, y, w, h, objectness, *classes = (float(v) for v in raw[(0, *at)])
            if math.isnan(objectness):
                continue
            shares = [-1.0 if math.isnan(c) else sigmoid(c) * sigmoid(objectness) for c in classes]
            picked = range(CLASSES) if multi_label else [int(np.argmax(shares))]
            pw, ph = anchors_of(name)[level][at[0]]
            cx = (2 * sigmoid(x) - 0.5 + at[2]) * stride
            cy = (2 * sigmoid(y) - 0.5 + at[1]) * stride
            half_w, half_h = (2 * sigmoid(w)) ** 2 * pw / 2, (2 * sigmoid(h)) ** 2 * ph / 2
            corners = [cx - half_w, cy - half_h, cx + half_w, cy + half_h]
            found += [(shares[c], c, corners) for c in picked if shares[c] > confidence]
    return sorted(found, key=lambda row: -row[0])


def as_form(maps: list[np.ndarray], form: str) -> dict[str, np.ndarray]:
    axes = {"nkhwc": (0, 1, 2, 3, 4), "nchw": (0, 1, 4, 2, 3), "nhwc": (0, 2, 3, 1, 4)}[form]
    out = {}
    for name, raw in zip("abc", maps, strict=True):
        turned = np.ascontiguousarray(raw.transpose(axes))
        if form == "nchw":
            turned = turned.reshape(1, -1, *raw.shape[2:4])
        elif form == "nhwc":
            turned = turned.reshape(1, *raw.shape[2:4], -1)
        out[name] = turned
    return out


def recipe_for(**options: Any) -> Any:
    options = {"anchors": "yolov5", **options}
    return recipe_of("yolo_maps", spec=PreprocessSpec(resize="stretch", size=SIZE), **options)


@pytest.mark.parametrize("form", ["nkhwc", "nchw", "nhwc"])
@pytest.mark.parametrize("name", list(ANCHORS))
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("confidence", [0.01, 0.25, 0.7])
def test_against_float64(form: str, name: str, multi_label: bool, confidence: float) -> None:
    maps = maps_of(np.random.default_rng([len(name), multi_label, int(confidence * 100)]))
    wanted = reference(maps, name, confidence, multi_label)
    near = [abs(score - confidence) for score, _, _ in reference(maps, name, 0.0, multi_label)]
    assert min(near) > 1e-6, "take another seed: a score at the threshold may fall on either side"
    recipe = recipe_for(anchors=name, multi_label=multi_label)
    outputs = as_form(maps, form)
    frame = frame_of(recipe, *SIZE)
    # No box suppresses another, so every candidate is a result.
    (got,) = decode(recipe, outputs, frame, confidence=confidence, iou=1.0, max_det=10**6)
    assert len(got) == len(wanted) > 10
    scores = np.array([score for score, _, _ in wanted])
    # Two sigmoids of up to four roundings each, exp to one unit of float32, and their product.
    np.testing.assert_allclose(got.confidence, scores, rtol=ROUNDING * 20)
    # Scores nearer than that may change places.
    exact = np.clip([corners for _, _, corners in wanted], 0, [SIZE[1], SIZE[0]] * 2)
    size = np.abs([corners for _, _, corners in wanted]).max(axis=1) + 32
    for i, box in enumerate(got.xyxy):
        same = np.flatnonzero(np.abs(scores - got.confidence[i]) <= ROUNDING * 40)
        errors = np.abs(exact[same] - box).max(axis=1) / size[same]
        best = same[errors.argmin()]
        # Ten roundings of numbers up to the box's extent; squares double the share's.
        assert errors.min() <= ROUNDING * 40
        assert got.class_id[i] in {wanted[j][1] for j in same[errors <= ROUNDING * 40]}
        assert best >= 0


def test_a_map_that_fits_two_orders_is_read_as_the_others_are() -> None:
    # 192×192 has 24 × 24 cells of 3 × (5 + 3) numbers at stride 8.
    rng = np.random.default_rng(6)
    wide = {
        name: rng.normal(0, 2, (1, side, side, 24)).astype(np.float32)
        for name, side in (("a", 24), ("b", 12), ("c", 6))
    }
    spec = PreprocessSpec(resize="stretch", size=(192, 192))
    recipe = recipe_of("yolo_maps", spec=spec, anchors="yolov5")
    first = {name: np.ascontiguousarray(np.moveaxis(m, 3, 1)) for name, m in wide.items()}
    frame = frame_of(recipe, 192, 192)
    (wanted,), (got,) = decode(recipe, first, frame), decode(recipe, wide, frame)
    assert len(wanted) > 20
    np.testing.assert_array_equal(got.xyxy, wanted.xyxy)


def test_a_graph_that_has_applied_the_sigmoid() -> None:
    maps = maps_of(np.random.default_rng(3))
    with np.errstate(over="ignore"):
        shares = [(1 / (1 + np.exp(-raw.astype(np.float64)))).astype(np.float32) for raw in maps]
    for confidence in (0.01, 0.25):
        options = {"confidence": confidence, "iou": 1.0, "max_det": 10**6}
        (wanted,) = decode(recipe_for(), as_form(maps, "nchw"), **options)
        (got,) = decode(recipe_for(activation="none"), as_form(shares, "nchw"), **options)
        assert len(got) == len(wanted) > 10
        np.testing.assert_allclose(got.confidence, wanted.confidence, rtol=ROUNDING * 20)


def test_labels_say_where_classes_end() -> None:
    maps = maps_of(np.random.default_rng(4))
    recipe = recipe_of(
        *("yolo_maps",), labels=("a", "b"), spec=PreprocessSpec(size=SIZE), anchors="yolov5"
    )
    (result,) = decode(recipe, as_form(maps, "nchw"), frame_of(recipe, *SIZE))
    assert set(result.class_id.tolist()) == {0, 1}


@pytest.mark.parametrize(
    "options",
    [
        {"anchors": None},
        {"anchors": "yolov9"},
        {"anchors": []},
        {"anchors": [[[1, 2]], [], [[3, 4]]]},
        {"anchors": [[[1, 2, 3]]] * 3},
        {"anchors": [[[1, 0]]] * 3},
        {"anchors": "yolov5_p6"},
        {"strides": [8, 16]},
        {"strides": [8, 16, 0]},
        {"strides": 8},
        {"outputs": ["a", "b"]},
        {"outputs": ["a", "b", "z"]},
        {"outputs": [["a"], "b", "c"]},
        {"activation": "softmax"},
    ],
    ids=str,
)
def test_bad_options_are_usage_errors(options: dict[str, Any]) -> None:
    maps = as_form(maps_of(np.random.default_rng(0)), "nchw")
    with pytest.raises(UsageError, match="head option"):
        head_for(recipe_for(**options), infos(maps))


@pytest.mark.parametrize("shape", [(1, 28, 8, 17), (2, 27, 8, 17), (1, 15, 8, 17), (1, 27, 8, 16)])
def test_another_layout_is_a_model_error(shape: tuple[int, ...]) -> None:
    maps = as_form(maps_of(np.random.default_rng(0)), "nchw")
    names = {"outputs": ["a", "b", "c"]}
    with pytest.raises(ModelError, match="output a"):
        decode(recipe_for(**names), {**maps, "a": np.zeros(shape, np.float32)})
