"""The transpose behind a channels-last input goes, and the result stays the same to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import branch_on, graph_of, make, run, stored, value
from onnx import ModelProto, TensorProto

from trtconvert.graph import shape_of
from trtconvert.passes.channels_first import with_channels_first

TO_FIRST = [0, 3, 1, 2]


def last(*nodes, perm=TO_FIRST, dtype=TensorProto.UINT8, outputs=("y",), **constants) -> ModelProto:
    weights = [stored(name, np.array(array, np.float32)) for name, array in constants.items()]
    weights.append(stored("w", np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype("f4")))
    source = nodes[-1].output[0] if nodes else "x"
    tail = [make("Transpose", [source], ["t"], perm=perm), make("Conv", ["t", "w"], ["y"])]
    inputs = [value("x", ["n", 8, 6, 3], dtype)]
    out = [value(name, None) for name in outputs]
    return graph_of([*nodes, *tail], weights, inputs=inputs, outputs=out)


CAST = make("Cast", ["x"], ["c"], to=TensorProto.FLOAT)


@pytest.mark.parametrize(
    "model",
    [
        last(dtype=TensorProto.FLOAT),
        last(CAST, make("Sub", ["c", "m"], ["s"]), make("Mul", ["s", "k"], ["z"]),
             m=[1.0, 2, 3], k=0.5),
        last(CAST, make("Div", ["c", "k"], ["z"]), k=np.reshape([2.0, 4, 8], (1, 1, 1, 3))),
        last(CAST, make("Sub", ["k", "c"], ["z"]), k=255.0),
    ],
)  # fmt: skip
def test_it_goes(model):
    image = np.random.default_rng(1).integers(0, 256, (2, 8, 6, 3)).astype(np.uint8)
    if model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT:
        image = image.astype(np.float32)
    turned = with_channels_first(model)
    assert "Transpose" not in {node.op_type for node in turned.graph.node}
    assert shape_of(turned.graph.input[0]) == ("n", 3, 8, 6)
    (before,), (after,) = run(model, {"x": image}), run(turned, {"x": np.moveaxis(image, 3, 1)})
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    "model",
    [
        last(dtype=TensorProto.FLOAT, outputs=("y", "t")),
        last(CAST, make("Add", ["c", "k"], ["z"]), k=np.zeros((6, 3))),
        last(CAST, make("Add", ["c", "c"], ["z"])),
        last(CAST, make("Relu", ["c"], ["z"])),
        graph_of([make("Relu", ["x"], ["y"])], inputs=[value("x", [1, 8, 6, 3])],
                 outputs=[value("y", [1, 8, 6, 3])]),
        graph_of([make("Transpose", ["x"], ["y"], perm=TO_FIRST)],
                 inputs=[value("x", [1, 3, 8, 6])], outputs=[value("y", [1, 6, 3, 8])]),
    ],
)  # fmt: skip
def test_it_stays_where_the_rules_do_not_apply(model):
    assert with_channels_first(model) is model


@pytest.mark.parametrize("reads", ["x", "a", "t"])
def test_it_stays_where_a_branch_reads_on_the_way(reads):
    weights = [
        stored("k", np.float32(0.5)),
        stored("w", np.ones((4, 3, 3, 3), np.float32)),
        stored("condition", np.array(True)),
    ]
    nodes = [
        make("Mul", ["x", "k"], ["a"]),
        make("Transpose", ["a"], ["t"], perm=TO_FIRST),
        make("Conv", ["t", "w"], ["c"]),
        branch_on("condition", reads, "mean"),
        make("Add", ["c", "mean"], ["y"]),
    ]
    inputs = [value("x", ["n", 8, 6, 3])]
    model = graph_of(nodes, weights, inputs=inputs, outputs=[value("y", None)])
    assert with_channels_first(model) is model
