"""pil mode against Pillow itself."""

from __future__ import annotations

import numpy as np
import preprocess_reference as reference
import pytest
from PIL import Image

from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec


@pytest.mark.parametrize(("longest", "count"), [(8, 600), (64, 600), (200, 200)])
def test_random_cases_equal_pillow(longest, count, record_property):
    worst = 0.0
    cases = reference.random_cases(longest, count, longest, interpolation="pil")
    for spec, images, color in cases:
        got = Preprocessor(spec)(images, color=color).astype(np.float64)
        difference = float(np.abs(got - reference.tensor(spec, images, color)).max())
        assert difference == 0, f"{spec} {[i.shape for i in images]} {color}: {difference}"
        worst = max(worst, difference)
    record_property("max_difference", worst)


def test_within_one_level_of_one_call_to_pillow():
    # Each pass rounds once, by at most half a level, and a filter's weights sum to 1: whichever
    # pass is first, two results are less than 2 levels apart, so at most 1.
    rng = np.random.default_rng(1)
    for _ in range(500):
        h, w, th, tw = (int(v) for v in rng.integers(1, 120, 4))
        image = rng.integers(0, 256, (h, w, 3), np.uint8)
        spec = PreprocessSpec(
            resize="stretch",
            size=(th, tw),
            std=1,
            color="bgr",
            interpolation="pil",
            dtype="uint8",
            layout="nhwc",
        )
        got = Preprocessor(spec)([image])[0].astype(int)
        whole = np.asarray(Image.fromarray(image).resize((tw, th), Image.Resampling.BILINEAR))
        assert np.abs(got - whole).max() <= 1, (h, w, th, tw)


def test_imagenet_preset_equals_torchvisions_recipe():
    image = np.random.default_rng(2).integers(0, 256, (301, 457, 3), np.uint8)
    picture = Image.fromarray(image).resize((int(256 * 457 / 301), 256), Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2.0) for side in picture.size)
    cut = np.asarray(picture)[top : top + 224, left : left + 224].astype(np.float64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((cut / 255 - mean) / std).transpose(2, 0, 1)
    got = Preprocessor(PreprocessSpec.parse("imagenet"))([image], color="rgb")[0]
    # Two float32 operations on values below 256 / 57, and a mean rounded to float32.
    np.testing.assert_allclose(got, expected, atol=4 * 2.0**-24 * 256 / 57, rtol=0)


def test_identity_and_one_pixel():
    rng = np.random.default_rng(4)
    for h, w in [(1, 1), (1, 9), (9, 1), (13, 17)]:
        image = rng.integers(0, 256, (h, w, 3), np.uint8)
        spec = PreprocessSpec(
            resize="stretch",
            size=(h, w),
            std=1,
            color="bgr",
            interpolation="pil",
            dtype="uint8",
            layout="nhwc",
        )
        np.testing.assert_array_equal(Preprocessor(spec)([image])[0], image)
