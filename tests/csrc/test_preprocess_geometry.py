"""Where an image lands in the tensor, and the way back."""

from __future__ import annotations

import numpy as np
import preprocess_reference as reference
import pytest

from visionrt.errors import InputDataError
from visionrt.preprocess import Preprocessor, boxes_to_image, points_to_image
from visionrt.spec import PreprocessSpec


def placed(spec: PreprocessSpec, h: int, w: int) -> tuple[int, int, int, int]:
    g = Preprocessor(spec).geometry(h, w)
    assert (g.image_h, g.image_w) == (h, w)
    assert (g.scale_x, g.scale_y) == (w / g.resized_w, h / g.resized_h)
    return g.resized_h, g.resized_w, g.offset_y, g.offset_x


@pytest.mark.parametrize("longest", [6, 50, 700, 20000])
def test_random_sizes_equal_exact_arithmetic(longest):
    rng = np.random.default_rng(longest)
    for _ in range(2000):
        spec = reference.random_spec(rng, min(longest, 1280))
        h, w = (int(v) for v in rng.integers(1, longest + 1, 2))
        assert placed(spec, h, w) == reference.placement(spec, h, w), (spec, h, w)


def test_letterbox_equals_the_usual_float_formula_away_from_ties():
    for h, w in [(1080, 1920), (720, 1280), (427, 640), (333, 500), (640, 427), (1, 20000)]:
        ratio = min(640 / h, 640 / w)
        rw, rh = round(w * ratio), round(h * ratio)
        left, top = round((640 - rw) / 2 - 0.1), round((640 - max(rh, 1)) / 2 - 0.1)
        assert placed(PreprocessSpec(), h, w) == (max(rh, 1), rw, top, left)


def test_ties_round_to_even_and_the_smaller_border_comes_first():
    # 3 x 2 into 4 x 5: width 8/3, fills the height; 4 x 1 into 6 x 10: width exactly 1.5.
    assert placed(PreprocessSpec(size=(6, 10)), 4, 1) == (6, 2, 0, 4)
    assert placed(PreprocessSpec(size=(10, 10)), 4, 1) == (10, 2, 0, 4)  # 2.5 to 2
    assert placed(PreprocessSpec(size=(4, 5)), 3, 2) == (4, 3, 0, 1)
    top_left = PreprocessSpec(size=(4, 5), letterbox_align="top_left")
    assert placed(top_left, 3, 2) == (4, 3, 0, 0)


def test_crop_follows_torchvision():
    spec = PreprocessSpec(resize="crop", size=(224, 224))
    assert placed(spec, 333, 500) == (256, 384, -16, -80)
    assert placed(spec, 500, 333) == (384, 256, -80, -16)
    assert placed(spec.replace(crop_ratio=1), 333, 500) == (224, 336, 0, -56)
    # A surplus of 1 starts at round(0.5) = 0, one of 3 at round(1.5) = 2.
    assert placed(spec.replace(size=[4, 4], crop_ratio=1), 4, 5)[3] == 0
    assert placed(spec.replace(size=[4, 4], crop_ratio=1), 4, 7)[3] == -2
    # Not square: both sides are covered, one exactly.
    assert placed(spec.replace(size=[100, 200], crop_ratio=1), 300, 400)[:2] == (150, 200)


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "crop"])
def test_corners_of_the_resized_image_map_to_corners_of_the_image(resize):
    rng = np.random.default_rng(11)
    for _ in range(300):
        spec = PreprocessSpec(resize=resize, size=tuple(rng.integers(1, 700, 2).tolist()))
        h, w = rng.integers(1, 3000, 2).tolist()
        g = Preprocessor(spec).geometry(h, w)
        x0, y0 = g.offset_x, g.offset_y
        box = np.array([[x0, y0, x0 + g.resized_w, y0 + g.resized_h]], np.float32)
        # Three roundings to float32, relative to the side.
        np.testing.assert_allclose(
            boxes_to_image(g, box), [[0, 0, w, h]], rtol=0, atol=3 * 2.0**-24 * max(h, w)
        )


def test_mapping_clips_keeps_nan_and_works_in_place():
    g = Preprocessor(PreprocessSpec(size=(100, 100))).geometry(50, 200)
    assert (g.offset_y, g.scale_x) == (37, 2.0)
    boxes = np.array([[-5, 0, 50, 300], [10, 50, 20, np.nan]], np.float32)
    expected = np.array([[0, 0, 100, 50], [20, 26, 40, np.nan]], np.float32)
    np.testing.assert_array_equal(boxes_to_image(g, boxes), expected)
    assert boxes_to_image(g, boxes, out=boxes) is boxes
    np.testing.assert_array_equal(boxes, expected)
    columns = np.zeros((4, 2), np.float32)
    columns[:, 1] = -5, 0, 50, 300
    boxes_to_image(g, columns.T, out=columns.T)  # not contiguous
    np.testing.assert_array_equal(columns[:, 1], expected[0])
    points = np.array([[[50, 50]], [[500, -1]]], np.float32)
    np.testing.assert_array_equal(points_to_image(g, points), [[[100, 26]], [[200, 0]]])
    assert boxes_to_image(g, np.empty((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(("h", "w"), [(0, 5), (5, 0), (-1, 5), (5, (1 << 20) + 1), (5, 1 << 40)])
def test_impossible_sizes_are_refused(h, w):
    with pytest.raises(InputDataError, match=f"{h} x {w}"):
        Preprocessor(PreprocessSpec()).geometry(h, w)


def test_a_crop_too_long_for_integers_is_refused():
    spec = PreprocessSpec(resize="crop", size=(2048, 2048), crop_ratio=1)
    assert placed(spec, 1, 1 << 19)[1] == 1 << 30
    with pytest.raises(InputDataError, match="at most 1073741824 pixels long"):
        Preprocessor(spec).geometry(1, (1 << 19) + 1)
    with pytest.raises(InputDataError, match="crop_ratio"):
        Preprocessor(spec.replace(crop_ratio=1e-7)).geometry(5, 5)
