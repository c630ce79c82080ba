"""Recognises the NMS of other tools in a graph, and what goes into it.

=====================  ===========================================================================
EfficientNMS_TRT       boxes [b, N, 4], scores [b, N, C]; thresholds and box form are attributes
BatchedNMS_TRT,        boxes [b, N, 1, 4], scores [b, N, C]; likewise
BatchedNMSDynamic_TRT
NonMaxSuppression      boxes [b, N, 4], scores [b, C, N]; ONNX's own, as YOLO exporters and tf2onnx
                       write it
torchvision's          a loop over classes with data-dependent selections: scores are the softmax
                       over [N, C], boxes the last [N, 4] before the first such selection
=====================  ===========================================================================

Cut there, the graph gives boxes and scores for the head ``boxes_scores``, and NMS is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from trtconvert.cutting import cut_at, values_of, with_batch_axis, without_axis
from trtconvert.edits import EditedModel
from trtconvert.graph import all_nodes, names_read, node_label, subgraphs
from trtconvert.graph_view import attribute
from trtconvert.passes.fold import fold
from visionrt.errors import ModelError

PLUGINS = ("EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT")
_NMS = (*PLUGINS, "NonMaxSuppression")
# Operators whose results' sizes depend on the data.
DATA_DEPENDENT = ("NonZero", "NonMaxSuppression", "Unique", "Compress", "RoiAlign")
# Normalised corners are within 0…1, bar what overlaps the edge.
_MOST_NORMALISED = 2.0


def nms_nodes(model: ModelProto) -> list[NodeProto]:
    """Every NMS in the graph, bodies included."""
    return [node for node in all_nodes(model.graph) if node.op_type in _NMS]


def without_nms(model: ModelProto) -> EditedModel:
    """The model up to its NMS, and what the NMS tells of the recipe.

    Raises:
        ModelError: no NMS, or one whose boxes and scores are not found.
    """
    found = nms_nodes(model)
    if not found:
        raise ModelError(
            "an NMS in the graph, for --nms outside",
            got="none",
            fix="Leave --nms out.",
        )
    if any(node.op_type == "RoiAlign" for node in all_nodes(model.graph)):
        raise ModelError(
            "an NMS behind all layers of the model",
            got="a two-stage detector, whose second stage (RoiAlign) reads what an NMS chose",
            fix="Build it with --target cpu, or take a one-stage detector.",
        )
    top = {id(node) for node in model.graph.node}
    if len(found) == 1 and id(found[0]) in top:
        folded = ModelProto.FromString(model.SerializeToString())
        fold(folded)
        (node,) = nms_nodes(folded)
        before = cut_at(folded, node.input[:2]).graph
        if not any(inner.op_type in DATA_DEPENDENT for inner in all_nodes(before)):
            return _at_plugin(folded, node) if node.op_type in PLUGINS else _at_onnx(folded, node)
    return _before_selections(model)


def _at_plugin(model: ModelProto, node: NodeProto) -> EditedModel:
    """EfficientNMS and BatchedNMS, whose attributes say all."""
    boxes, scores = node.input[:2]
    is_efficient = node.op_type == "EfficientNMS_TRT"
    left = cut_at(model, (boxes, scores))
    options: dict[str, Any] = {"boxes": boxes, "scores": scores, "layout": "rows"}
    options["background"] = attribute(
        node, "background_class" if is_efficient else "backgroundLabelId", -1
    )
    if is_efficient:
        options["form"] = "cxcywh" if attribute(node, "box_coding", 0) else "xyxy"
        options["units"] = _units(left, boxes)
        if attribute(node, "score_activation", 0):
            raise ModelError(
                "an NMS that reads probabilities",
                got=f"{node_label(node)}, which applies a sigmoid itself",
                fix="Export the model again with the sigmoid in the graph.",
            )
    else:
        options["form"] = "xyxy"
        options["units"] = "normalised" if attribute(node, "isNormalized", 1) else "pixels"
        left, options["boxes"] = without_axis(left, boxes, 2)
    names = ("score_threshold", "iou_threshold", "max_output_boxes")
    if not is_efficient:
        names = ("scoreThreshold", "iouThreshold", "keepTopK")
    limits = {
        key: attribute(node, name, None)
        for key, name in zip(("confidence", "iou", "max_det"), names, strict=True)
    }
    return _told(left, options, limits, node)


def _at_onnx(model: ModelProto, node: NodeProto) -> EditedModel:
    """ONNX's NonMaxSuppression: an optional constant for each limit."""
    boxes, scores = node.input[:2]
    left = cut_at(model, (boxes, scores))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    limits: dict[str, Any] = {}
    for key, index in (("max_det", 2), ("iou", 3), ("confidence", 4)):
        name = node.input[index] if index < len(node.input) else ""
        limits[key] = numpy_helper.to_array(stored[name]).item() if name in stored else None
    is_centred = attribute(node, "center_point_box", 0)
    # Suppression is the same for both orders of corners, so the graph does not say.
    corners = "yxyx" if model.producer_name == "tf2onnx" else "xyxy"
    options = {
        "boxes": boxes, "scores": scores, "layout": "columns",
        "form": "cxcywh" if is_centred else corners, "units": _units(left, boxes),
    }  # fmt: skip
    return _told(left, options, limits, node)


def _before_selections(model: ModelProto) -> EditedModel:
    """torchvision's one-stage detectors: see the table above."""
    depends: set[str] = set()
    frontier: dict[str, None] = {}
    for node in model.graph.node:
        read = list(names_read(node))
        selects = any(inner.op_type in DATA_DEPENDENT for inner in [node, *_inside(node)])
        if selects or depends.intersection(read):
            depends.update(node.output)
            frontier |= dict.fromkeys(name for name in read if name not in depends)
    made = {name: node for node in model.graph.node for name in node.output}
    edges = [n for n in frontier if n in made and made[n].op_type != "Constant"]
    activations = [
        node.output[0]
        for node in model.graph.node
        if node.op_type in ("Softmax", "Sigmoid") and node.output[0] not in depends
    ]
    values = values_of(model, list(dict.fromkeys((*edges, *activations)))) if edges else {}
    pairs = [
        (boxes, scores)
        for boxes in edges
        for scores in activations
        if _is_boxes(values[boxes]) and values[scores].shape[-2:-1] == values[boxes].shape[-2:-1]
    ]
    if len(pairs) != 1:
        raise ModelError(
            "boxes and scores that are told apart before the NMS",
            got=f"{len(pairs)} pairs that may be them",
            fix="Name the two tensors with --outputs, and give --head boxes_scores.",
        )
    boxes, scores = pairs[0]
    left = cut_at(model, (boxes, scores))
    options: dict[str, Any] = {"layout": "rows", "form": "xyxy", "units": _units_of(values[boxes])}
    if made[scores].op_type == "Softmax":
        options["background"] = 0
    for key, name in (("boxes", boxes), ("scores", scores)):
        options[key] = name
        if values[name].ndim == 2:
            left, options[key] = with_batch_axis(left, name)
    return _told(left, options, {}, nms_nodes(model)[0])


def _told(
    left: ModelProto, options: dict[str, Any], limits: dict[str, Any], node: NodeProto
) -> EditedModel:
    recipe: dict[str, Any] = {"task": "detect", "head": "boxes_scores", "head_options": options}
    confidence, iou, max_det = (limits.get(k) for k in ("confidence", "iou", "max_det"))
    if isinstance(confidence, float) and 0 < confidence < 1:
        recipe["confidence"] = round(confidence, 6)
    if isinstance(iou, float) and 0 < iou <= 1:
        recipe["iou"] = round(iou, 6)
    if isinstance(max_det, int) and 0 < max_det < 1 << 31:
        recipe["max_det"] = max_det
    return EditedModel(left, recipe, f"{node_label(node)}, which was cut off")


def _units(left: ModelProto, boxes: str) -> str:
    return _units_of(values_of(left, (boxes,))[boxes])


def _units_of(boxes: Any) -> str:
    return "normalised" if float(np.abs(boxes).max(initial=0)) <= _MOST_NORMALISED else "pixels"


def _is_boxes(value: Any) -> bool:
    return value.ndim in (2, 3) and value.shape[-1] == 4 and value.shape[-2] > 1


def _inside(node: NodeProto) -> Sequence[NodeProto]:
    return [inner for body in subgraphs(node) for inner in all_nodes(body)]
