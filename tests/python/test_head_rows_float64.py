"""Heads whose rows hold more than a box, against float64, on random awkward outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_reference import LETTERBOX, ROUNDING, STRETCH, bound, boxes_in, frames, to_image
from head_calls import SIZE, decode, recipe_of

sys.path.insert(0, str(Path(__file__).parents[1] / "csrc"))
from masks_reference import masks as masks_reference

FORMS = ("v8", "v8_rows", "v5", "end2end")
CONFIDENCE = 0.25
# No box suppresses another, so that every row above the threshold is a result.
EVERY: dict[str, Any] = {"confidence": CONFIDENCE, "iou": 1.0, "max_det": 10**6}


class Rows:
    """Random rows of one image, and what of them passes.

    Attributes:
        output: float32, as the form has it.
        centres: cx, cy, w, h float64 [k, 4] of what passes, best first.
        scores, class_ids, extra: of the same.
    """

    def __init__(
        self, form: str, seed: int, classes: int, extra: np.ndarray, *, corners: bool = True
    ) -> None:
        rng = np.random.default_rng(seed)
        count = len(extra)
        low = np.array([-0.2, -0.2, -0.02, -0.02]) * [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        high = np.array([1.2, 1.2, 0.8, 0.8]) * [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        boxes = rng.uniform(low, high, (count, 4)).astype(np.float32)
        scores = (rng.random((count, classes)) ** 3).astype(np.float32)
        # At the threshold, equal to each other, and no numbers at all.
        scores[rng.random(scores.shape) < 0.05] = CONFIDENCE
        scores[rng.random(scores.shape) < 0.05] = 0.5
        scores[rng.random(scores.shape) < 0.03] = np.nan
        objectness = np.where(rng.random(count) < 0.1, np.nan, rng.random(count) ** 0.3)
        objectness = objectness.astype(np.float32)
        boxes[3] = [np.inf, 1, 2, 3]
        boxes[4, 2] = np.nan
        scores[[3, 4]] = 0.9375
        usable = np.isfinite(boxes).all(axis=1)
        final = scores
        if form == "v5":
            with np.errstate(invalid="ignore"):
                final = objectness[:, None] * scores
                usable &= objectness > CONFIDENCE
        best = np.where(np.isnan(scores), -1, scores).argmax(axis=1)
        if form == "end2end":
            best = rng.integers(0, classes, count)
        score = final[np.arange(count), best]
        # A NaN is above no threshold.
        picked = np.flatnonzero(usable & (score > np.float32(CONFIDENCE)))
        picked = picked[np.argsort(-score[picked], kind="stable")]
        self.centres = boxes[picked].astype(np.float64)
        self.scores, self.class_ids = score[picked], best[picked]
        self.extra = extra[picked].astype(np.float64)
        if form == "end2end":
            given = boxes
            if corners:
                half = boxes[:, 2:] / 2
                given = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
                wide = given[picked].astype(np.float64)
                self.centres = np.concatenate(
                    [(wide[:, :2] + wide[:, 2:]) / 2, wide[:, 2:] - wide[:, :2]], axis=1
                )
            parts = [given, score[:, None], best[:, None], extra]
        else:
            parts = [boxes, *([objectness[:, None]] if form == "v5" else []), scores, extra]
        rows = np.concatenate(parts, axis=1).astype(np.float32)
        self.output = np.ascontiguousarray(rows.T if form == "v8" else rows)[None]

    def corners(self) -> np.ndarray:
        """x0, y0, x1, y1 float64 in tensor pixels."""
        half = self.centres[:, 2:] / 2
        return np.concatenate([self.centres[:, :2] - half, self.centres[:, :2] + half], axis=1)

    def largest(self) -> np.ndarray:
        """Of each row, what its coordinates come to."""
        return np.abs(self.centres).sum(axis=1)


def check_boxes(got: Any, rows: Rows, wanted: np.ndarray, scale: np.ndarray) -> None:
    assert np.asarray(got.class_id).tolist() == rows.class_ids.tolist()
    # A subtraction and a halving, then another subtraction and a product.
    assert (np.abs(got.xyxy - wanted) <= bound(rows.largest(), scale, 6)[:, None]).all()


@pytest.mark.parametrize("spec", [LETTERBOX, STRETCH], ids=lambda spec: spec.resize)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_yolo_pose(form: str, dims: int, spec: Any) -> None:
    rng = np.random.default_rng(dims)
    points = 5
    extra = rng.uniform(-30, 130, (90, points * dims)).astype(np.float32)
    if dims == 3:
        extra[:, 2::3] = rng.random((90, points))
    rows = Rows(form, 11, 2, extra)
    options = {"form": form, "dims": dims, "names": ["a"] * points, "skeleton": []}
    recipe = recipe_of("yolo_pose", labels=("cat", "dog"), spec=spec, **options)
    assert len(rows.scores) > 15
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, {"y": rows.output}, frame, **EVERY)
        np.testing.assert_array_equal(got.score, rows.scores)
        check_boxes(got, rows, boxes_in(rows.corners(), frame, scale, corner), scale)
        given = rows.extra.reshape(len(rows.extra), points, dims)
        wanted = to_image(given[..., :2], frame, scale, corner)
        assert got.keypoints.shape == (len(given), points, 3)
        limit = bound(given[..., :2], scale, 4)
        assert (np.abs(got.keypoints[..., :2] - wanted) <= limit).all()
        sure = given[..., 2] if dims == 3 else np.ones(given.shape[:2])
        np.testing.assert_array_equal(got.keypoints[..., 2], sure.astype(np.float32))


@pytest.mark.parametrize("spec", [LETTERBOX, STRETCH], ids=lambda spec: spec.resize)
@pytest.mark.parametrize("form", FORMS)
def test_obb(form: str, spec: Any) -> None:
    rng = np.random.default_rng(2)
    angles = rng.uniform(-7, 7, (120, 1)).astype(np.float32)
    angles[:4, 0] = 0, np.pi / 2, np.pi, -np.pi / 2
    rows = Rows(form, 5, 3, angles, corners=False)
    recipe = recipe_of("obb", labels=("a", "b", "c"), spec=spec, form=form)
    assert len(rows.scores) > 15
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, {"y": rows.output}, frame, **EVERY)
        np.testing.assert_array_equal(got.confidence, rows.scores)
        assert got.class_id.tolist() == rows.class_ids.tolist()
        turn = rows.extra[:, 0]
        sides = np.maximum(rows.centres[:, 2:], 0)
        # The sides as arrows in the tensor, stretched to the image.
        along = np.stack([np.cos(turn), np.sin(turn)], axis=1) * sides[:, :1] * scale
        across = np.stack([-np.sin(turn), np.cos(turn)], axis=1) * sides[:, 1:] * scale
        unit = np.stack([np.cos(turn), np.sin(turn)], axis=1) * scale
        lengths = np.stack([np.hypot(*along.T), np.hypot(*across.T)], axis=1)
        # Corners are rounded, then the sides are their difference.
        limit = bound(rows.largest(), scale, 8)
        centre = (rows.centres[:, :2] - corner) * scale
        assert (np.abs(got.xywhr[:, :2] - centre) <= limit[:, None]).all()
        ordered = np.sort(lengths, axis=1)[:, ::-1]
        assert (np.abs(got.xywhr[:, 2:4] - ordered) <= limit[:, None]).all()
        # Directions have no sign. Where sides are nearly equal, either may be the first.
        clear = np.abs(lengths[:, 0] - lengths[:, 1]) > 2 * limit
        first = np.arctan2(unit[:, 1], unit[:, 0])
        wanted = np.where(lengths[:, 1] > lengths[:, 0], first + np.pi / 2, first)
        apart = np.abs(np.sin(got.xywhr[:, 4].astype(np.float64) - wanted))
        # One rounding of up to pi; the angle comes as float32 and is turned in float64.
        assert clear.sum() > 15
        assert apart[clear].max() <= 4 * ROUNDING
        assert (got.xywhr[:, 4] >= 0).all()
        assert (got.xywhr[:, 4] <= np.float32(np.pi)).all()


@pytest.mark.parametrize("spec", [LETTERBOX, STRETCH], ids=lambda spec: spec.resize)
@pytest.mark.parametrize("form", FORMS)
def test_proto_mask(form: str, spec: Any) -> None:
    rng = np.random.default_rng(9)
    channels, cells = 6, (16, 24)
    extra = rng.normal(0, 1, (60, channels)).astype(np.float32)
    rows = Rows(form, 21, 2, extra)
    prototypes = rng.normal(0, 1, (1, channels, *cells)).astype(np.float32)
    options = {"form": form, "threshold": 0.125}
    recipe = recipe_of("proto_mask", labels=("a", "b"), spec=spec, **options)
    outputs = {"boxes": rows.output, "protos": prototypes}
    assert len(rows.scores) > 8
    for frame, scale, corner in frames(recipe):
        (got,) = decode(recipe, outputs, frame, **EVERY)
        np.testing.assert_array_equal(got.confidence, rows.scores)
        check_boxes(got, rows, boxes_in(rows.corners(), frame, scale, corner), scale)
        # A cell of a prototype is four pixels of the tensor on a side, y before x.
        case = {
            "prototypes": prototypes[0],
            "coefficients": rows.extra,
            "boxes": got.xyxy,
            "size": frame.image_hw,
            "scale": tuple((1 / scale / 4)[::-1]),
            "shift": tuple((corner / 4)[::-1]),
            "threshold": 0.125,
        }
        wanted, decided = masks_reference(case)
        assert decided.mean() > 0.99
        np.testing.assert_array_equal(got.mask[decided], wanted[decided].astype(bool))
    assert got.mask.any()
