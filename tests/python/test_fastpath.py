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


def test_top_k_reads_any_shape_and_any_strides() -> None:
    logits = RNG.normal(0, 3, 60).astype(np.float32)
    expected = _fastpath.softmax_top_k(logits, 7, 1)
    wide = np.zeros(120, np.float32)
    wide[::2] = logits
    for same in (logits[None], logits.reshape(1, 60, 1, 1), wide[::2], logits[::-1].copy()[::-1]):
        found = _fastpath.softmax_top_k(same, 7, 1)
        for array, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_top_k_refuses_what_does_not_fit() -> None:
    logits = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="offset"):
        _fastpath.softmax_top_k(logits, 1, 5)
    with pytest.raises(ValueError, match="classes"):
        _fastpath.softmax_top_k(logits, 1, 1, True, np.ones(4, np.uint8))
    for other in (logits.astype(np.float64), logits.astype(">f4"), logits.astype("F")):
        with pytest.raises(ValueError, match="float32"):
            _fastpath.softmax_top_k(other, 1)
    assert len(_fastpath.softmax_top_k(logits, 0)[0]) == 0
