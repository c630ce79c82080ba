"""One tiny graph per rule: fold, prune and upgrade."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph_of, make, ones, run, stored, value
from onnx import TensorProto, helper, numpy_helper

from trtconvert.graph import opset_of
from trtconvert.load import check_graph
from trtconvert.passes.fold import fold
from trtconvert.passes.prune import prune
from trtconvert.passes.upgrade import upgrade
from visionrt.errors import ModelError

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
