"""Ranks nodes by the noise that each alone brings to the model's raw answers.

int8: graphs in which int8 nodes are a choice between two forms, made by an input of the session
(:mod:`trtconvert.search.choices`). Per image one float run, and per node a run of what comes behind
it, with that node in int8. The noise is measured at the raw answers
(:mod:`trtconvert.search.answers`).

16 bits: the rounding of each node's results and constants by itself, relative to their power, and
infinite where one leaves the type's range. One session, one pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from trtconvert.calibration.collect import float_output, with_outputs
from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    drop_unused_initializers,
    node_name,
    replace_nodes,
)
from trtconvert.passes.half_rules import FLOAT
from trtconvert.passes.half_types import FP16, HalfType, rounded
from trtconvert.passes.placement import Placement
from trtconvert.progress import Progress
from trtconvert.search.answers import noise_share, raw_answers, relative_noise
from trtconvert.search.choices import CHOICES, ChoiceGraph, choice_graphs
from visionrt.backends.onnxruntime import OnnxRuntimeBackend


def int8_noise(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    images: Iterable[NDArray[Any]],
    weights: Mapping[str, float],
    progress: Progress,
) -> dict[str, float]:
    """Noise over signal at the raw answers by node name, each int8 node by itself.

    Args:
        view: of the float32 graph (opset 19 or newer).
        placement: the nodes to rank.
        thresholds: absolute value that maps to 127, by activation name.
        images: a few input tensors.
        weights: of the raw answers.
        progress: called after each node of each image.
    """
    answers = raw_answers(view)
    parts = choice_graphs(view, placement, thresholds, answers)
    tensors = list(images)
    clean = _float_runs(view, answers, parts, tensors)
    noise: dict[str, float] = {}
    for part in parts:
        with _running(view, part.model(), as_written=True) as backend:
            for index, node in enumerate(part.nodes):
                choice = np.zeros(len(part.nodes), np.bool_)
                choice[index] = True
                total = 0.0
                for values in clean:
                    feed = {tensor: values[tensor] for tensor in part.inputs}
                    found = backend.run({**feed, CHOICES: choice})
                    total += relative_noise(
                        {name: values[name] for name in answers}, found, weights
                    )
                    progress("Ranking nodes", len(noise) + 1, len(placement.nodes))
                noise[node] = total / max(len(tensors), 1)
    return noise


class AnswerNoise:
    """Noise over signal at the raw answers of int8 graphs, the mean over images and answers.

    Args:
        view: of the float32 graph, which is run once.
        images: a few input tensors; they and the answers are kept.
        weights: of the raw answers.
    """

    def __init__(
        self,
        view: GraphView,
        images: Iterable[NDArray[Any]],
        weights: Mapping[str, float],
    ) -> None:
        self._view = view
        self._weights = weights
        self._answers = raw_answers(view)
        self._tensors = list(images)
        self._clean = _float_runs(view, self._answers, (), self._tensors)

    def __call__(self, quantized: ModelProto) -> float:
        """Of a Q/DQ form of the graph, with the same tensor names."""
        model = with_outputs(quantized, self._answers)
        total = 0.0
        with _running(self._view, model, as_written=True) as backend:
            for tensor, clean in zip(self._tensors, self._clean, strict=True):
                answers = {name: clean[name] for name in self._answers}
                total += relative_noise(
                    answers, backend.run({self._view.inputs[0]: tensor}), self._weights
                )
        return total / max(len(self._tensors), 1)


def _float_runs(
    view: GraphView,
    answers: Sequence[str],
    parts: Sequence[ChoiceGraph],
    tensors: Sequence[NDArray[Any]],
) -> list[dict[str, NDArray[Any]]]:
    """Per image the answers, and what the parts read, by tensor name."""
    read = dict.fromkeys([*answers, *(name for part in parts for name in part.inputs)])
    inner = [name for name in read if name not in view.inputs]
    model = with_outputs(view.model, inner)
    for value in model.graph.output:
        value.type.tensor_type.elem_type = view.elem_type[value.name]
    given = view.inputs[0]
    with _running(view, model) as backend:
        return [{given: tensor, **backend.run({given: tensor})} for tensor in tensors]


def _running(
    view: GraphView, model: ModelProto, *, as_written: bool = False
) -> contextlib.closing[OnnxRuntimeBackend]:
    return contextlib.closing(view.running(model, as_written=as_written))


def half_noise(
    view: GraphView,
    images: Iterable[NDArray[Any]],
    progress: Progress,
    half: HalfType = FP16,
) -> dict[str, float]:
    """Rounding noise over signal of each node that writes float32, by node name.

    Args:
        view: of the float32 graph.
        images: a few input tensors.
        progress: called after each image.
        half: the type to round to.
    """
    nodes = [n for n in view.model.graph.node if _written(view, n)]
    tensors = [name for node in nodes for name in _written(view, node)]
    noise = {
        node_name(node): max(
            (_constant_noise(view, name, half) for name in node.input), default=0.0
        )
        for node in nodes
    }
    inputs = list(images)
    with _running(view, _rounding_graph(view, tensors, half)) as backend:
        for done, tensor in enumerate(inputs, 1):
            results = list(backend.run({view.inputs[0]: tensor}).values())
            rounding = {
                name: noise_share(*results[2 * i : 2 * i + 2]) for i, name in enumerate(tensors)
            }
            for node in nodes:
                worst = max(rounding[name] for name in _written(view, node))
                noise[node_name(node)] = max(noise[node_name(node)], worst)
            progress("Ranking nodes", done, len(inputs))
    return noise


def _rounding_graph(view: GraphView, tensors: Sequence[str], half: HalfType) -> ModelProto:
    """Two outputs per tensor: the power of its rounding, and its own."""
    out = ModelProto()
    out.CopyFrom(view.model)
    names = FreshNames(out)
    behind: dict[str, list[str]] = {}
    for name in tensors:
        behind.setdefault(node_name(view.producer[name]), []).append(name)
    del out.graph.output[:]
    nodes: list[NodeProto] = []

    def add(op_type: str, inputs: list[str], **attributes: Any) -> str:
        result = names(f"{op_type}_of_rounding")
        nodes.append(helper.make_node(op_type, inputs, [result], **attributes))
        return result

    for node in view.model.graph.node:
        nodes.append(node)
        for name in behind.get(node_name(node), ()):
            short = add("Cast", [name], to=half.onnx_type)
            error = add("Sub", [add("Cast", [short], to=FLOAT), name])
            for value in (error, name):
                power = add("ReduceSum", [add("Mul", [value, value])], keepdims=0)
                out.graph.output.append(float_output(power))
    replace_nodes(out.graph, nodes)
    drop_unused_initializers(out.graph)
    return out


def _written(view: GraphView, node: NodeProto) -> list[str]:
    return [name for name in node.output if view.elem_type.get(name) == FLOAT]


def _constant_noise(view: GraphView, name: str, half: HalfType) -> float:
    if name not in view.initializers or view.elem_type[name] != FLOAT:
        return 0.0
    value = view.array(name).astype(np.float64)
    if np.abs(value).max(initial=0.0) > half.largest:
        return float("inf")
    error = rounded(value.astype(np.float32), half) - value
    return noise_share(np.square(error).sum(), np.square(value).sum())
