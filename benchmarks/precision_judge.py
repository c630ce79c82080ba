"""Judges quantized graphs: all the same way, on the same photos, against the float32 original.

A graph runs in ONNX Runtime with its optimizations off, so every Q/DQ pair is computed as written;
float16 parts run with their roundings written out. What is reported is the task's metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from precision_subjects import LABELLED, Subject
from trtconvert.graph_view import GraphView
from trtconvert.passes.emulate_half import emulate_half
from trtconvert.verify import labels_beside
from visionrt import image_io
from visionrt.backends.base import Backend
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.heads import Frame, head_for
from visionrt.metrics import OutputCosine, accumulator_for
from visionrt.options import options_for
from visionrt.pipeline import image_input
from visionrt.preprocess import Preprocessor
from visionrt.results import Result

# The figures of a task that the table shows: key, heading, format.
COLUMNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "classify": (("correct", "top-1 correct", "{:d}"), ("agreement", "agreement", "{:.3f}")),
    "detect": (("agreement", "box F1", "{:.3f}"), ("mean_iou", "mean IoU", "{:.3f}")),
    "segment": (("mean_iou", "mask IoU", "{:.4f}"), ("agreement", "pixels", "{:.4f}")),
    "keypoints": (
        ("shift", "shift / side", "{:.2%}"),
        ("agreement", "keypoint F1", "{:.3f}"),
    ),
}


class _Answer(NamedTuple):
    """Of a graph on one photo: the result, the raw outputs, and a pose at no threshold."""

    result: Result
    outputs: dict[str, NDArray[Any]]
    pose: Result | None


class Judge:
    """Compares graphs with a model on photos; runs the model once.

    Args:
        subject: the model.
        photos: to judge on.
    """

    def __init__(self, subject: Subject, photos: Sequence[Path]) -> None:
        self._recipe = subject.recipe
        self._photos = photos
        self._preprocess = Preprocessor(subject.recipe.preprocess)
        labels = labels_beside(LABELLED)
        self._labels = [
            labels.get(path.name) if path.parent == LABELLED else None for path in photos
        ]
        backend = OnnxRuntimeBackend(subject.original.SerializeToString())
        self._references = tuple(self._run(backend))

    @property
    def reference(self) -> dict[str, float | int]:
        """What there is to lose: labelled photos and how many are right, boxes or keypoints."""
        figures = self._compare(self._references)
        kept = {k: v for k, v in figures.items() if k.endswith("_reference") or k == "labelled"}
        return {"images": len(self._photos), **kept}

    def __call__(self, graph: ModelProto) -> dict[str, float | int]:
        """The figures of a graph by name; see ``visionrt.metrics``, and :data:`COLUMNS`.

        Raises:
            ModelError: it does not run.
        """
        measured = emulate_half(graph) if _has_float16(graph) else graph
        backend = OnnxRuntimeBackend(measured.SerializeToString(), optimize=False)
        return self._compare(self._run(backend))

    def _run(self, backend: Backend) -> Iterator[_Answer]:
        head = head_for(self._recipe, backend.outputs)
        options, lenient = (options_for(self._recipe, confidence=c) for c in (None, 0.0))
        is_pose = self._recipe.task == "keypoints"
        name = image_input(self._recipe, backend.inputs).name
        for path in self._photos:
            pixels = image_io.decode(path)
            frame = Frame(pixels.shape[:2], self._preprocess.geometry(*pixels.shape[:2]))
            outputs = backend.run({name: self._preprocess([pixels])})
            pose = head.decode(outputs, [frame], lenient)[0] if is_pose else None
            yield _Answer(head.decode(outputs, [frame], options)[0], outputs, pose)
        backend.close()

    def _compare(self, answers: Iterable[_Answer]) -> dict[str, float | int]:
        accumulator, cosine = accumulator_for(self._recipe.task), OutputCosine()
        correct, shifts = [0, 0], []
        for reference, answer, accepted in zip(
            self._references, answers, self._labels, strict=True
        ):
            accumulator.update(reference.result, answer.result)
            cosine.update(reference.outputs, answer.outputs)
            if self._recipe.task == "classify":
                for which, result in enumerate((reference.result, answer.result)):
                    correct[which] += _is_correct(result, accepted)
            if self._recipe.task == "keypoints":
                shifts.append(shifts_of_seen(reference.pose, answer.pose, self._recipe.confidence))
        agreement = accumulator.agreement()
        figures: dict[str, float | int] = dict(agreement.details)
        # An image on which only the candidate gives NaN agrees with nothing.
        figures["agreement"] = agreement.agreement * (1 - cosine.broken / agreement.images)
        figures["cosine"] = cosine.mean() or 0.0
        if self._recipe.task == "classify":
            figures["labelled"] = len(self._labels) - self._labels.count(None)
            figures["correct_reference"], figures["correct"] = correct
        if shifts:
            figures["shift"] = float(np.concatenate(shifts).mean())
        return figures


def shifts_of_seen(reference: Any, candidate: Any, threshold: float) -> NDArray[np.floating]:
    """How far each keypoint that the reference sees has moved, as a share of the longer side.

    For models of one pose, decoded at no threshold. Whether the candidate sees the keypoint too is
    not asked: one that sees nothing would have no shift at all.
    """
    seen = reference.keypoints[0, :, 2] >= threshold
    apart = reference.keypoints[0, seen, :2] - candidate.keypoints[0, seen, :2]
    return np.linalg.norm(apart, axis=-1) / max(reference.image_hw)


def _is_correct(result: Any, accepted: frozenset[int] | None) -> bool:
    return accepted is not None and len(result) > 0 and int(result.class_id[0]) in accepted


def int8_share(graph: ModelProto) -> float:
    """Share of the convolutions' FLOPs whose input and weight both come out of a Q/DQ pair."""
    view = GraphView(graph)
    total = quantized = 0
    for node in view.model.graph.node:
        if node.op_type != "Conv":
            continue
        output, weight = view.static_shape(node.output[0]), view.static_shape(node.input[1])
        if output is None or weight is None:
            raise ValueError(f"the sizes of {node.name} cannot be inferred")
        flops = math.prod(output) * math.prod(weight[1:])
        total += flops
        quantized += flops * all(_is_dequantized(view, name) for name in node.input[:2])
    return quantized / total if total else 0.0


def _is_dequantized(view: GraphView, name: str) -> bool:
    node = view.producer.get(name)
    while node is not None and node.op_type in ("Cast", "Identity", "Transpose", "Reshape"):
        node = view.producer.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def objections(graph: ModelProto) -> list[str]:
    """What of a graph's Q/DQ TensorRT does not document: uint8, non-zero zero points, int32."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    found = set()
    for node in graph.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            # Without a zero point QuantizeLinear gives uint8.
            found.update(["uint8"] if node.op_type == "QuantizeLinear" else [])
            continue
        if zero.data_type != TensorProto.INT8:
            found.add(TensorProto.DataType.Name(zero.data_type).lower())
        if numpy_helper.to_array(zero).any():
            found.add("zero point")
    return sorted(found)


def _has_float16(graph: ModelProto) -> bool:
    return any(
        tensor.data_type == TensorProto.FLOAT16 for tensor in graph.graph.initializer
    ) or any(
        node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16
        for node in graph.graph.node
    )
