"""Model API's metadata brings task, labels, spec and thresholds with it."""

from __future__ import annotations

import pytest
from guess_models import flags, model_with
from onnx import TensorProto, helper

from trtconvert.guess import RecipeFlags, find_recipe
from visionrt.errors import ModelError, UsageError


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
    model = model_with({"y": (1, 3)}, dtype=TensorProto.UINT8)
    wrong_of_it = {"task_type": "classification", "model_type": "", "labels": "a b c"}
    model = with_info(model, **(INFO | wrong_of_it), embedded_processing="True")
    spec = find_recipe(model, RecipeFlags()).recipe.preprocess
    assert (spec.color, spec.mean, spec.std) == ("bgr", (0, 0, 0), (1, 1, 1))


# What openvino-model-api 0.4.7 writes into an ONNX file that its ONNXRuntimeAdapter has loaded,
# by Model.save; its graph is as it was. (test_real_exports.py lets it write them.)
SAVED = {
    "model_type": "Classification", "embedded_processing": "True",
    "mean_values": "127.0 127.0 127.0", "scale_values": "128.0 128.0 128.0",
    "reverse_input_channels": "True", "input_dtype": "u8", "intensity_mode": "none",
    "intensity_percentile_low": "1.0", "intensity_percentile_high": "99.0",
    "intensity_scale_factor": "1.0", "intensity_min_value": "0.0",
    "intensity_repeat_channels": "False", "resize_type": "standard",
    "interpolation_mode": "LINEAR", "pad_value": "0", "orig_height": "96", "orig_width": "96",
    "topk": "1", "labels": "red_fox owl cat", "path_to_labels": "", "multilabel": "False",
    "hierarchical": "False", "hierarchical_config": "", "hierarchical_postproc": "greedy",
    "confidence_threshold": "0.5", "output_raw_scores": "False",
}  # fmt: skip


def test_processing_said_to_be_inside_a_graph_of_floats_is_asked_for():
    model = with_info(model_with({"y": (1, 3)}), **SAVED)
    with pytest.raises(UsageError, match=r"--preprocess.*for sure"):
        find_recipe(model, RecipeFlags())
    found = find_recipe(model, flags("tf")).recipe
    assert (found.task, found.labels) == ("classify", ("red fox", "owl", "cat"))
    assert found.head_options["activation"] == "softmax"
    told = with_info(model_with({"y": (1, 3)}), **(SAVED | {"embedded_processing": "False"}))
    spec = find_recipe(told, RecipeFlags()).recipe.preprocess
    assert (spec.resize, spec.color, spec.mean, spec.std) == (
        *("stretch", "rgb"),
        *((127.0,) * 3, (128.0,) * 3),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_type": "anomaly", "model_type": "AnomalyDetection"},
        {"resize_type": "tile"},
        {"pad_value": "grey"},
        {"scale_values": "0"},
        {"label_info": "{"},
        {"intensity_mode": "percentile"},
        {"intensity_mode": "scale_to_unit", "input_dtype": "u16"},
    ],
)
def test_what_is_not_understood_is_said(wrong):
    model = with_info(model_with({"y": (1, 6, 189)}), **(INFO | wrong))
    with pytest.raises(ModelError):
        find_recipe(model, RecipeFlags())
