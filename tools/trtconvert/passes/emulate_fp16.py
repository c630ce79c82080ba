"""Turns a typed float16 graph into a float32 graph that gives float16's results on a CPU.

ONNX Runtime's CPU kernels compute float16 graphs in float32 and drop the roundings between nodes,
so a float16 graph run there looks better than it is. Here every rounding is a node:

1. Float16 tensors become float32 tensors that hold float16 values: constants are widened, and
   after a node with a float16 result stands a Cast to float16 and one back. The overflow to
   infinity and the loss of subnormals come with it.
2. A node whose results are copies or choices of its inputs (``EXACT``) needs no Cast.
3. A ``DequantizeLinear`` read only by integer-able nodes (Conv, Gemm, MatMul) is not rounded: a
   GPU feeds the integers to the tensor cores and never writes that tensor.
4. Casts between the two types become one rounding, or nothing.
5. Inputs and outputs of the graph that are float16 stay so: a Cast stands at each such edge.

The graph is derived from the typed one, so what is measured cannot drift from what is built.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    replace_nodes,
)
from trtconvert.passes.dims import infer_shapes
from trtconvert.passes.fp16_rules import FLOAT, FLOAT16, MOVEMENT
from trtconvert.passes.widen import cast_at_edges

EXACT = MOVEMENT | frozenset(
    (
        *("Relu", "Max", "Min", "Clip", "Neg", "Abs", "Sign", "Where", "MaxPool"),
        *("GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK", "ScatterND", "ScatterElements"),
    )
)
_INTEGER_READERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def emulate_fp16(typed: ModelProto) -> ModelProto:
    """The float32 graph with every float16 rounding of ``typed`` written out.

    The result's inputs and outputs are those of ``typed``. Its float16 roundings survive every
    optimization level of ONNX Runtime; Q/DQ pairs in it need ``ORT_DISABLE_ALL``.
    """
    view = GraphView(typed)
    out = ModelProto()
    out.CopyFrom(typed)
    names = FreshNames(out)
    nodes: list[NodeProto] = []
    for node in out.graph.node:
        nodes.extend(_emulated(view, node, names))
    replace_nodes(out.graph, nodes)
    for constant in out.graph.initializer:
        if constant.data_type == FLOAT16:
            value = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))
    cast_at_edges(out)
    return infer_shapes(out)


def _emulated(view: GraphView, node: NodeProto, names: FreshNames) -> list[NodeProto]:
    if node.op_type == "Cast":
        return _cast(view, node, names)
    new = NodeProto()
    new.CopyFrom(node)
    nodes = [new]
    for index, name in enumerate(node.output):
        if view.elem_type.get(name) != FLOAT16 or not _rounds(view, node):
            continue
        new.output[index] = names(f"{name}_unrounded")
        nodes.extend(_rounding(new.output[index], name, names))
    return nodes


def _cast(view: GraphView, node: NodeProto, names: FreshNames) -> list[NodeProto]:
    source, result = view.elem_type[node.input[0]], view.elem_type[node.output[0]]
    if result == FLOAT16:
        if source == FLOAT16:
            return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
        return _rounding(node.input[0], node.output[0], names)
    if source == FLOAT16 and result == FLOAT:
        return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
    return [node]


def _rounds(view: GraphView, node: NodeProto) -> bool:
    if node.op_type in EXACT:
        return False
    if node.op_type == "DequantizeLinear":
        readers = view.consumers[node.output[0]]
        return not all(reader.op_type in _INTEGER_READERS for reader in readers)
    return True


def _rounding(source: str, result: str, names: FreshNames) -> list[NodeProto]:
    half = names(f"{result}_half")
    return [
        helper.make_node("Cast", [source], [half], name=names(f"{half}_cast"), to=FLOAT16),
        helper.make_node("Cast", [half], [result], name=names(f"{result}_cast"), to=FLOAT),
    ]
