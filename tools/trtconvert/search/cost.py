"""What a node costs in each precision.

The model: a node takes as long as its arithmetic and its reads take one after the other. Counted
in bytes: a tensor core does ``FLOPS_PER_BYTE`` int8 operations in the time one byte comes from
memory, half as many in float16 and a quarter in float32; and elements are 1, 2 and 4 bytes wide.
It serves to order nodes, not to predict a latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnx import NodeProto

from trtconvert.decision import Decision
from trtconvert.graph import CORE_DOMAINS
from trtconvert.graph_view import GraphView, node_name

# Of common GPUs between SM 75 and SM 120: dense int8 operations per second over bytes per second.
FLOPS_PER_BYTE = 300.0
ELEMENT_BYTES = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_PRODUCTS = frozenset({"Gemm", "MatMul"})


def node_flops(view: GraphView, node: NodeProto) -> int:
    """Operations of a convolution or matrix product, two per multiplication; others count as 0.

    Symbolic sizes count as 1, so the figure is that of one image.
    """
    if node.domain not in CORE_DOMAINS or node.op_type not in _CONVOLUTIONS | _PRODUCTS:
        return 0
    weight, result = view.static_shape(node.input[1]), view.static_shape(node.output[0])
    source = view.static_shape(node.input[0])
    if weight is None or result is None or source is None:
        return 0
    if node.op_type == "Conv":
        return 2 * math.prod(result) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(source) * math.prod(weight[1:])
    depth = source[0] if _is_transposed(node) else source[-1]
    return 2 * math.prod(result) * depth


def node_cost(view: GraphView, node: NodeProto, precision: str) -> float:
    """Cost in bytes; see the module. Never lower in a wider precision."""
    width = ELEMENT_BYTES[precision]
    elements = sum(math.prod(view.static_shape(name) or ()) for name in node.input if name)
    return width * (elements + node_flops(view, node) / FLOPS_PER_BYTE)


def added_cost(view: GraphView, node: NodeProto, precision: str = "int8") -> float:
    """What the next wider precision costs more."""
    wider = "fp16" if precision == "int8" else "fp32"
    return node_cost(view, node, wider) - node_cost(view, node, precision)


def total_cost(view: GraphView, decisions: Iterable[Decision]) -> float:
    """Cost of a graph as decided; nodes without float tensors count nothing."""
    precision = {decision.node: decision.precision for decision in decisions}
    return sum(
        node_cost(view, node, chosen)
        for node in view.model.graph.node
        if (chosen := precision.get(node_name(node), "integer")) in ELEMENT_BYTES
    )


def flops_by_precision(view: GraphView, decisions: Iterable[Decision]) -> dict[str, int]:
    """FLOPs (see :func:`node_flops`) per precision, the most first; empty shares are left out."""
    flops = {node_name(node): node_flops(view, node) for node in view.model.graph.node}
    totals: dict[str, int] = {}
    for decision in decisions:
        count = flops.get(decision.node, 0)
        if count:
            totals[decision.precision] = totals.get(decision.precision, 0) + count
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def _is_transposed(node: NodeProto) -> bool:
    return any(a.name == "transA" and a.i for a in node.attribute)
