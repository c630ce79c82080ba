"""What a quantized graph holds that TensorRT does not take, or takes for something else.

TensorRT's int8 is symmetric. TensorRT-RTX's parser says nothing of a uint8 zero point and reads the
integers as int8; a scale of zero fails in the builder, with no word of which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

_PAIR = ("QuantizeLinear", "DequantizeLinear")


def qdq_problems(model: ModelProto) -> Iterator[tuple[NodeProto, str]]:
    """Each such ``QuantizeLinear`` or ``DequantizeLinear`` of the main graph, and what is wrong."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors = [a.t for a in node.attribute if a.name == "value"]
            constants.update(zip(node.output, tensors, strict=False))
        elif node.op_type in _PAIR:
            reason = _reason(node, constants)
            if reason:
                yield node, reason


def _reason(node: NodeProto, constants: Mapping[str, TensorProto]) -> str:
    if _integer_type(node, constants) == TensorProto.UINT8:
        return "its integers are uint8; TensorRT's are int8"
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is not None and _values(zero).any():
        return "its zero point is not 0; TensorRT quantizes symmetrically"
    scale = constants.get(node.input[1])
    if scale is not None:
        values = _values(scale)
        if not (np.isfinite(values).all() and (values > 0).all()):
            return "a scale is not a finite number above 0"
    return ""


def _integer_type(node: NodeProto, constants: Mapping[str, TensorProto]) -> int:
    """Of the quantized side, as far as constants and attributes tell; 0 where they do not."""
    named = {a.name: a.i for a in node.attribute}
    if len(node.input) > 2 and node.input[2]:
        zero = constants.get(node.input[2])
        return 0 if zero is None else zero.data_type
    if node.op_type == "DequantizeLinear":
        source = constants.get(node.input[0])
        return 0 if source is None else source.data_type
    return named.get("output_dtype") or TensorProto.UINT8


def _values(tensor: TensorProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return numpy_helper.to_array(tensor).astype(np.float64)
