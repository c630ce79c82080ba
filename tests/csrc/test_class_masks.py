"""The classes of an image's pixels against a reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from visionrt import _core

RNG = np.random.default_rng(11)


def reference_argmax(
    scores: np.ndarray, values: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, value and the lead of the best class over the next, in float64."""

    def sampled(planes: np.ndarray) -> np.ndarray:
        planes = planes.astype(np.float64)
        x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
        x1 = np.minimum(x0 + 1, planes.shape[2] - 1)
        y1 = np.minimum(y0 + 1, planes.shape[1] - 1)
        wx, wy = x - x0, (y - y0)[:, None]
        top = planes[:, y0][:, :, x0] * (1 - wx) + planes[:, y0][:, :, x1] * wx
        low = planes[:, y1][:, :, x0] * (1 - wx) + planes[:, y1][:, :, x1] * wx
        return top * (1 - wy) + low * wy

    at = sampled(scores)
    ids = at.argmax(axis=0)
    ranked = np.sort(at, axis=0)
    lead = ranked[-1] - ranked[-2] if len(at) > 1 else np.full(ids.shape, np.inf)
    return ids, np.take_along_axis(sampled(values), ids[None], 0)[0], lead


@pytest.mark.parametrize(("classes", "h", "w"), [(1, 1, 1), (2, 1, 7), (5, 6, 4), (300, 3, 3)])
def test_each_pixel_has_the_largest_sample(classes: int, h: int, w: int) -> None:
    scores = RNG.normal(0, 2, (classes, h, w)).astype(np.float32)
    values = RNG.random((classes, h, w)).astype(np.float32)
    # Positions in 1/64, which float32 weights hold exactly; both ends are included.
    x = np.concatenate(([0, w - 1], np.round(RNG.uniform(0, w - 1, 40) * 64) / 64))
    y = np.concatenate(([0, h - 1], np.round(RNG.uniform(0, h - 1, 30) * 64) / 64))
    x0, y0 = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    wx, wy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    ids, out = _core.class_mask(scores, values, x0, wx, y0, wy)
    expected_ids, expected, lead = reference_argmax(scores, values, x, y)
    # Four roundings per blend of two blends, on values below 16.
    margin = 16 * 8 * 2**-24
    clear = lead > margin
    assert clear.mean() > 0.99
    assert ids.dtype == (np.uint8 if classes <= 256 else np.uint16)
    np.testing.assert_array_equal(ids[clear], expected_ids[clear])
    np.testing.assert_allclose(out[clear], expected[clear], atol=margin)


def test_outside_ties_and_missing_values() -> None:
    scores = np.zeros((3, 2, 2), np.float32)
    inside, outside = np.array([0, 1], np.int32), np.array([-1, 0], np.int32)
    zero = np.zeros(2, np.float32)
    ids, out = _core.class_mask(scores + 4, None, outside, zero, inside, zero)
    assert ids.tolist() == [[0, 0], [0, 0]]
    assert out.tolist() == [[0, 4], [0, 4]]
    scores[2] = 1
    ids, out = _core.class_mask(scores, None, inside, zero, outside, zero)
    assert ids.tolist() == [[0, 0], [2, 2]]
    assert out.tolist() == [[0, 0], [1, 1]]


def test_what_would_read_outside_is_refused() -> None:
    scores = np.zeros((2, 3, 3), np.float32)
    zero, index = np.zeros(1, np.float32), np.zeros(1, np.int32)
    with pytest.raises(IndexError):
        _core.class_mask(scores, None, index + 3, zero, index, zero)
    with pytest.raises(IndexError):
        _core.class_mask(scores, None, index, zero, index + 3, zero)
    with pytest.raises(ValueError, match="weight"):
        _core.class_mask(scores, None, index, np.zeros(2, np.float32), index, zero)
    with pytest.raises(ValueError, match="shape"):
        _core.class_mask(scores, scores[:1], index, zero, index, zero)
    gap = np.array([0, -1, 0], np.int32)
    with pytest.raises(ValueError, match="outside in x0 at its ends, got some at 1"):
        _core.class_mask(scores, None, gap, np.zeros(3, np.float32), index, zero)
    with pytest.raises(ValueError, match="scores must have shape"):
        _core.binary_mask(scores, False, 0.5, index, zero, index, zero)


def axis(pixels: int, cells: int, outside: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres over the cells, a part at each end outside; positions in 1/1024."""
    at = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    at = np.round(at * 1024) / 1024
    first = np.floor(at).astype(np.int32)
    weight = (at - first).astype(np.float32)
    first[: outside[0]] = first[pixels - outside[1] :] = -1
    return first, weight


@pytest.mark.parametrize("is_logit", [False, True])
@pytest.mark.parametrize("outside", [(0, 0), (3, 0), (2, 5), (37, 0)])
@pytest.mark.parametrize(("w", "width"), [(1, 37), (5, 37), (13, 37), (36, 37), (90, 37)])
def test_a_binary_mask_is_the_samples_above_the_threshold(
    is_logit: bool, outside: tuple[int, int], w: int, width: int
) -> None:
    h, height, threshold = 7, 20, 0.375
    low, high = (-9, 9) if is_logit else (0, 1)
    scores = RNG.uniform(low, high, (1, h, w)).astype(np.float32)
    (x0, wx), (y0, wy) = axis(width, w, outside), axis(height, h, (1, 2))
    mask, confidence = _core.binary_mask(scores, is_logit, threshold, x0, wx, y0, wy)
    x, y = np.maximum(x0, 0) + wx.astype(float), np.maximum(y0, 0) + wy.astype(float)
    _, sample, _ = reference_argmax(scores, scores, x, y)
    p = 1 / (1 + np.exp(-sample)) if is_logit else sample
    # Two blends of values up to 9, and of the logistic function's slope, at most 1/4, of them.
    margin = 16 * 8 * 2**-24
    is_outside = (y0 < 0)[:, None] | (x0 < 0)
    clear = is_outside | (np.abs(p - threshold) > margin)
    expected = ~is_outside & (p >= threshold)
    np.testing.assert_array_equal(mask[clear], expected[clear])
    shares = np.where(is_outside, 0, np.where(expected, p, 1 - p))
    np.testing.assert_allclose(confidence[clear], shares[clear], atol=margin)
    assert mask.dtype == np.uint8


def test_the_logistic_function_is_right_over_its_whole_range() -> None:
    logits = np.concatenate(
        [np.linspace(-120, 120, 100_001), [0, 1e-30, -1e-30, 1e38, -1e38]]
    ).astype(np.float32)
    index, zero = np.arange(len(logits), dtype=np.int32), np.zeros(len(logits), np.float32)
    row = np.zeros(1, np.int32), np.zeros(1, np.float32)
    grid = logits[None, None]
    mask, confidence = _core.binary_mask(grid, True, 0.5, index, zero, *row)
    wide = grid[0].astype(np.float64)
    expected = 1 / (1 + np.exp(-np.abs(wide)))  # of the class that is the likelier one
    np.testing.assert_allclose(confidence, expected, rtol=0, atol=4 * 2**-24)
    clear = (np.abs(wide) > 2**-22) | (wide == 0)
    np.testing.assert_array_equal(mask[clear], wide[clear] >= 0)
    cell = np.full((1, 1, 1), np.nan, np.float32)
    mask, confidence = _core.binary_mask(cell, True, 0.5, *row, *row)
    assert mask.item() == 0
    assert np.isnan(confidence.item())
