"""What to know about a graph before it is built, beside what stops a build."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from onnx import ModelProto

from trtconvert.graph import all_nodes, image_inputs, shape_of, subgraphs, tensor_info
from trtconvert.graph_view import GraphView
from trtconvert.input_spec import geometry_of
from trtconvert.nms_in_graph import DATA_DEPENDENT, nms_nodes
from trtconvert.passes.half_rules import decide_half
from trtconvert.passes.upgrade import OPSET
from trtconvert.preprocessing.graph_scale import scale_in_graph
from trtconvert.shapes import ShapeFlags
from visionrt.errors import ModelError

_SHOWN = 3


class Note(NamedTuple):
    """A topic in a few words, and a sentence on it."""

    topic: str
    text: str


def notes_on_graph(model: ModelProto, clean: ModelProto, shapes: ShapeFlags) -> list[Note]:
    """Notes on axes, input, opset, NMS, data-dependent sizes, CUDA graphs and FP16, in this order.

    Args:
        model: as it was loaded.
        clean: the same, cleaned at the sizes that ``shapes`` say.
        shapes: as given on the command line.
    """
    notes = [Note("axes", _axes(model)), Note("input", _input(model, shapes))]
    version = next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
    if version < OPSET:
        notes.append(Note("operator set", f"{version} is converted to {OPSET}"))
    found = nms_nodes(model)
    if found:
        kinds = ", ".join(sorted({node.op_type for node in found}))
        text = f"{kinds}: --nms inside keeps it, --nms outside cuts it off, and ours runs"
        notes.append(Note("NMS", text))
    return [*notes, *_varying(clean), *_fp16(clean)]


def _axes(model: ModelProto) -> str:
    parts = []
    for value in image_inputs(model.graph):
        shape = shape_of(value)
        open_axes = [f"{axis} ({size})" for axis, size in enumerate(shape) if isinstance(size, str)]
        what = f"dynamic: {', '.join(open_axes)}" if open_axes else "all static"
        parts.append(f"{value.name} {list(shape)}, {what}")
    return "; ".join(parts)


def _input(model: ModelProto, shapes: ShapeFlags) -> str:
    geometry = geometry_of(model, shapes)
    parts = [f"{geometry.layout.upper()} {geometry.dtype}, {geometry.channels} channels"]
    if geometry.layout == "nhwc":
        parts.append("preprocessing writes channels last, as the graph reads them")
    if geometry.dtype == "uint8":
        parts.append("preprocessing writes bytes; the graph scales them")
    else:
        written = scale_in_graph(model)
        if written is not None:
            parts.append(f"the graph scales its input itself: it takes {written}")
    return "; ".join(parts)


def _varying(clean: ModelProto) -> list[Note]:
    """Sizes that depend on the data, and what they and control flow mean for CUDA graphs."""
    nodes = list(all_nodes(clean.graph))
    counts = Counter(node.op_type for node in nodes if node.op_type in DATA_DEPENDENT)
    # RoiAlign's size is that of its boxes, which such an operator has made.
    flow = Counter(node.op_type for node in nodes if any(True for _ in subgraphs(node)))
    notes = []
    if counts:
        many = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        open_outputs = [
            info.name
            for info in map(tensor_info, clean.graph.output)
            if any(isinstance(size, str) for size in info.shape[1 if len(info.shape) > 2 else 0 :])
        ]
        text = f"{many}: how many results there are depends on the image"
        if open_outputs:
            text += f"; so do the sizes of {', '.join(open_outputs)}"
        notes.append(Note("data-dependent sizes", text))
    stops = [*counts, *flow]
    if stops:
        text = f"{', '.join(stops)} stop the capture: a graph has fixed sizes and one course"
        notes.append(Note("CUDA graph", text))
    else:
        notes.append(Note("CUDA graph", "nothing in the graph stops its capture"))
    return notes


def _fp16(clean: ModelProto) -> list[Note]:
    try:
        view = GraphView(clean)
    except ModelError:
        return [Note("FP16", "graphs with control flow stay as they are")]
    kept = [d for d in decide_half(view, {}) if d.precision == "fp32"]
    by_reason: dict[str, list[str]] = {}
    for decision in kept:
        if not decision.follows:
            by_reason.setdefault(decision.reason, []).append(f"{decision.op_type} {decision.node}")
    if not by_reason:
        return [Note("FP16", "no operator or constant beyond its range; images show activations")]
    parts = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{', '.join(names[:_SHOWN])}{more}: {reason}")
    return [Note("FP16", f"these stay float32: {'; '.join(parts)}")]
