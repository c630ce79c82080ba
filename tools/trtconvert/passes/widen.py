"""Makes a float16 graph a float32 one, so that every precision starts from the same form.

The values stored stay those of float16; only the roundings between nodes go. Graphs with control
flow stay as they are.

1. Stored float16 tensors, and those in attributes, become float32.
2. What makes float16 (Cast, and the ``dtype`` of EyeLike and the like) makes float32.
3. Graph inputs and outputs keep their type: a Cast stands at each edge that is float16.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from trtconvert.graph import subgraphs
from trtconvert.graph_view import FreshNames

_FLOAT, _FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def widen(model: ModelProto) -> int:
    """Apply the rules in place; returns how many tensors and nodes changed."""
    graph = model.graph
    if any(True for node in graph.node for _ in subgraphs(node)):
        return 0
    changed = sum(_widen_tensor(tensor) for tensor in graph.initializer)
    changed += sum(_widen_attributes(node) for node in graph.node)
    del graph.value_info[:]
    return changed + cast_at_edges(model)


def _widen_tensor(tensor: TensorProto) -> bool:
    if tensor.data_type != _FLOAT16:
        return False
    values = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return True


def _widen_attributes(node: NodeProto) -> bool:
    changed = False
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == _FLOAT16:
            attribute.i = _FLOAT
            changed = True
        elif attribute.HasField("t"):
            changed |= _widen_tensor(attribute.t)
    return changed


def cast_at_edges(model: ModelProto) -> int:
    """Let a float32 body read and write float16 inputs and outputs; returns how many Casts."""
    graph, names = model.graph, FreshNames(model)
    stored = {tensor.name for tensor in graph.initializer}
    fed = [v.name for v in graph.input if _is_half(v) and v.name not in stored]
    first = [_cast_of(name, names(f"{name}_fp32"), _FLOAT) for name in fed]
    given = [v.name for v in graph.output if _is_half(v)]
    last = [_cast_of(names(f"{name}_fp32"), name, _FLOAT16) for name in given]
    # Inside the graph, an edge goes by the name of its float32 side.
    inside = {cast.input[0]: cast.output[0] for cast in first}
    inside |= {cast.output[0]: cast.input[0] for cast in last}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = inside.get(name, name)
    if first or last:
        nodes = [NodeProto.FromString(n.SerializeToString()) for n in graph.node]
        del graph.node[:]
        graph.node.extend([*first, *nodes, *last])
    return len(first) + len(last)


def _cast_of(source: str, result: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=to)


def _is_half(value: ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == _FLOAT16)
