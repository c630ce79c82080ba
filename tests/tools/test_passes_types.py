"""One tiny graph per rule: sizes of inputs and outputs, and element types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import graph_of, make, ones, ranges, run, stored, value
from onnx import TensorProto, helper

from trtconvert.graph import shape_of
from trtconvert.passes.dims import settle_dims
from trtconvert.passes.widen import widen
from visionrt.errors import ModelError

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
