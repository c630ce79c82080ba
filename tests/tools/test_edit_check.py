"""A build sees a mistake in an edit, though its reference is edited too: each is broken once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graphs import graph_of, make, stored, value
from onnx import ModelProto, TensorProto, helper, numpy_helper
from test_cutting import efficient, selected, standard
from tiny_models import save, save_pictures, tiny_classifier

from trtconvert import editing
from trtconvert.batching import worst_difference
from trtconvert.cli.app import run


def trained() -> ModelProto:
    """A classifier with a BatchNormalization and a Dropout as in training."""
    model = tiny_classifier()
    rng = np.random.default_rng(3)
    statistics = {"scale": 1.5, "shift": 0.25, "mean": 0.5, "var": 2.0}
    for name, level in statistics.items():
        array = (level + rng.random(8)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.initializer.append(stored("ratio", np.float32(0.5)))
    model.graph.initializer.append(stored("training", np.array(True)))
    norm = make("BatchNormalization", ["conv", *statistics], ["norm", "m", "v"], training_mode=1)
    drop = make("Dropout", ["norm", "ratio", "training"], ["dropped"])
    nodes = list(model.graph.node)
    nodes[1].input[0] = "dropped"
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], norm, drop, *nodes[1:]])
    return model


def channels_last() -> ModelProto:
    rng = np.random.default_rng(0)
    weights = [
        stored("shades", np.array([100.0, 120, 140], np.float32)),
        stored("w", rng.normal(size=(4, 3, 3, 3)).astype(np.float32)),
    ]
    nodes = [
        make("Sub", ["image", "shades"], ["centred"]),
        make("Transpose", ["centred"], ["turned"], perm=[0, 3, 1, 2]),
        make("Conv", ["turned", "w"], ["maps"]),
        make("GlobalAveragePool", ["maps"], ["pool"]),
        make("Flatten", ["pool"], ["scores"]),
    ]
    inputs, outputs = [value("image", [1, 16, 16, 3])], [value("scores", [1, 4])]
    return graph_of(nodes, weights, inputs=inputs, outputs=outputs)


def any_size() -> ModelProto:
    model = tiny_classifier()
    for axis, name in ((2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return model


CASES = {
    # Model, flags, the function that edits it, and what the report says of it.
    "outputs": (tiny_classifier, ["--outputs", "flat"], "cut_at", "--outputs: the tensors"),
    "nms": (efficient, ["--nms", "outside"], "without_nms", "--nms outside: the tensors"),
    "nms of ONNX": (standard, ["--nms", "outside"], "without_nms", "--nms outside: the tensors"),
    "nms of torchvision": (selected, ["--nms", "outside"], "without_nms", "--nms outside"),
    "training": (trained, [], "without_training", "training mode undone: the formula"),
    "channels last": (channels_last, [], "with_channels_first", "channels first: the outputs"),
    "size": (
        *(tiny_classifier, ["--input-size", "24x32"], "with_input_size"),
        "nothing to compare with at this size; edited to its own 16x16",
    ),
    "open size": (
        *(any_size, ["--input-size", "24x32"], "with_input_size"),
        "--input-size 24x32: the outputs of the original graph at this size",
    ),
    "batch": (
        *(lambda: tiny_classifier(batch=1), ["--batch", "3"], "with_free_batch"),
        "--batch: each image alone",
    ),
}


def arguments(name, tmp_path):
    make_model, flags, _, _ = CASES[name]
    path = save(make_model(), tmp_path / "model.onnx")
    out = ["build", str(path), "-o", str(tmp_path / "model.engine"), "--precision", "fp32"]
    out += ["--target", "cpu", "--preprocess", "tf", *flags]
    return out if "nms" in name else [*out, "--task", "classify"]


@pytest.mark.parametrize("with_images", [False, True], ids=["synthetic", "images"])
@pytest.mark.parametrize("name", CASES)
def test_an_edit_is_checked(name, with_images, tmp_path, capsys):
    images = ["--images", str(save_pictures(tmp_path / "pictures"))] if with_images else []
    assert run([*arguments(name, tmp_path), *images, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (said,) = report["edits"]
    assert CASES[name][3] in said
    assert "2 images" in said
    assert not any("was not checked" in warning for warning in report["warnings"])


def spoilt(model: ModelProto) -> ModelProto:
    """A copy that adds a hundredth of the largest value to one of a constant's values."""
    copy = ModelProto.FromString(model.SerializeToString())
    names = ("b", "mean", "shades_first", "fixed_boxes", "shades")
    tensor = min(
        (t for t in copy.graph.initializer if t.name in names), key=lambda t: names.index(t.name)
    )
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += max(1.0, np.abs(array).max())
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_in_an_edit_is_an_error(name, tmp_path, capsys, monkeypatch):
    function = CASES[name][2]
    right = getattr(editing, function)

    def wrong(model, *more):
        edited = right(model, *more)
        if isinstance(edited, ModelProto):
            return edited if edited is model else spoilt(edited)
        return type(edited)(spoilt(edited.model), edited.recipe, edited.reason)

    if name == "training":  # the formula is that of the graph's own statistics

        def wrong(model, *more):
            edited = right(model, *more)
            for node in edited.graph.node:
                if node.op_type == "BatchNormalization":
                    node.attribute.append(helper.make_attribute("epsilon", 9.0))
                if node.op_type == "Dropout":
                    node.op_type = "Neg"
            return edited

    monkeypatch.setattr(editing, function, wrong)
    assert run([*arguments(name, tmp_path), "-q"]) == 4
    message = capsys.readouterr().err
    assert "as it was" in message
    assert "of the largest apart, on image" in message
    assert not (tmp_path / "model.engine").exists()


def test_an_output_that_an_edit_lost_is_an_error(tmp_path, capsys, monkeypatch):
    right = editing.with_channels_first

    def wrong(model):
        edited = right(model)
        edited.graph.output[0].name = edited.graph.node[-1].output[0] = "other"
        return edited

    monkeypatch.setattr(editing, "with_channels_first", wrong)
    assert run([*arguments("channels last", tmp_path), "-q"]) == 4
    assert "no such output" in capsys.readouterr().err


def test_a_graph_that_is_not_edited_says_nothing(tmp_path, capsys):
    path = save(tiny_classifier(), tmp_path / "model.onnx")
    build = ["build", str(path), "-o", str(tmp_path / "model.engine"), "--precision", "fp32"]
    build += ["--target", "cpu", "--preprocess", "tf", "--task", "classify", "--json"]
    assert run(build) == 0
    assert "edits" not in json.loads(capsys.readouterr().out)


def test_a_tensor_behind_a_plugin_has_no_reference(tmp_path, capsys):
    model = tiny_classifier()
    odd = helper.make_node("Odd_TRT", ["image"], ["odd"])
    model.graph.node[0].input[0] = "odd"
    model.graph.node.insert(0, odd)
    model.graph.node.append(make("Relu", ["image"], ["plain"]))
    model.graph.output.append(value("plain", ["n", 3, 16, 16], TensorProto.FLOAT))
    path = save(model, tmp_path / "model.onnx")
    build = ["build", str(path), "-o", str(tmp_path / "model.engine"), "--precision", "fp32"]
    build += ["--target", "cpu", "--preprocess", "tf", "--task", "segment", "--json"]
    assert run([*build, "--outputs", "plain"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["edits"]
    assert said.startswith("--outputs: ")


@pytest.mark.parametrize(
    ("expected", "got", "wanted"),
    [
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.inf], [1.0, np.inf], 0.0),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], np.inf),
        ([1, 2, 3, 4], [1, 2, 3, 5], 0.25),
        ([], [], 0.0),
    ],
)
def test_the_worst_difference(expected, got, wanted):
    assert worst_difference(np.array(expected), np.array(got)) == wanted
