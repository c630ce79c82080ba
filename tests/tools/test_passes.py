"""One tiny graph per rule of the passes that do not change what a model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtconvert.clean import clean_model
from trtconvert.graph import image_inputs, opset_of, shape_of
from trtconvert.load import check_graph, load_model
from trtconvert.passes import slim as slim_module
from trtconvert.passes.dims import settle_dims
from trtconvert.passes.fold import fold
from trtconvert.passes.prune import prune
from trtconvert.passes.slim import slim
from trtconvert.passes.upgrade import upgrade
from trtconvert.passes.widen import widen
from trtconvert.targets.base import ShapeRange
from visionrt.errors import ModelError

MODELS = Path(__file__).parents[1] / "data" / "models"


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def graph_of(
    nodes, initializers=(), *, inputs=None, outputs=None, opset=17, functions=(), domains=()
):
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs or [value("x", ["n", 3, 8, 8])],
        outputs or [value("y", ["n", 3, 8, 8])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=8 if opset < 20 else 10, functions=list(functions)
    )


def stored(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def make(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs, outputs, **attributes)


def run(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def ones(shape=(1, 3, 8, 8)):
    return {"x": np.ones(shape, np.float32)}


def ranges(low=(1, 3, 8, 8), high=None, name="x"):
    return {name: ShapeRange(low, low, high or low)}


# fold


def test_fold_constant_node_becomes_initializer():
    model = graph_of(
        [
            make("Constant", [], ["c"], value=stored("", np.float32(3))),
            make("Constant", [], ["d"], value_float=2.0),
            make("Add", ["x", "c"], ["t"]),
            make("Mul", ["t", "d"], ["y"]),
        ]
    )
    assert fold(model) == 2
    assert [n.op_type for n in model.graph.node] == ["Add", "Mul"]
    assert run(model, ones())[0].max() == 8


def test_fold_cast_of_stored_weights_keeps_the_float16_values():
    weights = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float16)
    model = graph_of(
        [make("Cast", ["w16"], ["w"], to=TensorProto.FLOAT), make("Add", ["x", "w"], ["y"])],
        [stored("w16", weights)],
    )
    expected = run(model, ones())[0]
    assert fold(model) == 1
    prune(model)
    assert [t.data_type for t in model.graph.initializer] == [TensorProto.FLOAT]
    np.testing.assert_array_equal(run(model, ones())[0], expected)


def test_fold_cast_that_overflows_gives_infinity_as_at_run_time():
    model = graph_of(
        [make("Cast", ["w"], ["h"], to=TensorProto.FLOAT16)],
        [stored("w", np.array([1e6, 1.0], np.float32))],
        outputs=[value("y", [2], TensorProto.FLOAT16)],
    )
    model.graph.node.append(make("Relu", ["h"], ["y"]))
    assert fold(model) == 1
    folded = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}["h"]
    assert np.isinf(folded[0])


def test_fold_identity_of_stored_tensor():
    model = graph_of(
        [make("Identity", ["w"], ["v"]), make("Add", ["x", "v"], ["y"])],
        [stored("w", np.float32(1))],
    )
    assert fold(model) == 1
    assert run(model, ones())[0].max() == 2


def test_fold_leaves_a_constant_that_is_an_output():
    model = graph_of(
        [make("Constant", [], ["k"], value_float=1.0), make("Relu", ["x"], ["y"])],
        outputs=[value("y", ["n", 3, 8, 8]), value("k", [])],
    )
    assert fold(model) == 0


def test_fold_chain():
    model = graph_of(
        [
            make("Constant", [], ["c"], value=stored("", np.float16(1.5))),
            make("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
            make("Identity", ["d"], ["e"]),
            make("Add", ["x", "e"], ["y"]),
        ]
    )
    assert fold(model) == 3
    assert run(model, ones())[0].max() == 2.5


# prune


def test_prune_initializer_is_no_input():
    model = graph_of(
        [make("Add", ["x", "w"], ["y"])],
        [stored("w", np.float32(1))],
        inputs=[value("x", ["n", 3, 8, 8]), value("w", [])],
    )
    prune(model)
    assert [v.name for v in model.graph.input] == ["x"]


def test_prune_dead_nodes_and_unread_initializers():
    model = graph_of(
        [
            make("Add", ["x", "dead"], ["t"]),
            make("Neg", ["t"], ["u"]),
            make("Relu", ["x"], ["y"]),
        ],
        [stored("dead", np.float32(1)), stored("unread", np.float32(1))],
    )
    assert prune(model) == 4
    assert [n.op_type for n in model.graph.node] == ["Relu"]
    assert not model.graph.initializer


def test_prune_keeps_what_a_body_reads():
    def body(name):
        return helper.make_graph(
            [make("Mul", ["x", name], ["o"])], "b", [], [value("o", ["n", 3, 8, 8])]
        )

    model = graph_of(
        [make("If", ["c"], ["y"], then_branch=body("two"), else_branch=body("three"))],
        [stored("c", True), stored("two", np.float32(2)), stored("three", np.float32(3))],
    )
    assert prune(model) == 0


def test_prune_drops_stale_shapes_and_doc_strings():
    model = graph_of([make("Relu", ["x"], ["t"], doc_string="line 3"), make("Neg", ["t"], ["y"])])
    model.graph.value_info.append(value("t", [99]))
    prune(model)
    assert not model.graph.value_info
    assert not model.graph.node[0].doc_string


def test_prune_gives_each_node_a_name_of_its_own():
    model = graph_of(
        [
            make("Relu", ["x"], ["a"], name="same"),
            make("Relu", ["a"], ["b"], name="same"),
            make("Relu", ["b"], ["y"]),
        ]
    )
    prune(model)
    assert [n.name for n in model.graph.node] == ["same", "same_2", "Relu_y"]


# upgrade


def test_upgrade_inlines_functions():
    double = helper.make_function(
        "local", "Double", ["a"], ["b"], [make("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = graph_of(
        [make("Double", ["x"], ["y"], domain="local")], functions=[double], domains=["local"]
    )
    check_graph(model)
    model = upgrade(model)
    assert [n.op_type for n in model.graph.node] == ["Add"]
    assert run(model, ones())[0].max() == 2


def test_upgrade_converts_an_old_operator_set():
    # Before operator set 13 the axes of Squeeze were an attribute.
    model = graph_of(
        [make("Squeeze", ["x"], ["y"], axes=[0])], opset=11, outputs=[value("y", [3, 8, 8])],
        inputs=[value("x", [1, 3, 8, 8])],
    )  # fmt: skip
    model = upgrade(model)
    assert opset_of(model) == 17
    assert len(next(n for n in model.graph.node if n.op_type == "Squeeze").input) == 2
    assert run(model, ones())[0].shape == (3, 8, 8)


def test_upgrade_keeps_a_newer_operator_set():
    assert opset_of(upgrade(graph_of([make("Relu", ["x"], ["y"])], opset=21))) == 21


def test_upgrade_unifies_the_core_domain_and_raises_the_ir_version():
    model = graph_of([make("Relu", ["x"], ["y"], domain="ai.onnx")])
    model.opset_import[0].domain = "ai.onnx"
    model.ir_version = 4
    model = upgrade(model)
    assert model.graph.node[0].domain == model.opset_import[0].domain == ""
    assert model.ir_version == 8


def test_upgrade_failure_is_a_model_error():
    # Scan changed incompatibly in operator set 9, and has no converter.
    model = graph_of([make("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0] * 4)], opset=8)
    model.graph.node[0].op_type = "Scan"
    with pytest.raises(ModelError, match="converts from ONNX operator set 8 to 17"):
        upgrade(model)


# dims


def test_dims_fixes_every_size_but_the_batch():
    model = graph_of(
        [make("Relu", ["x"], ["y"])],
        inputs=[value("x", ["n", 3, "h", "w"])],
        outputs=[value("y", ["n", 3, "h", "w"])],
    )
    model = settle_dims(model, ranges(), keep_batch=True)
    assert shape_of(model.graph.input[0]) == ("batch", 3, 8, 8)
    assert shape_of(model.graph.output[0]) == ("batch", 3, 8, 8)


def test_dims_same_symbol_for_batch_and_height_no_longer_clashes():
    model = graph_of(
        [make("Relu", ["x"], ["y"])],
        inputs=[value("x", ["d", "d", "d", "d"])],
        outputs=[value("y", ["d", "d", "d", "d"])],
    )
    model = settle_dims(model, ranges(), keep_batch=True)
    assert shape_of(model.graph.output[0]) == ("batch", 3, 8, 8)


def test_dims_batch_range_of_one_size_fixes_it_unless_kept():
    for keep, expected in ((True, "batch"), (False, 1)):
        model = settle_dims(graph_of([make("Relu", ["x"], ["y"])]), ranges(), keep_batch=keep)
        assert shape_of(model.graph.input[0])[0] == expected
    many = ranges((1, 3, 8, 8), (4, 3, 8, 8))
    model = settle_dims(graph_of([make("Relu", ["x"], ["y"])]), many, keep_batch=False)
    assert shape_of(model.graph.input[0])[0] == "batch"


def test_dims_unknown_output_sizes_get_names_of_their_own():
    model = graph_of(
        [make("NonZero", ["x"], ["y"]), make("NonZero", ["x"], ["z"])],
        outputs=[
            value("y", ["n", "n"], TensorProto.INT64),
            value("z", ["n", "n"], TensorProto.INT64),
        ],
    )
    model = settle_dims(model, ranges(), keep_batch=True)
    names = [d for v in model.graph.output for d in shape_of(v) if isinstance(d, str)]
    assert len(names) == len(set(names)) >= 2
    assert "batch" not in names[1:]


def test_dims_that_do_not_fit_the_graph():
    model = graph_of(
        [make("Add", ["x", "w"], ["y"])],
        [stored("w", np.zeros((1, 3, 5, 5), np.float32))],
        inputs=[value("x", ["n", 3, "h", "w_"])],
        outputs=[value("y", ["n", 3, "h", "w_"])],
    )
    with pytest.raises(ModelError, match="shapes fit together"):
        settle_dims(model, ranges(), keep_batch=True)


# widen


def half(array):
    return np.asarray(array, np.float16)


def test_widen_stored_tensors_and_casts_and_attributes():
    model = graph_of(
        [
            make("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
            make("Add", ["a", "w"], ["b"]),
            make("Shape", ["b"], ["s"]),
            make("ConstantOfShape", ["s"], ["c"], value=stored("", half([2]))),
            make("Add", ["b", "c"], ["d"]),
            make("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
        ],
        [stored("w", half(0.1))],
    )
    expected = run(model, ones())[0]
    # The weight, two Casts' targets less one that is float32 already, and the filled value.
    assert widen(model) == 3
    assert not {t.data_type for t in model.graph.initializer} & {TensorProto.FLOAT16}
    onnx.checker.check_model(model, full_check=True)
    # The weight keeps its float16 value; the sums are no longer rounded to 11 bits.
    np.testing.assert_allclose(run(model, ones())[0], float(half(0.1)) + 3, rtol=1e-6)
    np.testing.assert_allclose(expected, float(half(0.1)) + 3, rtol=2**-10)


def test_widen_keeps_the_types_of_inputs_and_outputs():
    model = graph_of(
        [make("Add", ["x", "w"], ["y"]), make("Mul", ["y", "y"], ["z"])],
        [stored("w", half(1))],
        inputs=[value("x", ["n", 3, 8, 8], TensorProto.FLOAT16)],
        outputs=[
            value("y", ["n", 3, 8, 8], TensorProto.FLOAT16),
            value("z", ["n", 3, 8, 8], TensorProto.FLOAT16),
        ],
    )
    widen(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == ["Cast", "Add", "Mul", "Cast", "Cast"]
    y, z = run(model, {"x": np.ones((1, 3, 8, 8), np.float16)})
    assert (y.dtype, z.dtype) == (np.float16, np.float16)
    assert (y.max(), z.max()) == (2, 4)


def test_widen_leaves_float32_graphs_and_control_flow():
    assert widen(graph_of([make("Relu", ["x"], ["y"])])) == 0
    body = helper.make_graph([make("Neg", ["x"], ["o"])], "b", [], [value("o", None)])
    model = graph_of(
        [make("If", ["c"], ["y"], then_branch=body, else_branch=body)],
        [stored("c", True), stored("w", half(1))],
    )
    assert widen(model) == 0


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
