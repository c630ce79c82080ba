"""Head options and output shapes that do not fit, and the options of a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from head_calls import decode, infos, recipe_of

from visionrt.errors import ModelError, UsageError
from visionrt.heads import head_for
from visionrt.options import options_for
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("classifier", {"outptu": "y"}),
        ("classifier", {"output": "z"}),
        ("classifier", {"activation": "tanh"}),
        ("classifier", {"offset": 2}),
        ("classifier", {"offset": True}),
        ("yolo", {"form": "v9"}),
        ("yolo", {"multi_label": 1}),
        ("yolox", {"strides": []}),
        ("yolox", {"strides": [8, 0]}),
        ("yolox", {"strides": 8}),
        ("ssd", {}),
        ("ssd", {"anchors": "tf_ssd_300", "boxes": "y"}),
        ("logits", {"form": "scores"}),
        ("logits", {"threshold": 1}),
        ("logits", {"threshold": "half"}),
        ("keypoints", {"form": "simcc"}),
        ("keypoints", {"skeleton": [[1]]}),
        ("keypoints", {"skeleton": [[-1, 2]]}),
        ("keypoints", {"names": [1]}),
    ],
)
def test_bad_options_are_usage_errors(head: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="head option"):
        head_for(recipe_of(head, **options), infos({"y": np.zeros((1, 5, 4), np.float32)}))


def test_several_outputs_need_a_name() -> None:
    outputs = {"a": np.zeros((1, 5), np.float32), "b": np.zeros((1, 7), np.float32)}
    with pytest.raises(UsageError, match="output"):
        decode(recipe_of("classifier"), outputs)
    (result,) = decode(recipe_of("classifier", output="b"), outputs)
    assert len(result.logits) == 7


@pytest.mark.parametrize(
    ("head", "shape", "options"),
    [
        ("classifier", (3, 10), {}),
        ("classifier", (1, 0), {}),
        ("classifier", (1, 1), {"offset": 1}),
        ("yolo", (1, 4, 30), {}),
        ("yolo", (2, 9, 30), {}),
        ("yolo", (9, 30), {}),
        ("yolo", (1, 30, 5), {"form": "v5"}),
        ("yolox", (1, 30, 9), {}),
        ("logits", (1, 5), {}),
        ("logits", (2, 5, 6), {}),
        ("logits", (1, 2, 5, 6), {"form": "argmax"}),
        ("keypoints", (1, 17, 3), {}),
        ("keypoints", (1, 1, 17, 2), {}),
        ("keypoints", (1, 1, 5, 3), {"skeleton": [[0, 5]]}),
    ],
)
def test_outputs_of_another_layout_are_model_errors(
    head: str, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="output y"):
        decode(recipe_of(head, **options), {"y": np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 1.1},
        {"confidence": float("nan")},
        {"iou": -0.1},
        {"max_det": 0},
        {"top_k": 0},
        {"top_k": 1.5},
        {"classes": ["unicorn"]},
        {"classes": [-1]},
        {"classes": [0.5]},
    ],
    ids=str,
)
def test_bad_call_options_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        options_for(recipe_of("yolo", labels=("cat",)), **options)


def test_call_options_default_to_the_recipe() -> None:
    recipe = Recipe("detect", "yolo", PreprocessSpec(), ("cat", "dog"), 0.11, 0.22, 33)
    options = options_for(recipe, classes=["dog", 0, "dog"])
    assert (options.confidence, options.iou, options.max_det) == (0.11, 0.22, 33)
    assert options.classes == (1, 0)
    assert options_for(recipe, classes="dog").classes == (1,)
    classify = Recipe("classify", "classifier", PreprocessSpec(), confidence=0.9)
    assert options_for(classify).confidence == 0
