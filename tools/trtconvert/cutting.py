"""Cuts a graph: at tensors that the user names, or where an NMS begins.

What is cut off is not read again, so a graph may hold there what cannot be converted: plugins,
control flow, operators whose results depend on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.graph import image_inputs, names_read, one_line, opset_of
from trtconvert.graph_view import FreshNames
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import ModelError, UsageError


def cut_at(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy whose outputs are these tensors, in this order, with only what they need.

    Raises:
        UsageError: a name that no node gives.
    """
    made = {name for node in model.graph.node for name in node.output}
    unknown = [name for name in names if name not in made]
    if unknown:
        raise UsageError(
            "--outputs that nodes of the graph give",
            got=", ".join(unknown),
            fix="trtconvert check shows what stands in the way; viewers such as Netron show names.",
        )
    known = {value.name: value for value in (*model.graph.output, *_inferred(model))}
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(NodeProto.FromString(node.SerializeToString()))
            needed.update(names_read(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    del graph.value_info[:]
    del graph.output[:]
    for name in names:
        value = known.get(name)
        if value is None or not value.type.tensor_type.elem_type:
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        graph.output.append(value)
    return copy


def with_batch_axis(model: ModelProto, name: str) -> tuple[ModelProto, str]:
    """A copy with an output [N, C] as [1, N, C], and the new output's name."""
    return _reshaped(model, name, "Unsqueeze", 0)


def without_axis(model: ModelProto, name: str, axis: int) -> tuple[ModelProto, str]:
    """A copy with an output without an axis of size 1, and the new output's name."""
    return _reshaped(model, name, "Squeeze", axis)


def _reshaped(model: ModelProto, name: str, operator: str, axis: int) -> tuple[ModelProto, str]:
    fresh = FreshNames(model)
    made, axes = fresh(f"{name}_{operator.lower()}d"), fresh(f"{name}_axes")
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    if opset_of(model) >= 13:
        graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), axes))
        graph.node.append(helper.make_node(operator, [name, axes], [made], name=made))
    else:
        graph.node.append(helper.make_node(operator, [name], [made], name=made, axes=[axis]))
    for index, value in enumerate(graph.output):
        if value.name == name:
            elem_type = value.type.tensor_type.elem_type
            graph.output[index].CopyFrom(helper.make_tensor_value_info(made, elem_type, None))
    return copy, made


def _inferred(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """What shape inference says of inner values, as far as it gets."""
    try:
        return list(onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return []


def values_of(model: ModelProto, names: Sequence[str]) -> dict[str, Any]:
    """What the named tensors hold for a grey image; symbolic sizes are taken as 1, or 320.

    Raises:
        ModelError: the graph does not run up to there.
    """
    probe = cut_at(model, names)
    (image,) = image_inputs(probe.graph)
    tensor = image.type.tensor_type
    shape = [
        d.dim_value if d.HasField("dim_value") else (320 if axis > 1 else 1)
        for axis, d in enumerate(tensor.shape.dim)
    ]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    level = 0.5 if np.issubdtype(dtype, np.floating) else 127
    try:
        backend = OnnxRuntimeBackend(probe.SerializeToString())
        try:
            return backend.run({image.name: np.full(shape, level, dtype)})
        finally:
            backend.close()
    except (ModelError, ValueError) as error:
        raise ModelError(
            "a graph that runs up to its NMS",
            got=one_line(error),
            fix="Name the tensors to end at with --outputs.",
        ) from error
