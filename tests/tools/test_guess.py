"""The recipe is found from flags, metadata and shapes, and doubt is never settled silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from guess_models import flags, model_with
from onnx import TensorProto, helper

from trtconvert.guess import RecipeFlags, recipe_for
from trtconvert.head_guess import CERTAIN, LIKELY, HeadGuess, Outputs, choose_guess
from trtconvert.head_rules import guess_head
from trtconvert.load import load_model
from visionrt.errors import ModelError, UsageError
from visionrt.heads import head_for
from visionrt.manifest import TensorInfo
from visionrt.spec import PRESETS

MODELS = Path(__file__).parents[1] / "data" / "models"


def with_metadata(model, **entries):
    helper.set_model_props(model, {key: str(value) for key, value in entries.items()})
    return model


# structure


@pytest.mark.parametrize(
    ("outputs", "last", "task", "head", "options"),
    [
        ({"y": (1, 1000)}, "Identity", "classify", "classifier",
         {"output": "y", "activation": "softmax", "offset": 0}),
        ({"y": (1, 1001)}, "Softmax", "classify", "classifier",
         {"output": "y", "activation": "none", "offset": 1}),
        ({"y": (1, 1000, 1, 1)}, "Identity", "classify", "classifier",
         {"output": "y", "activation": "softmax", "offset": 0}),
        # 96×96 has 12² + 6² + 3² = 189 cells at strides 8, 16 and 32.
        ({"y": (1, 84, 189)}, "Identity", "detect", "yolo", {"output": "y", "form": "v8"}),
        ({"y": (1, 7, 189)}, "Identity", "detect", "yolo", {"output": "y", "form": "v8"}),
        ({"y": (1, 567, 85)}, "Identity", "detect", "yolo", {"output": "y", "form": "v5"}),
        ({"b": (1, 50, 4), "s": (1, 50, 21)}, "Identity", "detect", "ssd",
         {"boxes": "b", "scores": "s", "activation": "softmax", "background": 0}),
        ({"s": (1, 50, 21), "b": (1, 50, 4)}, "Sigmoid", "detect", "ssd",
         {"boxes": "b", "scores": "s", "activation": "none", "background": 0}),
        ({"y": (1, 21, 96, 96)}, "Identity", "segment", "logits",
         {"output": "y", "form": "logits", "layout": "nchw"}),
        ({"y": (1, 96, 96, 1)}, "Sigmoid", "segment", "logits",
         {"output": "y", "form": "probability", "layout": "nhwc"}),
        ({"y": (1, 1, 17, 3)}, "Identity", "keypoints", "keypoints",
         {"output": "y", "form": "movenet"}),
        ({"y": (1, 300, 6)}, "Identity", "detect", "end2end", {"output": "y"}),
        ({"detection_scores:0": (1, 9), "detection_boxes:0": (1, 9, 4), "num_detections:0": (1,),
          "detection_classes:0": (1, 9)}, "Identity", "detect", "nms_inside",
         {"boxes": "detection_boxes:0", "scores": "detection_scores:0",
          "classes": "detection_classes:0", "count": "num_detections:0",
          "form": "yxyx", "units": "normalised"}),
        ({"y": (1, 56, 189)}, "Identity", "keypoints", "yolo_pose", {"output": "y", "form": "v8"}),
        ({"y": (1, 300, 7)}, "Identity", "obb", "obb", {"output": "y", "form": "end2end"}),
    ],
)  # fmt: skip
def test_heads_that_the_shapes_give_away(outputs, last, task, head, options):
    given = {"anchors": [[0.5, 0.5, 1, 1]] * 50} if head == "ssd" else {}
    recipe, reasons = recipe_for(model_with(outputs, last=last), flags(head_options=given))
    assert (recipe.task, recipe.head) == (task, head)
    assert dict(recipe.head_options) == {**options, **given}
    assert reasons["task"]
    assert reasons["head"]
    assert all(f"head_options.{key}" in reasons for key in options)


def test_sizes_that_nodes_compute_from_the_images_are_found():
    # 84 columns of as many cells as a division of floats gives; shape inference stops there.
    nodes = [
        helper.make_node("Shape", ["image"], ["sides"], start=2, end=3),
        helper.make_node("Cast", ["sides"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "share"], ["cells"]),
        helper.make_node("Cast", ["cells"], ["count"], to=TensorProto.INT64),
        helper.make_node("Concat", ["before", "count"], ["shape"], axis=0),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["y"]),
    ]
    stored = [
        helper.make_tensor("share", TensorProto.FLOAT, [1], [189 / 96]),
        helper.make_tensor("before", TensorProto.INT64, [2], [1, 84]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 96, 96))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 84, "cells"))
    graph = helper.make_graph(nodes, "g", [image], [out], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    recipe, _ = recipe_for(model, flags())
    assert (recipe.head, recipe.head_options["form"]) == ("yolo", "v8")


def test_anchors_of_the_tensorflow_ssd_need_both_count_and_size():
    outputs = {"b": (1, 1917, 4), "s": (1, 1917, 91)}
    recipe, _ = recipe_for(model_with(outputs, image=(1, 3, 300, 300)), flags())
    assert recipe.head_options["anchors"] == "tf_ssd_300"
    with pytest.raises(UsageError, match=r"--head-options with anchors.*1917 anchors.*levels"):
        recipe_for(model_with(outputs, image=(1, 3, 320, 320)), flags())


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": (1, 512)},  # an embedding, or a classifier of 512 classes
        {"y": (1, 189, 85)},  # YOLOX's raw grid, or decoded boxes with objectness
        {"y": (1, 189, 193)},  # both are numbers of grid cells
        {"y": (1, 17, 24, 24)},  # heat maps, or a mask at a quarter of the size
        {"a": (1, 10), "b": (1, 10)},
        {"b": (1, 50, 4), "s": (1, 60, 21)},
    ],
)
def test_ambiguous_outputs_ask_and_list_the_choices(outputs):
    with pytest.raises(UsageError, match=r"--task and --head.*ssd \| yolo \| yolox"):
        recipe_for(model_with(outputs), flags())


def test_flags_settle_what_is_ambiguous():
    recipe, reasons = recipe_for(model_with({"y": (1, 189, 85)}), flags(head="yolox"))
    assert recipe.head == "yolox"
    assert recipe.head_options["output"] == "y"
    assert "form" not in recipe.head_options
    assert reasons["head"] == "--head"
    recipe, _ = recipe_for(model_with({"y": (1, 189, 85)}), flags(head="yolo"))
    assert recipe.head_options == {"output": "y", "form": "v5"}
    recipe, _ = recipe_for(model_with({"y": (1, 512)}), flags(task="classify"))
    assert recipe.head == "classifier"


def test_head_options_override_key_by_key():
    given = {"form": "v8_rows", "multi_label": True}
    recipe, reasons = recipe_for(model_with({"y": (1, 84, 189)}), flags(head_options=given))
    assert recipe.head_options == {"output": "y", **given}
    assert reasons["head_options.form"] == "--head-options"


def test_thresholds_come_from_flags():
    given = flags(confidence=0.5, iou=0.6, max_det=7)
    recipe, reasons = recipe_for(model_with({"y": (1, 84, 189)}), given)
    assert (recipe.confidence, recipe.iou, recipe.max_det) == (0.5, 0.6, 7)
    assert reasons["max_det"] == "--max-det"


# labels


def test_usual_labels_by_number_of_classes():
    for classes, first in ((1000, "tench"), (1001, "tench")):
        recipe, reasons = recipe_for(model_with({"y": (1, classes)}), flags())
        assert recipe.labels[0].startswith(first)
        assert len(recipe.labels) == 1000
        assert "imagenet1000" in reasons["labels"]
    recipe, _ = recipe_for(model_with({"y": (1, 7, 189)}), flags())
    assert recipe.labels == ()


def test_wrong_number_of_labels_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"expected 3 labels.*got 2"):
        recipe_for(model_with({"y": (1, 7, 189)}), flags(labels=str(tmp_path / "names.txt")))
    one_channel = model_with({"y": (1, 1, 96, 96)}, last="Sigmoid")
    recipe, _ = recipe_for(one_channel, flags(labels=str(tmp_path / "names.txt")))
    assert recipe.labels == ("a", "b")


# metadata


def test_ultralytics_metadata():
    names = {i: f"thing {i}" for i in range(3)}
    model = with_metadata(
        model_with({"output0": (1, 7, 189)}),
        task="detect", names=names, stride=32, imgsz=[96, 96], batch=1, args={"nms": False},
    )  # fmt: skip
    recipe, reasons = recipe_for(model, RecipeFlags())
    assert (recipe.task, recipe.head, recipe.head_options["form"]) == ("detect", "yolo", "v8")
    assert recipe.labels == ("thing 0", "thing 1", "thing 2")
    assert recipe.preprocess == PRESETS["yolo"].replace(size=[96, 96])
    assert reasons["labels"] == reasons["preprocess"] == "the model's metadata"


@pytest.mark.parametrize(
    ("task", "outputs", "more", "expected"),
    [
        ("segment", {"output0": (1, 39, 189), "output1": (1, 32, 24, 24)}, {},
         ("instances", "proto_mask",
          {"output": "output0", "prototypes": "output1", "form": "v8"})),
        # Five keypoints: to the shapes, 20 classes.
        ("pose", {"output0": (1, 18, 189)}, {"kpt_shape": [5, 2]},
         ("keypoints", "yolo_pose", {"output": "output0", "form": "v8", "dims": 2})),
        # Three classes and an angle: to the shapes, four classes.
        ("obb", {"output0": (1, 8, 189)}, {}, ("obb", "obb", {"output": "output0", "form": "v8"})),
        ("obb", {"output0": (1, 300, 7)}, {"args": {"nms": True}},
         ("obb", "obb", {"output": "output0", "form": "end2end"})),
        ("detect", {"output0": (1, 300, 6)}, {"end2end": True},
         ("detect", "end2end", {"output": "output0"})),
        ("detect", {"output0": (1, 300, 6)}, {}, ("detect", "end2end", {"output": "output0"})),
    ],
)  # fmt: skip
def test_ultralytics_tasks_bring_their_heads(task, outputs, more, expected):
    names = {i: f"thing {i}" for i in range(3)}
    told = {"task": task, "names": names, "stride": 32, "imgsz": [96, 96], **more}
    recipe, _ = recipe_for(with_metadata(model_with(outputs), **told), RecipeFlags())
    assert (recipe.task, recipe.head, dict(recipe.head_options)) == expected
    assert recipe.labels == ("thing 0", "thing 1", "thing 2")
    # What the head makes of the graph's outputs is no error.
    infos = [TensorInfo(name, "float32", shape) for name, shape in outputs.items()]
    assert head_for(recipe, infos)


def test_flags_win_over_metadata():
    model = with_metadata(
        model_with({"output0": (1, 7, 189)}),
        task="detect", names={0: "a", 1: "b", 2: "c"}, stride=32, imgsz=[96, 96],
    )  # fmt: skip
    recipe, _ = recipe_for(model, flags("tf"))
    assert recipe.preprocess.std == (127.5, 127.5, 127.5)


@pytest.mark.parametrize(
    "entries",
    [
        {"task": "depth", "names": {0: "a"}, "stride": 32, "imgsz": [96, 96]},
        {"task": "pose", "names": {0: "a"}, "stride": 32, "imgsz": [96, 96], "kpt_shape": [5]},
        {"task": "detect", "names": "nonsense(", "stride": 32, "imgsz": [96, 96]},
        {"task": "detect", "names": {0: "a"}, "stride": 32, "imgsz": "wide"},
    ],
)
def test_metadata_that_is_not_supported_or_broken(entries):
    with pytest.raises(ModelError):
        recipe_for(with_metadata(model_with({"y": (1, 5, 189)}), **entries), RecipeFlags())


# the models of the repository


@pytest.mark.parametrize(
    ("name", "preprocess", "task", "head"),
    [
        ("efficientnet_lite0", "imagenet,mean=127,std=128", "classify", "classifier"),
        ("mobilenet_v2", "imagenet", "classify", "classifier"),
        ("ssd_mobilenet_v2_coco", "tf", "detect", "ssd"),
        ("selfie_segmentation", "none,std=255", "segment", "logits"),
        ("movenet_lightning", "none,resize=letterbox,pad_value=0", "keypoints", "keypoints"),
    ],
)
def test_real_models(name, preprocess, task, head):
    recipe, _ = recipe_for(load_model(MODELS / f"{name}.onnx").model, flags(preprocess))
    assert (recipe.task, recipe.head) == (task, head)
    assert json.loads(json.dumps(recipe.to_json())) == recipe.to_json()


def outputs_of(*infos, size=(640, 640), **last_op):
    tensors = tuple(TensorInfo(name, dtype, shape) for name, dtype, shape in infos)
    return Outputs(tensors, size, {t.name: last_op.get(t.name, "Add") for t in tensors})


@pytest.mark.parametrize(
    ("queries", "columns", "activation", "classes"),
    [(100, 92, "softmax", 91), (300, 80, "sigmoid", 80), (900, 91, "sigmoid", 91)],
)
def test_queries_with_boxes_that_end_in_a_sigmoid_are_a_detr(queries, columns, activation, classes):
    pair = (("s", "float32", (1, queries, columns)), ("b", "float32", (1, queries, 4)))
    guess = guess_head(outputs_of(*pair, b="Sigmoid"))
    assert (guess.head, guess.options["activation"], guess.classes) == ("detr", activation, classes)
    assert not guess.ambiguous_with
    # Box codes of an SSD end in no sigmoid.
    assert guess_head(outputs_of(*pair)).head == "ssd"


def test_boxes_without_a_batch_are_torchvisions():
    infos = [("b", "float32", ("D", 4)), ("l", "int64", ("D",)), ("s", "float32", ("D",))]
    guess = guess_head(outputs_of(*infos))
    assert guess.head == "nms_inside"
    assert guess.options == {"boxes": "b", "scores": "s", "classes": "l"}
    floats = [infos[0], ("l", "float32", ("D",)), infos[2]]
    assert guess_head(outputs_of(*floats)) is None


def test_the_surest_rule_wins_and_a_tie_asks():
    certain = HeadGuess("detect", "detr", {}, "a", confidence=CERTAIN)
    likely = HeadGuess("detect", "ssd", {}, "b", confidence=LIKELY)
    rival = HeadGuess("detect", "yolo", {}, "c", confidence=CERTAIN)
    assert choose_guess(outputs_of(), [lambda _: likely, lambda _: certain]) == certain
    tied = choose_guess(outputs_of(), [lambda _: rival, lambda _: likely, lambda _: certain])
    assert (tied.head, tied.ambiguous_with) == ("yolo", ("yolo", "detr"))
    assert choose_guess(outputs_of(), [lambda _: None]) is None


def test_fifteen_rotated_classes_look_like_sixteen_upright_ones():
    sizes = [("y", "float32", (1, 20, 8400))]
    guess = guess_head(outputs_of(*sizes))
    assert set(guess.ambiguous_with) == {"obb", "yolo"}
