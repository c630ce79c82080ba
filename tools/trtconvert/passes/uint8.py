"""Writes the int8 activations of a Q/DQ graph as uint8, for the CPU.

Rules:

1. A zero point of 0 in int8 becomes one of 128 in uint8: every integer moves up by 128, every real
   number stays what it was. So the two graphs compute the same.
2. Weights stay int8.

x86 multiplies uint8 by int8 (``vpmaddubsw``, ``vpdpbusd``), so with int8 activations ONNX Runtime's
kernels do extra work. TensorRT takes no uint8: this form is for the CPU twin alone.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from trtconvert.graph_view import FreshNames, drop_unused_initializers
from trtconvert.passes.dims import infer_shapes


def with_uint8_activations(model: ModelProto) -> ModelProto:
    """A copy of ``model`` whose computed int8 tensors are uint8 with a zero point of 128."""
    out = ModelProto()
    out.CopyFrom(model)
    names = FreshNames(out)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    moved: dict[str, str] = {}
    integers: set[str] = set()
    for node in out.graph.node:
        is_pair = node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
        if not is_pair or node.input[2] not in constants:
            continue
        zero = numpy_helper.to_array(constants[node.input[2]])
        if zero.dtype != np.int8 or zero.any():
            continue
        # A constant behind a DequantizeLinear is a weight.
        if node.op_type == "DequantizeLinear" and node.input[0] not in integers:
            continue
        integers.update(node.output if node.op_type == "QuantizeLinear" else ())
        if node.input[2] not in moved:
            moved[node.input[2]] = names(f"{node.input[2]}_uint8")
            value = np.full(zero.shape, 128, np.uint8)
            out.graph.initializer.append(numpy_helper.from_array(value, moved[node.input[2]]))
        node.input[2] = moved[node.input[2]]
    drop_unused_initializers(out.graph)
    del out.graph.value_info[:]
    return infer_shapes(out)
