"""Folds a scaling of the image input into the first convolution.

1. The last ``Mul`` or ``Div`` by a constant, one value or one per channel of the image, between the
   image input and an ungrouped convolution that alone reads it goes into the convolution's weights.
   Padding stays right: its zeros stay zeros. A constant that makes several channels of one stays.
2. Then the one before it, and so on. A ``Sub`` or ``Add`` ends it: folded into the bias it would be
   missing at the padding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from trtconvert.graph import image_inputs, names_read, shape_of
from trtconvert.graph_view import FreshNames, attribute

_BEFORE = frozenset({"Add", "Sub", "Mul", "Div", "Cast", "Transpose", "Identity"})


def absorb_scale(model: ModelProto) -> int:
    """Apply the rules in place; returns how many nodes went."""
    gone = 0
    while _absorb_one(model):
        gone += 1
    return gone


def _absorb_one(model: ModelProto) -> bool:
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = _scale_before_conv(model, stored)
    if found is None:
        return False
    node, conv = found
    constant = next(name for name in node.input if name in stored)
    source = next(name for name in node.input if name not in stored)
    weights = numpy_helper.to_array(stored[conv.input[1]])
    factor = _by_channel(stored[constant], weights.shape[1], shape_of(image_inputs(graph)[0]))
    if factor is None or (node.op_type == "Div" and node.input[0] != source):
        return False
    if node.op_type == "Div":
        if not factor.all():
            return False
        factor = 1 / factor
    scaled = weights.astype(np.float64) * factor.reshape(1, -1, *[1] * (weights.ndim - 2))
    name = FreshNames(model)(f"{conv.input[1]}_scaled")
    graph.initializer.append(numpy_helper.from_array(scaled.astype(weights.dtype), name))
    conv.input[0], conv.input[1] = source, name
    graph.node.remove(node)
    return True


def _scale_before_conv(
    model: ModelProto, stored: dict[str, TensorProto]
) -> tuple[NodeProto, NodeProto] | None:
    """The scaling that the first convolution reads, and that convolution; None without them."""
    outputs = {value.name for value in model.graph.output}
    name, last = image_inputs(model.graph)[0].name, None
    while True:
        readers = [node for node in model.graph.node if name in names_read(node)]
        if len(readers) != 1 or name in outputs:
            return None
        (node,) = readers
        if node.op_type == "Conv":
            break
        if node.op_type not in _BEFORE:
            return None
        name, last = node.output[0], node
    is_plain = attribute(node, "group", 1) == 1 and node.input[1] in stored
    if last is None or last.op_type not in ("Mul", "Div") or not is_plain:
        return None
    return (last, node) if sum(i in stored for i in last.input) == 1 else None


def _by_channel(
    constant: TensorProto, channels: int, image: tuple[int | str, ...]
) -> NDArray[np.float64] | None:
    """One factor per channel of [n, c, h, w]; None where the constant has another form."""
    value = numpy_helper.to_array(constant).astype(np.float64)
    if value.size == 1:
        return np.full(channels, value.item())
    padded = (1,) * (4 - value.ndim) + value.shape
    fits = padded == (1, channels, 1, 1) and channels in (image[1:2] + image[-1:])
    return value.ravel() if fits else None
