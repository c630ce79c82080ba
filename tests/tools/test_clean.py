"""Cleaning changes no result, and trusts no simplifier blindly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph_of, make, ones, ranges, run, stored, value
from onnx import TensorProto, helper

from trtconvert.clean import clean_model
from trtconvert.graph import image_inputs, shape_of
from trtconvert.load import load_model
from trtconvert.passes import slim as slim_module
from trtconvert.passes.slim import slim
from trtconvert.targets.base import ShapeRange
from visionrt.errors import ModelError

MODELS = Path(__file__).parents[1] / "data" / "models"


# slim


def test_slim_folds_constants_and_merges_batch_norm():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 3, 1, 1)).astype(np.float32)
    scale, bias, mean = rng.normal(size=(3, 3)).astype(np.float32)
    model = graph_of(
        [
            make("Conv", ["x", "w"], ["a"], name="conv"),
            make("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], name="norm"),
            make("Add", ["one", "one"], ["two"], name="const"),
            make("Mul", ["c", "two"], ["y"], name="mul"),
        ],
        [
            stored("w", weight), stored("s", scale), stored("b", bias), stored("m", mean),
            stored("v", np.ones(3, np.float32)), stored("one", np.float32(1)),
        ],
    )  # fmt: skip
    expected = run(model, ones())[0]
    warnings: list[str] = []
    slimmer = slim(model, warnings)
    assert not warnings
    assert [n.op_type for n in slimmer.graph.node] == ["Conv", "Mul"]
    np.testing.assert_allclose(run(slimmer, ones())[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("result", ["raises", "renames", "breaks"])
def test_slim_failure_leaves_the_graph(monkeypatch, result):
    model = graph_of([make("Relu", ["x"], ["y"], name="r")])

    def bad_slim(given):
        if result == "raises":
            raise KeyError("inside a pass")
        given.graph.node[0].output[0] = "z"
        if result == "renames":
            given.graph.output[0].name = "z"
        return given

    monkeypatch.setattr(slim_module.onnxslim, "slim", bad_slim)
    warnings: list[str] = []
    kept = slim(model, warnings)
    assert kept.SerializeToString() == model.SerializeToString()
    assert len(warnings) == 1
    assert "not simplified" in warnings[0]


# all of them


@pytest.mark.parametrize("name", sorted(path.name for path in MODELS.glob("*.onnx")))
def test_cleaning_changes_no_result(name):
    original = load_model(MODELS / name).model
    before = original.SerializeToString()
    image = image_inputs(original.graph)[0]
    shape = tuple(size if isinstance(size, int) else 1 for size in shape_of(image))
    clean = clean_model(original, {image.name: ShapeRange.fixed(shape)})
    assert original.SerializeToString() == before
    assert len(clean.graph.node) < len(original.graph.node)
    assert not {t.data_type for t in clean.graph.initializer} & {TensorProto.FLOAT16}
    onnx.checker.check_model(clean, full_check=True)
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    pixels = rng.integers(0, 256, shape)
    feeds = {image.name: (pixels if dtype == np.uint8 else pixels / 127.5 - 1).astype(dtype)}
    for got, expected in zip(run(clean, feeds), run(original, feeds), strict=True):
        # Merged weights are rounded once more per layer; some 60 layers of float32.
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            got, expected, rtol=0, atol=64 * np.finfo(np.float32).eps * scale
        )


def test_clean_twin_takes_any_batch():
    model = load_model(MODELS / "mobilenet_v2.onnx").model
    clean = clean_model(model, {"input": ShapeRange.fixed((1, 3, 224, 224))})
    x = np.random.default_rng(0).normal(size=(3, 3, 224, 224)).astype(np.float32)
    together = run(clean, {"input": x})[0]
    alone = np.concatenate([run(clean, {"input": x[i : i + 1]})[0] for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_clean_fixes_a_batch_that_is_baked_into_the_graph():
    model = graph_of(
        [make("Reshape", ["x", "shape"], ["y"])],
        [stored("shape", np.array([1, 192], np.int64))],
        outputs=[value("y", ["n", 192])],
    )
    warnings: list[str] = []
    clean = clean_model(model, ranges(), warnings=warnings)
    assert shape_of(clean.graph.input[0])[0] == 1
    assert "one image at a time" in warnings[0]
    with pytest.raises(ModelError, match="baked into its graph"):
        clean_model(model, ranges((1, 3, 8, 8), (4, 3, 8, 8)))


def test_clean_sees_images_that_leak_into_each_other():
    # The mean runs over the batch too, so a batch of two gives other results than two of one.
    model = graph_of(
        [
            make("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            make("Sub", ["x", "mean"], ["y"]),
        ]
    )
    warnings: list[str] = []
    assert shape_of(clean_model(model, ranges(), warnings=warnings).graph.input[0])[0] == 1
    assert warnings


def test_a_graph_with_a_loop_is_not_simplified_and_keeps_its_results():
    """The loop stacks one row for each of n rounds."""
    body = helper.make_graph(
        [
            make("Identity", ["go"], ["go_on"]),
            make("Gather", ["rows", "round"], ["row"], axis=0),
        ],
        "body",
        [
            value("round", [], TensorProto.INT64),
            value("go", [], TensorProto.BOOL),
        ],
        [value("go_on", [], TensorProto.BOOL), value("row", [8])],
    )
    nodes = [
        make("ReduceMean", ["x"], ["rows"], axes=[0, 1], keepdims=0),
        make("Loop", ["count", "yes"], ["y"], body=body),
    ]
    stored_values = [stored("count", np.array(8, np.int64)), stored("yes", np.array(True))]
    model = graph_of(nodes, stored_values, outputs=[value("y", [8, 8])])
    assert slim(model, []) is model
    image = {"x": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_array_equal(run(clean_model(model, ranges()), image)[0], run(model, image)[0])
