"""The ``ssd`` head on outputs made by hand, and its anchors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from head_calls import decode, frame_of, recipe_of

from visionrt.errors import ModelError, UsageError
from visionrt.heads import ssd_anchors
from visionrt.spec import PreprocessSpec


def zoo_anchors() -> np.ndarray:
    """The zoo's 1,917 anchors, one by one, from the words of its documentation."""
    scales = [*np.linspace(0.2, 0.95, 6).tolist(), 1.0]
    out = []
    for i, side in enumerate((19, 10, 5, 3, 2, 1)):
        pairs = [(scales[i], r) for r in (1, 2, 0.5, 3, 0.3333)]
        pairs.append((np.sqrt(scales[i] * scales[i + 1]), 1))
        if i == 0:
            pairs = [(0.1, 1), (0.2, 2), (0.2, 0.5)]
        for row in range(side):
            for column in range(side):
                for scale, ratio in pairs:
                    width, height = scale * np.sqrt(ratio), scale / np.sqrt(ratio)
                    out.append([(row + 0.5) / side, (column + 0.5) / side, height, width])
    return np.array(out)


def test_the_preset_anchors() -> None:
    anchors = ssd_anchors.tf_ssd_300()
    assert anchors.shape == (1917, 4)
    # One rounding to float32 of values up to about 1.7.
    np.testing.assert_allclose(anchors, zoo_anchors(), atol=2**-24 * 2)


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
def test_ssd(activation: str) -> None:
    spec = PreprocessSpec(resize="stretch", size=(300, 300))
    anchors = zoo_anchors()
    options = {"anchors": "tf_ssd_300", "activation": activation}
    recipe = recipe_of("ssd", labels=("background", "cat", "dog"), spec=spec, **options)
    wanted = np.array([[40, 30, 200, 180], [300, 200, 390, 290]]) / [400, 300, 400, 300]
    at, class_ids, shares = [100, 1500], [2, 1], np.array([0.9, 0.8])
    codes, scores = np.zeros((1, 1917, 4), np.float32), np.zeros((1, 1917, 3))
    scores[..., 0] = 1
    for i, (x0, y0, x1, y1) in zip(at, wanted, strict=True):
        cy, cx, h, w = anchors[i]
        codes[0, i] = [
            ((y0 + y1) / 2 - cy) / h * 10,
            ((x0 + x1) / 2 - cx) / w * 10,
            np.log((y1 - y0) / h) * 5,
            np.log((x1 - x0) / w) * 5,
        ]
    scores[0, at] = 0
    scores[0, at, class_ids] = shares
    scores[0, at, 0] = 1 - shares
    with np.errstate(divide="ignore"):
        if activation == "sigmoid":
            scores = np.clip(np.log(scores / (1 - scores)), -50, 50)
        elif activation == "softmax":
            scores = np.clip(np.log(scores), -50, 0)
    outputs = {"codes": codes, "scores": scores.astype(np.float32)}
    (result,) = decode(recipe, outputs, frame_of(recipe, 300, 400))
    assert result.class_id.tolist() == class_ids
    np.testing.assert_allclose(result.confidence, shares, rtol=1e-5)
    # float32 codes of up to about 20 behind an exponential, at up to 400 pixels.
    np.testing.assert_allclose(result.xyxy, wanted * [400, 300, 400, 300], atol=5e-3)


def test_ssd_anchor_forms() -> None:
    from visionrt.heads.anchor_options import anchors_from

    rows = [[0.5, 0.5, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]]
    given = anchors_from(recipe_of("ssd", anchors=rows)).all()
    np.testing.assert_allclose(given, rows, rtol=1e-7)
    sides = [[19, 19], [10, 10], [5, 5], [3, 3], [2, 2], [1, 1]]
    grids = {
        "feature_maps": sides,
        "scales": [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0],
        "ratios": [1, 2, 0.5, 3, 0.3333],
        "reduce_lowest": True,
    }
    np.testing.assert_allclose(
        anchors_from(recipe_of("ssd", anchors=grids)).all(), zoo_anchors(), atol=1e-6
    )
    for bad in (
        *(None, "yolo", [], [[1, 2, 3]], {"feature_maps": sides}, {"a": 1}, 3, [["x"] * 4]),
        *({**grids, "feature_maps": maps} for maps in (3, [], [19], [[19]], [[0, 19]] * 6)),
        *({**grids, "scales": scales} for scales in (0.2, "wide", [0.2] * 6, [-0.2] * 7)),
        *({**grids, "ratios": ratios} for ratios in (1, [], [0], ["x"], [[1, 2]])),
        [[0.5, 0.5, float("nan"), 1]],
    ):
        with pytest.raises(UsageError, match="anchors"):
            anchors_from(recipe_of("ssd", anchors=bad))
    with pytest.raises(UsageError, match="got none"):
        anchors_from(recipe_of("ssd"))


@pytest.mark.parametrize(
    ("codes", "scores", "options"),
    [
        ((1, 9, 4), (1, 9, 3), {}),
        ((1, 1917, 4), (1, 9, 3), {}),
        ((2, 1917, 4), (2, 1917, 3), {}),
        ((1, 1917, 4), (1, 1917, 3), {"background": 3}),
    ],
)
def test_ssd_outputs_of_another_layout_are_model_errors(
    codes: tuple[int, ...], scores: tuple[int, ...], options: dict[str, Any]
) -> None:
    recipe = recipe_of("ssd", anchors="tf_ssd_300", **options)
    outputs = {"codes": np.zeros(codes, np.float32), "scores": np.zeros(scores, np.float32)}
    with pytest.raises(ModelError, match="output"):
        decode(recipe, outputs)
