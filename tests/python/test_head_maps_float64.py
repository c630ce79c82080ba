"""Heads that read maps and distributions, against float64, on random awkward outputs."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_reference import LETTERBOX, ROUNDING, STRETCH, bound, boxes_in, frames, to_image
from head_calls import SIZE, decode, recipe_of

from visionrt.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "csrc"))
from masks_reference import masks as masks_reference

SPECS = pytest.mark.parametrize("spec", [LETTERBOX, STRETCH], ids=lambda spec: spec.resize)
CELLS = (SIZE[0] // 4, SIZE[1] // 4)
CONFIDENCE = 0.25


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def maps(seed: int, classes: int, activation: str) -> dict[str, np.ndarray]:
    """Heat, size and offset; equal neighbours, a peak at each edge, and what is no number."""
    rng = np.random.default_rng(seed)
    heat = rng.normal(-2, 1.5, (1, classes, *CELLS)).astype(np.float32)
    if activation == "none":
        heat = sigmoid(heat).astype(np.float32)
    top = 3.0 if activation == "sigmoid" else 0.9375
    heat[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]] = top
    heat[0, 0, 5, 6:8] = top  # two equal neighbours are both peaks
    size = rng.uniform(-0.5, 2, (1, 2, *CELLS)).astype(np.float32)
    offset = rng.uniform(-0.5, 1, (1, 2, *CELLS)).astype(np.float32)
    size[0, 0, 0, 0] = np.inf
    offset[0, 1, 0, -1] = np.nan
    return {"heat": heat, "size": size, "offset": offset}


def centred(
    parts: dict[str, np.ndarray], at: tuple[int, int], *, order: str, log: bool, shift: float
) -> list[float]:
    """Corners of the object of a cell, in tensor pixels."""
    row, column = at
    first, second = (0, 1) if order == "xy" else (1, 0)
    offsets, sizes = parts["offset"][0, :, row, column], parts["size"][0, :, row, column]
    cx = 4 * (column + shift + float(offsets[first]))
    cy = 4 * (row + shift + float(offsets[second]))
    width, height = (float(sizes[i]) for i in (first, second))
    if log:
        width, height = np.exp(width), np.exp(height)
    return [cx - 2 * width, cy - 2 * height, cx + 2 * width, cy + 2 * height]


@SPECS
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
@pytest.mark.parametrize("order", ["xy", "yx"])
@pytest.mark.parametrize("size_form", ["cells", "log"])
def test_centernet(size_form: str, order: str, activation: str, spec: Any) -> None:
    parts = maps(3, 2, activation)
    names = {"heatmap": "heat", "size": "size", "offset": "offset"}
    options = {"activation": activation, "order": order, "size_form": size_form, "shift": 0.5}
    recipe = recipe_of("centernet", spec=spec, **names, **options)
    exact = sigmoid(parts["heat"]) if activation == "sigmoid" else parts["heat"].astype(float)
    found = []
    for class_id, row, column in np.ndindex(2, *CELLS):
        value = parts["heat"][0, class_id, row, column]
        around = parts["heat"][
            0, class_id, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2
        ]
        if exact[0, class_id, row, column] <= CONFIDENCE or value < around.max():
            continue
        box = centred(parts, (row, column), order=order, log=size_form == "log", shift=0.5)
        if np.isfinite(box).all():
            found.append((exact[0, class_id, row, column], class_id, box))
    found.sort(key=lambda entry: -entry[0])
    assert len(found) > 20
    corners = np.array([box for _, _, box in found])
    for frame, scale, corner in frames(recipe):
        limits: dict[str, Any] = {"confidence": CONFIDENCE, "iou": 1.0, "max_det": 10**6}
        (got,) = decode(recipe, parts, frame, **limits)
        assert got.class_id.tolist() == [class_id for _, class_id, _ in found]
        # A sigmoid: exp, to two units of numbers below 8, a sum and a quotient.
        np.testing.assert_allclose(
            got.confidence, [score for score, _, _ in found], rtol=ROUNDING * 16
        )
        wanted = boxes_in(corners, frame, scale, corner)
        limit = bound(np.abs(corners).max(axis=1), scale, 12)
        assert (np.abs(got.xyxy - wanted) <= limit[:, None]).all()


@SPECS
def test_centerface(spec: Any) -> None:
    rng = np.random.default_rng(8)
    parts = maps(6, 1, "none")
    parts["landmarks"] = rng.uniform(-0.3, 1.3, (1, 10, *CELLS)).astype(np.float32)
    parts["landmarks"][0, 3, -1, 0] = np.nan
    names = {"heatmap": "heat", "size": "size", "offset": "offset", "landmarks": "landmarks"}
    recipe = recipe_of("centerface", spec=spec, **names)
    found = []
    for row, column in np.ndindex(*CELLS):
        score = float(parts["heat"][0, 0, row, column])
        box = np.array(centred(parts, (row, column), order="yx", log=True, shift=0.5))
        places = parts["landmarks"][0, :, row, column].astype(np.float64).reshape(5, 2)[:, ::-1]
        if score > CONFIDENCE and np.isfinite(box).all() and np.isfinite(places).all():
            found.append((score, box, box[:2] + places * (box[2:] - box[:2])))
    found.sort(key=lambda entry: -entry[0])
    assert len(found) > 20
    corners, points = np.array([f[1] for f in found]), np.array([f[2] for f in found])
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, parts, frame, confidence=CONFIDENCE, iou=1.0, max_det=10**6)
        assert got.score.tolist() == [score for score, _, _ in found]
        sizes = np.abs(corners).max(axis=1)
        wanted = boxes_in(corners, frame, scale, corner)
        assert (np.abs(got.xyxy - wanted) <= bound(sizes, scale, 12)[:, None]).all()
        wanted = to_image(points, frame, scale, corner)
        # A landmark is up to 1.3 sides of a box from a corner.
        limit = bound(4 * sizes, scale, 12)[:, None, None]
        assert (np.abs(got.keypoints[..., :2] - wanted) <= limit).all()
        assert (got.keypoints[..., 2] == got.score[:, None]).all()


@SPECS
@pytest.mark.parametrize("activation", ["none", "softmax"])
@pytest.mark.parametrize("per_pixel", [1, 2, 3])
def test_simcc(per_pixel: int, activation: str, spec: Any) -> None:
    rng = np.random.default_rng(per_pixel)
    bins = {
        "x": rng.normal(0, 3, (1, 9, SIZE[1] * per_pixel)).astype(np.float32),
        "y": rng.normal(0, 3, (1, 9, SIZE[0] * per_pixel)).astype(np.float32),
    }
    bins["x"][0, 0] = bins["y"][0, 0] = -1  # all equal, and below 0
    bins["x"][0, 1, [4, 9]] = 20  # of two largest, the first
    recipe = recipe_of("simcc", spec=spec, x="x", y="y", activation=activation)
    places, values = [], []
    for name in "xy":
        wide = bins[name][0].astype(np.float64)
        if activation == "softmax":
            wide = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
        places.append([min(range(len(row)), key=lambda i: -row[i]) / per_pixel for row in wide])
        values.append(wide.max(axis=1))
    points, sure = np.array(places).T, np.clip(np.minimum(*values), 0, 1)
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, bins, frame, confidence=0.01)
        wanted = to_image(points, frame, scale, corner)
        assert (np.abs(got.keypoints[0, :, :2] - wanted) <= bound(points, scale, 6)).all()
        # exp, a sum of up to 288 terms in pairs of some, a quotient.
        np.testing.assert_allclose(got.keypoints[0, :, 2], sure, rtol=ROUNDING * 64)


@SPECS
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_heatmaps(layout: str, activation: str, spec: Any) -> None:
    rng = np.random.default_rng(4)
    raw = rng.normal(0, 0.5, (1, 12, *CELLS)).astype(np.float32)
    # At the corners, beside equal neighbours, a cell from each edge, and beyond 1.
    height, width = CELLS
    places = [(0, 0), (0, width - 1), (height - 1, 5), (7, 7), (1, 1), (height - 2, width - 2)]
    for k, place in enumerate(places):
        raw[(0, k, *place)] = 4 + k
    raw[0, 3, 7, 6] = raw[0, 3, 7, 8] = 3
    raw[0, 11] = -2
    points, sure = [], []
    for plane in raw[0]:
        row, column = (int(i) for i in np.unravel_index(int(plane.argmax()), CELLS))
        x, y = float(column), float(row)
        if 0 < column < CELLS[1] - 1:
            rise = float(plane[row, column + 1]) - float(plane[row, column - 1])
            x += 0.25 * ((rise > 0) - (rise < 0))
        if 0 < row < CELLS[0] - 1:
            rise = float(plane[row + 1, column]) - float(plane[row - 1, column])
            y += 0.25 * ((rise > 0) - (rise < 0))
        points.append([4 * x, 4 * y])
        value = float(plane.max())
        value = 1 / (1 + math.exp(-value)) if activation == "sigmoid" else value
        sure.append(min(max(value, 0), 1))
    given = raw if layout == "nchw" else np.ascontiguousarray(np.moveaxis(raw, 1, 3))
    recipe = recipe_of("heatmaps", spec=spec, layout=layout, activation=activation)
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, {"y": given}, frame, confidence=0.01)
        wanted = to_image(np.array(points), frame, scale, corner)
        assert (np.abs(got.keypoints[0, :, :2] - wanted) <= bound(np.array(points), scale, 4)).all()
        np.testing.assert_allclose(got.keypoints[0, :, 2], sure, rtol=ROUNDING * 16)


@SPECS
@pytest.mark.parametrize("region", ["box", "image"])
@pytest.mark.parametrize(("normalised", "order"), [(False, "xyxy"), (True, "yxyx")])
def test_mask_rcnn(normalised: bool, order: str, region: str, spec: Any) -> None:
    rng = np.random.default_rng(5)
    count, sides = 14, np.array([SIZE[1], SIZE[0]] * 2, float)
    ends = np.sort(rng.uniform(-0.1, 1.1, (count, 2, 2)), axis=1).reshape(count, 4)
    given = (ends * (1 if normalised else sides)).astype(np.float32)
    given[2, 0] = np.inf
    given[5, [2, 3]] = given[5, [0, 1]]  # a box of no size
    scores = rng.uniform(0, 1, count).astype(np.float32)
    scores[[7, 8]] = CONFIDENCE, np.nan
    labels = rng.integers(0, 4, count)
    masks = rng.random((count, 1, 9, 11)).astype(np.float32)
    parts = {"boxes": given if order == "xyxy" else given[:, [1, 0, 3, 2]]}
    parts |= {"scores": scores, "labels": labels, "masks": masks}
    options = {"normalised": normalised, "order": order, "region": region, "offset": 1}
    options |= {name: name for name in parts}
    recipe = Recipe("instances", "mask_rcnn", spec, head_options=options)
    usable = (scores > CONFIDENCE) & np.isfinite(given).all(axis=1) & (labels >= 1)
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    assert len(rows) > 4
    corners = given[rows].astype(np.float64) * (sides if normalised else 1)
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, parts, frame, confidence=CONFIDENCE)
        assert got.class_id.tolist() == (labels[rows] - 1).tolist()
        np.testing.assert_array_equal(got.confidence, scores[rows])
        wanted = boxes_in(corners, frame, scale, corner)
        limit = bound(np.abs(corners).max(axis=1), scale, 6)[:, None]
        assert (np.abs(got.xyxy - wanted) <= limit).all()
        for i, row in enumerate(rows):
            covered = corners[i] if region == "box" else np.array([0, 0, *sides[:2]])
            whole = (covered - np.tile(corner, 2)) * np.tile(scale, 2)
            width, height = whole[2:] - whole[:2]
            if not (width > 0 and height > 0):
                assert not got.mask[i].any()
                continue
            step = 9 / height, 11 / width
            case = {
                "prototypes": masks[row],
                "coefficients": np.ones((1, 1)),
                "boxes": got.xyxy[i : i + 1],
                "size": frame.image_hw,
                "scale": step,
                "shift": (-whole[1] * step[0], -whole[0] * step[1]),
                "threshold": 0.5,
            }
            expected, _ = masks_reference(case)
            # Float32 corners move the samples: by a rounding of the box's coordinates, in cells.
            moved = float(bound(np.abs(covered), scale, 8).max()) * max(step)
            value = samples(case)
            decided = np.abs(value - 0.5) > moved + 32 * ROUNDING
            assert decided.mean() > 0.98
            np.testing.assert_array_equal(got.mask[i][decided], expected[0][decided].astype(bool))


def samples(case: dict[str, Any]) -> np.ndarray:
    """The probability at each pixel of the image, bilinear, held at the mask's edge cells."""
    plane = case["prototypes"][0].astype(np.float64)
    for axis in (0, 1):
        at = (np.arange(case["size"][axis]) + 0.5) * case["scale"][axis] + case["shift"][axis] - 0.5
        at = np.clip(at, 0, plane.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, plane.shape[axis] - 1)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = np.take(plane, low, axis) * (1 - share) + np.take(plane, high, axis) * share
    return plane
