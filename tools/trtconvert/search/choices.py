"""Graphs in which each int8 node is a choice between its two forms, made by an input.

A node's noise does not change what comes before it. So the nodes are taken in a few parts, and the
graph of a part begins at its first node: what it reads from before is an input of the graph, and
what follows the part is as it was, so that ONNX Runtime still fuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.calibration.collect import float_output
from trtconvert.graph_view import FreshNames, GraphView, node_name, replace_nodes
from trtconvert.passes.placement import Placement, QuantizedNode
from trtconvert.passes.quantize_weights import rounded_constant, scale_for

CHOICES = "which_nodes_are_int8"
# Each takes a session; with more, making them costs what shorter runs save.
PARTS = 5


@dataclass(frozen=True)
class ChoiceGraph:
    """A part of the int8 nodes and the graph behind them.

    Attributes:
        nodes: names of those that are a choice; :data:`CHOICES` is bool ``[len(nodes)]``.
        inputs: tensors of the float graph that it reads besides.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    _view: GraphView
    _thresholds: Mapping[str, float]
    _layers: tuple[QuantizedNode, ...]
    _kept: tuple[int, ...]
    _answers: tuple[str, ...]

    def model(self) -> ModelProto:
        """The graph; its outputs are those answers that the part can reach."""
        view = self._view
        out = ModelProto()
        out.CopyFrom(view.model)
        del out.graph.input[:], out.graph.output[:]
        names = FreshNames(out)
        layers = {layer.index: (i, layer) for i, layer in enumerate(self._layers)}
        nodes: list[NodeProto] = []
        for index in self._kept:
            node = view.model.graph.node[index]
            if index not in layers:
                nodes.append(node)
                continue
            position, layer = layers[index]
            which, choice = names("position"), names("is_int8")
            place = numpy_helper.from_array(np.array(position, np.int64), which)
            out.graph.initializer.append(place)
            nodes.append(helper.make_node("Gather", [CHOICES, which], [choice], axis=0))
            nodes.append(
                _choice(view, node, layer, self._thresholds[layer.activation], choice, names)
            )
        replace_nodes(out.graph, nodes)
        _drop_unread_weights(out, nodes)
        out.graph.input.append(
            helper.make_tensor_value_info(CHOICES, TensorProto.BOOL, [len(self.nodes)])
        )
        out.graph.input.extend(
            helper.make_tensor_value_info(name, view.elem_type[name], view.shape.get(name))
            for name in self.inputs
        )
        out.graph.output.extend(float_output(name) for name in self._answers)
        return out


def choice_graphs(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    answers: Sequence[str],
) -> list[ChoiceGraph]:
    """The parts, in graph order; each int8 node of ``placement`` is in one of them.

    Args:
        view: of the float32 graph (opset 19 or newer).
        placement: the nodes to choose the form of.
        thresholds: absolute value that maps to 127, by activation name.
        answers: tensors to end at.
    """
    count = len(placement.nodes)
    bounds = sorted({count * part // PARTS for part in range(PARTS + 1)})
    return [
        _part(view, placement.nodes[start:end], thresholds, answers)
        for start, end in pairwise(bounds)
    ]


def _part(
    view: GraphView,
    layers: tuple[QuantizedNode, ...],
    thresholds: Mapping[str, float],
    answers: Sequence[str],
) -> ChoiceGraph:
    """What depends on the layers, as far as an answer needs it."""
    nodes = view.model.graph.node
    first = layers[0].index
    chosen = {layer.index for layer in layers}
    changed: set[str] = set()
    for index in range(first, len(nodes)):
        if index in chosen or changed.intersection(nodes[index].input):
            changed.update(nodes[index].output)
    reached = tuple(name for name in answers if name in changed)
    needed = set(reached)
    kept: list[int] = []
    for index in range(len(nodes) - 1, first - 1, -1):
        if needed.intersection(nodes[index].output) and changed.intersection(nodes[index].output):
            kept.insert(0, index)
            needed.update(nodes[index].input)
    inside = {name for index in kept for name in nodes[index].output}
    inputs = [
        name
        for name in dict.fromkeys(name for index in kept for name in nodes[index].input)
        if name and name not in inside and name not in view.initializers
    ]
    return ChoiceGraph(
        tuple(node_name(nodes[layer.index]) for layer in layers),
        tuple(inputs),
        view,
        thresholds,
        layers,
        tuple(kept),
        reached,
    )


def _drop_unread_weights(out: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Remove constants that neither a node nor a branch of one reads."""
    branches = [a.g for node in nodes for a in node.attribute if a.HasField("g")]
    inner = [node for branch in branches for node in branch.node]
    used = {name for node in (*nodes, *inner) for name in node.input}
    kept = [t for t in out.graph.initializer if t.name in used]
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)


def _choice(
    view: GraphView,
    node: NodeProto,
    quantized: QuantizedNode,
    threshold: float,
    choice: str,
    names: FreshNames,
) -> NodeProto:
    """An If in the place of ``node``: its int8 form, or itself."""
    weight = rounded_constant(view, quantized.weight, quantized.axis)
    values: dict[str, NDArray[Any]] = {
        "scale": scale_for(threshold),
        "zero": np.array(0, np.int8),
        "weight": weight,
    }
    constants = {key: names(f"{key}_of_choice") for key in values}
    integer, rounded = names("integer"), names("rounded")
    pair = [constants["scale"], constants["zero"]]
    branches = []
    for label in ("int8", "float"):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = names(f"{node.output[0]}_{label}")
        steps = [copy]
        if label == "int8":
            copy.input[0], copy.input[1] = rounded, constants["weight"]
            steps = [
                helper.make_node("QuantizeLinear", [quantized.activation, *pair], [integer]),
                helper.make_node("DequantizeLinear", [integer, *pair], [rounded]),
                copy,
            ]
            held = [view.constant(v, constants[key]) for key, v in values.items()]
        else:
            # ONNX Runtime lays out anew, which makes them several times faster, only those
            # convolutions whose weights are in the same graph.
            weight_name = names("float_weight_of_choice")
            held = [TensorProto()]
            held[0].CopyFrom(view.initializers[quantized.weight])
            held[0].name = copy.input[1] = weight_name
        body = helper.make_graph(steps, label, [], [float_output(copy.output[0])], held)
        branches.append(body)
    return helper.make_node(
        "If", [choice], [node.output[0]], then_branch=branches[0], else_branch=branches[1]
    )
