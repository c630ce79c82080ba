"""Turns what was exported in training mode into what is used in inference.

1. A ``BatchNormalization`` that trains normalises by the stored statistics, not by those of the
   batch; its outputs of new statistics go. ``training_mode`` says so; before operator set 14 those
   outputs do, before 7 an ``is_test`` of 0.
2. A ``Dropout`` that trains passes on what it reads. A training input says so, or ``is_test``.

Where a graph needs those outputs, it stays as it is: it trains.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from trtconvert.graph import all_nodes, names_read
from trtconvert.graph_view import attribute


def without_training(model: ModelProto) -> ModelProto:
    """The model by the rules above: a copy, or ``model`` where there is nothing to do."""
    if not any(trains(node) for node in model.graph.node):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    read = {name for node in all_nodes(copy.graph) for name in names_read(node)}
    read |= {value.name for value in copy.graph.output}
    for node in copy.graph.node:
        if not trains(node) or read.intersection(node.output[1:]):
            continue
        del node.output[1:]
        if node.op_type == "Dropout":
            del node.input[1:]
        else:
            kept = [a for a in node.attribute if a.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
        for a in node.attribute:
            if a.name == "is_test":
                a.i = 1
    return copy


def trains(node: NodeProto) -> bool:
    """Whether a node computes what is computed in training."""
    if node.op_type == "BatchNormalization":
        is_told = bool(attribute(node, "training_mode", 0)) or any(node.output[1:])
        return is_told or attribute(node, "is_test", 1) == 0
    if node.op_type == "Dropout":
        return any(node.input[2:]) or attribute(node, "is_test", 1) == 0
    return False
