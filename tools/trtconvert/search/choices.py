"""The float graph in parts that end where little leaves them, for runs that change one node.

Each part has two graphs. In ``choice`` its int8 nodes are a choice between their two forms, made
by an input; ``plain`` is the part as it was, so that ONNX Runtime fuses it and lays it out as it
does the whole. A node's noise does not change what comes before it: what it does to the answers
takes one run of the ``choice`` of its part and of the ``plain`` of the parts behind.

``plain`` writes answers of many channels through fewer, which keep the power of a difference
(:func:`power_keeping`): the last convolutions of a detector may cost more than all before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.calibration.collect import float_output
from trtconvert.graph_view import FreshNames, GraphView, attribute, node_name
from trtconvert.passes.placement import Placement, QuantizedNode
from trtconvert.passes.quantize_weights import rounded_constant, scale_for

CHOICES = "which_nodes_are_int8"
# Int8 nodes of a part: each part takes two sessions, and the layout changes at its borders.
_LEAST_NODES, _MOST_PARTS = 3, 24
# Channels that an answer is written through: the strongest, and sums of the others.
_STRONGEST, _SUMS = 64, 32
# Below these, fewer channels save little, and too few positions even out what the sums err.
_MANY_CHANNELS, _MANY_POSITIONS = 192, 16


@dataclass(frozen=True)
class Part:
    """Nodes of the graph: consecutive ones that an answer needs, or the one of a wide answer.

    Attributes:
        nodes: names of the int8 nodes among them.
        inputs: tensors that it reads from before.
        outputs: answers and tensors that a later part reads.
        answers: those of ``outputs`` that are answers.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    answers: tuple[str, ...]
    _view: GraphView
    _layers: tuple[QuantizedNode, ...]
    _indices: tuple[int, ...]

    def plain(self) -> ModelProto:
        """The float graph; answers may have fewer channels, see the module."""
        constants: dict[str, TensorProto] = {}
        nodes = []
        for index in self._indices:
            node = self._view.model.graph.node[index]
            if node.output[0] in self.answers and _is_wide_map(self._view, node):
                node = self._narrowed(node, constants)
            nodes.append(node)
        return self._model(nodes, constants)

    def choice(self, thresholds: Mapping[str, float]) -> ModelProto:
        """The graph with the further input :data:`CHOICES`, bool ``[len(nodes)]``.

        Args:
            thresholds: absolute value that maps to 127, by activation name.
        """
        view = self._view
        names = FreshNames(view.model)
        layers = {layer.index: (i, layer) for i, layer in enumerate(self._layers)}
        constants: dict[str, TensorProto] = {}
        nodes: list[NodeProto] = []
        for index in self._indices:
            node = view.model.graph.node[index]
            if index not in layers:
                nodes.append(node)
                continue
            position, layer = layers[index]
            which, choice = names("position"), names("is_int8")
            constants[which] = numpy_helper.from_array(np.array(position, np.int64), which)
            nodes.append(helper.make_node("Gather", [CHOICES, which], [choice], axis=0))
            nodes.append(_choice(view, node, layer, thresholds[layer.activation], choice, names))
        model = self._model(nodes, constants)
        model.graph.input.append(
            helper.make_tensor_value_info(CHOICES, TensorProto.BOOL, [len(self.nodes)])
        )
        return model

    def _narrowed(self, node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
        weight = self._view.array(node.input[1]).astype(np.float32)
        rows = weight.reshape(len(weight), -1)
        narrow = (power_keeping(rows) @ rows).reshape(-1, *weight.shape[1:])
        out = NodeProto()
        out.CopyFrom(node)
        # Differences have no bias.
        del out.input[1:]
        out.input.append(FreshNames(self._view.model)(f"{node.input[1]}_narrowed"))
        constants[out.input[1]] = numpy_helper.from_array(narrow, out.input[1])
        return out

    def _model(
        self, nodes: Sequence[NodeProto], constants: Mapping[str, TensorProto]
    ) -> ModelProto:
        view = self._view
        out = ModelProto(ir_version=view.model.ir_version)
        out.opset_import.extend(view.model.opset_import)
        graph = out.graph
        graph.name = view.model.graph.name or "part"
        graph.node.extend(nodes)
        branches = [a.g.node for node in nodes for a in node.attribute if a.HasField("g")]
        read = dict.fromkeys(
            name for some in (nodes, *branches) for node in some for name in node.input
        )
        graph.initializer.extend(
            constants.get(name) or view.initializers[name]
            for name in read
            if name in constants or name in view.initializers
        )
        graph.input.extend(
            helper.make_tensor_value_info(name, view.elem_type[name], view.shape.get(name))
            for name in self.inputs
        )
        graph.output.extend(
            helper.make_tensor_value_info(name, view.elem_type[name], None) for name in self.outputs
        )
        return out


def parts_of(view: GraphView, placement: Placement, answers: Sequence[str]) -> list[Part]:
    """The parts, in graph order; each int8 node of ``placement`` is in one of them.

    Args:
        view: of the float32 graph (opset 19 or newer).
        placement: the nodes to choose the form of.
        answers: tensors to end at.
    """
    kept = _needed(view, answers)
    nodes = view.model.graph.node
    wide = [i for i in kept if nodes[i].output[0] in answers and _is_wide_map(view, nodes[i])]
    rest = [index for index in kept if index not in wide]
    groups: list[list[int]] = []
    written = set(view.inputs)
    for start, end in pairwise(_bounds(view, placement, answers, rest)):
        groups.append(rest[start:end])
        written.update(name for index in groups[-1] for name in nodes[index].output)
        # By themselves, they are run in full for their own noise only.
        ready = [index for index in wide if nodes[index].input[0] in written]
        groups += [[index] for index in ready]
        wide = [index for index in wide if index not in ready]
    return [_part(view, placement, answers, group, kept) for group in groups if group]


def dependents(view: GraphView, name: str) -> set[str]:
    """Tensors that change with a node, by the node's name."""
    changed: set[str] = set()
    for node in view.model.graph.node:
        if node_name(node) == name or changed.intersection(node.input):
            changed.update(filter(None, node.output))
    return changed


def power_keeping(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix ``[k, m]`` that about keeps the sum of squares of what ``weight`` writes.

    The part of a vector among the strongest directions of ``weight`` keeps its power, and of the
    rest random sums with signs do on average: R. A. Meyer et al., "Hutch++: Optimal Stochastic
    Trace Estimation", 2021.

    Args:
        weight: ``[m, n]``, with ``m`` of at least ``k`` = 96.
    """
    rng = np.random.default_rng(0)
    start = rng.standard_normal((len(weight), _STRONGEST), np.float32)
    strongest = np.linalg.qr(weight @ (weight.T @ start))[0]
    signs = rng.choice(np.array([-1, 1], np.float32), (len(weight), _SUMS))
    signs /= np.float32(math.sqrt(_SUMS))
    rest = signs - strongest @ (strongest.T @ signs)
    return np.concatenate([strongest, rest], axis=1).T


def _is_wide_map(view: GraphView, node: NodeProto) -> bool:
    """Whether a node is a convolution with so many channels that fewer cost less."""
    if node.op_type != "Conv" or attribute(node, "group", 1) != 1:
        return False
    if node.input[1] not in view.initializers:
        return False
    positions = math.prod((view.static_shape(node.output[0]) or ())[2:])
    channels = view.initializers[node.input[1]].dims[0]
    return channels >= _MANY_CHANNELS and positions >= _MANY_POSITIONS


def _needed(view: GraphView, answers: Sequence[str]) -> list[int]:
    needed, kept = set(answers), []
    for index, node in reversed([*enumerate(view.model.graph.node)]):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(index)
    return kept[::-1]


def _bounds(
    view: GraphView, placement: Placement, answers: Sequence[str], kept: Sequence[int]
) -> list[int]:
    """Positions in ``kept`` where parts begin, and its end.

    A part has a certain number of int8 nodes, or up to twice as many to end where less leaves it.
    """
    int8 = {layer.index for layer in placement.nodes}.intersection(kept)
    least = max(_LEAST_NODES, math.ceil(len(int8) / _MOST_PARTS))
    leaving = _leaving_bytes(view, answers, kept)
    bounds = [0]
    inside, left, best = 0, len(int8), 0
    for position, index in enumerate(kept, 1):
        if index in int8:
            inside += 1
            left -= 1
            if inside > 2 * least:
                bounds.append(best)
                inside = sum(i in int8 for i in kept[best:position])
                best = 0
        if inside >= least and left and (not best or leaving[position - 1] < leaving[best - 1]):
            best = position
    if best and best > bounds[-1]:
        bounds.append(best)
    return [*bounds, len(kept)]


def _leaving_bytes(view: GraphView, answers: Sequence[str], kept: Sequence[int]) -> list[int]:
    """Per node, the values of all tensors that live behind it."""
    nodes = [view.model.graph.node[index] for index in kept]
    last = {name: i for i, node in enumerate(nodes) for name in node.input}
    sizes = {
        name: math.prod(view.static_shape(name) or ())
        for name in last
        if name not in view.initializers
    }
    live = {name: sizes[name] for name in view.inputs if name in sizes}
    found = []
    for i, node in enumerate(nodes):
        live |= {name: sizes[name] for name in node.output if name in sizes}
        for name in [name for name in live if last[name] <= i]:
            del live[name]
        found.append(sum(live.values()))
    return found


def _part(
    view: GraphView,
    placement: Placement,
    answers: Sequence[str],
    indices: Sequence[int],
    kept: Sequence[int],
) -> Part:
    nodes = view.model.graph.node
    inside = set(indices)
    layers = tuple(layer for layer in placement.nodes if layer.index in inside)
    written = [name for index in indices for name in nodes[index].output if name]
    read_later = set(_read(view, [index for index in kept if index not in inside]))
    own = set(written)
    return Part(
        tuple(node_name(nodes[layer.index]) for layer in layers),
        tuple(name for name in _read(view, indices) if name not in own),
        tuple(name for name in written if name in read_later or name in answers),
        tuple(name for name in written if name in answers),
        view,
        layers,
        tuple(indices),
    )


def _read(view: GraphView, indices: Iterable[int]) -> list[str]:
    """What the nodes read that is no constant, each once."""
    names = (name for index in indices for name in view.model.graph.node[index].input)
    return [name for name in dict.fromkeys(names) if name and name not in view.initializers]


def _choice(
    view: GraphView,
    node: NodeProto,
    quantized: QuantizedNode,
    threshold: float,
    choice: str,
    names: FreshNames,
) -> NodeProto:
    """An If in the place of ``node``: its int8 form, or itself."""
    weight = names("weight_of_choice")
    integer, rounded = names("integer"), names("rounded")
    pair = [names("scale_of_choice"), names("zero_of_choice")]
    branches = []
    for label in ("int8", "float"):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = names(f"{node.output[0]}_{label}")
        steps = [copy]
        if label == "int8":
            copy.input[0], copy.input[1] = rounded, weight
            steps = [
                helper.make_node("QuantizeLinear", [quantized.activation, *pair], [integer]),
                helper.make_node("DequantizeLinear", [integer, *pair], [rounded]),
                copy,
            ]
            held = [
                numpy_helper.from_array(scale_for(threshold), pair[0]),
                numpy_helper.from_array(np.array(0, np.int8), pair[1]),
                rounded_constant(view, quantized.weight, quantized.axis, weight),
            ]
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
