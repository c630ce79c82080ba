"""Decides which nodes of a graph compute in float16, or in bfloat16.

Rules, the first that applies:

1. *No float*: a node without float32 tensors is left alone.
2. *Schema*: every type variable that stands for float32 at the node must admit the type, and a
   result's type must follow from an input's, or the node stays float32. Places the schema fixes to
   float32 (the scales of Resize) stay so in either case.
3. *Unsafe operators*: those whose result or inner sum leaves the type's range or grid on ordinary
   inputs (``half_types.py``) stay float32.
4. *Coordinates*: above 2048 (bfloat16: 256) there are gaps between integers. Numbers cast from
   integers, the element-wise arithmetic on them, and the arithmetic whose result is cast to an
   integer index stay float32. Casts from bool, int8 and uint8 are exact, so an image input is no
   coordinate.
5. *Constants*: a finite value above the largest number, or a tensor that would become all zeros
   (an epsilon), keeps its consumers float32.
6. *Observed range*: a tensor that was seen above a quarter of the largest number keeps its
   producer and consumers float32.
7. *Data movement*, ``ArgMax``, ``ArgMin``, ``TopK`` and ``QuantizeLinear`` follow the precision
   of what they read: no Cast is spent on them, nor does one make ties of what is to be ordered.
8. *Kept*: a node that the caller keeps float32, and whoever reads its results: a value that
   the type cannot hold must not be cast on the way to its reader.
9. The rest is converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from trtconvert.decision import Decision
from trtconvert.graph import CORE_DOMAINS
from trtconvert.graph_view import GraphView, attribute, node_name
from trtconvert.passes.half_types import FP16, HalfType, rounded

FLOAT = TensorProto.FLOAT
# Two bits of it, over what the calibration images showed.
_HEADROOM = 4

# Results are copies of inputs.
MOVEMENT = frozenset(
    (
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split"),
        *("Gather", "GatherND", "GatherElements", "Expand", "Tile", "DepthToSpace"),
        *("SpaceToDepth", "Concat", "Pad", "Dropout", "Trilu"),
    )
)
_FOLLOWING = MOVEMENT | frozenset(("ArgMax", "ArgMin", "TopK", "QuantizeLinear"))
_ELEMENTWISE = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sqrt", "Floor", "Ceil", "Round"),
        *("Min", "Max", "Clip"),
    )
)
_EXACT_INTEGERS = (TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8)
_FLOATS = (FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def decide_half(
    view: GraphView,
    observed: Mapping[str, float],
    keep: Mapping[str, str] | None = None,
    half: HalfType = FP16,
) -> list[Decision]:
    """One decision per node of ``view``, in graph order.

    Args:
        view: of a float32 graph, with or without Q/DQ pairs.
        observed: largest absolute value seen by tensor name; may be empty.
        keep: reasons by name of nodes that stay float32.
        half: the type of the others.
    """
    keep = keep or {}
    coordinates = _coordinate_nodes(view)
    held: dict[str, str] = {}
    home: dict[str, str] = dict.fromkeys(view.inputs, "fp32")
    decisions = []
    for index, node in enumerate(view.model.graph.node):
        decision = _decide(view, node, index in coordinates, observed, home, half)
        if decision.precision == half.name:
            kept = _kept_reason(node, keep, held)
            decision = decision._replace(precision="fp32", reason=kept) if kept else decision
        for name in node.output:
            home[name] = decision.precision
            if node_name(node) in keep:
                held[name] = node_name(node)
        decisions.append(decision)
    return decisions


def _kept_reason(node: NodeProto, keep: Mapping[str, str], held: Mapping[str, str]) -> str | None:
    if node_name(node) in keep:
        return keep[node_name(node)]
    source = next((held[name] for name in node.input if name in held), None)
    return None if source is None else f"reads {source}, which stays float32"


def float32_places(
    view: GraphView, node: NodeProto, half: HalfType
) -> Iterator[tuple[int, str, bool]]:
    """Inputs of ``node`` that hold float32: ``(index, type variable, may be half)``."""
    schema = _schema(view, node)
    for index, name in enumerate(node.input):
        if name and view.elem_type.get(name) == FLOAT:
            yield index, *_variable(schema, index, half, inputs=True)


def _decide(
    view: GraphView,
    node: NodeProto,
    is_coordinate: bool,
    observed: Mapping[str, float],
    home: Mapping[str, str],
    half: HalfType,
) -> Decision:
    name_type = node_name(node), node.op_type
    reads = [name for name in node.input if view.elem_type.get(name) == FLOAT]
    writes = [name for name in node.output if view.elem_type.get(name) == FLOAT]
    if not reads and not writes:
        return Decision(*name_type, "integer", "holds no float tensor")
    for reason in _float32_reasons(view, node, is_coordinate, observed, half):
        return Decision(*name_type, "fp32", reason)
    if node.op_type in _FOLLOWING:
        data = reads if node.op_type == "Concat" else reads[:1]
        if any(home.get(name) == "fp32" for name in data):
            return Decision(*name_type, "fp32", "follows its input", follows=True)
    return Decision(*name_type, half.name, "float arithmetic")


def _float32_reasons(
    view: GraphView,
    node: NodeProto,
    is_coordinate: bool,
    observed: Mapping[str, float],
    half: HalfType,
) -> Iterator[str]:
    """Rules 2 to 6."""
    yield from _schema_reasons(view, node, half)
    if node.op_type in half.unsafe and node.domain in CORE_DOMAINS:
        yield half.unsafe[node.op_type]
    if is_coordinate:
        yield f"coordinates: {half.long_name} skips integers above {half.integers}"
    for name in node.input:
        if name in view.initializers and view.elem_type[name] == FLOAT:
            yield from _constant_reasons(view, name, half)
    for name in (*node.input, *node.output):
        if observed.get(name, 0.0) > half.largest / _HEADROOM:
            yield (
                f"{name} reached {observed[name]:.3g}, too near {half.long_name}'s {half.largest:g}"
            )


def _schema(view: GraphView, node: NodeProto) -> onnx.defs.OpSchema | None:
    if node.domain not in CORE_DOMAINS or not onnx.defs.has(node.op_type):
        return None
    return onnx.defs.get_schema(node.op_type, view.opset)


def _variable(
    schema: onnx.defs.OpSchema | None, index: int, half: HalfType, *, inputs: bool
) -> tuple[str, bool]:
    if schema is None:
        return "", False
    formal = schema.inputs if inputs else schema.outputs
    # A variadic parameter is the last one and stands for all that follow.
    parameter = formal[min(index, len(formal) - 1)]
    return parameter.type_str, half.schema_type in parameter.types


def _schema_reasons(view: GraphView, node: NodeProto, half: HalfType) -> Iterator[str]:
    schema = _schema(view, node)
    if schema is None:
        yield f"{node.domain or 'ai.onnx'}.{node.op_type} is not a standard operator"
        return
    places = list(float32_places(view, node, half))
    # A type written out ("tensor(float)") is fixed, and no obstacle beside others that are free.
    fixed = any(not admits and not kind.startswith("tensor(") for _, kind, admits in places)
    if fixed or (places and not any(admits for _, _, admits in places)):
        yield f"{node.op_type} takes float32 only"
    free = {kind for _, kind, admits in places if admits}
    for index, name in enumerate(node.output):
        if view.elem_type.get(name) != FLOAT:
            continue
        kind, admits = _variable(schema, index, half, inputs=False)
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


def _constant_reasons(view: GraphView, name: str, half: HalfType) -> Iterator[str]:
    value = np.abs(view.array(name).astype(np.float64))
    largest = value[np.isfinite(value)].max(initial=0.0)
    if largest > half.largest:
        yield f"constant {name} holds {largest:.3g}, beyond {half.long_name}'s {half.largest:g}"
    elif largest > 0 and not rounded(np.array([largest], np.float32), half).any():
        yield f"constant {name} would become zero in {half.long_name}"


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
