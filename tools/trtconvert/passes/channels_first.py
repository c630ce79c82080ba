"""Takes the transpose behind a channels-last image input out of the graph.

1. An input [n, h, w, c] of 1 or 3 channels whose values reach a ``Transpose`` to [n, c, h, w]
   through casts and element-wise arithmetic alone becomes an input [n, c, h, w]; the transpose
   goes. Preprocessing writes either layout at the same cost.
2. Constants of one value stay; those of one value per channel are turned with the input. Another
   constant, another reader on the way, a graph output there, or the body of an ``If`` or a loop
   that reads what the transpose writes leaves the graph as it is.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from trtconvert.graph import image_inputs, names_read, shape_of
from trtconvert.graph_view import FreshNames, attribute
from trtconvert.passes.fold import fold

_TO_FIRST = [0, 3, 1, 2]
_ON_THE_WAY = frozenset({"Add", "Sub", "Mul", "Div", "Cast", "Identity", "Clip"})
_CHANNELS = (1, 3)


def with_channels_first(model: ModelProto) -> ModelProto:
    """The model by the rules above: a copy, or ``model`` where they do not apply."""
    inputs = image_inputs(model.graph)
    shape = shape_of(inputs[0]) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[3] not in _CHANNELS or shape[1] in _CHANNELS:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    fold(copy)
    found = _chain(copy)
    if found is None:
        return model
    chain, transpose = found
    if not all(_turn_constants(copy, node, int(shape[3])) for node in chain):
        return model
    graph = copy.graph
    dims = image_inputs(graph)[0].type.tensor_type.shape.dim
    turned = [type(dims[0]).FromString(dims[axis].SerializeToString()) for axis in _TO_FIRST]
    for dim, new in zip(dims, turned, strict=True):
        dim.CopyFrom(new)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == transpose.output[0]:
                node.input[index] = transpose.input[0]
    graph.node.remove(transpose)
    # Shapes that were noted on the way are of the old layout.
    del graph.value_info[:]
    return copy


def _chain(model: ModelProto) -> tuple[list[NodeProto], NodeProto] | None:
    """The nodes from the input to the transpose, and the transpose."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    name, chain = image_inputs(graph)[0].name, list[NodeProto]()
    while True:
        readers = [node for node in graph.node if name in names_read(node)]
        if len(readers) != 1 or name in outputs:
            return None
        (node,) = readers
        if node.op_type == "Transpose" and attribute(node, "perm", None) == _TO_FIRST:
            turned = node.output[0]
            is_elsewhere = turned in outputs or any(
                turned in names_read(reader) and turned not in reader.input for reader in graph.node
            )
            return None if is_elsewhere else (chain, node)
        if node.op_type not in _ON_THE_WAY:
            return None
        chain.append(node)
        name = node.output[0]


def _turn_constants(model: ModelProto, node: NodeProto, channels: int) -> bool:
    """Turn a node's constant of one value per channel; False where it has another form."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    # All but the value that comes from the input must be constants.
    if sum(bool(name) and name not in stored for name in node.input) != 1:
        return False
    for index, name in enumerate(node.input):
        value = numpy_helper.to_array(stored[name]) if name in stored else None
        if value is None or value.size == 1:
            continue
        if value.shape[-1:] != (channels,) or value.size != channels or value.ndim > 4:
            return False
        _use(model, node, index, numpy_helper.from_array(value.reshape(channels, 1, 1)))
    return True


def _use(model: ModelProto, node: NodeProto, index: int, value: TensorProto) -> None:
    value.name = FreshNames(model)(f"{node.input[index]}_first")
    model.graph.initializer.append(value)
    node.input[index] = value.name
