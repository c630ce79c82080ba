"""Turns a typed 16-bit graph into a float32 graph that gives its results on a CPU.

ONNX Runtime's CPU kernels compute float16 graphs in float32 and drop the roundings between nodes,
so a float16 graph run there looks better than it is. Here every rounding is a node:

1. Float16 (or bfloat16) tensors become float32 tensors that hold such values: constants are
   widened, and after a node with such a result stands a Cast to that type and one back. The
   overflow to infinity and the loss of subnormals come with it.
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
from trtconvert.passes.half_rules import FLOAT, MOVEMENT
from trtconvert.passes.half_types import HALF_TYPES
from trtconvert.passes.widen import cast_at_edges

EXACT = MOVEMENT | frozenset(
    (
        *("Relu", "Max", "Min", "Clip", "Neg", "Abs", "Sign", "Where", "MaxPool"),
        *("GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK", "ScatterND", "ScatterElements"),
    )
)
_INTEGER_READERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def emulate_half(typed: ModelProto) -> ModelProto:
    """The float32 graph with every 16-bit rounding of ``typed`` written out.

    The result's inputs and outputs are those of ``typed``. Its roundings survive every
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
        if constant.data_type in HALF_TYPES:
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
        kind = view.elem_type.get(name, 0)
        if kind not in HALF_TYPES or not _rounds(view, node):
            continue
        new.output[index] = names(f"{name}_unrounded")
        nodes.extend(_rounding(new.output[index], name, kind, names))
    return nodes


def _cast(view: GraphView, node: NodeProto, names: FreshNames) -> list[NodeProto]:
    source, result = view.elem_type[node.input[0]], view.elem_type[node.output[0]]
    if result in HALF_TYPES:
        if source == result:
            return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
        return _rounding(node.input[0], node.output[0], result, names)
    if source in HALF_TYPES and result == FLOAT:
        return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
    return [node]


def _rounds(view: GraphView, node: NodeProto) -> bool:
    if node.op_type in EXACT:
        return False
    if node.op_type == "DequantizeLinear":
        readers = view.consumers[node.output[0]]
        return not all(reader.op_type in _INTEGER_READERS for reader in readers)
    return True


def _rounding(source: str, result: str, kind: int, names: FreshNames) -> list[NodeProto]:
    half = names(f"{result}_half")
    return [
        helper.make_node("Cast", [source], [half], name=names(f"{half}_cast"), to=kind),
        helper.make_node("Cast", [half], [result], name=names(f"{result}_cast"), to=FLOAT),
    ]
