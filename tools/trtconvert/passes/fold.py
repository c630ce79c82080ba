"""Turns what is constant, but written as nodes, into stored tensors.

1. A Constant node becomes an initializer.
2. A Cast of an initializer (weights stored as float16, computed in float32) becomes an initializer
   of the type it is cast to; values are converted as Cast would at run time.
3. An Identity of an initializer becomes a second initializer.

Whole constant subgraphs are left to the slim pass.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

_CASTABLE = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
)


def fold(model: ModelProto) -> int:
    """Apply the rules in place; returns how many nodes went."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        # A stored tensor cannot be a graph output in every engine, so such a node stays.
        tensor = None if outputs & set(node.output) else _constant(node, stored)
        if tensor is None:
            kept.append(node)
            continue
        tensor.name = node.output[0]
        stored[tensor.name] = tensor
    folded = len(graph.node) - len(kept)
    if folded:
        # The copies keep the nodes alive while the repeated field they live in is emptied.
        kept = [NodeProto.FromString(node.SerializeToString()) for node in kept]
        fresh = list(stored.values())[len(graph.initializer) :]
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(fresh)
    return folded


def _constant(node: NodeProto, stored: dict[str, TensorProto]) -> TensorProto | None:
    """The value of the node's output when it is known, as a new tensor."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Constant":
        return _constant_value(node)
    source = stored.get(node.input[0]) if len(node.input) == 1 else None
    if source is None:
        return None
    if node.op_type == "Identity":
        return _copy(source)
    if node.op_type == "Cast":
        to = next(a.i for a in node.attribute if a.name == "to")
        if to in _CASTABLE and source.data_type in _CASTABLE:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
            # Out-of-range floats become infinities, in Cast as here.
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(source).astype(dtype)
            return numpy_helper.from_array(np.ascontiguousarray(values))
    return None


def _constant_value(node: NodeProto) -> TensorProto | None:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return _copy(attribute.t)
    if attribute.name in ("value_float", "value_floats"):
        value: object = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        return numpy_helper.from_array(np.array(value, np.float32))
    if attribute.name in ("value_int", "value_ints"):
        value = attribute.i if attribute.name == "value_int" else list(attribute.ints)
        return numpy_helper.from_array(np.array(value, np.int64))
    return None


def _copy(tensor: TensorProto) -> TensorProto:
    out = TensorProto()
    out.CopyFrom(tensor)
    return out
