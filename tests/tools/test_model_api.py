"""Model API's metadata brings task, labels, spec and thresholds with it."""

from __future__ import annotations

import pytest
from guess_models import flags, model_with
from onnx import helper

from trtconvert.guess import RecipeFlags, find_recipe
from visionrt.errors import ModelError


def with_info(model, **entries):
    helper.set_model_props(model, {f"model_info {key}": value for key, value in entries.items()})
    return model


DETECTOR = {"dets": (1, 100, 5), "labels": (1, 100)}
INFO = {
    "model_type": "ssd", "task_type": "detection", "labels": "red_fox owl",
    "mean_values": "123.675 116.28 103.53", "scale_values": "58.395 57.12 57.375",
    "resize_type": "fit_to_window_letterbox", "pad_value": "0", "reverse_input_channels": "True",
    "confidence_threshold": "0.35", "iou_threshold": "0.5",
}  # fmt: skip


def test_a_detector():
    found = find_recipe(with_info(model_with({"y": (1, 6, 189)}), **INFO), RecipeFlags())
    recipe = found.recipe
    assert (recipe.task, recipe.head) == ("detect", "yolo")  # as the shape says
    assert recipe.labels == ("red fox", "owl")
    spec = recipe.preprocess
    assert (spec.resize, spec.pad_value, spec.color, spec.size) == ("letterbox", 0, "rgb", (96, 96))
    assert spec.mean == (123.675, 116.28, 103.53)
    assert (recipe.confidence, recipe.iou) == (0.35, 0.5)
    assert found.reasons["preprocess"] == found.reasons["confidence"] == "the model's metadata"
    assert found.confidence["preprocess"] == 1


def test_flags_win():
    model = with_info(model_with({"y": (1, 6, 189)}), **INFO)
    recipe = find_recipe(model, flags("tf", confidence=0.7)).recipe
    assert recipe.preprocess.std == (127.5, 127.5, 127.5)
    assert recipe.confidence == 0.7


def test_a_multi_label_classifier_of_unit_intensities():
    model = with_info(
        model_with({"y": (1, 3)}), model_type="Classification", multilabel="True",
        label_info='{"label_names": ["a b", "c", "d"]}', labels="a_b c d",
        intensity_mode="scale_to_unit", mean_values="0.5 0.5 0.5", scale_values="0.25 0.25 0.25",
    )  # fmt: skip
    recipe = find_recipe(model, RecipeFlags()).recipe
    assert (recipe.task, recipe.labels) == ("classify", ("a b", "c", "d"))
    assert recipe.head_options["activation"] == "sigmoid"
    assert recipe.preprocess.mean == (127.5, 127.5, 127.5)
    assert recipe.preprocess.std == (63.75, 63.75, 63.75)
    assert (recipe.preprocess.color, recipe.preprocess.resize) == ("bgr", "stretch")


def test_processing_inside_the_graph_leaves_nothing_to_do():
    model = with_info(model_with({"y": (1, 3)}), **INFO, embedded_processing="True")
    props = {entry.key: entry for entry in model.metadata_props}
    props["model_info task_type"].value = "classification"
    props["model_info model_type"].value = ""
    props["model_info labels"].value = "a b c"
    spec = find_recipe(model, RecipeFlags()).recipe.preprocess
    assert (spec.color, spec.mean, spec.std) == ("bgr", (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_type": "anomaly", "model_type": "AnomalyDetection"},
        {"resize_type": "tile"},
        {"pad_value": "grey"},
        {"scale_values": "0"},
        {"label_info": "{"},
    ],
)
def test_what_is_not_understood_is_said(wrong):
    model = with_info(model_with({"y": (1, 6, 189)}), **(INFO | wrong))
    with pytest.raises(ModelError):
        find_recipe(model, RecipeFlags())
