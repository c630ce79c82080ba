"""Ranks nodes by the noise that each alone brings to the model's raw answers.

int8: a graph in which every int8 node is a choice between its two forms, made by an input of the
session. One session then serves all: per image one float run, and one run per node with that node
in int8. The noise is measured where the last convolutions and products write: behind a Softmax or
an argmax every small error reads 0.

float16: the rounding of each node's results and constants by itself, relative to their power, and
infinite where one leaves float16's range. One session, one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.calibration.collect import float_output, with_outputs
from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    drop_unused_initializers,
    node_name,
    replace_nodes,
)
from trtconvert.passes.fp16_rules import FLOAT, FLOAT16, FP16_MAX
from trtconvert.passes.placement import INT8_OPS, Placement, QuantizedNode
from trtconvert.passes.quantize_weights import dequantized_weight, scale_for
from trtconvert.progress import Progress
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

_CHOICES = "which_nodes_are_int8"


def int8_noise(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    images: Iterable[NDArray[Any]],
    progress: Progress,
) -> dict[str, float]:
    """Noise over signal at the raw answers by node name, each int8 node by itself.

    Args:
        view: of the float32 graph (opset 19 or newer).
        placement: the nodes to rank.
        thresholds: absolute value that maps to 127, by activation name.
        images: a few input tensors.
        progress: called after each node of each image.
    """
    answers = raw_answers(view)
    backend = OnnxRuntimeBackend(
        _choice_graph(view, placement, thresholds, answers).SerializeToString()
    )
    count = len(placement.nodes)
    names = [node_name(view.model.graph.node[q.index]) for q in placement.nodes]
    noise = np.zeros(count)
    tensors = list(images)
    for done, tensor in enumerate(tensors):
        clean = _run(backend, view.inputs[0], tensor, np.zeros(count, np.bool_))
        for index in range(count):
            choice = np.zeros(count, np.bool_)
            choice[index] = True
            noisy = _run(backend, view.inputs[0], tensor, choice)
            noise[index] += sum(map(_relative_noise, clean, noisy)) / len(answers)
            progress("Ranking nodes", done * count + index + 1, count * len(tensors))
    return dict(zip(names, (noise / max(len(tensors), 1)).tolist(), strict=True))


def answer_noise(view: GraphView, quantized: ModelProto, images: Iterable[NDArray[Any]]) -> float:
    """Noise over signal at the raw answers of a whole int8 graph, the mean over images and answers.

    Args:
        view: of the float32 graph.
        quantized: its Q/DQ form, with the same tensor names.
        images: input tensors.
    """
    answers = raw_answers(view)
    exact = OnnxRuntimeBackend(with_outputs(view.model, answers).SerializeToString())
    noisy = OnnxRuntimeBackend(with_outputs(quantized, answers).SerializeToString(), optimize=False)
    total, count = 0.0, 0
    for tensor in images:
        feed = {view.inputs[0]: tensor}
        pairs = zip(exact.run(feed).values(), noisy.run(feed).values(), strict=True)
        total += sum(_relative_noise(a, b) for a, b in pairs) / len(answers)
        count += 1
    return total / max(count, 1)


def raw_answers(view: GraphView) -> list[str]:
    """What the last convolutions and matrix products write, or the graph's float outputs."""
    found: list[str] = []
    followed: set[str] = set()
    for node in reversed(view.model.graph.node):
        is_linear = node.op_type in (*INT8_OPS, "ConvTranspose")
        if is_linear and not followed.intersection(node.output):
            found.insert(0, node.output[0])
        if is_linear or followed.intersection(node.output):
            followed.update(node.input)
    return found or [name for name in view.outputs if view.elem_type.get(name) == FLOAT]


def fp16_noise(
    view: GraphView, images: Iterable[NDArray[Any]], progress: Progress
) -> dict[str, float]:
    """Rounding noise over signal of each node that writes float32, by node name.

    Args:
        view: of the float32 graph.
        images: a few input tensors.
        progress: called after each image.
    """
    nodes = [n for n in view.model.graph.node if _written(view, n)]
    tensors = [name for node in nodes for name in _written(view, node)]
    backend = OnnxRuntimeBackend(_rounding_graph(view, tensors).SerializeToString())
    noise = {
        node_name(node): max((_constant_noise(view, name) for name in node.input), default=0.0)
        for node in nodes
    }
    inputs = list(images)
    for done, tensor in enumerate(inputs, 1):
        results = list(backend.run({view.inputs[0]: tensor}).values())
        rounding = {name: _share(*results[2 * i : 2 * i + 2]) for i, name in enumerate(tensors)}
        for node in nodes:
            worst = max(rounding[name] for name in _written(view, node))
            noise[node_name(node)] = max(noise[node_name(node)], worst)
        progress("Ranking nodes", done, len(inputs))
    return noise


def _run(
    backend: OnnxRuntimeBackend, name: str, tensor: NDArray[Any], choice: NDArray[np.bool_]
) -> list[NDArray[Any]]:
    return list(backend.run({name: tensor, _CHOICES: choice}).values())


def _relative_noise(clean: NDArray[Any], noisy: NDArray[Any]) -> float:
    difference = noisy.astype(np.float64) - clean
    return _share(np.square(difference).sum(), np.square(clean, dtype=np.float64).sum())


def _share(noise: Any, signal: Any) -> float:
    value, power = float(noise), float(signal)
    if not np.isfinite(value):
        return float("inf")
    return value / power if power > 0 else float(value > 0)


def _choice_graph(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    answers: Sequence[str],
) -> ModelProto:
    out = ModelProto()
    out.CopyFrom(view.model)
    names = FreshNames(out)
    layers = {quantized.index: (i, quantized) for i, quantized in enumerate(placement.nodes)}
    nodes: list[NodeProto] = []
    for index, node in enumerate(view.model.graph.node):
        if index not in layers:
            nodes.append(node)
            continue
        position, quantized = layers[index]
        which, choice = names("position"), names("is_int8")
        out.graph.initializer.append(numpy_helper.from_array(np.array(position, np.int64), which))
        nodes.append(helper.make_node("Gather", [_CHOICES, which], [choice], axis=0))
        threshold = thresholds[quantized.activation]
        nodes.append(_choice(view, node, quantized, threshold, choice, names))
    replace_nodes(out.graph, nodes)
    _drop_unread_weights(out, nodes)
    out.graph.input.append(
        helper.make_tensor_value_info(_CHOICES, TensorProto.BOOL, [len(placement.nodes)])
    )
    del out.graph.output[:]
    out.graph.output.extend(float_output(name) for name in answers)
    return out


def _drop_unread_weights(out: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Remove constants that neither a node nor a branch of one reads."""
    branches = [a.g for node in nodes for a in node.attribute if a.HasField("g")]
    inner = [node for branch in branches for node in branch.node]
    used = {name for node in (*nodes, *inner) for name in node.input}
    kept = [t for t in out.graph.initializer if t.name in used]
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)


def _choice(
    view: GraphView,
    node: NodeProto,
    quantized: QuantizedNode,
    threshold: float,
    choice: str,
    names: FreshNames,
) -> NodeProto:
    """An If in the place of ``node``: its int8 form, or itself."""
    weight = dequantized_weight(view.array(quantized.weight).astype(np.float32), quantized.axis)
    values: dict[str, NDArray[Any]] = {
        "scale": scale_for(threshold),
        "zero": np.array(0, np.int8),
        "weight": weight,
    }
    constants = {key: names(f"{key}_of_choice") for key in values}
    integer, rounded = names("integer"), names("rounded")
    pair = [constants["scale"], constants["zero"]]
    branches = []
    for label in ("int8", "float"):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = names(f"{node.output[0]}_{label}")
        steps = [copy]
        if label == "int8":
            copy.input[0], copy.input[1] = rounded, constants["weight"]
            steps = [
                helper.make_node("QuantizeLinear", [quantized.activation, *pair], [integer]),
                helper.make_node("DequantizeLinear", [integer, *pair], [rounded]),
                copy,
            ]
            held = [numpy_helper.from_array(v, constants[key]) for key, v in values.items()]
        else:
            # ONNX Runtime lays out anew, which makes them several times faster, only those
            # convolutions whose weights are in the same graph.
            weight_name = names("float_weight_of_choice")
            held = [TensorProto()]
            held[0].CopyFrom(view.initializers[quantized.weight])
            held[0].name = copy.input[1] = weight_name
        body = helper.make_graph(steps, label, [], [float_output(copy.output[0])], held)
        branches.append(body)
    return helper.make_node(
        "If", [choice], [node.output[0]], then_branch=branches[0], else_branch=branches[1]
    )


def _rounding_graph(view: GraphView, tensors: Sequence[str]) -> ModelProto:
    """Two outputs per tensor: the power of its rounding to float16, and its own."""
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
            half = add("Cast", [name], to=FLOAT16)
            error = add("Sub", [add("Cast", [half], to=FLOAT), name])
            for value in (error, name):
                power = add("ReduceSum", [add("Mul", [value, value])], keepdims=0)
                out.graph.output.append(float_output(power))
    replace_nodes(out.graph, nodes)
    drop_unused_initializers(out.graph)
    return out


def _written(view: GraphView, node: NodeProto) -> list[str]:
    return [name for name in node.output if view.elem_type.get(name) == FLOAT]


def _constant_noise(view: GraphView, name: str) -> float:
    if name not in view.initializers or view.elem_type[name] != FLOAT:
        return 0.0
    value = view.array(name).astype(np.float64)
    if np.abs(value).max(initial=0.0) > FP16_MAX:
        return float("inf")
    return _share(np.square(value.astype(np.float16) - value).sum(), np.square(value).sum())
