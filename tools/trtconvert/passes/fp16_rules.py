"""Decides which nodes of a graph compute in float16.

Rules, the first that applies:

1. *No float*: a node without float32 tensors is left alone.
2. *Schema*: every type variable that stands for float32 at the node must admit float16, and a
   result's type must follow from an input's, or the node stays float32. Places the schema fixes to
   float32 (the scales of Resize) stay so in either case.
3. *Unsafe operators*: those whose result or inner sum leaves float16's range or grid on ordinary
   inputs (``UNSAFE``) stay float32.
4. *Coordinates*: float16 has no integer above 2048 without gaps. Numbers cast from integers, the
   element-wise arithmetic on them, and the arithmetic whose result is cast to an integer index
   stay float32. Casts from bool, int8 and uint8 are exact, so an image input is no coordinate.
5. *Constants*: a finite value above 65504, or a tensor that would become all zeros (an epsilon),
   keeps its consumers float32.
6. *Observed range*: a tensor that was seen above 65504 / 4 keeps its producer and consumers
   float32.
7. *Data movement* and ``QuantizeLinear`` follow the precision of what they read: no Cast is
   spent on them.
8. *Kept*: a node that the caller keeps float32, and whoever reads its results: a value that
   float16 cannot hold must not be cast on the way to its reader.
9. The rest is float16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from trtconvert.decision import Decision
from trtconvert.graph import CORE_DOMAINS
from trtconvert.graph_view import GraphView, attribute, node_name

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16
FP16_MAX = float(np.finfo(np.float16).max)
# Two bits of headroom over what the calibration images showed.
_OBSERVED_LIMIT = FP16_MAX / 4

_SQUARES = "sums squares, which overflow at inputs of 256"
_NORM = "normalises by a sum of squares"
UNSAFE: dict[str, str] = {
    "Exp": "exp(x) overflows above x = 11",
    "Pow": "a power leaves float16's range",
    "Reciprocal": "1/x overflows below x = 1.5e-5",
    "CumSum": "a running sum loses its small terms",
    "ReduceSum": "a long sum overflows",
    "ReduceProd": "a product overflows",
    "ReduceL2": _SQUARES,
    "ReduceSumSquare": _SQUARES,
    "ReduceLogSum": "a long sum overflows",
    "ReduceLogSumExp": "exp(x) overflows above x = 11",
    "LpNormalization": _NORM,
    "LRN": _NORM,
    "MeanVarianceNormalization": _NORM,
    "LayerNormalization": _NORM,
    "RMSNormalization": _NORM,
    "InstanceNormalization": _NORM,
    "GroupNormalization": _NORM,
    "GridSample": "sampling positions need more than 11 bits",
    "RoiAlign": "sampling positions need more than 11 bits",
    "Range": "counts in steps",
    "NonMaxSuppression": "box coordinates need more than 11 bits",
}

# Results are copies of inputs.
MOVEMENT = frozenset(
    (
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split"),
        *("Gather", "GatherND", "GatherElements", "Expand", "Tile", "DepthToSpace"),
        *("SpaceToDepth", "Concat", "Pad", "Dropout", "Trilu"),
    )
)
_ELEMENTWISE = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sqrt", "Floor", "Ceil", "Round"),
        *("Min", "Max", "Clip"),
    )
)
_EXACT_INTEGERS = (TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8)
_FLOATS = (FLOAT, FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def decide_fp16(
    view: GraphView, observed: Mapping[str, float], keep: Mapping[str, str] | None = None
) -> list[Decision]:
    """One decision per node of ``view``, in graph order.

    Args:
        view: of a float32 graph, with or without Q/DQ pairs.
        observed: largest absolute value seen by tensor name; may be empty.
        keep: reasons by name of nodes that stay float32.
    """
    keep = keep or {}
    coordinates = _coordinate_nodes(view)
    held: dict[str, str] = {}
    home: dict[str, str] = dict.fromkeys(view.inputs, "fp32")
    decisions = []
    for index, node in enumerate(view.model.graph.node):
        precision, reason = _decide(view, node, index in coordinates, observed, home)
        if precision == "fp16":
            kept = _kept_reason(node, keep, held)
            precision, reason = ("fp32", kept) if kept else (precision, reason)
        for name in node.output:
            home[name] = precision
            if node_name(node) in keep:
                held[name] = node_name(node)
        decisions.append(Decision(node_name(node), node.op_type, precision, reason))
    return decisions


def _kept_reason(node: NodeProto, keep: Mapping[str, str], held: Mapping[str, str]) -> str | None:
    if node_name(node) in keep:
        return keep[node_name(node)]
    source = next((held[name] for name in node.input if name in held), None)
    return None if source is None else f"reads {source}, which stays float32"


def float32_places(view: GraphView, node: NodeProto) -> Iterator[tuple[int, str, bool]]:
    """Inputs of ``node`` that hold float32: ``(index, type variable, may be float16)``."""
    schema = _schema(view, node)
    for index, name in enumerate(node.input):
        if name and view.elem_type.get(name) == FLOAT:
            yield index, *_variable(schema, index, inputs=True)


def _decide(
    view: GraphView,
    node: NodeProto,
    is_coordinate: bool,
    observed: Mapping[str, float],
    home: Mapping[str, str],
) -> tuple[str, str]:
    reads = [name for name in node.input if view.elem_type.get(name) == FLOAT]
    writes = [name for name in node.output if view.elem_type.get(name) == FLOAT]
    if not reads and not writes:
        return "integer", "holds no float tensor"
    for reason in _float32_reasons(view, node, is_coordinate, observed):
        return "fp32", reason
    if node.op_type in MOVEMENT or node.op_type == "QuantizeLinear":
        data = reads if node.op_type == "Concat" else reads[:1]
        if any(home.get(name) == "fp32" for name in data):
            return "fp32", "follows its input"
    return "fp16", "float arithmetic"


def _float32_reasons(
    view: GraphView, node: NodeProto, is_coordinate: bool, observed: Mapping[str, float]
) -> Iterator[str]:
    """Rules 2 to 6."""
    yield from _schema_reasons(view, node)
    if node.op_type in UNSAFE and node.domain in CORE_DOMAINS:
        yield UNSAFE[node.op_type]
    if is_coordinate:
        yield "coordinates: float16 skips integers above 2048"
    for name in node.input:
        if name in view.initializers and view.elem_type[name] == FLOAT:
            yield from _constant_reasons(view, name)
    for name in (*node.input, *node.output):
        if observed.get(name, 0.0) > _OBSERVED_LIMIT:
            yield f"{name} reached {observed[name]:.3g}, too near float16's 65504"


def _schema(view: GraphView, node: NodeProto) -> onnx.defs.OpSchema | None:
    if node.domain not in CORE_DOMAINS or not onnx.defs.has(node.op_type):
        return None
    return onnx.defs.get_schema(node.op_type, view.opset)


def _variable(schema: onnx.defs.OpSchema | None, index: int, *, inputs: bool) -> tuple[str, bool]:
    if schema is None:
        return "", False
    formal = schema.inputs if inputs else schema.outputs
    # A variadic parameter is the last one and stands for all that follow.
    parameter = formal[min(index, len(formal) - 1)]
    return parameter.type_str, "tensor(float16)" in parameter.types


def _schema_reasons(view: GraphView, node: NodeProto) -> Iterator[str]:
    schema = _schema(view, node)
    if schema is None:
        yield f"{node.domain or 'ai.onnx'}.{node.op_type} is not a standard operator"
        return
    places = list(float32_places(view, node))
    # A type written out ("tensor(float)") is fixed, and no obstacle beside others that are free.
    fixed = any(not admits and not kind.startswith("tensor(") for _, kind, admits in places)
    if fixed or (places and not any(admits for _, _, admits in places)):
        yield f"{node.op_type} takes float32 only"
    free = {kind for _, kind, admits in places if admits}
    for index, name in enumerate(node.output):
        if view.elem_type.get(name) != FLOAT:
            continue
        kind, admits = _variable(schema, index, inputs=False)
        if not admits:
            yield f"{node.op_type} writes float32 only"
        elif kind not in free and not _follows_anyway(node):
            # ConstantOfShape, EyeLike and the like: an attribute says the type.
            yield "its type is an attribute"


def _follows_anyway(node: NodeProto) -> bool:
    """Whether a result's type follows the rewrite although no input shares its type variable."""
    if node.op_type == "DequantizeLinear":
        # Since opset 23 the schema has a variable of its own; by default it is the scale's type.
        return not attribute(node, "output_dtype", 0)
    return node.op_type == "Cast"


def _constant_reasons(view: GraphView, name: str) -> Iterator[str]:
    value = np.abs(view.array(name).astype(np.float64))
    largest = value[np.isfinite(value)].max(initial=0.0)
    if largest > FP16_MAX:
        yield f"constant {name} holds {largest:.3g}, beyond float16's 65504"
    elif largest > 0 and not np.float16(largest):
        yield f"constant {name} would become zero in float16"


def _coordinate_nodes(view: GraphView) -> set[int]:
    """Indices of nodes on float paths from an integer or to an integer (rule 4)."""
    nodes = view.model.graph.node
    spread = _ELEMENTWISE | MOVEMENT
    found: set[int] = set()
    tainted: set[str] = set()
    for index, node in enumerate(nodes):
        source = view.elem_type.get(node.input[0]) if node.input else None
        from_integer = (
            node.op_type == "Cast"
            and source not in (*_FLOATS, *_EXACT_INTEGERS)
            and view.elem_type.get(node.output[0]) == FLOAT
        )
        if from_integer or (node.op_type in spread and tainted.intersection(node.input)):
            found.add(index)
            tainted.update(n for n in node.output if view.elem_type.get(n) == FLOAT)
    wanted: set[str] = set()
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        to_integer = (
            node.op_type == "Cast"
            and view.elem_type.get(node.input[0]) == FLOAT
            and view.elem_type.get(node.output[0]) not in (*_FLOATS, TensorProto.BOOL)
        )
        if to_integer or (node.op_type in _ELEMENTWISE and wanted.intersection(node.output)):
            found.add(index)
            wanted.update(n for n in node.input if view.elem_type.get(n) == FLOAT)
    return found
