"""The ``logits`` head on outputs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from head_calls import SIZE, decode, frame_of, recipe_of

from visionrt.heads import Frame
from visionrt.spec import PreprocessSpec

RNG = np.random.default_rng(5)


def reference_sample(
    plane: np.ndarray, frame: Frame, spec: PreprocessSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear samples at the image's pixel centres, and where the model did not look."""
    g, (height, width) = frame.geometry, frame.image_hw
    coordinates, seen = [], []
    for length, offset, scale, resized, tensor, grid in (
        (height, g.offset_y, g.scale_y, g.resized_h, spec.size[0], plane.shape[0]),
        (width, g.offset_x, g.scale_x, g.resized_w, spec.size[1], plane.shape[1]),
    ):
        position = [(i + 0.5) / scale + offset for i in range(length)]
        seen.append(np.array([0 <= p <= tensor for p in position]))
        # Only cells whose centres lie on the image.
        step = tensor / grid
        low, high = max(offset, 0), min(offset + resized, tensor)
        centers = [i for i in range(grid) if low <= (i + 0.5) * step <= high]
        coordinates.append([np.clip(p / step - 0.5, centers[0], centers[-1]) for p in position])
    out = np.empty((height, width))
    for i, y in enumerate(coordinates[0]):
        for j, x in enumerate(coordinates[1]):
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            top = plane[y0, x0] * (1 - x + x0) + plane[y0, x1] * (x - x0)
            low = plane[y1, x0] * (1 - x + x0) + plane[y1, x1] * (x - x0)
            out[i, j] = top * (1 - y + y0) + low * (y - y0)
    return out, ~(seen[0][:, None] & seen[1])


SPECS = [
    PreprocessSpec(size=SIZE),
    PreprocessSpec(size=SIZE, letterbox_align="top_left"),
    PreprocessSpec(resize="stretch", size=SIZE),
    PreprocessSpec(resize="crop", size=SIZE, crop_ratio=0.8),
]


@pytest.mark.parametrize("spec", SPECS, ids=["letterbox", "top_left", "stretch", "crop"])
@pytest.mark.parametrize("image_hw", [(33, 47), (90, 20), (1, 1), (130, 200)])
def test_segmentation_is_sampled_back_through_the_geometry(
    spec: PreprocessSpec, image_hw: tuple[int, int]
) -> None:
    recipe = recipe_of("logits", spec=spec)
    frame = frame_of(recipe, *image_hw)
    scores = RNG.normal(0, 2, (1, 3, 16, 24)).astype(np.float32)
    (result,) = decode(recipe, {"y": scores}, frame)
    wide = scores[0].astype(np.float64)
    shares = np.exp(wide) / np.exp(wide).sum(axis=0)
    sampled = [reference_sample(p, frame, spec) for p in wide]
    outside = sampled[0][1]
    stack = np.stack([s for s, _ in sampled])
    expected = np.where(outside, 0, stack.argmax(axis=0))
    ranked = np.sort(stack, axis=0)
    # float32 weights from positions of up to 24 cells, times differences of up to about 16.
    margin = 24 * 16 * 4 * 2**-24
    clear = outside | (ranked[-1] - ranked[-2] > margin)
    assert result.mask.shape == result.confidence.shape == image_hw
    assert result.mask.dtype == np.uint8
    np.testing.assert_array_equal(result.mask[clear], expected[clear])
    at = np.stack([reference_sample(p, frame, spec)[0] for p in shares])
    confidence = np.where(outside, 0, np.take_along_axis(at, expected[None], 0)[0])
    np.testing.assert_allclose(result.confidence[clear], confidence[clear], atol=margin)


@pytest.mark.parametrize("form", ["logits", "probability"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_one_channel_is_compared_with_the_threshold(form: str, layout: str) -> None:
    spec = PreprocessSpec(resize="crop", size=SIZE, crop_ratio=0.8)
    recipe = recipe_of("logits", spec=spec, form=form, layout=layout, threshold=0.3)
    frame = frame_of(recipe, 50, 60)
    plane = RNG.random((16, 24)).astype(np.float32) * (6 if form == "logits" else 1)
    plane -= 4 if form == "logits" else 0
    output = plane[None, None] if layout == "nchw" else plane[None, :, :, None]
    (result,) = decode(recipe, {"y": output}, frame)
    sampled, outside = reference_sample(plane.astype(np.float64), frame, spec)
    share = 1 / (1 + np.exp(-sampled)) if form == "logits" else sampled
    clear = np.abs(share - 0.3) > 1e-4
    expected = ~outside & (share >= 0.3)
    np.testing.assert_array_equal(result.mask[clear], expected[clear])
    confidence = np.where(outside, 0, np.where(expected, share, 1 - share))
    np.testing.assert_allclose(result.confidence[clear], confidence[clear], atol=1e-4)
    assert outside.any()
    assert expected.any()


def test_a_letterbox_border_is_never_read() -> None:
    recipe = recipe_of("logits")
    frame = frame_of(recipe, 96, 96)
    scores = np.zeros((1, 2, 64, 96), np.float32)
    scores[:, 1, :, :16] = scores[:, 1, :, 80:] = 50
    (result,) = decode(recipe, {"y": scores}, frame)
    assert not result.mask.any()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float32])
def test_class_ids_are_sampled_to_the_nearest(dtype: Any) -> None:
    ids = RNG.integers(0, 200, (1, 4, 6)).astype(dtype)
    recipe = recipe_of("logits", spec=PreprocessSpec(resize="stretch", size=SIZE), form="argmax")
    (result,) = decode(recipe, {"y": ids}, frame_of(recipe, 12, 18))
    np.testing.assert_array_equal(result.mask, np.kron(ids[0], np.ones((3, 3))))
    assert result.confidence.min() == 1
    (some,) = decode(recipe, {"y": ids}, classes=[int(ids[0, 0, 0])])
    assert set(np.unique(some.mask)) <= {0, int(ids[0, 0, 0])}


def test_more_than_256_classes_are_16_bit() -> None:
    scores = np.zeros((1, 300, 2, 2), np.float32)
    scores[0, 299] = 1
    (result,) = decode(recipe_of("logits"), {"y": scores})
    assert result.mask.dtype == np.uint16
    assert set(np.unique(result.mask)) == {299}
