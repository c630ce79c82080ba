"""Tiny graphs for tests of passes, and what they compute."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from trtconvert.targets.base import ShapeRange


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


def branch_on(condition, reads, result):
    """An If whose bodies both read a tensor of the graph around them."""
    bodies = [
        helper.make_graph(
            [make("ReduceMean", [reads], [name], keepdims=0)], name, [], [value(name, None)]
        )
        for name in (f"{result}_then", f"{result}_else")
    ]
    return make("If", [condition], [result], then_branch=bodies[0], else_branch=bodies[1])


def ones(shape=(1, 3, 8, 8)):
    return {"x": np.ones(shape, np.float32)}


def ranges(low=(1, 3, 8, 8), high=None, name="x"):
    return {name: ShapeRange(low, low, high or low)}
