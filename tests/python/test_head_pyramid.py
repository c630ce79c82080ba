"""Anchors of feature pyramids, and the ``ssd`` head on joined outputs and on maps by level.

The references are float64, made cell by cell from the definitions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from head_calls import decode, frame_of, recipe_of

from visionrt.errors import ModelError, UsageError
from visionrt.heads.anchor_options import anchors_from
from visionrt.spec import PreprocessSpec

ROUNDING = 2.0**-24
RATIOS_HW = (0.5, 1.0, 2.0)
# Sides of the smallest anchor in strides, as the authors' configurations have them.
EFFICIENTDET = {
    "efficientdet": 4,
    "efficientdet_lite": 3,
    "efficientdet_d7": 5,
    "efficientdet_d7x": 4,
}


def cells(size: tuple[int, int], last: int = 7) -> list[tuple[int, int, int]]:
    """Level, row and column of each cell, in order; a level has half the cells, rounded up."""
    out = []
    height, width = size
    for level in range(1, last + 1):
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        if level >= 3:
            out += [(level, y, x) for y in range(height) for x in range(width)]
    return out


def sides_of(scheme: str, level: int) -> list[tuple[float, float]]:
    """Height and width of the nine anchors of a cell, in order."""
    base = EFFICIENTDET.get(scheme, 4) * 2.0**level
    if scheme in EFFICIENTDET:
        shapes = ((1, 1), (0.7, 1.4), (1.4, 0.7))
        return [
            (base * 2 ** (o / 3) * h, base * 2 ** (o / 3) * w) for o in range(3) for h, w in shapes
        ]
    sizes = [base * 2 ** (octave / 3) for octave in range(3)]
    if scheme == "retinanet":
        return [(s * math.sqrt(r), s / math.sqrt(r)) for s in sizes for r in RATIOS_HW]
    if scheme == "retinanet_mmdet":
        return [(s * math.sqrt(r), s / math.sqrt(r)) for r in RATIOS_HW for s in sizes]
    # torchvision cuts sizes to integers, and rounds the corners.
    whole = [(int(s) * math.sqrt(r), int(s) / math.sqrt(r)) for r in RATIOS_HW for s in sizes]
    return [(2.0 * round(h / 2), 2.0 * round(w / 2)) for h, w in whole]


def reference_anchors(scheme: str, size: tuple[int, int]) -> np.ndarray:
    """cy, cx, h, w in pixels."""
    places = cells(size, 8 if scheme == "efficientdet_d7x" else 7)
    rows = []
    for level, y, x in places:
        down = 1 + max(row for at, row, _ in places if at == level)
        across = 1 + max(column for at, _, column in places if at == level)
        step_y = step_x = 2.0**level
        stretch_y = stretch_x = 1.0
        offset = 0.0
        if scheme in EFFICIENTDET:
            offset = 0.5
            step_y, step_x = size[0] / down, size[1] / across
            stretch_y, stretch_x = step_y / 2**level, step_x / 2**level
        elif scheme == "retinanet_torchvision":
            step_y, step_x = size[0] // down, size[1] // across
        for height, width in sides_of(scheme, level):
            centre = (y + offset) * step_y, (x + offset) * step_x
            rows.append([*centre, height * stretch_y, width * stretch_x])
    return np.array(rows)


SCHEMES = ("retinanet", "retinanet_mmdet", "retinanet_torchvision", *EFFICIENTDET)


@pytest.mark.parametrize("size", [(128, 256), (320, 320), (72, 200)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_anchors(scheme: str, size: tuple[int, int]) -> None:
    recipe = recipe_of("ssd", spec=PreprocessSpec(size=size), anchors=scheme)
    found = anchors_from(recipe)
    wanted = reference_anchors(scheme, size) / [*size, *size]
    assert found.all().shape == wanted.shape
    # One rounding to float32.
    np.testing.assert_allclose(found.all(), wanted, rtol=2 * ROUNDING, atol=1e-12)
    assert sum(len(level) * level.shape[1] for level in found.levels) * 9 == len(wanted)


def test_a_pyramid_may_be_given() -> None:
    octaves = [4 * 2 ** (octave / 3) for octave in range(3)]
    spec = PreprocessSpec(size=(72, 200))
    given = {"levels": [3, 7], "scales": octaves, "ratios": [2, 1, 0.5], "centre": 0}
    for inner, preset in (("ratios", "retinanet"), ("scales", "retinanet_mmdet")):
        recipe = recipe_of("ssd", spec=spec, anchors={**given, "inner": inner})
        same = recipe_of("ssd", spec=spec, anchors=preset)
        np.testing.assert_array_equal(anchors_from(recipe).all(), anchors_from(same).all())
    pairs = {"levels": [3, 7], "scales": octaves, "strides": "exact"}
    recipe = recipe_of("ssd", spec=spec, anchors={**pairs, "ratios": [1, [1.4, 0.7], [0.7, 1.4]]})
    same = recipe_of("ssd", spec=spec, anchors="efficientdet")
    np.testing.assert_array_equal(anchors_from(recipe).all(), anchors_from(same).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": [3]},
        {"levels": [7, 3]},
        {"levels": ["a", 3]},
        {"levels": 3},
        {"inner": "shapes"},
        {"strides": 8},
        {"scales": []},
        {"scales": [0]},
        {"ratios": [-1]},
        {"ratios": [[1, 2, 3]]},
        {"ratios": "wide"},
        {"scales": "4"},
        {"scales": [float("nan")]},
        {"centre": "middle"},
        {"octaves": 3},
    ],
    ids=str,
)
def test_a_pyramid_that_is_none_is_a_usage_error(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="anchors"):
        anchors_from(recipe_of("ssd", anchors={"levels": [3, 7], "scales": [4], **changes}))


SIZE = (72, 200)
CLASSES = 5


def outputs_of(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Codes and logits of every anchor: few pass, some are infinite or NaN."""
    count = 9 * len(cells(SIZE))
    codes = rng.normal(0, 0.5, (1, count, 4)).astype(np.float32)
    logits = rng.normal(-7, 2.5, (1, count, CLASSES)).astype(np.float32)
    # A score at the threshold may fall on either side in float32: none is there.
    logits[np.abs(1 / (1 + np.exp(-logits.astype(np.float64))) - 0.25) < 1e-5] = -30
    for value, share in ((np.nan, 0.01), (-np.inf, 0.01)):
        logits[rng.random(logits.shape) < share] = value
    return codes, logits


def by_level(codes: np.ndarray, logits: np.ndarray, form: str) -> dict[str, np.ndarray]:
    """The same numbers as maps of each level."""
    out, first = {}, 0
    places = cells(SIZE)
    for level in range(3, 8):
        rows = 1 + max(y for at, y, _ in places if at == level)
        columns = 1 + max(x for at, _, x in places if at == level)
        count = rows * columns * 9
        for name, values in (("codes", codes), ("scores", logits)):
            part = values[:, first : first + count].reshape(1, rows, columns, 9, -1)
            if form == "nchw":
                part = part.transpose(0, 3, 4, 1, 2).reshape(1, -1, rows, columns)
            elif form == "nkchw":
                part = part.transpose(0, 3, 4, 1, 2)
            elif form == "nhwc":
                part = part.reshape(1, rows, columns, -1)
            out[f"{name}{level}"] = np.ascontiguousarray(part)
        first += count
    return out


def recipe_for(*, activation: str = "sigmoid", maps: bool = False, **options: Any) -> Any:
    names: dict[str, Any] = {"boxes": "codes", "scores": "scores"}
    if maps:
        names = {
            "boxes": [f"codes{level}" for level in range(3, 8)],
            "scores": [f"scores{level}" for level in range(3, 8)],
        }
    options = {"anchors": "retinanet", "code": "xywh", **options}
    return recipe_of(
        "ssd",
        spec=PreprocessSpec(resize="stretch", size=SIZE),
        **names,
        variances=[1, 1, 1, 1],
        activation=activation,
        background=-1,
        **options,
    )


@pytest.mark.parametrize("seed", range(4))
def test_joined_outputs_against_float64(seed: int) -> None:
    codes, logits = outputs_of(np.random.default_rng(seed))
    recipe = recipe_for()
    outputs = {"codes": codes, "scores": logits}
    # No box suppresses another, so every candidate is a result.
    frame = frame_of(recipe, *SIZE)
    (got,) = decode(recipe, outputs, frame, iou=1.0, max_det=10**6)
    anchors = reference_anchors("retinanet", SIZE)
    wide = np.where(np.isnan(logits[0]), -np.inf, logits[0].astype(np.float64))
    scores = 1 / (1 + np.exp(-wide))
    best = scores.argmax(axis=1)
    at = np.flatnonzero(scores[np.arange(len(best)), best] > 0.25)
    assert len(at) > 20
    exact_scores = scores[at, best[at]]
    order = np.argsort(-exact_scores, kind="stable")
    at, exact_scores = at[order], exact_scores[order]
    assert got.class_id.tolist() == best[at].tolist()
    # exp of up to 32 and a division.
    np.testing.assert_allclose(got.confidence, exact_scores, rtol=ROUNDING * 40)
    code = codes[0, at].astype(np.float64)
    cx = anchors[at, 1] + code[:, 0] * anchors[at, 3]
    cy = anchors[at, 0] + code[:, 1] * anchors[at, 2]
    half_w = np.exp(code[:, 2]) * anchors[at, 3] / 2
    half_h = np.exp(code[:, 3]) * anchors[at, 2] / 2
    exact = np.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], axis=1)
    exact = np.clip(exact, 0, [SIZE[1], SIZE[0]] * 2)
    # A dozen roundings of numbers whose parts add up to this much, and those of the anchors.
    parts = np.abs(cx) + half_w + 2 * np.abs(code[:, 0] * anchors[at, 3])
    parts = np.maximum(parts, np.abs(cy) + half_h + 2 * np.abs(code[:, 1] * anchors[at, 2]))
    assert (np.abs(got.xyxy - exact) <= ROUNDING * 24 * parts[:, None]).all()


@pytest.mark.parametrize("form", ["nchw", "nkchw", "nhwc", "nhwkc"])
@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_maps_by_level_are_the_joined_outputs(
    form: str, activation: str, multi_label: bool
) -> None:
    codes, logits = outputs_of(np.random.default_rng(7))
    options = {"activation": activation, "multi_label": multi_label}
    for confidence in (0.0, 0.02, 0.25, 0.9999999, 1.0):
        for anchors in ("retinanet", "efficientdet"):
            joined = recipe_for(**options, anchors=anchors)
            maps = recipe_for(**options, anchors=anchors, maps=True)
            outputs = {"codes": codes, "scores": logits}
            (wanted,) = decode(joined, outputs, frame_of(joined, *SIZE), confidence=confidence)
            levels = by_level(codes, logits, form)
            (got,) = decode(maps, levels, frame_of(maps, *SIZE), confidence=confidence)
            for field in ("xyxy", "confidence", "class_id"):
                np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field))
    assert len(decode(maps, levels, frame_of(maps, *SIZE), confidence=0.02)[0]) > 10


def test_a_map_that_fits_two_orders_is_read_as_the_others_are() -> None:
    # 288×288 has 36 × 36 cells of 4 × 9 numbers on level 3.
    spec = PreprocessSpec(resize="stretch", size=(288, 288))
    sides = [36, 18, 9, 5, 3]
    rng = np.random.default_rng(5)
    wide = {}
    for level, side in enumerate(sides, start=3):
        wide[f"codes{level}"] = rng.normal(0, 0.5, (1, side, side, 36)).astype(np.float32)
        wide[f"scores{level}"] = rng.normal(-5, 2, (1, side, side, 18)).astype(np.float32)
    recipe = recipe_of("ssd", **{**recipe_for(maps=True).head_options}, spec=spec)
    frame = frame_of(recipe, 288, 288)
    (wanted,) = decode(
        recipe, {k: np.ascontiguousarray(np.moveaxis(v, 3, 1)) for k, v in wide.items()}, frame
    )
    (got,) = decode(recipe, wide, frame)
    assert len(wanted) > 20
    np.testing.assert_array_equal(got.xyxy, wanted.xyxy)


def test_levels_that_do_not_go_together_are_errors() -> None:
    levels = by_level(*outputs_of(np.random.default_rng(0)), "nchw")
    fewer = {**levels, "scores6": np.zeros((1, 36, 2, 4), np.float32)}
    for form in (fewer, {**fewer, "scores6": np.zeros((1, 2, 4, 45), np.float32)}):
        with pytest.raises(ModelError, match=r"output scores3, .*in one order, with as many"):
            decode(recipe_for(maps=True), form, frame_of(recipe_for(), *SIZE))
    options = {**recipe_for(maps=True).head_options, "background": CLASSES}
    recipe = recipe_of("ssd", spec=PreprocessSpec(size=SIZE), **options)
    with pytest.raises(ModelError, match="output scores3"):
        decode(recipe, levels, frame_of(recipe, *SIZE))


def test_maps_of_another_layout_are_errors() -> None:
    codes, logits = outputs_of(np.random.default_rng(0))
    levels = by_level(codes, logits, "nchw")
    recipe = recipe_for(maps=True)
    for name, shape in (
        ("codes3", (1, 36, 9, 24)),
        ("codes3", (1, 45, 9, 25)),
        ("scores4", (1, 44, 5, 13)),
        ("scores5", (1, 45)),
        ("scores5", (2, 45, 3, 7)),
    ):
        with pytest.raises(ModelError, match=f"output {name}"):
            decode(recipe, {**levels, name: np.zeros(shape, np.float32)}, frame_of(recipe, *SIZE))
    for bad in (
        {"boxes": ["codes3"]},
        {"scores": "scores3"},
        {"scores": ["x"] * 5},
        {"scores": [["scores3"]] * 5},
        {"anchors": "tf_ssd_300"},
    ):
        names = dict(recipe.head_options) | bad
        with pytest.raises(UsageError, match="head option"):
            decode(recipe_of("ssd", spec=PreprocessSpec(size=SIZE), **names), levels)
