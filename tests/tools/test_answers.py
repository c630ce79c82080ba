"""Noise at a model's raw answers, and how much each of them counts."""

from __future__ import annotations

import math

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from trtconvert.graph_view import GraphView
from trtconvert.search.answers import answer_weights, raw_answers, relative_noise
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec


def detector_view():
    """Two levels of scores and boxes; the scores are concatenated, and so are the boxes."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 19]>\n'
        "g (float[1,4,6,6] x) => (float[1,4,12,6] boxes, float[1,4,12,6] scores) {\n"
        " a = Conv(x, w)\n b = Relu(a)\n"
        " p = Conv(a, w)\n q = Conv(b, w)\n r = Conv(a, w)\n s = Conv(b, w)\n"
        " boxes = Concat<axis=2>(p, q)\n"
        " logits = Concat<axis=2>(r, s)\n scores = Sigmoid(logits) }"
    )
    weight = np.random.default_rng(1).normal(size=(4, 4, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return GraphView(model)


def recipe(**head_options):
    spec = PreprocessSpec(size=(6, 6))
    return Recipe("detect", "boxes_scores", spec, ("a", "b"), head_options=head_options)


def test_boxes_count_a_tenth_of_scores_where_the_head_tells_them_apart():
    view = detector_view()
    assert raw_answers(view) == ["p", "q", "r", "s"]
    told = answer_weights(view, recipe(boxes="boxes", scores="scores"))
    assert told == {"p": 0.1, "q": 0.1, "r": 1.0, "s": 1.0}
    assert set(answer_weights(view, recipe()).values()) == {1.0}
    assert set(answer_weights(view, recipe(scores="elsewhere")).values()) == {1.0}


def test_noise_counts_by_weight():
    rng = np.random.default_rng(2)
    clean = {name: rng.normal(size=(1, 3, 8, 8)) for name in ("boxes", "scores")}
    weights = {"boxes": 0.1, "scores": 1.0}
    found = {}
    for name, answer in clean.items():
        noisy = {name: answer + 0.1 * (answer - answer.mean((2, 3), keepdims=True))}
        found[name] = relative_noise(clean, noisy, weights)
    assert found["boxes"] == pytest.approx(0.01 * 0.1 / 1.1)
    assert found["scores"] == pytest.approx(0.01 / 1.1)


def test_noise_is_told_from_what_varies_and_each_answer_counts_by_its_positions():
    rng = np.random.default_rng(5)
    small, large = rng.normal(size=(1, 3, 4, 4)), rng.normal(size=(1, 2, 8, 8))
    shifted = small + np.float64([100, 0, -50]).reshape(1, 3, 1, 1)
    noise = 0.01 * rng.normal(size=small.shape)
    power = ((small - small.mean((2, 3), keepdims=True)) ** 2).sum()
    expected = 16 / (16 + 64) * (noise**2).sum() / power
    for clean in (small, shifted):
        found = relative_noise({"s": clean, "l": large}, {"s": clean + noise}, {"s": 1.0, "l": 1.0})
        assert found == pytest.approx(expected, rel=1e-6)
    # A map of few positions, and a vector, have no mean per channel worth the name.
    vector = rng.normal(size=(1, 10)) + 3
    power = ((vector - vector.mean()) ** 2).sum()
    one = {"v": 1.0}
    assert relative_noise({"v": vector}, {"v": vector + 0.1}, one) == pytest.approx(0.1 / power)
    assert relative_noise({"v": vector}, {"v": vector * np.nan}, one) == math.inf
