"""Turns what was exported in training mode into what is used in inference.

1. A ``BatchNormalization`` with ``training_mode`` normalises by the stored statistics, not by those
   of the batch; its outputs of new statistics go.
2. A ``Dropout`` with a training input passes on what it reads.

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
    return copy


def trains(node: NodeProto) -> bool:
    """Whether a node computes what is computed in training."""
    if node.op_type == "BatchNormalization":
        return bool(attribute(node, "training_mode", 0))
    return node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])
