"""Nodes that find the largest magnitude of a tensor inside an ONNX Runtime session."""

from __future__ import annotations

from onnx import NodeProto, helper

from trtconvert.graph import CORE_DOMAINS
from trtconvert.graph_view import FreshNames, GraphView

_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid"})


def peak_nodes(
    view: GraphView, name: str, names: FreshNames, axes: str | None = None
) -> tuple[list[NodeProto], str]:
    """Nodes that reduce a tensor to its largest magnitude, and the name of what they make.

    The tensor is only read: its absolute values are never stored.

    Args:
        view: of the graph, opset 18 or newer.
        name: of a float tensor of the graph.
        names: of the graph that the nodes are for.
        axes: the constant that holds the axes to reduce; None reduces all.
    """
    inputs = [name] if axes is None else [name, axes]
    highest = names(f"{name}_highest")
    nodes = [helper.make_node("ReduceMax", inputs, [highest], keepdims=0)]
    if _is_never_negative(view, name):
        return nodes, highest
    lowest, depth, peak = (names(f"{name}_{part}") for part in ("lowest", "depth", "peak"))
    nodes += [
        helper.make_node("ReduceMin", inputs, [lowest], keepdims=0),
        helper.make_node("Neg", [lowest], [depth]),
        helper.make_node("Max", [highest, depth], [peak]),
    ]
    return nodes, peak


def _is_never_negative(view: GraphView, name: str) -> bool:
    node = view.producer.get(name)
    if node is None or node.domain not in CORE_DOMAINS:
        return False
    if node.op_type != "Clip":
        return node.op_type in _NEVER_NEGATIVE
    low = node.input[1] if len(node.input) > 1 else ""
    return low in view.initializers and float(view.array(low)) >= 0.0
