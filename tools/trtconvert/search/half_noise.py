"""Ranks nodes of 16 bits by the noise that each alone brings to the model's raw answers.

Rounding is relative, so every node rounds nearly alike where it stands; what differs is
how much of it the answers see. So each tensor before the raw answers is rounded by itself, in runs
of one session in which that is a choice, and a node brings what it rounds: its results, and what it
reads. Constants round as if they were a part of the result. Noise is infinite where a result or a
constant leaves the type's range; behind the raw answers a node brings its own rounding over its own
power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.calibration.collect import float_output
from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    drop_unused_initializers,
    node_name,
    replace_nodes,
)
from trtconvert.passes.emulate_half import EXACT
from trtconvert.passes.half_rules import FLOAT
from trtconvert.passes.half_types import FP16, HalfType, rounded
from trtconvert.progress import Progress
from trtconvert.search.answers import noise_share, raw_answers, relative_noise
from trtconvert.search.choices import CHOICES
from trtconvert.search.noise import running

# Of each tensor; they agree well enough to order by.
_ANSWER_IMAGES = 2


def half_noise(
    view: GraphView,
    images: Iterable[NDArray[Any]],
    progress: Progress,
    half: HalfType = FP16,
    weights: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Rounding noise over signal of each node that writes float32, by node name.

    Args:
        view: of the float32 graph.
        images: a few input tensors.
        progress: called after each rounded tensor.
        half: the type to round to.
        weights: of the raw answers; None counts each alike.
    """
    nodes = [n for n in view.model.graph.node if _written(view, n)]
    inputs = list(images)
    own = _rounding_noise(view, nodes, inputs, half)
    constants = {
        node_name(node): max(
            (_constant_noise(view, name, half) for name in node.input), default=0.0
        )
        for node in nodes
    }
    source = _exact_sources(view)
    at_answers = _rounded_alone(
        view, source, inputs[:_ANSWER_IMAGES], half, weights or {}, progress
    )
    noise = {}
    for node in nodes:
        label = node_name(node)
        written = _written(view, node)
        here = max(own[name] for name in written)
        found = [at_answers[source[name]] for name in written if source[name] in at_answers]
        if math.isinf(here + constants[label]) or not found:
            noise[label] = max(here, constants[label])
            continue
        result = sum(found)
        if here > 0:
            result *= 1 + constants[label] / here
        read = [at_answers.get(key, 0.0) for key in {source.get(n, "") for n in node.input}]
        # One that left the range is the fault of the node that wrote it.
        finite = [] if node.op_type in EXACT else [r for r in read if math.isfinite(r)]
        noise[label] = result + sum(finite)
    return noise


def _rounding_noise(
    view: GraphView, nodes: Sequence[NodeProto], inputs: Sequence[NDArray[Any]], half: HalfType
) -> dict[str, float]:
    """Of each tensor that the nodes write, over its own power: the largest of all images."""
    tensors = [name for node in nodes for name in _written(view, node)]
    noise = dict.fromkeys(tensors, 0.0)
    with running(view, _rounding_graph(view, tensors, half)) as backend:
        for tensor in inputs:
            results = list(backend.run({view.inputs[0]: tensor}).values())
            for i, name in enumerate(tensors):
                noise[name] = max(noise[name], noise_share(*results[2 * i : 2 * i + 2]))
    return noise


def _exact_sources(view: GraphView) -> dict[str, str]:
    """By float32 tensor, the one whose rounding is its own: copies and choices round nothing."""
    source = {name: name for name in view.inputs if view.elem_type[name] == FLOAT}
    for node in view.model.graph.node:
        read = [source[name] for name in node.input if name in source]
        is_copy = node.op_type in EXACT and len(set(read)) == 1
        for name in _written(view, node):
            source[name] = read[0] if is_copy else name
    return source


def _rounded_alone(
    view: GraphView,
    source: Mapping[str, str],
    inputs: Sequence[NDArray[Any]],
    half: HalfType,
    weights: Mapping[str, float],
    progress: Progress,
) -> dict[str, float]:
    """Noise over signal at the raw answers with one tensor rounded, for each before them."""
    answers = [
        name
        for name in raw_answers(view)
        if view.elem_type.get(name) == FLOAT and name in view.producer
    ]
    if not answers:
        return {}
    needed = set(answers)
    for node in reversed(view.model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    tensors = [name for name in dict.fromkeys(source.values()) if name in needed]
    each = {name: weights.get(name, 1.0) for name in answers}
    noise = dict.fromkeys(tensors, 0.0)
    with running(view, _roundings_to_choose(view, tensors, answers, half)) as backend:
        feeds = [{view.inputs[0]: tensor} for tensor in inputs]
        nothing = np.zeros(len(tensors), np.bool_)
        clean = [backend.run({**feed, CHOICES: nothing}) for feed in feeds]
        for index, name in enumerate(tensors):
            choice = nothing.copy()
            choice[index] = True
            for feed, exact in zip(feeds, clean, strict=True):
                found = backend.run({**feed, CHOICES: choice})
                noise[name] += relative_noise(exact, found, each) / len(feeds)
            progress("Ranking nodes", index + 1, len(tensors))
    return noise


def _roundings_to_choose(
    view: GraphView, tensors: Sequence[str], answers: Sequence[str], half: HalfType
) -> ModelProto:
    """The graph as far as the answers; :data:`CHOICES`, bool ``[len(tensors)]``, says which of the
    tensors are rounded."""
    out = ModelProto()
    out.CopyFrom(view.model)
    names = FreshNames(out)
    nodes: list[NodeProto] = []
    exact = {name: names(f"{name}_exact") for name in tensors}
    # An answer keeps its name, and so does an input: what reads it reads another.
    rounded_form = {
        name: names(f"{name}_chosen") if name in view.inputs else name for name in exact
    }

    def choose(name: str) -> None:
        before = name if name in view.inputs else exact[name]
        which, choice, short = names("position"), names("is_rounded"), names("short")
        place = numpy_helper.from_array(np.array(tensors.index(name), np.int64), which)
        out.graph.initializer.append(place)
        nodes.append(helper.make_node("Gather", [CHOICES, which], [choice], axis=0))
        branches = []
        for steps in (
            [
                helper.make_node("Cast", [before], [short], to=half.onnx_type),
                helper.make_node("Cast", [short], [names("rounded")], to=FLOAT),
            ],
            [helper.make_node("Identity", [before], [names("unrounded")])],
        ):
            result = [float_output(steps[-1].output[0])]
            branches.append(helper.make_graph(steps, "form", [], result))
        then, other = branches
        nodes.append(
            helper.make_node(
                "If", [choice], [rounded_form[name]], then_branch=then, else_branch=other
            )
        )

    for name in tensors:
        if name in view.inputs:
            choose(name)
    for node in view.model.graph.node:
        new = NodeProto()
        new.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in view.inputs and name in exact:
                new.input[index] = rounded_form[name]
        written = [name for name in node.output if name in exact]
        for index, name in enumerate(node.output):
            if name in exact:
                new.output[index] = exact[name]
        nodes.append(new)
        for name in written:
            choose(name)
    replace_nodes(out.graph, nodes)
    shape = [len(tensors)]
    out.graph.input.append(helper.make_tensor_value_info(CHOICES, TensorProto.BOOL, shape))
    del out.graph.output[:]
    out.graph.output.extend(float_output(name) for name in answers)
    return out


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
