"""The Cython loops against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from visionrt import _fastpath

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((4, 5), np.uint8), (4, 5, 1, True)),
        (np.zeros((4, 5, 1), np.uint8), (4, 5, 1, True)),
        (np.zeros((4, 5, 3), np.uint8), (4, 5, 3, True)),
        (np.zeros((4, 9, 3), np.uint8)[:, 2:7], (4, 5, 3, True)),
        (np.zeros((4, 5, 4), np.uint8)[..., :3], (4, 5, 3, False)),
        (np.zeros((4, 5, 3), np.uint8)[::-1], (4, 5, 3, False)),
        (np.zeros((5, 4, 3), np.uint8).swapaxes(0, 1), (4, 5, 3, False)),
        (bytearray(12), None),
        (memoryview(bytearray(12)).cast("B", (3, 4)), (3, 4, 1, True)),
        (np.zeros((4, 5), np.int8), None),
        (np.zeros((4, 5), bool), None),
        (np.zeros((4, 5), "S1"), None),
        (np.zeros((4, 5), "V1"), None),
        (np.zeros((4, 5, 3), np.uint16), None),
        (np.zeros((4, 5, 3), np.uint16).astype(">u2"), None),
        (np.zeros((2, 4, 5, 3), np.uint8), None),
        (np.zeros((4, 5, 2), np.uint8), None),
        (np.zeros((0, 5, 3), np.uint8), None),
        (np.zeros((2, 2), "datetime64[s]"), None),
        (np.empty((2, 2), object), None),
        ([[1, 2], [3, 4]], None),
        (None, None),
    ],
)
def test_image_shape(image: object, expected: object) -> None:
    assert _fastpath.image_shape(image) == expected


def reference_top_k(
    logits: np.ndarray, k: int, offset: int, allowed: np.ndarray | None
) -> tuple[list[int], list[float]]:
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max())
    shares /= shares.sum()
    ids = [i for i in range(len(logits) - offset) if allowed is None or allowed[i]]
    ids.sort(key=lambda i: (-wide[i + offset], i))
    return ids[:k], [shares[i + offset] for i in ids[:k]]


@pytest.mark.parametrize("count", [1, 2, 5, 1000, 1001])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("k", [1, 5, 2000])
def test_top_k_equals_a_sort(count: int, offset: int, k: int) -> None:
    if count <= offset:
        return
    for scale, decimals in ((1, 6), (30, 6), (3, 0)):  # the last one is full of ties
        logits = np.round(RNG.normal(0, scale, count), decimals).astype(np.float32)
        allowed = None if decimals else RNG.integers(0, 2, count - offset, dtype=np.uint8)
        ids, values, kept = _fastpath.softmax_top_k(logits, k, offset, True, allowed)
        np.testing.assert_array_equal(kept, logits[offset:])
        assert not np.shares_memory(kept, logits)
        expected_ids, expected_values = reference_top_k(logits, k, offset, allowed)
        assert ids.dtype == np.int32
        assert ids.tolist() == expected_ids
        # The sum runs in double, so only the rounding to float32 is left: half an ulp, and a
        # thousandth of one from the order of the sum.
        np.testing.assert_allclose(values, expected_values, rtol=2**-24 * 1.001, atol=1e-45)


def test_top_k_without_softmax_gives_the_values_back() -> None:
    ids, values, _ = _fastpath.softmax_top_k(np.array([0.2, 0.7, 0.1], np.float32), 2, 0, False)
    assert ids.tolist() == [1, 0]
    assert values.tolist() == [np.float32(0.7), np.float32(0.2)]


def test_top_k_of_infinities_and_nan() -> None:
    inf, nan = np.inf, np.nan
    ids, values, _ = _fastpath.softmax_top_k(np.array([1, inf, 2], np.float32), 2)
    assert (ids.tolist(), values.tolist()) == ([1, 2], [1.0, 0.0])
    ids, values, _ = _fastpath.softmax_top_k(np.array([inf, 1, inf], np.float32), 2)
    assert (ids.tolist(), values.tolist()) == ([0, 2], [0.5, 0.5])
    ids, values, _ = _fastpath.softmax_top_k(np.full(3, -inf, np.float32), 1)
    assert ids.tolist() == [0]
    ids, _, _ = _fastpath.softmax_top_k(np.array([nan, 1, nan, 3], np.float32), 4)
    assert ids.tolist() == [3, 1]
    ids, values, _ = _fastpath.softmax_top_k(np.full(3, nan, np.float32), 2)
    assert len(ids) == len(values) == 0


def test_top_k_refuses_what_does_not_fit() -> None:
    logits = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="offset"):
        _fastpath.softmax_top_k(logits, 1, 5)
    with pytest.raises(ValueError, match="classes"):
        _fastpath.softmax_top_k(logits, 1, 1, True, np.ones(4, np.uint8))
    for other in (logits.astype(np.float64), logits.astype(">f4"), logits[None]):
        with pytest.raises(ValueError, match="float32"):
            _fastpath.softmax_top_k(other, 1)
    with pytest.raises((ValueError, BufferError), match="contiguous"):
        _fastpath.softmax_top_k(np.zeros(8, np.float32)[::2], 1)
    assert len(_fastpath.softmax_top_k(logits, 0)[0]) == 0


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
def test_argmax_upsampled(classes: int, h: int, w: int) -> None:
    scores = RNG.normal(0, 2, (classes, h, w)).astype(np.float32)
    values = RNG.random((classes, h, w)).astype(np.float32)
    # Positions in 1/64, which float32 weights hold exactly; both ends are included.
    x = np.concatenate(([0, w - 1], np.round(RNG.uniform(0, w - 1, 40) * 64) / 64))
    y = np.concatenate(([0, h - 1], np.round(RNG.uniform(0, h - 1, 30) * 64) / 64))
    x0, y0 = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    wx, wy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    ids, out = _fastpath.argmax_upsampled(scores, values, x0, wx, y0, wy)
    expected_ids, expected, lead = reference_argmax(scores, values, x, y)
    # Four roundings per blend of two blends, on values below 16.
    margin = 16 * 8 * 2**-24
    clear = lead > margin
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(ids[clear], expected_ids[clear])
    np.testing.assert_allclose(out[clear], expected[clear], atol=margin)


def test_argmax_outside_ties_and_missing_values() -> None:
    scores = np.zeros((3, 2, 2), np.float32)
    inside, outside = np.array([0, 1], np.int32), np.array([-1, 0], np.int32)
    zero = np.zeros(2, np.float32)
    ids, out = _fastpath.argmax_upsampled(scores + 4, None, outside, zero, inside, zero)
    assert ids.tolist() == [[0, 0], [0, 0]]
    assert out.tolist() == [[0, 4], [0, 4]]
    scores[2] = 1
    ids, out = _fastpath.argmax_upsampled(scores, None, inside, zero, outside, zero)
    assert ids.tolist() == [[0, 0], [2, 2]]
    assert out.tolist() == [[0, 0], [1, 1]]


def test_argmax_refuses_what_would_read_outside() -> None:
    scores = np.zeros((2, 3, 3), np.float32)
    zero, index = np.zeros(1, np.float32), np.zeros(1, np.int32)
    with pytest.raises(IndexError):
        _fastpath.argmax_upsampled(scores, None, index + 3, zero, index, zero)
    with pytest.raises(IndexError):
        _fastpath.argmax_upsampled(scores, None, index, zero, index + 3, zero)
    with pytest.raises(ValueError, match="weight"):
        _fastpath.argmax_upsampled(scores, None, index, np.zeros(2, np.float32), index, zero)
    with pytest.raises(ValueError, match="shape"):
        _fastpath.argmax_upsampled(scores, scores[:1], index, zero, index, zero)
