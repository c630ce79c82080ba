"""Decides which tensors of a float32 graph are read as int8.

Rules:

1. A ``Conv`` with constant weights reads its input and weights as int8.
2. A ``Gemm`` (alpha and beta 1, no transposed input) or ``MatMul`` with a constant right side of
   rank 2 does too.
3. Not so: a Conv on 1×1 maps (a squeeze gate: no cost worth saving, and its error scales whole
   channels); a ``ConvTranspose``; a node the caller keeps float, for one that int8 makes too noisy;
   an input that is constant, is quantized already, or was never above zero in calibration.
4. One pair per tensor, read by all its int8 consumers.
5. Residual: an ``Add`` of two computed tensors of one shape reads through the pair of whichever of
   them has one, so that the skip branch is held once, as int8, and the GPU can fuse the sum.
6. Everything else stays float. Above all the heads: no Concat, decode, Sigmoid or Softmax shares
   one range between unlike things, since only inputs of convolutions and matrix products count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from trtconvert.decision import Decision
from trtconvert.graph import CORE_DOMAINS
from trtconvert.graph_view import GraphView, attribute, node_name

FLOAT = TensorProto.FLOAT
_QDQ = ("DequantizeLinear", "QuantizeLinear")
INT8_OPS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class QuantizedNode:
    """A node that reads int8.

    Attributes:
        index: of the node in the graph.
        activation, weight: names of the tensors it reads as int8.
        axis: of ``weight``, along which its output channels lie.
    """

    index: int
    activation: str
    weight: str
    axis: int


@dataclass(frozen=True)
class Placement:
    """Where the Q/DQ pairs go.

    Attributes:
        nodes: that read int8.
        residuals: ``(node index, input index)`` of the adds that read through a pair.
        activations: tensors with a pair, in the order of their first reader.
        decisions: one per node of the graph.
    """

    nodes: tuple[QuantizedNode, ...]
    residuals: tuple[tuple[int, int], ...]
    activations: tuple[str, ...]
    decisions: tuple[Decision, ...]


def place_int8(
    view: GraphView, *, keep: Mapping[str, str] | None = None, dead: Collection[str] = ()
) -> Placement:
    """Apply the rules to a graph.

    Args:
        view: of the clean float32 graph.
        keep: reasons by name of nodes that stay float.
        dead: tensors that calibration never saw above zero.
    """
    keep = keep or {}
    chosen: dict[int, QuantizedNode] = {}
    reasons: dict[int, str] = {}
    for index, node in enumerate(view.model.graph.node):
        if node.op_type not in INT8_OPS or node.domain not in CORE_DOMAINS:
            continue
        reason = _refusal(view, node, keep, dead)
        if reason is None:
            axis = _weight_axis(node)
            chosen[index] = QuantizedNode(index, node.input[0], node.input[1], axis)
        else:
            reasons[index] = reason
    activations = tuple(dict.fromkeys(q.activation for q in chosen.values()))
    residuals = _residuals(view, frozenset(activations), keep)
    adds = {index for index, _ in residuals}
    decisions = []
    for index, node in enumerate(view.model.graph.node):
        if index in chosen:
            decision = "int8", "input and weights int8, per output channel"
        elif index in adds:
            decision = "float", "reads the skip branch as int8"
        else:
            decision = "float", reasons.get(index, _reason_outside(node))
        decisions.append(Decision(node_name(node), node.op_type, *decision))
    return Placement(tuple(chosen.values()), residuals, activations, tuple(decisions))


def _refusal(
    view: GraphView, node: NodeProto, keep: Mapping[str, str], dead: Collection[str]
) -> str | None:
    if node_name(node) in keep:
        return keep[node_name(node)]
    if node.input[0] in dead:
        return "its input was zero on every calibration image"
    return next((reason for reason, applies in _REFUSALS if applies(view, node)), None)


def _made_by(view: GraphView, node: NodeProto) -> str:
    producer = view.producer.get(node.input[0])
    return producer.op_type if producer is not None else ""


def _is_pooled(view: GraphView, node: NodeProto) -> bool:
    shape = view.shape.get(node.input[0]) or ()
    return node.op_type == "Conv" and len(shape) > 2 and set(shape[2:]) == {1}


def _is_scaled(_: GraphView, node: NodeProto) -> bool:
    return node.op_type == "Gemm" and (
        attribute(node, "alpha", 1.0) != 1.0
        or attribute(node, "beta", 1.0) != 1.0
        or bool(attribute(node, "transA", 0))
    )


def _is_batched(view: GraphView, node: NodeProto) -> bool:
    return node.op_type == "MatMul" and len(view.initializers[node.input[1]].dims) != 2


# In this order: a later rule may take for granted that the earlier ones did not apply.
_REFUSALS: tuple[tuple[str, Callable[[GraphView, NodeProto], bool]], ...] = (
    ("its weights are computed", lambda view, node: node.input[1] not in view.initializers),
    ("its input is constant", lambda view, node: node.input[0] in view.initializers),
    ("its input is quantized already", lambda view, node: _made_by(view, node) in _QDQ),
    ("its weights are not float32", lambda view, node: view.elem_type[node.input[1]] != FLOAT),
    ("works on 1x1 maps: nothing to gain", _is_pooled),
    ("its weights are not a matrix", _is_batched),
    ("it scales or transposes its input", _is_scaled),
)


def _weight_axis(node: NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return 0
    return 1


def _residuals(
    view: GraphView, paired: frozenset[str], keep: Mapping[str, str]
) -> tuple[tuple[int, int], ...]:
    found = []
    for index, node in enumerate(view.model.graph.node):
        if node.op_type != "Add" or node_name(node) in keep:
            continue
        shapes = [view.shape.get(name) for name in node.input]
        if shapes[0] is None or shapes[0] != shapes[1]:
            continue
        if any(name in view.initializers for name in node.input):
            continue
        found += [(index, place) for place, name in enumerate(node.input) if name in paired]
    return tuple(found)


def _reason_outside(node: NodeProto) -> str:
    if node.op_type == "ConvTranspose":
        return "transposed convolutions stay float"
    return f"{node.op_type} is not among {', '.join(INT8_OPS)}"
