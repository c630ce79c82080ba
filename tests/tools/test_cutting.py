"""Graphs are cut at named tensors, and where another tool's NMS begins."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graphs import graph_of, make, stored, value
from onnx import ModelProto, TensorProto, helper
from tiny_models import save, save_pictures, tiny_classifier

from trtconvert.cli.app import run
from trtconvert.editing import apply_edits
from trtconvert.edits import GraphEdits
from trtconvert.graph import shape_of
from trtconvert.load import load_model
from visionrt.engine_file import EngineFile
from visionrt.errors import ModelError, UsageError

SIDE = 64
# x0, y0, x1, y1; the second overlaps the first.
BOXES = [[8, 8, 32, 24], [9, 8, 33, 24], [40, 24, 48, 56]]
SCORES = [[0.875, 0.125], [0.75, 0], [0, 0.5]]


def detector(tail, outputs, *, boxes=BOXES, scores=SCORES, producer="pytorch", weights=()):
    """Constant ``boxes`` [1, 3, 4] and ``scores`` [1, 3, 2], and then ``tail``."""
    nodes = [
        make("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        make("Mul", ["mean", "zero"], ["nothing"]),
        make("Add", ["nothing", "fixed_boxes"], ["boxes"]),
        make("Add", ["nothing", "fixed_scores"], ["scores"]),
    ]
    fixed = [
        stored("zero", np.zeros(1, np.float32)),
        stored("fixed_boxes", np.array([boxes], np.float32)),
        stored("fixed_scores", np.array([scores], np.float32)),
    ]
    model = graph_of(
        [*nodes, *tail], [*fixed, *weights],
        inputs=[value("image", [1, 3, SIDE, SIDE])], outputs=outputs,
    )  # fmt: skip
    model.producer_name = producer
    return model


def efficient(**attributes) -> ModelProto:
    names = ["num", "det_boxes", "det_scores", "det_classes"]
    given = {"score_threshold": 0.3, "iou_threshold": 0.6, "max_output_boxes": 50} | attributes
    node = helper.make_node("EfficientNMS_TRT", ["boxes", "scores"], names, name="nms", **given)
    outputs = [value("num", [1, 1], TensorProto.INT32), value("det_boxes", [1, 50, 4])]
    outputs += [value("det_scores", [1, 50]), value("det_classes", [1, 50], TensorProto.INT32)]
    boxes = BOXES
    if attributes.get("box_coding"):
        boxes = [[(a + c) / 2, (b + d) / 2, c - a, d - b] for a, b, c, d in BOXES]
    return detector([node], outputs, boxes=boxes)


def batched() -> ModelProto:
    tail = [
        make("Unsqueeze", ["boxes", "two"], ["wide"]),
        helper.make_node(
            "BatchedNMSDynamic_TRT", ["wide", "scores"], ["n", "b", "s", "c"], name="nms",
            isNormalized=1, scoreThreshold=0.3, iouThreshold=0.6, keepTopK=50, backgroundLabelId=-1,
        ),
    ]  # fmt: skip
    outputs = [value("n", [1, 1], TensorProto.INT32), value("b", [1, 50, 4])]
    outputs += [value("s", [1, 50]), value("c", [1, 50])]
    boxes = (np.array(BOXES) / SIDE).tolist()
    return detector(tail, outputs, boxes=boxes, weights=[stored("two", np.array([2], np.int64))])


def standard(producer: str = "pytorch", boxes=BOXES) -> ModelProto:
    limits = [
        stored("most", np.array([50], np.int64)),
        stored("iou", np.array([0.6], np.float32)),
        stored("least", np.array([0.3], np.float32)),
    ]
    tail = [
        make("Transpose", ["scores"], ["columns"], perm=[0, 2, 1]),
        make("NonMaxSuppression", ["boxes", "columns", "most", "iou", "least"], ["chosen"]),
    ]
    outputs = [value("chosen", ["k", 3], TensorProto.INT64)]
    return detector(tail, outputs, producer=producer, boxes=boxes, weights=limits)


def selected() -> ModelProto:
    """As torchvision's: a score over [N, C], selections, and one NMS over what is left."""
    tail = [
        make("Squeeze", ["boxes", "axis"], ["flat_boxes"]),
        make("Log", ["odds"], ["logits"]),
        make("Softmax", ["logits"], ["shares"], axis=-1),
        make("Squeeze", ["shares", "axis"], ["flat"]),
        make("Gather", ["flat", "one"], ["first"], axis=1),
        make("Greater", ["first", "least"], ["good"]),
        make("NonZero", ["good"], ["where"]),
        make("Transpose", ["where"], ["rows"], perm=[1, 0]),
        make("GatherND", ["flat_boxes", "rows"], ["some_boxes"]),
        make("GatherND", ["first", "rows"], ["some_scores"]),
        make("Unsqueeze", ["some_boxes", "axis"], ["nms_boxes"]),
        make("Unsqueeze", ["some_scores", "both"], ["nms_scores"]),
        make("NonMaxSuppression", ["nms_boxes", "nms_scores"], ["chosen"]),
    ]
    weights = [
        stored("axis", np.array([0], np.int64)), stored("both", np.array([0, 1], np.int64)),
        stored("one", np.array(1, np.int64)), stored("least", np.array(0.3, np.float32)),
        stored("background", np.zeros((1, 3, 1), np.float32)),
    ]  # fmt: skip
    tail.insert(0, make("Concat", ["rest", "scores"], ["odds_0"], axis=2))
    tail.insert(1, make("Add", ["odds_0", "tiny"], ["odds"]))
    rest = 1 - np.sum(SCORES, axis=1, keepdims=True)[None]
    weights += [stored("rest", rest.astype(np.float32)), stored("tiny", np.float32(1e-6))]
    outputs = [value("chosen", ["k", 3], TensorProto.INT64)]
    return detector(tail, outputs, weights=weights)


@pytest.mark.parametrize(
    ("model", "options", "limits"),
    [
        (efficient(), {"form": "xyxy", "units": "pixels", "layout": "rows"}, True),
        (efficient(box_coding=1), {"form": "cxcywh", "units": "pixels"}, True),
        (batched(), {"form": "xyxy", "units": "normalised", "background": -1}, True),
        (standard(), {"form": "xyxy", "units": "pixels", "layout": "columns"}, True),
        (
            standard("tf2onnx", (np.array(BOXES)[:, [1, 0, 3, 2]] / SIDE).tolist()),
            {"form": "yxyx", "units": "normalised"},
            True,
        ),
        (selected(), {"form": "xyxy", "units": "pixels", "background": 0}, False),
    ],
    ids=[
        "EfficientNMS",
        "of centres",
        "BatchedNMS",
        "ONNX",
        "TensorFlow",
        "torchvision",
    ],
)
def test_an_nms_is_cut_off_and_replaced_by_ours(model, options, limits, tmp_path, capsys):
    path, engine = save(model, tmp_path / "model.onnx"), tmp_path / "model.engine"
    arguments = ["build", str(path), "-o", str(engine), "--preprocess", "none", "--target", "cpu"]
    assert run([*arguments, "--precision", "fp32", "--nms", "outside", "-q"]) == 0
    with EngineFile(engine) as file:
        recipe = file.manifest.recipe
    assert recipe.head == "boxes_scores"
    assert {key: recipe.head_options[key] for key in options} == options
    if limits:
        assert (recipe.confidence, recipe.iou, recipe.max_det) == (0.3, 0.6, 50)
    import visionrt

    with visionrt.load(engine, device="cpu") as loaded:
        result = loaded(np.zeros((SIDE, SIDE, 3), np.uint8))
    np.testing.assert_allclose(result.xyxy, [BOXES[0], BOXES[2]], atol=1e-4)
    np.testing.assert_allclose(result.confidence, [0.875, 0.5], atol=1e-5)
    first = options.get("background", -1) + 1
    assert result.class_id.tolist() == [first, first + 1]
    photos = save_pictures(tmp_path / "pictures")
    again = ["verify", str(engine), "--reference", str(path), "--images", str(photos), "--json"]
    assert run([*again, "--nms", "outside"]) == 0
    assert json.loads(capsys.readouterr().out)["typed"]["agreement"] == 1


def test_what_cannot_be_cut_off_is_said():
    loaded = efficient(score_activation=1)
    with pytest.raises(ModelError, match="applies a sigmoid itself"):
        apply_edits(loaded, GraphEdits(nms="outside"))
    with pytest.raises(ModelError, match="an NMS in the graph"):
        apply_edits(tiny_classifier(), GraphEdits(nms="outside"))
    with pytest.raises(UsageError, match="--outputs or --nms outside"):
        GraphEdits(("a",), "outside")


def test_outputs_end_the_graph_there(tmp_path, capsys):
    path = save(tiny_classifier(tail="Relu"), tmp_path / "tiny.onnx")
    left = load_model(path, GraphEdits(("flat", "relu"))).model
    assert [out.name for out in left.graph.output] == ["flat", "relu"]
    assert [node.name for node in left.graph.node] == ["conv", "relu", "pool", "flatten"]
    assert {tensor.name for tensor in left.graph.initializer} == {"w", "b"}
    assert run(["check", str(path), "--target", "cpu", "--outputs", "flat, nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert run(["check", str(path), "--target", "cpu", "--outputs", "flat"]) == 0


def test_another_input_size_where_the_graph_allows_it(tmp_path, capsys):
    path = save(tiny_classifier(), tmp_path / "tiny.onnx")
    engine = tmp_path / "tiny.engine"
    flags = ["--preprocess", "tf", "--task", "classify", "--target", "cpu", "-q"]
    build = ["build", str(path), "-o", str(engine), "--precision", "fp32", *flags]
    assert run([*build, "--input-size", "24x32"]) == 0
    with EngineFile(engine) as file:
        assert file.manifest.recipe.preprocess.size == (24, 32)
    left = load_model(path, GraphEdits(input_size=(24, 32))).model
    (image,) = left.graph.input
    assert [d.dim_value or d.dim_param for d in image.type.tensor_type.shape.dim] == [
        "n",
        3,
        24,
        32,
    ]
    assert run([*build, "--input-size", "24x"]) == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


def test_a_size_that_is_baked_in_is_refused():
    weights = [stored("to", np.array([1, 192], np.int64))]
    model = graph_of([make("Reshape", ["x", "to"], ["y"])], weights, outputs=[value("y", [1, 192])])
    with pytest.raises(ModelError, match="works at 16x16"):
        apply_edits(model, GraphEdits(input_size=(16, 16)))


def test_an_output_without_a_noted_shape_gets_the_one_of_the_new_size():
    weights = [stored("w", np.ones((4, 3, 3, 3), np.float32))]
    model = graph_of([make("Conv", ["x", "w"], ["y"])], weights, outputs=[value("y", None)])
    sized = apply_edits(model, GraphEdits(input_size=(16, 12))).model
    assert shape_of(sized.graph.output[0]) == ("n", 4, 14, 10)
