"""Detectors on feature pyramids are told by their maps and rows, or their anchors are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from guess_models import flags, model_with
from onnx import TensorProto, helper, numpy_helper

from trtconvert.graph import tensor_info
from trtconvert.guess import recipe_for
from trtconvert.head_guess import Outputs, last_operators, separable_outputs
from trtconvert.head_rules import guess_head
from visionrt.errors import UsageError


def raw_maps(channels):
    # 96×96 at strides 8, 16 and 32.
    return {name: (1, channels, side, side) for name, side in (("a", 12), ("b", 6), ("c", 3))}


def test_raw_yolo_maps_ask_for_their_anchors():
    model = model_with(raw_maps(255))
    with pytest.raises(UsageError, match=r"anchors.*3 anchors × \(5 \+ 80 classes\).*yolov7"):
        recipe_for(model, flags())
    recipe, reasons = recipe_for(model, flags(head_options={"anchors": "yolov7"}))
    assert (recipe.task, recipe.head) == ("detect", "yolo_maps")
    assert recipe.head_options["outputs"] == ["a", "b", "c"]
    assert recipe.labels[0] == "person"
    assert reasons["head_options.anchors"] == "--head-options"


@pytest.mark.parametrize("channels", [144, 15, 256])
def test_other_maps_at_those_strides_are_no_raw_yolo(channels):
    # YOLOv8's own maps have 64 + 80 channels; 15 leave no class; 256 are no multiple of 3.
    with pytest.raises(UsageError, match="--task and --head"):
        recipe_for(model_with(raw_maps(channels)), flags())


def test_a_retinanet_asks_whose_anchors_it_has():
    # 96×96 has 12² + 6² + 3² + 2² + 1 = 194 cells on levels 3 to 7.
    model = model_with({"b": (1, 1746, 4), "s": (1, 1746, 90)}, last="Sigmoid")
    with pytest.raises(UsageError, match=r"anchors.*levels 3 to 7.*retinanet_mmdet.*MMDetection"):
        recipe_for(model, flags())
    recipe, reasons = recipe_for(model, flags(head_options={"anchors": "retinanet"}))
    assert recipe.head_options == {
        "boxes": "b", "scores": "s", "variances": [1] * 4, "activation": "none",
        "background": -1, "code": "xywh", "anchors": "retinanet",
    }  # fmt: skip
    assert recipe.labels[0] == "person"
    assert "90 classes" in reasons["labels"]


def separable_head(size, before, *, last_level=7):
    """Scores and codes of nine anchors a cell, by a depthwise separable convolution, joined."""
    joined, nodes = {"b": [], "s": []}, before("image", "active")
    values = [
        numpy_helper.from_array(np.ones((3, 1, 3, 3), np.float32), "deep"),
        numpy_helper.from_array(np.zeros(3, np.int64), "shape"),
    ]
    nodes.append(helper.make_node("Conv", ["active", "deep"], ["depthwise"], group=3))
    for name, columns in (("b", 4), ("s", 90)):
        weights = np.ones((9 * columns, 3, 1, 1), np.float32)
        values.append(numpy_helper.from_array(weights, f"{name}_point"))
        nodes.append(helper.make_node("Conv", ["depthwise", f"{name}_point"], [f"{name}_map"]))
        for level in range(3, last_level + 1):
            part = f"{name}_{level}"
            nodes.append(helper.make_node("Reshape", [f"{name}_map", "shape"], [part]))
            joined[name].append(part)
        nodes.append(helper.make_node("Concat", joined[name], [name], axis=1))
    rows = 9 * sum((-(-size // 2**level)) ** 2 for level in range(3, last_level + 1))
    outs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, rows, columns))
        for name, columns in (("b", 4), ("s", 90))
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, size, size))
    return helper.make_graph(nodes, "g", [image], outs, values)


def swish(given, made):
    return [
        helper.make_node("Sigmoid", [given], ["gate"]),
        helper.make_node("Mul", [given, "gate"], [made]),
    ]


def relu6(given, made):
    return [helper.make_node("Clip", [given], [made])]


def guessed(graph, size):
    infos = tuple(tensor_info(value) for value in graph.output)
    made_by = last_operators(graph), separable_outputs(graph)
    return guess_head(Outputs(infos, (size, size), *made_by))


@pytest.mark.parametrize(
    ("size", "before", "anchors"),
    [
        # The authors' models and sizes: sides of 4 strides, of Lite0 to 2 and 3x 3, of D7 5.
        (512, swish, "efficientdet"),
        (384, swish, "efficientdet"),
        (1280, swish, "efficientdet"),
        (320, relu6, "efficientdet_lite"),
        (448, relu6, "efficientdet_lite"),
        (512, relu6, "efficientdet"),
        (640, relu6, ["efficientdet", "efficientdet_lite"]),
        (256, relu6, ["efficientdet", "efficientdet_lite"]),
        (1536, swish, ["efficientdet", "efficientdet_d7"]),
    ],
)
def test_an_efficientdet_has_the_anchors_of_its_size_or_asks(size, before, anchors):
    found = guessed(separable_head(size, before), size)
    assert (found.head, found.options["code"]) == ("ssd", "yxhw")
    assert found.options["activation"] == "sigmoid"
    if isinstance(anchors, str):
        assert found.options["anchors"] == anchors
        assert found.why["anchors"]
    else:
        assert "anchors" not in found.options
        assert all(f'"{name}"' in found.missing["anchors"] for name in anchors)
        assert found.missing["anchors"].count("{") == len(anchors)


def test_an_efficientdet_with_a_level_8_is_d7x():
    found = guessed(separable_head(1536, swish, last_level=8), 1536)
    assert found.options["anchors"] == "efficientdet_d7x"
    assert "levels 3 to 8" in found.reason


def test_scores_that_were_made_by_a_sigmoid_in_parts_have_had_it():
    # Some libraries apply it level by level, and join the levels.
    for operators, wanted in ((("Sigmoid",) * 2, "Sigmoid"), (("Sigmoid", "Relu"), "Concat")):
        nodes = [helper.make_node(op, [f"x{i}"], [f"y{i}"]) for i, op in enumerate(operators)]
        nodes.append(helper.make_node("Concat", ["y0", "y1"], ["y"], axis=1))
        feeds = [
            helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, (1, 5, 3)) for i in (0, 1)
        ]
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10, 3))
        assert last_operators(helper.make_graph(nodes, "g", feeds, [out])) == {"y": wanted}
