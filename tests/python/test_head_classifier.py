"""The ``classifier`` head on outputs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from head_calls import decode, frame_of, recipe_of

RNG = np.random.default_rng(5)


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return shares / shares.sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("tail", [(), (1, 1)])
def test_classifier_of_a_batch(dtype: Any, tail: tuple[int, ...]) -> None:
    logits = RNG.normal(0, 3, (2, 10)).astype(dtype)
    recipe = recipe_of("classifier", labels=tuple("abcdefghij"))
    frame = frame_of(recipe)
    for row, result in zip(
        logits, decode(recipe, {"y": logits.reshape(2, 10, *tail)}, frame, frame), strict=True
    ):
        order = np.argsort(-row.astype(np.float64))[:5]
        assert result.class_id.tolist() == order.tolist()
        np.testing.assert_allclose(result.confidence, softmax(row)[order], rtol=1e-6)
        np.testing.assert_array_equal(result.logits, row.astype(np.float32))
        assert result.best == "abcdefghij"[order[0]]


def test_classifier_drops_a_background_class_after_the_softmax() -> None:
    logits = np.array([[5, 1, 3]], np.float32)
    (result,) = decode(recipe_of("classifier", offset=1), {"y": logits})
    assert result.class_id.tolist() == [1, 0]
    np.testing.assert_allclose(result.confidence, softmax(logits[0])[[2, 1]], rtol=1e-6)
    assert result.logits.tolist() == [1, 3]


def test_classifier_activations_and_filters() -> None:
    scores = {"y": np.array([[-100, 0.5, 0.3, 100]], np.float32)}
    (none,) = decode(recipe_of("classifier", activation="none"), scores, top_k=2)
    assert none.confidence.tolist() == [100, 0.5]
    (sigmoid,) = decode(recipe_of("classifier", activation="sigmoid"), scores)
    expected = 1 / (1 + np.exp(-scores["y"][0, [3, 1, 2, 0]].astype(np.float64)))
    np.testing.assert_allclose(sigmoid.confidence, expected, rtol=1e-6, atol=1e-40)
    (some,) = decode(recipe_of("classifier"), scores, classes=[1, 2, 999])
    assert some.class_id.tolist() == [1, 2]
    (sure,) = decode(recipe_of("classifier", activation="none"), scores, confidence=0.4)
    assert sure.class_id.tolist() == [3, 1]


def test_classifier_results_outlive_the_output_buffer() -> None:
    scores = {"y": np.ones((1, 4), np.float32)}
    (result,) = decode(recipe_of("classifier"), scores)
    scores["y"][:] = 7
    assert result.logits.tolist() == [1] * 4
