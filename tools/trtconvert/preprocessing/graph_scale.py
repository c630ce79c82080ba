"""What the head of a graph does to its input, before the first layer.

Many exports scale pixels themselves (Keras' ``Rescaling``, a ``Cast`` of uint8 pixels). The rule
follows the input through ``Cast``, ``Transpose``, ``Sub``, ``Add``, ``Mul``, ``Div`` with constants
and composes ``y = a x + b``. Layers expect values around 1: where ``a`` makes such of 0…255, the
graph takes pixels as they are; where it makes them of 0…1, it takes pixels over 255.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from trtconvert.graph import image_inputs
from trtconvert.passes.fold import fold

_MOVES = frozenset({"Cast", "Identity", "Transpose"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
# Spread of an input that first layers are trained on: between a tenth of a unit and ±10.
_LEAST_SPREAD, _MOST_SPREAD = 0.5, 20.0


def scale_in_graph(model: ModelProto) -> str | None:
    """``0…255`` or ``x / 255`` where the graph scales its input itself, else None."""
    graph = ModelProto.FromString(model.SerializeToString())
    fold(graph)
    factor = _factor(graph)
    if factor is None:
        return None
    for name, highest in (("0…255", 255.0), ("x / 255", 1.0)):
        if _LEAST_SPREAD <= float(np.abs(factor).max()) * highest <= _MOST_SPREAD:
            return name
    return None


def _factor(model: ModelProto) -> NDArray[np.float64] | None:
    """``a`` of the chain behind the image input; None where nothing is computed there."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    name, factor, computed = image_inputs(model.graph)[0].name, np.ones(1), False
    while len(readers[name]) == 1:
        (node,) = readers[name]
        if node.op_type in _ARITHMETIC:
            constants = [stored[i] for i in node.input if i in stored]
            if len(constants) != 1:
                break
            value = numpy_helper.to_array(constants[0]).astype(np.float64).ravel()
            if node.op_type == "Mul":
                factor = np.outer(factor, value).ravel()
            elif node.op_type == "Div":
                if node.input[0] != name or not value.all():
                    break
                factor = np.outer(factor, 1 / value).ravel()
            computed = True
        elif node.op_type not in _MOVES:
            break
        name = node.output[0]
    return factor if computed else None
